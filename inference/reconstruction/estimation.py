"""The pattern of one colour from a few raw slices: frequency, phases, modulation, each angle by itself, with its proof.

Nothing is assumed but what the pattern states. What cannot be trusted comes back with the reason in words, never as a
plausible number: an estimate that is not `usable` makes widefield images.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.reconstruction.frame_phases import BandFit, fit_band, step_errors
from spheroidd.inference.reconstruction.otf import Floats
from spheroidd.inference.reconstruction.peak_search import Correlation, Peak
from spheroidd.inference.reconstruction.separation import unmixing
from spheroidd.inference.reconstruction.tapered import Plane, TaperedSlices
from spheroidd.inference.reconstruction.verdicts import judge, order_verdict, uneven_light
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.sim_pattern import AngleEstimate, OrderEstimate, PatternEstimate, SimPattern

SEARCH = (0.45, 1.2)  # of the cutoff, for the finest order; light is shorter on its way in than out, so above 1 too
ENOUGH_SLICES = 6
_AROUND_STATED, _FEWEST_BINS = 0.05, 2.5  # of a stated period; on each side, or small fields had nothing but edges
_ROUNDS = 3  # phases and frequency in turn
_WIENER_AT_ONE_ELECTRON, _LEAST_WIENER, _MOST_WIENER = 1.2, 0.05, 0.5
_SURE_LEAK = 10.0  # from which the phases are surely others than stated: about 10 degrees in a good slice
_SURE_PHASES = 60.0  # peak over median from which a frame's own phase is known better than its nominal one


@dataclass(frozen=True, slots=True)
class FoundAngle:
    """One angle's peaks and fits by order, and its phases in radians; `peaks` has an entry for each order.

    `beyond` has one for each order above those of the beams that the phases tell apart: nothing should be there.
    """

    frequency_yx: tuple[float, float]
    phases_rad: Floats
    measured: bool
    peaks: tuple[Peak, ...]
    fits: tuple[BandFit, ...]
    beyond: tuple[Peak, ...]


def estimate_pattern(
    slices: NDArray[Any],
    pattern: SimPattern,
    channel: str,
    pixel_um: float,
    search: tuple[float, float] = SEARCH,
) -> PatternEstimate:
    """Find the pattern in raw slices (slice, angle, phase, y, x); six with signal are enough, one may be.

    `search` is where the finest order's frequency is looked for, as shares of the lens's cutoff; where the pattern
    states its period, only 5 % around that. StackError where the frames cannot be used at all, ConfigError where the
    optics do not fit the pixels.
    """
    ready = TaperedSlices.of(slices, pattern, channel, pixel_um)
    reach = _reach(pattern, channel, ready, search)
    found = [_find_angle(ready, angle, reach) for angle in range(pattern.n_angles)]
    angles = tuple(_estimate_of(angle, one) for angle, one in enumerate(found))
    doubts, notes = judge(pattern, angles, [one.peaks for one in found], [one.beyond for one in found])
    notes += uneven_light(ready.brightness)
    electrons = ready.electrons
    wiener = _WIENER_AT_ONE_ELECTRON / math.sqrt(electrons) if electrons else _LEAST_WIENER
    wiener = min(max(wiener, _LEAST_WIENER), _MOST_WIENER)
    return PatternEstimate(channel, pixel_um, ready.n_slices, angles, wiener, electrons, tuple(doubts), tuple(notes))


def _reach(
    pattern: SimPattern, channel: str, slices: TaperedSlices, search: tuple[float, float]
) -> tuple[float, float]:
    """The ring that is searched, as shares of the cutoff: around a stated period, though no narrower than some bins."""
    if not 0.05 <= search[0] < search[1] <= 2:
        do = "give two shares of the cutoff, 0.05 to 2, the smaller first"
        raise ConfigError(f"the search ring is {search}", where=channel, do=do)
    period = pattern.period_of(channel)
    if period is None:
        return search
    cutoff = slices.otf.optics.cutoff_per_um
    share = pattern.beams.orders / period / cutoff
    margin = max(_AROUND_STATED * share, _FEWEST_BINS * max(slices.grid.step_y, slices.grid.step_x) / cutoff)
    return share - margin, share + margin


def nominal_phases(pattern: SimPattern) -> Floats:
    """The equal steps (phase,) of order 1 in radians, in the stated sign, beginning with 0."""
    return np.asarray(pattern.step_sign * 2 * np.pi / pattern.n_phases * np.arange(pattern.n_phases), np.float64)


def _bands(slices: TaperedSlices, angle: int, phases_rad: Floats) -> list[Plane]:
    """The angle's bands (slice, y, x), order by order; StackError where its phases do not tell them apart."""
    solved = unmixing(phases_rad, np.zeros(slices.pattern.beams.orders))
    if solved is None:
        do = "see that the phases step; take the slice again"
        raise StackError(f"angle {angle}: the frames' phases coincide", where="raw pattern", do=do)
    return [_mixed(slices, angle, row) for row in solved[1:]]


def _mixed(slices: TaperedSlices, angle: int, row: NDArray[np.complex128]) -> Plane:
    """An angle's frames (slice, phase, y, x) summed with the weights `row` (phase,)."""
    frames = slices.frames[:, angle]
    mixed: Plane = np.einsum("p,spyx->syx", row.astype(np.complex64), frames, optimize=True).astype(np.complex64)
    return mixed


def _beyond(slices: TaperedSlices, angle: int, phases_rad: Floats, reach: tuple[float, float]) -> tuple[Peak, ...]:
    """The highest peak of each order that these beams do not make and as many phases still tell apart."""
    first, most = slices.pattern.beams.orders + 1, (slices.pattern.n_phases - 1) // 2
    solved = unmixing(phases_rad, np.zeros(most)) if most >= first else None
    if solved is None:
        return ()
    ring = min(reach[0], SEARCH[0]), max(reach[1], SEARCH[1])
    return tuple(Correlation.of(slices, _mixed(slices, angle, row), ring).best() for row in solved[first:])


def _find_angle(slices: TaperedSlices, angle: int, reach: tuple[float, float]) -> FoundAngle:
    nominal = nominal_phases(slices.pattern)
    peaks = _peaks(slices, _bands(slices, angle, nominal), reach)
    best = _leading(peaks)
    order, peak = best + 1, peaks[best]
    phases: Floats = nominal
    measured = False
    if peak.ratio > _SURE_PHASES:
        refined, better = _measured(slices, angle, order, peak, nominal, reach)
        if better.ratio >= peak.ratio or (peak.leak > _SURE_LEAK and better.leak < peak.leak / 4):
            phases, peak, measured = refined, better, True
    bands = _bands(slices, angle, phases)
    fy, fx = peak.frequency_yx[0] / order, peak.frequency_yx[1] / order
    peaks = [
        peak if o == order else _known_peak(slices, bands[o - 1], (o * fy, o * fx), o, reach)
        for o in range(1, slices.pattern.beams.orders + 1)
    ]
    fits = tuple(fit_band(slices, band, (o * fy, o * fx)) for o, band in enumerate(bands, start=1))
    return FoundAngle((fy, fx), phases, measured, tuple(peaks), fits, _beyond(slices, angle, phases, reach))


def _peaks(slices: TaperedSlices, bands: list[Plane], reach: tuple[float, float]) -> list[Peak]:
    """The highest peak of every order in its own ring: the finest in `reach`, order 1 of two at half of it."""
    finest = len(bands)
    return [
        Correlation.of(slices, band, _ring_of(order, finest, reach)).best() for order, band in enumerate(bands, start=1)
    ]


def _leading(peaks: list[Peak]) -> int:
    """Which order tells the frequency: the finest, unless a coarser one is more than twice as sure."""
    surest = max(range(len(peaks)), key=lambda order: peaks[order].ratio)
    return len(peaks) - 1 if peaks[-1].ratio > peaks[surest].ratio / 2 else surest


def _ring_of(order: int, finest: int, reach: tuple[float, float]) -> tuple[float, float]:
    return reach[0] * order / finest, reach[1] * order / finest


def _known_peak(
    slices: TaperedSlices, band: Plane, frequency_yx: tuple[float, float], order: int, reach: tuple[float, float]
) -> Peak:
    """The other order's peak, at exactly half or twice the frequency of the one that was found."""
    ring = _ring_of(order, slices.pattern.beams.orders, reach)
    correlation = Correlation.of(slices, band, ring)
    elsewhere = correlation.best()
    return Peak(
        frequency_yx,
        correlation.ratio_at(frequency_yx),
        elsewhere.second_yx,
        elsewhere.second_ratio,
        False,
        elsewhere.leak,
    )


def _measured(
    slices: TaperedSlices, angle: int, order: int, peak: Peak, nominal: Floats, reach: tuple[float, float]
) -> tuple[Floats, Peak]:
    """Phases measured frame by frame and the peak that they give."""
    phases: Floats = nominal
    frequency = peak.frequency_yx
    ring = _ring_of(order, slices.pattern.beams.orders, reach)
    for _ in range(_ROUNDS):
        refined: Floats = nominal + step_errors(slices, angle, order, frequency, nominal)
        if unmixing(refined, np.zeros(slices.pattern.beams.orders)) is None:
            return nominal, peak  # phases that coincide: told apart by the nominal ones, and doubted elsewhere
        phases = refined
        correlation = Correlation.of(slices, _bands(slices, angle, phases)[order - 1], ring)
        frequency = correlation.refine(frequency)
    better = correlation.best()
    return phases, better


def _estimate_of(angle: int, found: FoundAngle) -> AngleEstimate:
    """In the words and units of the protocol; phases are those of order 1 at the field's centre."""
    verdicts = [order_verdict(peak, fit) for peak, fit in zip(found.peaks, found.fits, strict=True)]
    alone = len(verdicts) == 1 or verdicts[0][0] or not verdicts[1][0]
    lead = found.fits[0].phase_rad if alone else found.fits[1].phase_rad / 2
    orders = tuple(
        OrderEstimate(
            number,
            fit.modulation,
            fit.modulation_sd,
            peak.ratio,
            *verdict,
            offset_deg=_degrees(fit.phase_rad - number * lead),
        )
        for number, (peak, fit, verdict) in enumerate(zip(found.peaks, found.fits, verdicts, strict=True), start=1)
    )
    fy, fx = found.frequency_yx
    phases = tuple(_degrees(float(phase) + lead) for phase in found.phases_rad)
    direction = math.degrees(math.atan2(fy, fx))
    return AngleEstimate(angle, math.hypot(fy, fx), direction, phases, found.measured, orders)


def _degrees(radians: float) -> float:
    """Between -180 and 180."""
    return math.degrees(math.atan2(math.sin(radians), math.cos(radians)))
