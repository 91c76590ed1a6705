"""One raw slice in, one image out, on the CPU. Nothing is kept from slice to slice, so order and repeats do not matter.

FFTs are the larger part of the time; there are as few as possible: one of the mean, beside which its tapered copy is
transformed as the imaginary part, one for each band, and one real inverse of the doubled grid.
"""

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.reconstruction import merge
from spheroidd.inference.reconstruction.band_check import BandState, sums_of, taper
from spheroidd.inference.reconstruction.noise_weight import LOOKED_AT, PLACES
from spheroidd.inference.reconstruction.plan import FrameWeights, ReconstructionPlan
from spheroidd.inference.reconstruction.raw_slice import (
    Raw,
    ReconstructedSlice,
    by_band,
    checked,
    even_out,
    modulation_of,
    refuse_empty,
    strengths,
    weighed_noise,
)
from spheroidd.inference.reconstruction.separation import blending, separate
from spheroidd.inference.reconstruction.transforms import Plane, aligned, forward, inverse, part_pair

OUT_OFFSET = 100.0  # in stored counts: noise and the filter's lobes stay above 0 and are not clipped


class CpuReconstructor:
    """Reconstructs slices of one plan. One object a thread: its working memory is its own."""

    def __init__(self, plan: ReconstructionPlan) -> None:
        self.plan = plan
        grid, n_bands = plan.grid, len(plan.bands)
        self._whole = plan.weights(np.ones((plan.pattern.n_angles, plan.pattern.n_phases), bool))
        self._angle_of = np.repeat(np.arange(plan.pattern.n_angles), plan.pattern.n_phases)
        self._band_angle = np.array([band.angle for band in plan.bands], np.int64)
        self._ramps = [by_band(plan, name) for name in ("ramp_y", "ramp_x", "spin_y", "spin_x")]
        self._blend = blending(grid.height - plan.height, grid.width - plan.width)
        self._tapers = taper(plan.height, grid.height), taper(plan.width, grid.width)
        whole, half = (grid.height, grid.width), (grid.height, grid.width // 2 + 1)
        kinds = (
            ((1 + n_bands, *whole), np.complex64),  # the mean with its tapered copy, then the bands
            (half, np.complex64),
            (half, np.complex64),
            ((2 * grid.height, grid.width + 1), np.complex64),
            ((n_bands, *whole), np.float32),
        )
        self._planes, self._mean, self._tapered, self._spectrum, self._otfs = aligned(*kinds)
        self._scale = np.float32(1 / (grid.height * grid.width))  # UPSAMPLING^2 over the pixels of the doubled grid
        for otf, band in zip(self._otfs, plan.bands, strict=True):
            otf[:] = band.otf
        self._reaches = np.array([band.reach for band in plan.bands], np.int64).reshape(n_bands, grid.height)
        self._shifts = np.array([band.shift for band in plan.bands], np.int64).reshape(n_bands, 2)

    def reconstruct(self, frames: Raw, z: int = 0, present: NDArray[np.bool_] | None = None) -> ReconstructedSlice:
        """The image of one slice's frames (angle, phase, y, x); `present` (angle, phase) says which of them arrived.

        StackError where the frames do not fit the plan, or where no angle has enough of them.
        """
        plan = self.plan
        frames, present = checked(plan, frames, present, z)
        flat = frames.reshape(-1, plan.height, plan.width)
        weights = self._whole if present.all() else plan.weights(present)
        refuse_empty(plan, weights, z)
        evening = even_out(plan, frame_sums(flat), present, weights)
        separate(
            flat,
            self._angle_of,
            weights.mean * evening,
            self._band_angle,
            weights.bands * evening,
            np.float32(plan.pattern.offset_adu),
            *self._ramps,
            self._blend,
            *self._tapers,
            self._planes[0],
            self._planes[1:],
        )
        both, *bands = spectra = forward(self._planes)
        part_pair(both, self._mean, self._tapered)
        noise = float(merge.power_at(self._mean.reshape(-1), plan.noise_at))
        states = self._states(bands, weights, noise)
        return ReconstructedSlice(self._merged(spectra[1:], states, noise), modulation_of(plan, states, z, present))

    def _states(self, bands: list[Plane], weights: FrameWeights, noise: float) -> list[BandState]:
        light = self._planes[0].reshape(-1).real
        states = []
        for band, spectrum, dead in zip(self.plan.bands, bands, weights.dead, strict=True):
            if dead:
                states.append(BandState.dead())
            else:
                sums = sums_of(self._mean, self._tapered, spectrum, light, band.check)
                states.append(BandState.decide(sums, noise * band.noise_share))
        return states

    def _merged(self, bands: Plane, states: list[BandState], noise: float) -> NDArray[np.float32]:
        plan, spectrum = self.plan, self._spectrum
        parts = (
            self._mean,
            plan.otf,
            np.float32(plan.pattern.n_angles),
            bands,
            self._otfs,
            self._reaches,
            np.array([state.modulation / 4 * state.turn for state in states], np.complex64),
            self._shifts,
            strengths(states).astype(np.float32),
            plan.reach,
        )
        power = np.empty((3, PLACES + 1))
        merge.power_by_place(*parts, LOOKED_AT, plan.place_y, plan.place_x, power)
        table = weighed_noise(plan, power, noise, float(self._mean[0, 0].real))
        ramps = self._scale * plan.out_ramp_y, plan.out_ramp_x
        merge.merge(*parts, table, plan.place_y, plan.place_x, plan.apodisation, *ramps, spectrum)
        spectrum[0, 0] = self._scale * self._mean[0, 0]
        return inverse(spectrum, plan.out_shape)


def frame_sums(frames: Raw) -> NDArray[np.float64]:
    """The sum of every frame's pixels (frame, y, x): exact for a camera's counts."""
    if frames.dtype == np.float32:
        return np.asarray(frames.sum(axis=(1, 2), dtype=np.float64))
    sums = np.empty(len(frames), np.int64)
    merge.add_up(frames, sums)
    return sums.astype(np.float64)


def to_uint16(image: NDArray[np.float32], scale: float = 1.0) -> tuple[NDArray[np.uint16], int]:
    """round(scale x image + 100), and how many pixels were beyond 0 or 65535 and cut off."""
    counts = np.empty(image.shape, np.uint16)
    cut = int(merge.to_counts(_whole_rows(image), np.float32(scale), np.float32(OUT_OFFSET), counts))
    return counts, cut


def _whole_rows(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows that an image is the left part of: numba makes vectors only of what it knows to be without gaps."""
    length, gap = divmod(image.strides[0], image.itemsize)
    if image.strides[1] != image.itemsize or gap or length < image.shape[1]:
        return np.ascontiguousarray(image)
    return np.lib.stride_tricks.as_strided(image, (len(image), length))
