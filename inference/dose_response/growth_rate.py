"""Growth-rate inhibition: dose response that does not depend on how fast the cells divide (Hafner et al. 2016).

    GR(x) = 2^(log2(n(x) / n0) / log2(n_control / n0)) - 1

n0 is the count at the time of treatment, n(x) and n_control those at the end. 1 grows as the control, 0 does not grow,
below 0 dies. The curve is GR(x) = GR_inf + (1 - GR_inf) / (1 + (x / GEC50)^h), an LL.4 with its top held at 1.
"""

import numpy as np
from numpy.typing import ArrayLike

from spheroidd.inference.dose_response.log_logistic import Floats
from spheroidd.inference.dose_response.observations import Curve
from spheroidd.protocols.errors import ConfigError


def growth_rates(counts: ArrayLike, control_count: float, time_zero_count: ArrayLike) -> Floats:
    """GR values of the counts (or live volumes), in their shape; -1 where nothing is left.

    `time_zero_count` is one for all or one for each count. ConfigError where the control did not grow: there is no GR
    then.

    >>> growth_rates([400, 200, 100, 0], control_count=400, time_zero_count=100).round(2).tolist()
    [1.0, 0.41, 0.0, -1.0]
    """
    counts, start = np.asarray(counts, float), np.asarray(time_zero_count, float)
    if not (np.isfinite(start).all() and (start > 0).all()):
        raise ConfigError(f"a count at time 0 is {start.min():g}", do="give counts above 0")
    if not control_count > start.max():
        what = f"the control has {control_count:g} at the end and {start.max():g} at time 0: it did not grow"
        raise ConfigError(what, do="relate to the untreated control at the end instead (no time-0 counts)")
    if (counts < 0).any():
        raise ConfigError(f"a count is {counts.min():g}", do="give counts of 0 or more")
    with np.errstate(divide="ignore"):
        doublings = np.log2(counts / start) / np.log2(control_count / start)
    return np.asarray(np.exp2(doublings) - 1)


def growth_rate_curve(
    name: str, doses_um: ArrayLike, counts: ArrayLike, time_zero_counts: ArrayLike, control_count: float | None = None
) -> Curve:
    """The GR values of one curve, to be fitted with `top=1`. `time_zero_counts` is one for all or one for each well.

    Of that fit GR50 is `ic50_abs`, GEC50 `ic50_rel`, GR_inf `bottom`, GR_max `e_max`, h `hill` and GR_AOC `1 - auc`.

    `control_count` is the untreated wells' median unless it is given; ConfigError where there are none.
    """
    doses, counts = np.ravel(np.asarray(doses_um, float)), np.ravel(np.asarray(counts, float))
    if control_count is None:
        untreated = counts[(doses == 0) & np.isfinite(counts)]
        if not len(untreated):
            raise ConfigError("there is no untreated well", where=name, do="add rows of dose 0: GR relates to them")
        control_count = float(np.median(untreated))
    return Curve(name, doses, growth_rates(counts, control_count, time_zero_counts), control=1.0)
