"""One file of raw frames with what was stated of it: opened, put in order, its pattern found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.images.raw_frames import RawFrames, open_raw
from spheroidd.inference.reconstruction.estimation import SEARCH, estimate_pattern
from spheroidd.inference.reconstruction.frame_order import arranged, brightest, fitting_patterns
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import (
    Beams,
    ChannelOptics,
    PatternEstimate,
    RawOrder,
    SimPattern,
)

CHANNEL = "raw"  # a file of raw frames names no channel of a plate


@dataclass(frozen=True, slots=True)
class Stated:
    """What a person says of a file; None where the file itself may know."""

    n_angles: int = 3
    n_phases: int = 5
    order: str = "z-angle-phase"
    beams: str = "two"
    na: float | None = None
    emission_nm: float | None = None
    pixel_um: float | None = None
    psf_sigma_um: float | None = None
    otf_table: str | None = None
    offset_adu: float = 0.0
    reversed_steps: bool = False
    flip_y: bool = False
    angles_deg: str | None = None
    period_um: float | None = None
    search: str | None = None
    channel: int | None = None
    tiles: str | None = None


@dataclass(frozen=True, slots=True)
class RawFile:
    """An opened file: `slices` (z, angle, phase, y, x)."""

    raw: RawFrames
    pattern: SimPattern
    pixel_um: float
    search: tuple[float, float]
    slices: NDArray[Any]

    @classmethod
    def open(cls, path: Path, stated: Stated) -> "RawFile":
        """ConfigError where something is missing or contradicts the file; StackError where the file cannot be read."""
        raw = open_raw(path, stated.channel)
        if stated.tiles:
            raw = _cut(raw, stated.tiles)
        colours = dict(raw.axes).get("C", 1)
        if stated.channel is None and colours > 1 and colours % stated.n_angles and colours % stated.n_phases:
            do = f"give --channel, 0 to {colours - 1}: each colour has a pattern of its own"
            raise ConfigError(f"it holds {colours} channels", where=str(path), do=do)
        pixel_um = stated.pixel_um or raw.pixel_um
        if pixel_um is None:
            raise ConfigError("the file does not say its pixel size", where=str(path), do="give --pixel-um")
        emission_nm = stated.emission_nm or raw.emission_nm
        if emission_nm is None or stated.na is None:
            do = "give --na and --emission-nm of the light that the camera saw"
            raise ConfigError("nothing is said of the lens and the light", where=str(path), do=do)
        table = _numbers(stated.otf_table, "--otf-table") if stated.otf_table else ()
        pattern = SimPattern(
            stated.n_angles,
            stated.n_phases,
            _order(stated.order),
            _beams(stated.beams),
            -1 if stated.reversed_steps else 1,
            stated.flip_y,
            stated.offset_adu,
            _numbers(stated.angles_deg, "--angles-deg") if stated.angles_deg else None,
            ((CHANNEL, stated.period_um),) if stated.period_um else (),
            (ChannelOptics.stated(CHANNEL, emission_nm, stated.na, stated.psf_sigma_um, table),),
        )
        search = SEARCH
        if stated.search:
            given = _numbers(stated.search, "--search")
            if len(given) != 2:
                raise ConfigError(f"--search is {stated.search}", do="write two shares of the cutoff, as 0.45,1.2")
            search = given[0], given[1]
        _refuse_other_number(raw, pattern, stated.tiles is not None)
        return cls(raw, pattern, pixel_um, search, arranged(raw.frames, pattern, str(path)))

    def estimate(self, n_slices: int) -> PatternEstimate:
        """The pattern in the slices with the most contrast; where it is not usable, with the orders that would fit."""
        chosen = brightest(self.slices, n_slices)
        found = estimate_pattern(chosen, self.pattern, CHANNEL, self.pixel_um, self.search)
        if found.usable:
            return found
        fitting = fitting_patterns(self.raw.frames, self.pattern, CHANNEL, self.pixel_um, self.search)
        if not fitting:
            return found
        named = " or ".join(self._difference(other) for other in fitting)
        return replace(found, doubts=(f"{named} the pattern could be trusted", *found.doubts))

    def _difference(self, other: SimPattern) -> str:
        """In what another pattern differs from the stated one, as it would have to be stated."""
        words = []
        if other.order != self.pattern.order:
            words.append(f"read in the order {'-'.join(other.order)}")
        if other.beams is not self.pattern.beams:
            words.append(f"with --beams {other.beams}")
        period = other.period_of(CHANNEL)
        if period != self.pattern.period_of(CHANNEL):
            words.append(f"with --period-um {period:.4g}")
        return " ".join(words)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of a frame."""
        return self.slices.shape[3], self.slices.shape[4]

    def frames_of(self, z: int) -> NDArray[Any]:
        """The frames (angle, phase, y, x) of one slice."""
        return np.ascontiguousarray(self.slices[z])


def _cut(raw: RawFrames, tiles: str) -> RawFrames:
    """Images in which frames lie beside each other, cut into these; row by row, as they would be read."""
    n_rows, _, n_columns = tiles.lower().partition("x")
    if not (n_rows.isdecimal() and n_columns.isdecimal() and int(n_rows) and int(n_columns)):
        raise ConfigError(f"--tiles is {tiles}", do="write rows x columns, as 3x5")
    down, across = int(n_rows), int(n_columns)
    n, height, width = raw.frames.shape
    if height % down or width % across:
        what = f"its images of {height} x {width} pixels cannot be cut into {down} x {across} of one size"
        raise ConfigError(what, where=str(raw.path), do="write how many frames lie above each other x side by side")
    height, width = height // down, width // across
    frames = raw.frames.reshape(n, down, height, across, width).swapaxes(2, 3).reshape(-1, height, width)
    axes = (*raw.axes[:-2], ("tile row", down), ("tile", across), ("Y", height), ("X", width))
    return replace(raw, frames=frames, axes=axes)


def _refuse_other_number(raw: RawFrames, pattern: SimPattern, cut: bool) -> None:
    """ConfigError with what may be meant, where a file's frames are no whole number of slices."""
    n, height, width = raw.frames.shape
    each = f"{pattern.n_angles} x {pattern.n_phases}"
    if n % pattern.n_frames == 0:
        return
    do = "state --angles and --phases, and --channel of several; leave images that are no raw frames out of the file"
    if not cut and height % pattern.n_angles == 0 and width % pattern.n_phases == 0:
        do += f"; where each image holds {each} frames side by side, give --tiles {pattern.n_angles}x{pattern.n_phases}"
    images = "1 frame is" if n == 1 else f"{n} frames are"
    raise ConfigError(f"{images} no whole number of slices of {each}", where=str(raw.path), do=do)


def _order(text: str) -> RawOrder:
    parts: Sequence[Any] = text.lower().replace(",", "-").split("-")
    if len(parts) != 3:
        raise ConfigError(f"--order is {text}", do="name angle, phase and z, slowest first, as z-angle-phase")
    return parts[0], parts[1], parts[2]  # SimPattern refuses other words


def _beams(text: str) -> Beams:
    try:
        return Beams(text.lower())
    except ValueError:
        raise ConfigError(f"--beams is {text}", do="write two or three") from None


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} is {text}", do="write numbers with commas between them") from None
