"""From a stack's raw frames to the slices that are scored: the pattern found in stored ones, slices made as they come.

Runs in the inference worker, which makes each slice from its own frames and the plate's pattern alone: a crash, a
repeat or another order changes nothing. What is made goes to OME-Zarr beside the raw frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from spheroidd.acquisition.store.computed_image import ComputedImage
from spheroidd.acquisition.store.stack_files import read_raw
from spheroidd.daemon.scoring.messages import ScoreJob, StackLedger
from spheroidd.inference.reconstruction.estimation import ENOUGH_SLICES, estimate_pattern
from spheroidd.inference.reconstruction.frame_order import brightest
from spheroidd.inference.reconstruction.plan import ReconstructionPlan
from spheroidd.inference.reconstruction.reconstructor import OUT_OFFSET, CpuReconstructor, to_uint16
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap, PlateWell
from spheroidd.protocols.sim_pattern import PatternEstimate, SimPattern, SliceModulation
from spheroidd.protocols.stack import UPSAMPLING, Block, StackKey, StackPlan

LOOKED_AT = 24  # slices, evenly over the stack: the brightest of them are measured
_DO = "image the plate with raw frames, or without them"


def pattern_of(plan: StackPlan) -> SimPattern:
    """The pattern that a plan of raw frames promises; StackError for another plan."""
    if plan.raw is None:
        raise StackError("its images are no raw frames", where=str(plan.key), do=_DO)
    return plan.raw


def find_patterns(
    key: StackKey, images: Path, stack: StackLedger, alive: Callable[[], None]
) -> dict[str, PatternEstimate]:
    """What a stored stack says of each colour's pattern, usable or not."""
    plan = stack.plan(key)
    raw, ledger = pattern_of(plan), stack.acknowledged(key)
    found = {}
    for channel in plan.channels:
        held = {plan.plane_of(index): crc for index, crc in ledger.items() if index.channel == channel}
        chosen = sorted({round(z) for z in np.linspace(0, plan.n_z - 1, min(LOOKED_AT, plan.n_z))})
        slices = []
        for z in chosen:
            alive()
            slices.append(read_raw(images, Block(key, channel, z, z + 1), held)[0])
        best = brightest(np.stack(slices), ENOUGH_SLICES)
        found[channel] = estimate_pattern(best, raw, channel, plan.frame_pixel_um)
    return found


class RawStack:
    """Makes slices of one stack's raw frames. A colour without a usable pattern comes in widefield.

    Slices have the light of all their frames together, above an offset of 100, so that they look as those of an
    instrument that reconstructs by itself.
    """

    def __init__(
        self, job: ScoreJob, plan: StackPlan, images: Path, patterns: Mapping[str, PatternEstimate | None]
    ) -> None:
        self._plan, self._root, self._raw = plan, images, pattern_of(plan)
        self._patterns = {channel: patterns.get(channel) for channel in plan.channels}
        self._scale = self._raw.n_frames / UPSAMPLING**2
        self._made: list[SliceModulation] = []
        self._cut = 0
        self._reconstructors = {
            channel: CpuReconstructor(
                ReconstructionPlan.of(self._raw, channel, plan.frame_shape, plan.frame_pixel_um, found)
            )
            for channel, found in self._patterns.items()
        }
        plate = PlateMap(plan.key.plate, tuple(PlateWell(well, treatment) for well, treatment in job.wells))
        self._image = ComputedImage(images, plate, plan)

    def slices(self, block: Block, ledger: Mapping[int, int], alive: Callable[[], None]) -> Pixels:
        """The slices (z, y, x) of a block of raw frames; `ledger` is {plane: crc32c} of its channel."""
        made = []
        for z in range(block.z_start, block.z_stop):
            alive()
            frames = read_raw(self._root, Block(block.key, block.channel, z, z + 1), ledger)[0]
            done = self._reconstructors[block.channel].reconstruct(frames, z)
            counts, cut = to_uint16(done.image, self._scale)
            self._made.append(done.modulation)
            self._cut += cut
            made.append(counts.astype(self._plan.dtype, copy=False))
        slices = np.stack(made)
        self._image.append(block.channel, slices)
        return slices

    def finish(self) -> tuple[SliceModulation, ...]:
        """Every slice was made: how each came about, by channel and z."""
        known = {channel: found for channel, found in self._patterns.items() if found is not None}
        self._image.finish(
            {
                "from": f"{self._plan.key.plate}.raw.zarr",
                "by": "structured-illumination reconstruction",
                "counts": f"round({self._scale:g} x value + {OUT_OFFSET:g}); value: raw counts above the offset",
                "cut_off_pixels": self._cut,
                "pattern": asdict(self._raw),
                "estimates": {channel: asdict(found) for channel, found in known.items()},
                "widefield_channels": [c for c, found in self._patterns.items() if found is None or not found.usable],
            }
        )
        return tuple(sorted(self._made, key=lambda one: (one.channel, one.z)))
