"""What the emulator's plates look like, from easy to hostile: `python -m bench.realism PICTURE.png [STACK.tif ...]`.

A row a plate: a killed and an untreated well, two depths, both colours. Recorded stacks (z, y, x) that are named stand
below as they are, four depths of each.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Picture

from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.presets import PRESETS
from spheroidd.sim_emulator.realism import Realism
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

PLATES = (
    (Realism.EASY, 1),
    *((Realism.REAL, seed) for seed in (1, 2, 3, 5)),
    *((Realism.HOSTILE, n) for n in (1, 2, 3)),
)
FIELD = replace(
    PRESETS["whole"], n_z=60, height=192, width=192, z_step_um=4.0, pixel_um=1.4, diameter_um=220.0, field_z_um=0.0
)
SLICES = (12, 28)
ROLES = (WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL)
Image = NDArray[np.uint8] | NDArray[np.uint16]


def emulated(realism: Realism, seed: int) -> list[tuple[str, Image]]:
    """Titled slices of one plate."""
    settings = EmulatorSettings(pace="fast", seed=seed, realism=realism, compounds=1, doses=1)
    source = EmulatorSource(settings, None, "gallery", SystemClock(), preset=FIELD)
    found: list[tuple[str, Image]] = []
    for role in ROLES:
        well = next(entry.well for entry in source.plate_map if entry.treatment.role is role)
        scene = source.scene(well)
        name = "untreated" if role is WellRole.NEGATIVE_CONTROL else "killed"
        found += [
            (f"{realism} {seed}, {name}, {channel} nm, {z * FIELD.z_step_um:.0f} um", scene.image(channel, z))
            for channel in CHANNELS
            for z in SLICES
        ]
    return found


def recorded(path: Path) -> list[tuple[str, Image]]:
    """Slices of a stack on disk, at even depths."""
    stack: Image = tifffile.imread(path)
    places = [round((n + 0.5) * (len(stack) - 1) / 8) for n in range(8)]
    return [(f"{path.stem}, slice {z}", stack[z]) for z in places]


def draw(out: Path, stacks: Sequence[Path] = ()) -> None:
    """A row for each plate, and one for each recorded stack."""
    rows = [emulated(*plate) for plate in PLATES] + [recorded(path) for path in stacks]
    figure = Figure((16, 2.25 * len(rows)), layout="constrained")
    for line, row in zip(np.atleast_2d(figure.subplots(len(rows), 8)), rows, strict=True):
        for axes, (title, image) in zip(line, row, strict=True):
            low, high = np.percentile(image, (1, 99.8))
            axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1))
            axes.set_title(f"{title}\n{low:.0f} to {high:.0f}", fontsize=6)
            axes.set_axis_off()
    with BytesIO() as buffer:
        figure.savefig(buffer, dpi=60)
        Picture.open(buffer).convert("L").quantize(48).save(out, optimize=True)
    print(out)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    draw(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
