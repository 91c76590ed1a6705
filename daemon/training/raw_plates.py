"""Slices of an emulated plate that come about as a structured-illumination microscope's do: computed of raw frames.

Their noise is coloured and their edges are sharpened by the reconstruction, as a network meets them on real plates.
"""

from collections.abc import Iterable

import numpy as np

from spheroidd.inference.reconstruction.estimation import ENOUGH_SLICES, estimate_pattern
from spheroidd.inference.reconstruction.frame_order import brightest
from spheroidd.inference.reconstruction.plan import ReconstructionPlan
from spheroidd.inference.reconstruction.reconstructor import CpuReconstructor, to_uint16
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.sim_pattern import SimPattern
from spheroidd.protocols.stack import UPSAMPLING, Frame, StackPlan


def reconstructed(plan: StackPlan, pattern: SimPattern, frames: Iterable[Frame]) -> Pixels:
    """The slices (channel, z, y, x) uint16 of all raw frames of a stack, by its own pattern in each colour."""
    raw = np.empty((len(plan.channels), plan.n_z * pattern.n_frames, *plan.frame_shape), np.uint16)
    for frame in frames:
        raw[plan.channels.index(frame.index.channel), plan.plane_of(frame.index)] = frame.pixels
    scale = pattern.n_frames / UPSAMPLING**2
    made = []
    for channel, planes in zip(plan.channels, raw, strict=True):
        slices = planes.reshape(plan.n_z, pattern.n_angles, pattern.n_phases, *plan.frame_shape)
        found = estimate_pattern(brightest(slices, ENOUGH_SLICES), pattern, channel, plan.frame_pixel_um)
        by = CpuReconstructor(ReconstructionPlan.of(pattern, channel, plan.frame_shape, plan.frame_pixel_um, found))
        made.append(np.stack([to_uint16(by.reconstruct(one, z).image, scale)[0] for z, one in enumerate(slices)]))
    return np.stack(made)
