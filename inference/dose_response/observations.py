"""The observations of a dose-response curve: checked once, so that nobody checks again."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spheroidd.inference.dose_response.log_logistic import Floats, LogLogistic
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.phrase import phrase

LEAST_DOSE_UM = 1e-30  # below it, and above its reciprocal, is a mistake and not a dose
LARGEST_RESPONSE = 1e100  # can still be squared


@dataclass(frozen=True, slots=True)
class Curve:
    """What one curve is fitted to: equally long sequences, one entry a well.

    Untreated wells have dose 0. `responses` may be NaN where a well is missing. `weights` multiply squared residuals: a
    mean of n wells has weight n. `control` is the response that counts as 100 %: of an untreated well (100 for
    V_control), or of the full effect where the curve rises. None takes the fitted upper plateau for it. `dose_unit` is
    for what is said of the doses; None where nobody knows it.
    """

    name: str
    doses_um: ArrayLike
    responses: ArrayLike
    weights: ArrayLike | None = None
    control: float | None = None
    dose_unit: str | None = "uM"


@dataclass(frozen=True, slots=True)
class Observations:
    """The usable ones of a curve, all (n,) and finite. `missing` counts those left out."""

    name: str
    doses_um: Floats
    responses: Floats
    weights: Floats
    control: float | None
    missing: int
    dose_unit: str | None = "uM"

    @classmethod
    def of(cls, curve: Curve) -> "Observations":
        """Check a curve; ConfigError where its numbers cannot be right."""
        where = f"curve {curve.name!r}" if curve.name else "the curve"
        doses, responses = _numbers(curve.doses_um, "doses", where), _numbers(curve.responses, "responses", where)
        weights = np.ones(len(doses)) if curve.weights is None else _numbers(curve.weights, "weights", where)
        if not len(doses) == len(responses) == len(weights):
            lengths = f"{len(doses)} doses, {len(responses)} responses and {len(weights)} weights"
            raise ConfigError(lengths, where=where, do="give one of each for every well")
        wrong = doses[(doses < 0) | (doses > 1 / LEAST_DOSE_UM) | ((doses > 0) & (doses < LEAST_DOSE_UM))]
        if len(wrong):
            do = "give doses of 0 or more, not their logarithms (10^x of them); 0 is an untreated well"
            raise ConfigError(f"a dose is {wrong[0]:g}", where=where, do=do)
        if (weights < 0).any() or not np.isfinite(weights).all():
            raise ConfigError("a weight is below 0 or not finite", where=where, do="give weights of 0 or more")
        if curve.control is not None and not 0 < curve.control < math.inf:
            raise ConfigError(f"the control's response is {curve.control}", where=where, do="give a number above 0")
        if (np.abs(responses[np.isfinite(responses)]) > LARGEST_RESPONSE).any():
            raise ConfigError(f"a response is {np.nanmax(np.abs(responses)):g}", where=where, do="check its unit")
        usable = np.isfinite(doses) & np.isfinite(responses) & (weights > 0)
        missing = int((~usable).sum())
        kept = doses[usable], responses[usable], weights[usable]
        return cls(curve.name, *kept, curve.control, missing, curve.dose_unit)

    @property
    def dosed_um(self) -> Floats:
        """The different doses above 0, rising."""
        return np.unique(self.doses_um[self.doses_um > 0])

    @property
    def range_um(self) -> tuple[float, float]:
        """Lowest and highest dose above 0."""
        return float(self.dosed_um[0]), float(self.dosed_um[-1])

    def mean_at(self, dose_um: float) -> float | None:
        """The weighted mean response of the wells with this dose."""
        here = self.doses_um == dose_um
        return float(np.average(self.responses[here], weights=self.weights[here])) if here.any() else None

    def dose_means(self) -> Floats:
        """The weighted mean response at each of `dosed_um`."""
        return np.array([self.mean_at(dose) for dose in self.dosed_um])

    def too_few_for(self, model: LogLogistic) -> str | None:
        """Why this model cannot be fitted to them, or None."""
        need, levels, dosed = len(model.free), len(np.unique(self.doses_um)), len(self.dosed_um)
        if len(self.doses_um) <= need:
            n, least = str(len(self.doses_um)), str(need + 1)
            return phrase("curve-few-values", n=n, model=model.name, least=least)
        if dosed < 2 or levels < need:
            return phrase("curve-few-doses", n=str(dosed), model=model.name, least=str(need))
        return None


def _numbers(values: ArrayLike, what: str, where: str) -> Floats:
    try:
        return np.ravel(np.asarray(values, float))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the {what} are not all numbers: {error}", where=where, do="give numbers") from None
