"""A held-out plate of the emulator through the whole daemon: `python -m bench.heldout [SEED]` prints JSON.

Its seed, and so its patients, compounds and doses' effects, were used neither in training nor for choosing anything.
Dice is that of the stored masks at the stacks' own sampling; "plate" pools the voxels of all wells, "per well" weighs a
well with three live cells as much as one with three hundred.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from spheroidd.acquisition.store.labels import read_label
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import build_config
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.daemon.launch.run import run_plate
from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.protocols.results import WellResult
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.plate import DrugMode
from spheroidd.sim_emulator.source import EmulatorSource
from spheroidd.sim_emulator.truth import WellTruth

SEED = 20261122
LABELS = ("live", "dead")
DEMO = {"preset": "demo", "compounds": 4, "doses": 6, "negative_controls": 4, "positive_controls": 2}


@dataclass(frozen=True, slots=True)
class Held:
    """What a run of the plate left: its rows, their truths, and each mask beside the true one, per label."""

    exit_code: int
    results: list[WellResult]
    truths: list[WellTruth]
    dice: dict[str, list[float]]  # per well
    pooled_dice: dict[str, float]  # of all wells' voxels, as are precision and recall
    pooled_precision: dict[str, float]
    pooled_recall: dict[str, float]


def run(seed: int, normalisation: str, source: Mapping[str, Any] = DEMO, *, console: Console | None = None) -> Held:
    """Run the plate that `source` says more of, and compare every well's masks with its truth.

    What the run says goes to `console`, or nowhere.
    """
    with tempfile.TemporaryDirectory(prefix="spheroidd-heldout-") as place:
        data = Path(place) / "data"
        tables = {
            "data": {"dir": str(data)},
            "plate": {"name": "heldout"},
            "source": {"kind": "emulator", "seed": seed, "pace": "fast", **source},
            "inference": {"normalisation": normalisation},
        }
        config = build_config(tables, base=Path.cwd())
        code = run_plate(config, console=console or Console(file=StringIO()), live=False)
        emulator = build_source(config.source, None, "heldout")
        if not isinstance(emulator, EmulatorSource):
            raise TypeError("only the emulator knows the truth")
        with Catalog.read_only(data) as catalog:
            results = catalog.results("heldout")
        if left := [result.well for result in results if result.live_um3 is None and result.trust is None]:
            raise RuntimeError(f"the run ended with code {code} and without a row of {', '.join(left)}")
        dice: dict[str, list[float]] = {name: [] for name in LABELS}
        voxels = {name: np.zeros(3, int) for name in LABELS}  # of both, of the mask, of the truth
        truths = []
        for result in results:
            truth = emulator.truth(result.well)
            truths.append(truth.well)
            for name, true in (("live", truth.live), ("dead", truth.dead)):
                mask = read_label(data, StackKey("heldout", WellId.parse(result.well)), name)
                dice[name].append(agreement(mask, true).dice)
                voxels[name] += np.count_nonzero(mask & true), np.count_nonzero(mask), np.count_nonzero(true)
    pooled = {name: float(2 * both / (found + true)) for name, (both, found, true) in voxels.items()}
    precision = {name: float(both / found) for name, (both, found, _) in voxels.items()}
    recall = {name: float(both / true) for name, (both, _, true) in voxels.items()}
    return Held(code, results, truths, dice, pooled, precision, recall)


def figures(held: Held) -> dict[str, Any]:
    """The figures. "Without" leaves out the compound that shrinks spheroids while all their cells stay alive."""
    found: dict[str, Any] = {"exit_code": held.exit_code, "wells": len(held.results)}
    for name, dice in held.dice.items():
        found[f"{name}_dice_plate"] = round(held.pooled_dice[name], 4)
        found[f"{name}_precision_plate"] = round(held.pooled_precision[name], 4)
        found[f"{name}_recall_plate"] = round(held.pooled_recall[name], 4)
        found[f"{name}_dice_per_well_mean"] = round(statistics.mean(dice), 4)
        found[f"{name}_dice_per_well_median"] = round(statistics.median(dice), 4)
        found[f"{name}_dice_per_well_lowest"] = round(min(dice), 4)
    pairs = list(zip(held.results, held.truths, strict=True))
    killing = [(result, truth) for result, truth in pairs if truth.mode != DrugMode.CYTOSTATIC]
    found["spearman"] = _correlations(pairs)
    found["spearman_without_the_compound_that_does_not_kill"] = _correlations(killing)
    errors = [abs(100 * (result.v_count - truth.v_true_fov)) for result, truth in pairs if result.v_count is not None]
    found["v_count_mean_absolute_error_points"] = round(statistics.mean(errors), 2)
    return found


def _correlations(pairs: Sequence[tuple[WellResult, WellTruth]]) -> dict[str, float]:
    results, truths = zip(*pairs, strict=True)
    fraction, volume = [truth.v_true_fov for truth in truths], [truth.live_um3_true for truth in truths]
    controls, counted = [r.v_control for r in results], [r.v_count for r in results]
    return {
        "wells": len(pairs),
        "v_control, true live volume relative to the controls": _spearman(controls, volume),
        "v_control, true live fraction": _spearman(controls, fraction),
        "true live volume, true live fraction: the most that v_control can reach": _spearman(volume, fraction),
        "v_count, true live fraction": _spearman(counted, fraction),
    }


def _spearman(one: Sequence[float | None], other: Sequence[float | None]) -> float:
    return round(float(stats.spearmanr(one, other).statistic), 4)


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    by_kind = {kind: figures(run(seed, kind)) for kind in ("plate", "stack")}
    print(json.dumps({"bench": "heldout", "preset": "demo", "seed": seed, **by_kind}, indent=1))


if __name__ == "__main__":
    main()
