"""V score and V count of new plates against an emulated MTT assay: `python -m bench.v_score [SEED]` prints JSON.

The shipped network and regressor, through the whole daemon, on plates of three kinds of field: small spheroids that a
field holds whole (80 and 140 um), and a cap of a large one (the preset `demo`). The seed was used for nothing else. The
assay reads every living cell of the well, in the field or not, with its own noise. Figures are those of `spheroidd
evaluate`, over all wells of a plate.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.study import say
from spheroidd.daemon.config.model import build_config
from spheroidd.daemon.evaluation.plate import evaluate_plate
from spheroidd.daemon.evaluation.summary import summarise
from spheroidd.daemon.launch.run import run_plate

SEED = 20270316
FIGURES = ("n", "pearson_r", "mae", "r2", "bias", "loa_low", "loa_high")
DESIGN = {"compounds": 5, "doses": 6, "negative_controls": 12, "positive_controls": 4, "slice_period_s": 0.0}
_SMALL = {"pixel_um": 0.8, "z_step_um": 1.5, "field_z_um": -3.0}
FIELDS: dict[str, dict[str, float]] = {
    "whole spheroids of 80 um": {"diameter_um": 80.0, "n_z": 64, "height": 120, "width": 120, **_SMALL},
    "whole spheroids of 140 um": {"diameter_um": 140.0, "n_z": 108, "height": 208, "width": 208, **_SMALL},
    "a cap of spheroids of 300 um": {},
}


def plate(field: Mapping[str, float], seed: int) -> dict[str, Any]:
    """One plate imaged, scored and judged."""
    with tempfile.TemporaryDirectory(prefix="spheroidd-v-score-") as place:
        source = {"kind": "emulator", "preset": "demo", "seed": seed, "pace": "fast", **DESIGN, **field}
        tables = {"data": {"dir": str(Path(place) / "data")}, "plate": {"name": "v-score"}, "source": source}
        told = StringIO()
        code = run_plate(build_config(tables, base=Path.cwd()), console=Console(file=told), live=False)
        if code not in (0, 1):  # 1: some rows say that somebody should look
            sys.exit(f"the plate ended with exit code {code}:\n{told.getvalue()[-2000:]}")
        found = evaluate_plate(Path(place) / "data", tolerance_um=None)
    summary = summarise(found.wells)
    viability = {
        name: {k: v for k, v in asdict(one).items() if k in FIGURES} for name, one in summary.viability.items()
    }
    masks = {label: figures["dice"].mean for label, figures in summary.masks.items()}
    held = summary.coverage_90
    return {**viability, "interval of v_score held the assay": held, "mean dice": masks}


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    found: dict[str, Any] = {}
    for number, (name, field) in enumerate(FIELDS.items()):
        say(f"{name} ...")
        found[name] = plate(field, seed + number)
    print(json.dumps({"bench": "v_score", "seed": seed, **found}, indent=1))


if __name__ == "__main__":
    main()
