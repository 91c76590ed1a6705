"""Structured illumination as data: which raw frames make one slice, and what is known or was found of their pattern.

A raw slice is `n_angles` x `n_phases` camera frames of the same plane. In each angle a striped pattern of one spatial
frequency is shifted from frame to frame by one period / n_phases. Angles are directions of the frequency vector in the
stored image: 0 along x (columns, to the right), 90 along y (rows, downwards).
"""

import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RawAxis = Literal["angle", "phase", "z"]
RawOrder = tuple[RawAxis, RawAxis, RawAxis]
RAW_AXES: tuple[RawAxis, ...] = get_args(RawAxis)
MIN_PHASES = {
    "two": 3,
    "three": 5,
}  # by `Beams`: unknown bands of one angle: the mean, and two conjugates for each order
ALIVE = 21.0  # (contrast to noise)^2 above which a slice's stripes are alive: by chance in e^-21 of slices without any
FEWEST_PHASES_MEASURED = 4  # with three phases nothing is left over to measure a frame's own phase freely


class Beams(StrEnum):
    """How many beams interfere in the sample: two give one order of stripes, three a second at twice its frequency."""

    TWO = "two"
    THREE = "three"

    @property
    def orders(self) -> int:
        """Side bands of one angle, counted once for each pair of conjugates."""
        return 1 if self is Beams.TWO else 2


class KeepRaw(StrEnum):
    """How long raw frames are kept: always, until the stack's row is final, or until its slices are made."""

    ALL = "all"
    UNTIL_SCORED = "until_scored"
    NONE = "none"


class OtfKind(StrEnum):
    """What the optical transfer function is taken to be."""

    IDEAL = "ideal"  # of a perfect circular pupil: 2/pi (acos s - s sqrt(1 - s^2)), s = |k| / cutoff
    GAUSSIAN = "gaussian"  # of a Gaussian point spread function of `psf_sigma_um`
    TABLE = "table"  # measured: values at equal steps of |k| from 0 to the cutoff


@dataclass(frozen=True, slots=True)
class ChannelOptics:
    """One colour's optics: emission wavelength, aperture, and the OTF without the camera pixel, which comes later."""

    channel: str
    emission_nm: float
    na: float
    otf: OtfKind = OtfKind.IDEAL
    psf_sigma_um: float | None = None
    otf_table: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        where = f"optics of channel {self.channel}"
        if not (math.isfinite(self.emission_nm) and 200 <= self.emission_nm <= 2000):
            raise ConfigError(f"emission_nm is {self.emission_nm}", where=where, do="give it in nm, 200 to 2000")
        if not 0 < self.na <= 1.7:
            raise ConfigError(f"na is {self.na}", where=where, do="give the detection lens's aperture, 0 to 1.7")
        needs_sigma = self.otf is OtfKind.GAUSSIAN
        if needs_sigma != (self.psf_sigma_um is not None) or not 0 < (self.psf_sigma_um or 1.0) < math.inf:
            what = f"otf is {self.otf} and psf_sigma_um is {self.psf_sigma_um}"
            raise ConfigError(
                what, where=where, do="give psf_sigma_um in um, above 0, where otf is gaussian, only there"
            )
        table_fits = len(self.otf_table) >= 2 and self.otf_table[0] == 1 and all(0 <= v <= 1 for v in self.otf_table)
        if (self.otf is OtfKind.TABLE) != bool(self.otf_table) or (self.otf_table and not table_fits):
            what = f"otf is {self.otf} and otf_table has {len(self.otf_table)} values"
            raise ConfigError(what, where=where, do="a table has 2 or more values of 0 to 1, the first is 1")

    @classmethod
    def stated(
        cls, channel: str, emission_nm: float, na: float, psf_sigma_um: float | None, otf_table: tuple[float, ...]
    ) -> "ChannelOptics":
        """With the OTF that goes with what is given: a table, a Gaussian of a sigma, else that of an ideal lens.

        ConfigError where both are given, or numbers cannot be.
        """
        kind = OtfKind.TABLE if otf_table else OtfKind.IDEAL if psf_sigma_um is None else OtfKind.GAUSSIAN
        return cls(channel, emission_nm, na, kind, psf_sigma_um, otf_table)

    @property
    def cutoff_per_um(self) -> float:
        """The highest spatial frequency that the lens passes: 2 NA / wavelength."""
        return 2000 * self.na / self.emission_nm


@dataclass(frozen=True, slots=True)
class SimPattern:
    """How raw frames are to be read: numbers, order, sign, flip; and what may be known of the pattern beforehand.

    `order` names the axes from the slowest to the fastest, as frames arrive or lie in a file. `step_sign` is 1 where
    the phase grows from frame to frame along the stated direction, else -1. `flip_y` says that the rows of the images
    run against those in which `angles_deg` were stated. `offset_adu` is what the camera
    adds to every pixel. `angles_deg` (directions, -180 to 180) and `period_um` (of order 1, which one full turn of the
    phase shifts by one period) are None or empty where they are to be found; where given, an estimate must agree with
    them.
    """

    n_angles: int = 3
    n_phases: int = 5
    order: RawOrder = ("z", "angle", "phase")
    beams: Beams = Beams.TWO
    step_sign: Literal[1, -1] = 1
    flip_y: bool = False
    offset_adu: float = 0.0
    angles_deg: tuple[float, ...] | None = None
    period_um: tuple[tuple[str, float], ...] = ()
    optics: tuple[ChannelOptics, ...] = ()

    def __post_init__(self) -> None:
        where = "raw pattern"
        if not 1 <= self.n_angles <= 9:
            raise ConfigError(f"n_angles is {self.n_angles}", where=where, do="give 1 to 9")
        fewest = MIN_PHASES[self.beams]
        if not fewest <= self.n_phases <= 15:
            do = f"{self.beams} beams need {fewest} to 15 phases"
            raise ConfigError(f"n_phases is {self.n_phases}", where=where, do=do)
        if sorted(self.order) != sorted(RAW_AXES):
            do = "name angle, phase and z once each, the slowest first"
            raise ConfigError(f"order is {self.order}", where=where, do=do)
        if self.step_sign not in (1, -1):
            raise ConfigError(f"step_sign is {self.step_sign}", where=where, do="write 1 or -1")
        if not math.isfinite(self.offset_adu):
            raise ConfigError(f"offset_adu is {self.offset_adu}", where=where, do="give the camera's dark level")
        angles = self.angles_deg
        if angles is not None and (len(angles) != self.n_angles or not all(abs(a) <= 180 for a in angles)):
            do = f"give {self.n_angles} directions of -180 to 180 degrees"
            raise ConfigError(f"angles_deg is {angles}", where=where, do=do)
        if not all(math.isfinite(period) and period > 0 for _, period in self.period_um):
            raise ConfigError(f"period_um is {self.period_um}", where=where, do="give it in um, above 0")
        for names in ([one.channel for one in self.optics], [channel for channel, _ in self.period_um]):
            if len(set(names)) < len(names):
                raise ConfigError(f"channels {names} repeat", where=where, do="describe each channel once")

    @property
    def n_frames(self) -> int:
        """Raw frames of one slice and colour."""
        return self.n_angles * self.n_phases

    def optics_of(self, channel: str) -> ChannelOptics:
        """One colour's optics; ConfigError where they were not given."""
        for one in self.optics:
            if one.channel == channel:
                return one
        do = f"describe the optics of {channel}: emission_nm, na, otf"
        raise ConfigError(f"nothing is said of the optics of channel {channel}", where="raw pattern", do=do)

    def period_of(self, channel: str) -> float | None:
        """The stated period of order 1 in um; None where it is to be found."""
        return dict(self.period_um).get(channel)

    def frame_number(self, z: int, angle: int, phase: int, n_z: int) -> int:
        """The place of a raw frame in the stated order, from 0, in a stack of one colour.

        >>> SimPattern(order=("angle", "z", "phase")).frame_number(z=2, angle=1, phase=3, n_z=9)
        58
        """
        place = {"z": z, "angle": angle, "phase": phase}
        number = 0
        for axis, length in self._lengths(n_z):
            number = number * length + place[axis]
        return number

    def frame_place(self, number: int, n_z: int) -> tuple[int, int, int]:
        """The (z, angle, phase) of the frame at a place of the stated order: the inverse of `frame_number`."""
        place: dict[str, int] = {}
        for axis, length in reversed(self._lengths(n_z)):
            number, place[axis] = divmod(number, length)
        return place["z"], place["angle"], place["phase"]

    def _lengths(self, n_z: int) -> list[tuple[RawAxis, int]]:
        lengths: dict[RawAxis, int] = {"z": n_z, "angle": self.n_angles, "phase": self.n_phases}
        return [(axis, lengths[axis]) for axis in self.order]


@dataclass(frozen=True, slots=True)
class OrderEstimate:
    """One order of one angle's stripes: how strong it is, and how surely it was told from noise.

    `modulation` is the stripes' amplitude as a share of the mean, 0 to 1; `modulation_sd` its standard error; None
    where it could not be measured. `peak_to_median` is the correlation peak over the median of the ring that was
    searched: with nothing there it is 10 to 19. `trusted` with the `verdict` in words says whether this order may be
    used. `offset_deg` is by how much this order's phase leads `order` times the angle's `phases_deg`.
    """

    order: int
    modulation: float | None
    modulation_sd: float | None
    peak_to_median: float
    trusted: bool
    verdict: str
    offset_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ConfigError(f"order is {self.order}", where="pattern estimate", do="orders are 1 and 2")
        if self.trusted and self.modulation is None:
            raise ConfigError("a trusted order has no modulation", where="pattern estimate", do="measure it first")


@dataclass(frozen=True, slots=True)
class AngleEstimate:
    """What was found of one angle's stripes.

    `frequency_per_um` is that of order 1 and `angle_deg` its direction, -180 to 180, such that phases grow in the
    stated step sign; order 2 lies at exactly twice the frequency. `phases_deg` holds each frame's phase of order 1 at
    the centre of the field; `phases_measured` is False where they are the nominal equal steps.
    """

    angle: int
    frequency_per_um: float
    angle_deg: float
    phases_deg: tuple[float, ...]
    phases_measured: bool
    orders: tuple[OrderEstimate, ...]

    def __post_init__(self) -> None:
        where = f"pattern estimate of angle {self.angle}"
        if not (math.isfinite(self.frequency_per_um) and self.frequency_per_um > 0):
            raise ConfigError(
                f"frequency_per_um is {self.frequency_per_um}", where=where, do="give it in 1/um, above 0"
            )
        if not self.orders or [one.order for one in self.orders] != list(range(1, len(self.orders) + 1)):
            raise ConfigError("its orders are not 1, or 1 and 2", where=where, do="give each order once, in order")

    @property
    def period_um(self) -> float:
        """The stripes' period of order 1."""
        return 1 / self.frequency_per_um

    @property
    def frequency_yx(self) -> tuple[float, float]:
        """The frequency vector (y, x) of order 1 in 1/um."""
        turn = math.radians(self.angle_deg)
        return self.frequency_per_um * math.sin(turn), self.frequency_per_um * math.cos(turn)

    @property
    def trusted(self) -> bool:
        """Whether any of its orders may be used."""
        return any(one.trusted for one in self.orders)

    @property
    def verdict(self) -> str:
        """What is to be said of it, in words."""
        return "; ".join(f"order {one.order}: {one.verdict}" for one in self.orders)


@dataclass(frozen=True, slots=True)
class PatternEstimate:
    """The pattern of one colour as found in `n_slices` raw slices, angle by angle, and what speaks against it.

    `wiener` goes with the light of these slices; it counts only in a slice whose own noise cannot be read.
    `doubts` are sentences about the whole: angles that do not fit each other or what was stated. `notes` are those that
    change no image, as a reversed step sign does not.
    """

    channel: str
    pixel_um: float
    n_slices: int
    angles: tuple[AngleEstimate, ...]
    wiener: float
    electrons: float | None = None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"pattern estimate of channel {self.channel}"
        for name in ("pixel_um", "wiener"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} is {getattr(self, name)}", where=where, do="give a number above 0")
        if [one.angle for one in self.angles] != list(range(len(self.angles))):
            raise ConfigError("its angles are not 0, 1, 2 and so on", where=where, do="give each angle once, in order")

    @property
    def usable(self) -> bool:
        """Whether slices may be reconstructed with it: every angle has an order to trust, and nothing is doubted."""
        return not self.doubts and bool(self.angles) and all(one.trusted for one in self.angles)

    @property
    def verdict(self) -> str:
        """Why it is not usable, or that it is."""
        if self.usable:
            return f"the pattern of {self.channel} is known in all {len(self.angles)} angles"
        dead = [f"angle {one.angle}: {one.verdict}" for one in self.angles if not one.trusted]
        return "; ".join((*self.doubts, *dead)) or "no angle was looked at"

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal value."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "PatternEstimate":
        """Read what `to_json` wrote; ConfigError where the text is none of that."""
        from pydantic import TypeAdapter, ValidationError  # `spheroidd status` needs plans, and no estimate

        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc'])) or 'the text'}: {first['msg']}"
            raise ConfigError(what, where="pattern estimate", do="write it anew with `sim estimate --json`") from error


@dataclass(frozen=True, slots=True)
class SliceModulation:
    """How one raw slice was reconstructed: which angles' stripes were alive in it, and how strong.

    `modulation` is the amplitude used for each angle and order (0 where dead: that angle contributes its widefield
    only); `contrast` is sqrt(R / null): the stripes' amplitude over the noise's, and `alive` where it is certain.
    """

    channel: str
    z: int
    modulation: tuple[tuple[float, ...], ...]
    contrast: tuple[tuple[float, ...], ...]
    alive: tuple[tuple[bool, ...], ...]
    missing_frames: tuple[tuple[int, int], ...] = ()

    @property
    def widefield(self) -> bool:
        """Whether no stripes were alive, so that the slice is what a widefield microscope shows."""
        return not any(any(orders) for orders in self.alive)

    @property
    def compared(self) -> bool:
        """Whether there was a pattern to compare it with: a contrast is 0 exactly where there was none."""
        return any(contrast > 0 for orders in self.contrast for contrast in orders)

    @property
    def method(self) -> Literal["sim", "partial", "widefield"]:
        """sim: an order is alive in every angle; partial: in some; widefield: in none."""
        live = [any(orders) for orders in self.alive]
        if all(live) and live:
            return "sim"
        return "partial" if any(live) else "widefield"


def pattern_from(fields: object) -> SimPattern:
    """A pattern from what `asdict` made of it, by way of JSON or not; ConfigError where that is none."""
    from pydantic import ValidationError

    try:
        return _pattern_adapter().validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'the pattern'}: {first['msg']}"
        raise ConfigError(what, where="raw pattern", do="give the fields of SimPattern") from error


@cache
def _pattern_adapter() -> "TypeAdapter[SimPattern]":
    from pydantic import TypeAdapter

    return TypeAdapter(SimPattern)
