"""Where a plate lies under the microscope: from wells that a person has centred to the stage position of every well.

A plate is rigid, so two wells give its place, its rotation and, as a check, its scale: stage micrometres are plate
micrometres, and another scale means another plate or another well. Three and more wells contradict each other where
one was mistaken, and show whether an axis of the stage runs against the plate's.
"""

import cmath
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_format import PlateFormat, Point
from spheroidd.protocols.well import WellId

MAX_SCALE_ERROR = 0.01  # half of what a mistake by one well makes of the longest side of a 1536-well plate
MAX_TILT_DEG = 5.0  # of a plate in its holder; two wells tell a mirrored axis from a turned plate by this alone
FARTHEST_UM = 1e8  # no stage goes 100 m
LINE_SHARE = 0.02  # wells whose spread to the side is less than this share of their length lie on one line
Fit = Literal["similarity", "affine"]
Points = NDArray[np.float64]  # (n, 2)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The affine map from the plate's axes (from A01's centre) to the stage's: stage = matrix @ plate + offset.

    `residuals_um` says how far each taught well lies from where the map has it.
    """

    matrix: tuple[Point, Point]
    offset_um: Point
    residuals_um: tuple[tuple[WellId, float], ...] = ()

    @property
    def rotation_deg(self) -> float:
        """By how much a row of the plate is turned against the stage's x axis, -180 to 180."""
        return math.degrees(math.atan2(self.matrix[1][0], self.matrix[0][0]))

    @property
    def scale(self) -> float:
        """Stage micrometres for one of the plate's; the geometric mean of both axes."""
        return math.sqrt(abs(self._determinant))

    @property
    def mirrored(self) -> bool:
        """Whether one axis of the stage runs against the plate's, as where y counts upwards and rows downwards."""
        return self._determinant < 0

    @property
    def worst_um(self) -> float:
        """The largest residual."""
        return max((residual for _, residual in self.residuals_um), default=0.0)

    @property
    def _determinant(self) -> float:
        (a, b), (c, d) = self.matrix
        return a * d - b * c

    def direction_um(self, x_um: float, y_um: float) -> Point:
        """A distance on the plate as a distance of the stage."""
        (a, b), (c, d) = self.matrix
        return a * x_um + b * y_um, c * x_um + d * y_um

    def stage_um(self, x_um: float, y_um: float) -> Point:
        """Where the stage stands over a place of the plate."""
        x, y = self.direction_um(x_um, y_um)
        return self.offset_um[0] + x, self.offset_um[1] + y

    def plate_direction_um(self, x_um: float, y_um: float) -> Point:
        """A distance of the stage as a distance on the plate."""
        (a, b), (c, d) = self.matrix
        return (d * x_um - b * y_um) / self._determinant, (a * y_um - c * x_um) / self._determinant

    def plate_um(self, x_um: float, y_um: float) -> Point:
        """Which place of the plate lies under the lens at a stage position."""
        return self.plate_direction_um(x_um - self.offset_um[0], y_um - self.offset_um[1])


def calibrate(
    plate: PlateFormat,
    taught: Mapping[WellId, Point],
    *,
    fit: Fit = "similarity",
    mirrored: bool | None = None,
    tolerance_um: float = 100.0,
) -> Calibration:
    """The map that fits the taught wells (well -> stage position over its centre) best, by least squares.

    "similarity" knows offset, rotation, one scale and, where `mirrored` is None, finds out whether an axis is mirrored;
    "affine" allows the axes a scale of their own and needs three wells that are not on one line. ConfigError where the
    wells do not determine the map or contradict each other by more than `tolerance_um`.
    """
    if len(taught) < 2:
        what = f"{len(taught)} taught {'well' if len(taught) == 1 else 'wells'} cannot tell how the plate is turned"
        raise ConfigError(what, do="centre two or three wells far apart, and write where the stage stands for each")
    if not all(abs(value) <= FARTHEST_UM for position in taught.values() for value in position):
        raise ConfigError("a taught position is no number of micrometres", do="write [x, y] as the stage shows it")
    on_plate = np.array([plate.centre_um(well) for well in taught])
    on_stage = np.array([taught[well] for well in taught])
    if fit == "affine":
        found = _affine(on_plate, on_stage)
        if mirrored is not None and found.mirrored != mirrored:
            raise ConfigError(f"the taught wells say mirrored = {str(found.mirrored).lower()}", do="correct mirrored")
    else:
        found = _similarity(plate, on_plate, on_stage, mirrored)
    distances = (math.dist(found.stage_um(*p), s) for p, s in zip(on_plate, on_stage, strict=True))
    found = Calibration(found.matrix, found.offset_um, tuple(zip(taught, distances, strict=True)))
    _check_agreement(found, tolerance_um)
    _check_scale(found, plate)
    return found


def _similarity(plate: PlateFormat, on_plate: Points, on_stage: Points, mirrored: bool | None) -> Calibration:
    """The best of the rigid maps with a scale; ConfigError where two wells leave open whether an axis is mirrored."""
    if mirrored is not None:
        return _rigid(on_plate, on_stage, mirrored)[0]
    (direct, error), (flipped, flipped_error) = (_rigid(on_plate, on_stage, flip) for flip in (False, True))
    if not _on_a_line(on_plate):
        return direct if error <= flipped_error else flipped
    _check_scale(direct, plate)  # both have the same, and wells that were confused show in it
    likely = [one for one in (direct, flipped) if _tilt_deg(one) <= MAX_TILT_DEG]
    if len(likely) != 1:
        what = "the taught wells lie on one line and do not tell whether an axis of the stage is mirrored"
        raise ConfigError(what, do="teach a third well beside that line, or write mirrored = true or false")
    return likely[0]


def _rigid(on_plate: Points, on_stage: Points, mirrored: bool) -> tuple[Calibration, float]:
    """Least squares in the complex plane, stage = a * plate + b, and the sum of its squared errors.

    With both sides centred, a = sum(conj(p) * s) / sum(|p|^2); mirroring is the conjugate of p.
    """
    plate = on_plate @ (1, -1j if mirrored else 1j)
    stage = on_stage @ (1, 1j)
    centred_plate, centred_stage = plate - plate.mean(), stage - stage.mean()
    a = complex(np.vdot(centred_plate, centred_stage) / np.vdot(centred_plate, centred_plate).real)
    b = complex(stage.mean() - a * plate.mean())
    error = float(np.sum(np.abs(centred_stage - a * centred_plate) ** 2))
    sign = -1 if mirrored else 1
    return Calibration(((a.real, -sign * a.imag), (a.imag, sign * a.real)), (b.real, b.imag)), error


def _affine(on_plate: Points, on_stage: Points) -> Calibration:
    if len(on_plate) < 3 or _on_a_line(on_plate):
        what = "an affine fit needs three wells that do not lie on one line"
        raise ConfigError(what, do='teach more wells, or write fit = "similarity"')
    design = np.column_stack([on_plate, np.ones(len(on_plate))])
    (xx, xy), (yx, yy), (x0, y0) = np.linalg.lstsq(design, on_stage)[0].tolist()
    return Calibration(((xx, yx), (xy, yy)), (x0, y0))


def _on_a_line(points: Points) -> bool:
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(spread[1] <= LINE_SHARE * spread[0])


def _tilt_deg(calibration: Calibration) -> float:
    """How far a plate's rows are turned from the stage's x axis, in whichever direction x counts."""
    return abs(math.degrees(cmath.phase(cmath.exp(2j * math.radians(calibration.rotation_deg))))) / 2


def _check_agreement(found: Calibration, tolerance_um: float) -> None:
    if found.worst_um <= tolerance_um:
        return
    each = ", ".join(f"{well} by {residual:.0f}" for well, residual in found.residuals_um)
    what = f"the taught wells contradict each other: off the best fit in um are {each}; {tolerance_um:g} are allowed"
    raise ConfigError(what, do="centre these wells again, and see that each has the name of the well that was centred")


def _check_scale(found: Calibration, plate: PlateFormat) -> None:
    scales: Sequence[float] = np.linalg.svd(np.array(found.matrix), compute_uv=False).tolist()
    wrong = [scale for scale in scales if abs(scale - 1) > MAX_SCALE_ERROR]
    if not wrong:
        return
    what = f"the taught wells stand {wrong[0]:.4g} times as far apart as on a plate {plate.name}"
    do = "see that the wells' names and the plate are right, and that positions are in um; teach wells far apart"
    raise ConfigError(what, do=do)
