"""The log-logistic dose-response functions in R drc's parameters: value, Jacobian, and the dose of a given response.

    y(x) = c + (d - c) / (1 + exp(b (ln x - ln e)))^f

c is the lower and d the upper plateau, e the location, f the asymmetry (1 but in LL.5), and b the slope: above 0 where
the response falls with the dose, below 0 where it rises (Ritz et al. 2015, PLoS ONE 10:e0146021). LL.3 is LL.4 with c
held at 0. In LL.5, e is not the dose halfway between the plateaus; `log_midpoint` is.

Fits move in (ln |b|, ln of the midpoint dose, ln f), where all doses and slopes are positive and the midpoint can be
held; the plateaus are linear and are solved for. Shapes: parameters have one row a curve ("lane"), doses a column each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from spheroidd.protocols.errors import ConfigError

Floats = NDArray[np.float64]

# ln 0 does not exist. In its place stands a number so low that exp(slope * (it - anything)) underflows to exactly 0 at
# every slope that is allowed: an untreated well lies on the plateau itself, with its full weight.
LOG_OF_ZERO = -1e6
MODELS = ("LL.3", "LL.4", "LL.5")
PARAMETERS = ("b", "c", "d", "e", "f")


@dataclass(frozen=True, slots=True)
class LogLogistic:
    """Which of the functions: what is held, and which way it runs. A plateau that is None is estimated."""

    name: str = "LL.4"
    increasing: bool = False
    bottom: float | None = None
    top: float | None = None

    def __post_init__(self) -> None:
        if self.name not in MODELS:
            raise ConfigError(f"there is no dose-response model {self.name!r}", do=f"choose one of {', '.join(MODELS)}")
        for name, value in (("bottom", self.bottom), ("top", self.top)):
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"the {name} of {self.name} is held at {value}", do="hold it at a finite number")
        if self.name == "LL.3" and self.bottom is None:
            object.__setattr__(self, "bottom", 0.0)
        if self.bottom is not None and self.top is not None:
            raise ConfigError(f"{self.name} with both plateaus held", do="leave one of them free")

    @property
    def asymmetric(self) -> bool:
        """Whether f is estimated."""
        return self.name == "LL.5"

    @property
    def holds_a_plateau(self) -> bool:
        """Whether c or d is not estimated."""
        return self.bottom is not None or self.top is not None

    @property
    def sign(self) -> float:
        """Of b: 1 where the response falls with the dose."""
        return -1.0 if self.increasing else 1.0

    @property
    def free(self) -> tuple[str, ...]:
        """The names of the parameters that are estimated, in R drc's order."""
        held = {"c": self.bottom is not None, "d": self.top is not None, "f": not self.asymmetric}
        return tuple(name for name in PARAMETERS if not held.get(name, False))

    @property
    def free_shape(self) -> tuple[int, ...]:
        """Which of (ln |b|, ln midpoint, ln f) are estimated."""
        return (0, 1, 2) if self.asymmetric else (0, 1)


def log_dose(doses: ArrayLike) -> Floats:
    """ln of the doses; LOG_OF_ZERO where a dose is 0."""
    doses = np.asarray(doses, float)
    return np.asarray(np.log(doses, where=doses > 0, out=np.full(doses.shape, LOG_OF_ZERO)))


def _midpoint_offset(log_f: Floats) -> Floats:
    """b (ln midpoint - ln e): where (1 + exp(z))^f = 2."""
    return np.asarray(np.log(np.expm1(math.log(2) * np.exp(-log_f))))


def shape(model: LogLogistic, q: Floats, u: Floats) -> tuple[Floats, Floats, Floats]:
    """The fraction of the way from c to d, s (N, D), its rest 1 - s, and ds/dq (3, N, D) at log doses `u` (N, D).

    `q` (N, 3) is (ln |b|, ln midpoint, ln f). The rest is computed by itself, so that it keeps its digits near 0.
    """
    slope = model.sign * np.exp(q[:, :1])
    run = slope * (u - q[:, 1:2])
    if not model.asymmetric:
        rest = expit(run)
        s = expit(-run)
        fall = -s * rest
        return s, rest, np.stack((fall * run, fall * -slope, np.zeros_like(run)))
    f = np.exp(q[:, 2:3])
    z = run + _midpoint_offset(q[:, 2:3])
    exponent = f * np.logaddexp(0, z)
    s = np.exp(-exponent)
    fall = -f * s * expit(z)
    half_root = math.log(2) / f
    d_offset = -half_root / -np.expm1(-half_root)
    return s, -np.expm1(-exponent), np.stack((fall * run, fall * -slope, fall * d_offset - exponent * s))


def value(parameters: Mapping[str, float], doses: ArrayLike) -> Floats:
    """y at the doses; f is 1 where it is not given.

    >>> value({"b": 2.0, "c": 0.0, "d": 100.0, "e": 1.0}, [0.0, 1.0, 3.0]).round(1).tolist()
    [100.0, 50.0, 10.0]
    """
    s = _fraction(parameters, log_dose(doses))
    return np.asarray(parameters["c"] + (parameters["d"] - parameters["c"]) * s)


def jacobian(parameters: Mapping[str, float], doses: ArrayLike) -> Floats:
    """dy/d(b, c, d, e, f), shape (D, 5)."""
    b, c, d, e = (parameters[name] for name in "bcde")
    f = parameters.get("f", 1.0)
    u = log_dose(doses)
    z = b * (u - math.log(e))
    s = _fraction(parameters, u)
    fall = -(d - c) * f * s * expit(z)
    on_b = fall * (u - math.log(e))
    on_f = -(d - c) * s * np.logaddexp(0, z)
    return np.stack((on_b, 1 - s, s, fall * (-b / e), on_f), axis=-1)


def _fraction(parameters: Mapping[str, float], u: Floats) -> Floats:
    z = parameters["b"] * (u - math.log(parameters["e"]))
    return np.asarray(np.exp(-parameters.get("f", 1.0) * np.logaddexp(0, z)))


def log_midpoint(parameters: Mapping[str, float]) -> float:
    """ln of the dose halfway between the plateaus: R drc's ED50 (relative)."""
    return _log_dose_of_fraction(parameters, 0.5)


def log_dose_at(parameters: Mapping[str, float], response: float) -> float | None:
    """ln of the dose where the curve passes `response`; None where it never does."""
    span = parameters["d"] - parameters["c"]
    fraction = (response - parameters["c"]) / span if span else math.nan
    return _log_dose_of_fraction(parameters, fraction) if 0 < fraction < 1 else None


def _log_dose_of_fraction(parameters: Mapping[str, float], fraction: float) -> float:
    root = -math.log(fraction) / parameters.get("f", 1.0)
    return math.log(parameters["e"]) + (root + math.log(-math.expm1(-root))) / parameters["b"]


def natural(model: LogLogistic, q: Floats, c: float, d: float) -> dict[str, float]:
    """R drc's parameters of one lane: `q` (3,), the plateaus c and d."""
    b = model.sign * math.exp(q[0])
    offset = float(_midpoint_offset(q[2])) if model.asymmetric else 0.0
    parameters = {"b": b, "c": c, "d": d, "e": math.exp(q[1] - offset / b)}
    return parameters | ({"f": math.exp(q[2])} if model.asymmetric else {})
