"""Dose response: from doses and responses to an IC50 with its interval, or to the reason why there is none.

`fit_curve` fits one curve, `fit_many` a screen at once; `predict` and `band` draw a fit. The functions are R drc's
(`log_logistic`), the search is `variable_projection`, the intervals are `profile`, and `curve_status` says when an IC50
may be told. Wells of one patient are not independent of each other, and plates differ: give every patient and plate a
curve of its own and combine the IC50s on the logarithm.

Untreated wells are rows of dose 0 and take part in the fit. An IC50 that is None is unknown, never 0.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from spheroidd.inference.dose_response import log_logistic
from spheroidd.inference.dose_response.batch_fit import CurveBatch
from spheroidd.inference.dose_response.log_logistic import Floats, LogLogistic
from spheroidd.inference.dose_response.observations import Curve, Observations
from spheroidd.inference.dose_response.status import classify_curves, failed
from spheroidd.protocols.dose import DoseResponseFit
from spheroidd.protocols.errors import ConfigError

__all__ = ["Curve", "band", "fit_curve", "fit_many", "predict", "standard_errors"]

BATCH = 128  # curves that are fitted together: some 100 MB of profile points


def fit_curve(
    doses_um: ArrayLike,
    responses: ArrayLike,
    *,
    name: str = "",
    model: str = "LL.4",
    weights: ArrayLike | None = None,
    robust: bool = False,
    increasing: bool = False,
    control: float | None = None,
    bottom: float | None = None,
    top: float | None = None,
    auc_range_um: tuple[float, float] | None = None,
) -> DoseResponseFit:
    """Fit one curve; `Curve` and `fit_many` say what the arguments are.

    >>> doses = [0, 0, 0.1, 0.1, 1, 1, 10, 10, 100, 100]
    >>> fit = fit_curve(doses, [101, 99, 98, 95, 90, 92, 51, 48, 9, 12], name="compound", control=100)
    >>> fit.status.value, round(fit.ic50_abs)
    ('ok', 10)
    >>> fit_curve(doses, [101, 99, 98, 103, 99, 101, 96, 102, 100, 99]).reason
    'no effect of the dose was shown (p = 0.95 with 10 values)'
    """
    curve = Curve(name, doses_um, responses, weights, control)
    return fit_many(
        [curve], model=model, robust=robust, increasing=increasing, bottom=bottom, top=top, auc_range_um=auc_range_um
    )[0]


def fit_many(
    curves: Iterable[Curve],
    *,
    model: str = "LL.4",
    robust: bool = False,
    increasing: bool = False,
    bottom: float | None = None,
    top: float | None = None,
    pooled_variance: bool = False,
    auc_range_um: tuple[float, float] | None = None,
) -> list[DoseResponseFit]:
    """Fit every curve; the answers are in the order given.

    - `model`: LL.4, LL.3 (lower plateau 0, or `bottom`) or LL.5. `bottom` and `top` hold a plateau at a response.
    - `robust`: Huber's loss, scaled by the median absolute residual.
    - `increasing`: the response rises with the dose.
    - `pooled_variance`: one residual variance for all curves, as R drc has it for curves of one experiment.
    - `auc_range_um`: the doses between which `auc`, the mean fitted response over ln dose, is taken. By default the
      range that all curves have in common, or each one's own where there is none.

    Raises ConfigError for a dose below 0 or infinite, for sequences of different lengths, for weights below 0.
    """
    kind = LogLogistic(model, increasing, bottom, top)
    observed = [Observations.of(curve) for curve in curves]
    failures = [each.too_few_for(kind) for each in observed]
    usable = [i for i, failure in enumerate(failures) if failure is None]
    area_um = _auc_range([observed[i] for i in usable], auc_range_um)
    chunks = [usable[i : i + BATCH] for i in range(0, len(usable), BATCH)]
    batches = [CurveBatch.fitted(kind, [observed[i] for i in chunk], robust=robust) for chunk in chunks]
    if pooled_variance and batches:
        _pool(batches)
    fitted = dict(zip(usable, (fit for batch in batches for fit in classify_curves(batch, area_um)), strict=True))
    return [fitted[i] if i in fitted else failed(each, failures[i] or "") for i, each in enumerate(observed)]


def predict(fit: DoseResponseFit, doses_um: ArrayLike) -> Floats:
    """The fitted response at doses of 0 or more, in their shape; ConfigError where there is no fit to draw."""
    if not fit.parameters:
        raise ConfigError(f"no curve was fitted: {fit.reason}", where=fit.name, do="draw its points only")
    return log_logistic.value(fit.parameters, doses_um)


def band(fit: DoseResponseFit, doses_um: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Pointwise confidence limits of the fitted response at the doses: (low, high), each in their shape.

    By the delta method with Student's t: good enough to draw; the limits of the IC50s come from the profile. NaN where
    the data do not determine the parameters.
    """
    middle = predict(fit, doses_um)
    if fit.covariance is None or not fit.residual_df:
        return np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    slopes = log_logistic.jacobian(fit.parameters, doses_um)[..., : len(fit.parameters)]
    variance = np.einsum("...i,ij,...j->...", slopes, np.array(fit.covariance), slopes)
    half = stats.t.isf((1 - level) / 2, fit.residual_df) * np.sqrt(np.maximum(variance, 0))
    return middle - half, middle + half


def standard_errors(fit: DoseResponseFit) -> dict[str, float]:
    """Of the parameters that were estimated, by name; empty where the data do not determine them."""
    if fit.covariance is None:
        return {}
    variances = zip(fit.parameters, np.diag(np.array(fit.covariance)), strict=True)
    return {name: math.sqrt(variance) for name, variance in variances if variance > 0}


def _auc_range(observed: Sequence[Observations], given: tuple[float, float] | None) -> tuple[float, float] | None:
    """The doses of every curve's area, or None for each curve's own."""
    if given is not None:
        if not 0 < given[0] < given[1] < math.inf:
            raise ConfigError(f"auc_range_um is {given}", do="give a lower and a higher dose, both above 0")
        return given
    low = max((each.range_um[0] for each in observed), default=0.0)
    high = min((each.range_um[1] for each in observed), default=0.0)
    return (low, high) if low < high else None


def _pool(batches: Sequence[CurveBatch]) -> None:
    df = sum(float(batch.df.sum()) for batch in batches)
    variance = sum(float((batch.variance * batch.df).sum()) for batch in batches) / df
    for batch in batches:
        batch.variance, batch.df = np.full_like(batch.variance, variance), np.full_like(batch.df, df)
