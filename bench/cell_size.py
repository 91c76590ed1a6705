"""Counts where cells are smaller or larger than those that networks learn from: `python -m bench.cell_size [SEED]`.

Small emulated plates (spheroids of 220 um) with cells of 0.7, 1 and 1.4 times their usual width, each scored as it is
and with the width stated, by the code that a run uses. Prints JSON: of all wells together how many are counted and how
many there are.
"""

import json
import math
import sys
from typing import Any

import numpy as np
import torch

from bench.trust import Look, look, render, score, source_of
from spheroidd.inference.preprocessing.plate_limits import plate_limits
from spheroidd.inference.segmentation.segmenter import load_segmenter
from spheroidd.protocols.ports import Segmenter
from spheroidd.protocols.results import USUAL_CELL_UM
from spheroidd.sim_emulator.source import EmulatorSource

SEED = 8300
TIMES = (0.7, 1.0, 1.4)
PLATE = {"preset": "demo", "compounds": 1, "doses": 2, "negative_controls": 1, "positive_controls": 1}
DIAMETER_UM = 220.0


def looks_of(source: EmulatorSource, times: float, segmenter: Segmenter) -> dict[str, Look]:
    """Every well, measured as a run does where the width is stated to be `times` the usual one."""
    preset = source.preset
    own_um = (preset.z_step_um / times, preset.pixel_um / times, preset.pixel_um / times)
    return {
        str(entry.well): look(render(source, str(entry.well)), own_um, entry.treatment.role, segmenter, str(entry.well))
        for entry in source.plate_map.imaged()
    }


def counts(source: EmulatorSource, times: float, segmenter: Segmenter) -> dict[str, Any]:
    """Counted over true, of a plate's wells together, and the largest error of a well with 30 cells of a kind."""
    looks = looks_of(source, times, segmenter)
    limits = plate_limits(one.well for one in looks.values())
    found, true = np.zeros((len(looks), 2)), np.zeros((len(looks), 2))
    for number, entry in enumerate(source.plate_map.imaged()):
        measured = score(looks.pop(str(entry.well)), limits, segmenter).measurement
        truth = source.truth(entry.well).well
        found[number], true[number] = (measured.n_live, measured.n_dead), (truth.n_live, truth.n_dead)
    many = true >= 30
    return {
        "live": [int(found[:, 0].sum()), int(true[:, 0].sum())],
        "dead": [int(found[:, 1].sum()), int(true[:, 1].sum())],
        "largest error of 30 and more, percent": round(100 * float(np.max(np.abs(found / true - 1)[many])), 1),
    }


def main() -> None:
    torch.set_num_threads(1)
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    segmenter = load_segmenter(None, "cpu", precision="fp32")
    rows: dict[str, Any] = {}
    for times in TIMES:
        cell_um = times * USUAL_CELL_UM
        source = source_of({**PLATE, "seed": seed, "diameter_um": DIAMETER_UM, "cell_um": cell_um})
        for stated in dict.fromkeys((1.0, times)):
            name = f"cells x {times:g}, " + ("stated" if math.isclose(stated, times) else "not stated")
            rows[name] = counts(source, stated, segmenter)
    print(json.dumps({"bench": "cell_size", "seed": seed, **rows}, indent=1))


if __name__ == "__main__":
    main()
