"""Counts where cells are of another size than networks learn from: `python -m bench.cell_size [SEED [real]]`.

Small emulated plates (spheroids of 220 um) with cells of 0.7, 1 and 1.4 times their usual width, each scored as it is,
with the width stated, and with the width that `spheroidd cell-width` tells of the first, by the code that a run uses.
With `real` they are as hard as real ones. Prints JSON: of all wells together how many are counted and how many there
are, and how wide cells look.
"""

import json
import math
import sys
from typing import Any

import numpy as np
import torch

from bench.trust import Look, look, render, score, source_of
from spheroidd.inference.preprocessing.plate_limits import plate_limits
from spheroidd.inference.quality.cell_width import PlateWidth, StackWidth, plate_width
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


def counts(source: EmulatorSource, times: float, segmenter: Segmenter) -> tuple[dict[str, Any], PlateWidth]:
    """Counted over true, of a plate's wells together, and the largest error of a well with 30 cells of a kind."""
    looks = looks_of(source, times, segmenter)
    limits = plate_limits(one.well for one in looks.values())
    found, true = np.zeros((len(looks), 2)), np.zeros((len(looks), 2))
    widths = []
    for number, entry in enumerate(source.plate_map.imaged()):
        row = score(looks.pop(str(entry.well)), limits, segmenter)
        truth, n = source.truth(entry.well).well, (row.measurement.n_live or 0, row.measurement.n_dead or 0)
        found[number], true[number] = n, (truth.n_live, truth.n_dead)
        seen = row.seen.masks.looks if row.seen.masks else None
        widths.append(StackWidth(str(entry.well), sum(n), times * USUAL_CELL_UM, seen))
    many, told = true >= 30, plate_width(widths)
    return {
        "live": [int(found[:, 0].sum()), int(true[:, 0].sum())],
        "dead": [int(found[:, 1].sum()), int(true[:, 1].sum())],
        "largest error of 30 and more, percent": round(100 * float(np.max(np.abs(found / true - 1)[many])), 1),
        "look um": told.why if told.um is None else round(told.um, 1),
        "each": [None if one.um is None else round(one.um, 1) for one in widths],
        "unlike": [None if one.looks is None else round(one.looks.unlike, 2) for one in widths],
    }, told


def main() -> None:
    torch.set_num_threads(1)
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    realism = sys.argv[2] if len(sys.argv) > 2 else "easy"
    segmenter = load_segmenter(None, "cpu", precision="fp32")
    rows: dict[str, Any] = {}
    for times in TIMES:
        cell_um = times * USUAL_CELL_UM
        plate = {**PLATE, "seed": seed, "diameter_um": DIAMETER_UM, "cell_um": cell_um, "realism": realism}
        source = source_of(plate)
        name = f"cells x {times:g}"
        rows[f"{name}, not stated"], told = counts(source, 1.0, segmenter)
        if not math.isclose(times, 1):
            rows[f"{name}, stated"], _ = counts(source, times, segmenter)
        if told.um is not None and not told.fits:
            rows[f"{name}, as told"], _ = counts(source, told.um / USUAL_CELL_UM, segmenter)
    print(json.dumps({"bench": "cell_size", "seed": seed, "realism": realism, **rows}, indent=1))


if __name__ == "__main__":
    main()
