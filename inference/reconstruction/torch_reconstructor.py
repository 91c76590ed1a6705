"""The same reconstruction in torch, on any device, from the same plan.

Equal to the CPU's to about 1e-5 of an image's standard deviation. On one device a slice gives the same bits every time;
another device, or another number of threads, may differ in the last ones.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.reconstruction.band_check import BandState, Check, unevenness
from spheroidd.inference.reconstruction.noise_weight import LOOKED_AT, PLACES
from spheroidd.inference.reconstruction.plan import UPSAMPLING, Band, FrameWeights, ReconstructionPlan
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
from spheroidd.inference.reconstruction.separation import EDGE_STEP, blending


class TorchReconstructor:
    """Reconstructs slices of one plan on a torch device; use one for each thread."""

    def __init__(self, plan: ReconstructionPlan, device: str | torch.device = "cpu") -> None:
        self.plan, self._device = plan, torch.device(device)
        grid = plan.grid
        self._blend = self._on(blending(grid.height - plan.height, grid.width - plan.width))
        ramp_y, ramp_x, spin_y, spin_x = (
            self._on(by_band(plan, name)) for name in ("ramp_y", "ramp_x", "spin_y", "spin_x")
        )
        self._ramp = ramp_y[:, : plan.height, None] * ramp_x[:, None, : plan.width]
        self._spin = spin_y[:, :, None] * spin_x[:, None, :]
        self._otf, self._base, self._squares = self._on(plan.otf), self._on(plan.base), self._on(plan.squares)
        place = (plan.place_y[:, np.newaxis] + plan.place_x).astype(np.int64)
        self._place = self._on(np.minimum(place, PLACES))
        rows = np.arange(0, grid.height, LOOKED_AT)
        self._looked_at = self._on(np.concatenate([rows, 2 * grid.height - rows[1:]]))
        self._apodisation, self._taper = self._on(plan.apodisation), self._on(plan.taper)
        self._out_ramp = self._on(plan.out_ramp_y)[:, None] * self._on(plan.out_ramp_x)[None]
        self._noise_at = self._on(plan.noise_at.astype(np.int64))
        self._otfs = [self._on(band.otf) for band in plan.bands]
        self._checks = [_Check(band.check, self._device) for band in plan.bands]
        self._whole = plan.weights(np.ones((plan.pattern.n_angles, plan.pattern.n_phases), bool))

    def reconstruct(self, frames: Raw, z: int = 0, present: NDArray[np.bool_] | None = None) -> ReconstructedSlice:
        """As `CpuReconstructor.reconstruct`."""
        plan = self.plan
        frames, present = checked(plan, frames, present, z)
        weights = self._whole if present.all() else plan.weights(present)
        refuse_empty(plan, weights, z)
        flat = self._on(frames.astype(np.float32)).reshape(-1, plan.height, plan.width)
        sums = flat.sum(dim=(1, 2), dtype=torch.float64).cpu().numpy()
        mean_plane, planes = self._separated(flat, weights, even_out(plan, sums, present, weights))
        mean = torch.fft.rfft2(mean_plane)
        bands = torch.fft.fft2(planes) if len(planes) else planes  # MKL refuses to transform nothing
        states = self._states(mean_plane, mean, bands, weights)
        image = self._merged(mean, bands, states, self._noise(mean)).cpu().numpy()
        return ReconstructedSlice(np.ascontiguousarray(image), modulation_of(plan, states, z, present))

    def _on(self, values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _separated(
        self, flat: torch.Tensor, weights: FrameWeights, evening: NDArray[np.float32]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean plane (y, x) and the bands (band, y, x) with their ramps, on the padded grid."""
        lit = flat - float(self.plan.pattern.offset_adu)
        mean = torch.einsum("f,fyx->yx", self._on(weights.mean * evening), lit)
        of_bands = weights.bands * evening
        real = torch.einsum("bf,fyx->byx", self._on(of_bands.real.astype(np.float32)), lit)
        imaginary = torch.einsum("bf,fyx->byx", self._on(of_bands.imag.astype(np.float32)), lit)
        inside = self._spin[:, : self.plan.height, : self.plan.width].conj()
        return self._framed(mean), self._framed(torch.complex(real, imaginary) * self._ramp * inside) * self._spin

    def _framed(self, plane: torch.Tensor) -> torch.Tensor:
        """Planes (..., y, x) with the frame in which one edge goes over into the other."""
        pad_y, pad_x = self.plan.grid.height - self.plan.height, self.plan.grid.width - self.plan.width
        right, left = (_even(_beyond(plane, -1, side), -2, wraps=False) for side in (-1, 0))
        plane = torch.cat([plane, right + self._blend[1, :pad_x] * (left - right)], dim=-1)
        last, first = (_even(_beyond(plane, -2, side), -1, wraps=True) for side in (-1, 0))
        return torch.cat([plane, last + self._blend[0, :pad_y, None] * (first - last)], dim=-2)

    def _states(
        self, plane: torch.Tensor, mean: torch.Tensor, bands: torch.Tensor, weights: FrameWeights
    ) -> list[BandState]:
        tapered = torch.fft.rfft2(plane * self._taper)
        noise, states = self._noise(mean), []
        for band, check, spectrum, dead in zip(self.plan.bands, self._checks, bands, weights.dead, strict=True):
            if dead:
                states.append(BandState.dead())
            else:
                states.append(BandState.decide(check.sums(mean, tapered, spectrum, plane), noise * band.noise_share))
        return states

    def _noise(self, mean: torch.Tensor) -> float:
        outside = mean.reshape(-1)[self._noise_at]
        return float(outside.abs().double().square().mean()) if len(outside) else 0.0

    def _merged(self, mean: torch.Tensor, bands: torch.Tensor, states: list[BandState], noise: float) -> torch.Tensor:
        plan, grid = self.plan, self.plan.grid
        rows, columns = grid.height, grid.width
        spectrum = torch.zeros((2 * rows, columns + 1), dtype=torch.complex64, device=self._device)
        own = plan.pattern.n_angles * self._otf * mean
        spectrum[: rows // 2, : columns // 2 + 1] = own[: rows // 2]
        spectrum[-(rows // 2) :, : columns // 2 + 1] = own[-(rows // 2) :]
        if any(state.alive for state in states):
            spectrum += self._moved(bands, states)
        squared = strengths(states)
        den = self._base
        for strength, square in zip(squared, self._squares, strict=True):
            if strength > 0:
                den = den + float(strength) * square
        table = weighed_noise(plan, self._power(spectrum, den), noise, float(mean[0, 0].real))
        den = den + self._on(table)[self._place]
        spectrum = spectrum * self._out_ramp * (UPSAMPLING**2 * self._apodisation / den)
        spectrum[0, 0] = UPSAMPLING**2 * mean[0, 0]
        full: torch.Tensor = torch.fft.irfft2(spectrum, s=(2 * rows, 2 * columns))
        return full[: plan.out_shape[0], : plan.out_shape[1]]

    def _power(self, spectrum: torch.Tensor, den: torch.Tensor) -> NDArray[np.float64]:
        """As `merge.power_by_place`; added up on the CPU, in one order."""
        rows = self._looked_at
        inside = (self._apodisation[rows] != 0).cpu().numpy().reshape(-1)
        place = self._place[rows].cpu().numpy().reshape(-1)[inside]
        weight = den[rows].double().cpu().numpy().reshape(-1)[inside]
        squared = spectrum[rows].to(torch.complex128).abs().square().cpu().numpy().reshape(-1)[inside]
        return np.array([np.bincount(place, part, PLACES + 1) for part in (squared, weight, weight**2)])

    def _moved(self, bands: torch.Tensor, states: list[BandState]) -> torch.Tensor:
        """The side bands in their places with their conjugates, half plane of the doubled grid.

        Added up on the whole doubled plane with zero frequency in the middle, where a band is one rectangle.
        """
        rows, columns = self.plan.grid.height, self.plan.grid.width
        plane = torch.zeros((2 * rows, 2 * columns), dtype=torch.complex64, device=self._device)
        for band, otf, spectrum, state in zip(self.plan.bands, self._otfs, bands, states, strict=True):
            if state.alive:
                weighted = otf * spectrum * complex(state.modulation / 4 * state.turn)
                y, x = _corner(band, rows, columns)
                plane[y : y + rows, x : x + columns] += weighted
        plain: torch.Tensor = torch.fft.ifftshift(plane)
        mirrored = torch.roll(torch.flip(plain, (0, 1)), (1, 1), (0, 1)).conj()
        return (plain + mirrored)[:, : columns + 1]


def _beyond(plane: torch.Tensor, axis: int, side: int) -> torch.Tensor:
    """How an edge goes on: its first or last (`side` -1) pixels and a part of the step to them."""
    edge, inner = (plane.narrow(axis, at % plane.shape[axis], 1) for at in ((0, 1) if side == 0 else (-1, -2)))
    return edge + EDGE_STEP * (edge - inner)


def _even(edge: torch.Tensor, axis: int, wraps: bool) -> torch.Tensor:
    """An edge evened along itself, (1, 2, 1) / 4."""
    before, after = torch.roll(edge, 1, axis), torch.roll(edge, -1, axis)
    if not wraps:
        size = edge.shape[axis]
        before = torch.cat([edge.narrow(axis, 0, 1), edge.narrow(axis, 0, size - 1)], dim=axis)
        after = torch.cat([edge.narrow(axis, 1, size - 1), edge.narrow(axis, size - 1, 1)], dim=axis)
    return (before + 2 * edge + after) / 4


class _Check:
    """A `Check` on the device."""

    def __init__(self, check: Check, device: torch.device) -> None:
        overlaps, starts = check.overlaps, check.starts
        self._mean_at = torch.from_numpy(overlaps.mean_at.astype(np.int64)).to(device)
        self._mirrored = torch.from_numpy(overlaps.mirrored).to(device)
        self._band_at = torch.from_numpy(overlaps.band_at.astype(np.int64)).to(device)
        self._product = torch.from_numpy(overlaps.product).to(device).double()
        self._power = torch.from_numpy(overlaps.power).to(device).double()
        self._lengths: list[int] = np.diff(starts).tolist()
        self._box = check.box
        layer = _occurrence(check.box_at)
        self._layers = int(layer.max(initial=0)) + 1
        self._box_at = torch.from_numpy(layer * math.prod(check.box) + check.box_at).to(device)
        self._light_at = torch.from_numpy(check.light_at.astype(np.int64)).to(device)

    def sums(
        self, mean: torch.Tensor, tapered: torch.Tensor, band: torch.Tensor, plane: torch.Tensor
    ) -> NDArray[np.float64]:
        """As `band_check.sums_of`; in double precision, and always in the same order."""
        own = mean.reshape(-1)[self._mean_at].to(torch.complex128)
        faded = tapered.reshape(-1)[self._mean_at].to(torch.complex128)
        moved = band.reshape(-1)[self._band_at].to(torch.complex128)
        power = self._power * (own * faded.conj()).real
        spread = self._product**2 * faded.abs().square()
        product = self._product * moved * torch.where(self._mirrored, faded, faded.conj())
        columns = torch.stack([product.real, product.imag, power, spread], dim=1)
        parts = torch.split(columns, self._lengths)
        sums: NDArray[np.float64] = torch.stack([part.sum(dim=0) for part in parts]).cpu().numpy()
        n_own = self._lengths[0]
        box = torch.zeros(self._layers * math.prod(self._box), dtype=torch.complex64, device=band.device)
        picked = torch.where(self._mirrored[:n_own], faded[:n_own].conj(), faded[:n_own]) * self._product[:n_own]
        box[self._box_at] = picked.to(torch.complex64)
        filtered = torch.fft.ifft2(box.reshape(self._layers, *self._box).sum(dim=0)).cpu().numpy()
        sums[0, 3] *= unevenness(filtered, plane.reshape(-1)[self._light_at].cpu().numpy())
        return sums


def _occurrence(places: NDArray[np.int32]) -> NDArray[np.int64]:
    """Of each bin how many before it have its place: added up layer by layer they come out the same each time."""
    order = np.argsort(places, kind="stable")
    _, first, counts = np.unique(places[order], return_index=True, return_counts=True)
    found = np.empty(len(places), np.int64)
    found[order] = np.arange(len(places)) - np.repeat(first, counts)
    return found


def _corner(band: Band, rows: int, columns: int) -> tuple[int, int]:
    """Where a band's plane begins on the doubled plane, both with zero frequency in the middle."""
    return rows - rows // 2 - band.shift[0], columns - columns // 2 - band.shift[1]
