"""The shipped weights taken on to real nuclei, and judged: `python -m bench.finetune` prints JSON.

Trains as examples/training/finetune-nuclei.toml says, on the recordings embryo8 and 1135, then segments 1136, which it
has never seen, through the whole pipeline, beside Otsu's threshold in 3-D and the shipped weights as they are. Nothing
was chosen by 1136. The weights go to bench/out/finetune; killed, it goes on where it stopped.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.nuclei import DATA, otsu, recordings, through_pipeline
from bench.places import EXAMPLES
from bench.study import OUT
from spheroidd.daemon.training.config import TrainingConfig, load_training_config
from spheroidd.daemon.training.run import run_training
from spheroidd.inference.network.model_card import read_card

CONFIG = EXAMPLES / "training" / "finetune-nuclei.toml"
NEVER_SEEN = "1136"


def configuration(path: Path, data: Path, out: Path) -> TrainingConfig:
    """The file, with its recordings taken from `data`, wherever the test data lie, and all it writes below `out`."""
    config = load_training_config(path)
    for recording in config.data.recordings:
        if NEVER_SEEN in recording.name:
            raise ValueError(f"{path} trains on {NEVER_SEEN}, which is to judge")

    def moved(place: Path | None) -> Path | None:
        return data / place.as_posix().partition("nuclei_gt/")[2] if place is not None else None

    found = [
        one.model_copy(update={name: moved(getattr(one, name)) for name in ("path_488", "path_561", "live", "dead")})
        for one in config.data.recordings
    ]
    section = config.data.model_copy(update={"recordings": tuple(found), "cache": out / "cache"})
    return config.model_copy(update={"data": section, "out": out})


def judged(model: str) -> dict[str, Any]:
    """How a model does on the recording that was never seen, in either channel."""
    recording = recordings()[NEVER_SEEN]
    return {
        "as live bodies (488)": through_pipeline(recording, "488", "live", model),
        "as dead nuclei (561)": through_pipeline(recording, "561", "dead", model),
    }


def main(config: Annotated[Path, typer.Argument(help="A training's configuration.")] = CONFIG) -> None:
    """Train, judge, print."""
    if not DATA.is_dir():
        sys.exit(f"{DATA}: the recordings are not there; set SPHEROIDD_TEST_DATA")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that judge
    begins_with = read_card(load_training_config(config).start_from).sha256[:8]  # other weights, another training
    chosen = configuration(config, DATA, OUT / "finetune" / begins_with)
    began_s = time.process_time()
    weights = run_training(chosen, Console(stderr=True), f"spheroidd train {config.name}")
    seconds = time.process_time() - began_s
    found = {
        "judged on": NEVER_SEEN,
        "otsu": otsu(recordings()[NEVER_SEEN]),
        "shipped weights": judged("default"),
        "fine-tuned": judged(str(weights)),
        "cpu_s_of_training": round(seconds, 1),
    }
    print(json.dumps({"bench": "finetune", **found}, indent=1))


if __name__ == "__main__":
    typer.run(main)
