"""`spheroidd evaluate`: a stored mask beside a true one."""

from dataclasses import asdict
from pathlib import Path

from spheroidd.acquisition.store.labels import read_label
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.inference.agreement.overlap_metrics import agreement, read_truth
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

LABELS = ("live", "dead")


def score_mask(
    data_dir: Path, *, well: str, truth: Path, label: str = "live", stack: int = 0, plate: str | None = None
) -> dict[str, float | int | str]:
    """Dice, IoU, precision and recall of a stack's stored mask against the true one (z, y, x) at its own sampling.

    ConfigError where well, file or shape do not fit; StorageError where there is no mask.
    """
    if label not in LABELS:
        raise ConfigError(f"--label is {label!r}", do=f"write one of {', '.join(LABELS)}")
    with Catalog.read_only(data_dir) as catalog:
        plates = [plate] if plate else catalog.plates()
        if len(plates) != 1:
            raise ConfigError(f"{len(plates)} plates are there", where=str(data_dir), do=f"give --plate, of {plates}")
        key = StackKey(plates[0], WellId.parse(well), stack)
        catalog.plan(key)  # refuses a stack that was never planned
    found, true = read_label(data_dir, key, label), read_truth(truth)
    if true.shape != found.shape:
        what = f"the truth is {true.shape}, the stack is {found.shape} (z, y, x)"
        raise ConfigError(what, where=str(truth), do="give the truth at the stack's own sampling")
    scores = asdict(agreement(found, true))
    return {"plate": key.plate, "well": str(key.well), "stack": key.stack, "label": label, **scores}
