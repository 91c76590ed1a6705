"""What looks like a slip in a table of doses and responses: said beside the fits, because it may be meant."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from spheroidd.daemon.analysis.fit_table import TableCurve
from spheroidd.protocols.errors import ConfigError

SHARES = 2.0  # responses up to this are shares where the full scale is a percent
PERCENT = 20.0  # the least full scale that is taken for percents, or for readings
TOO_LARGE = 20.0  # times the full scale: no assay shows that much
_FEW = 4  # distinct values by chance


def table_doubts(curves: Sequence[TableCurve], full_scale: float | None) -> list[tuple[str, ...]]:
    """What to ask about each curve, in words. ConfigError where the full scale cannot be that of the responses."""
    scale = _scale_doubt(curves, full_scale)
    spelled = Counter(_plain(name) for name in {curve.name for curve in curves})
    return [
        tuple(doubt for doubt in (scale, _twice(curve), _other_case(curve, curves, spelled)) if doubt)
        for curve in curves
    ]


def _scale_doubt(curves: Sequence[TableCurve], full_scale: float | None) -> str | None:
    """A full scale of 100 beside shares makes all dead, one of 1 beside percents nothing ever."""
    responses = np.concatenate([np.asarray(curve.responses, float) for curve in curves]) if curves else np.array([])
    known = responses[np.isfinite(responses)]
    if full_scale is None or full_scale <= 0 or not known.size:
        return None
    largest = float(known.max())
    if largest > TOO_LARGE * full_scale:
        what = f"a response of {largest:g} is more than {TOO_LARGE:g} times the full scale of {full_scale:g}"
        raise ConfigError(what, do="give the response that is 100 % as --full-scale, or leave it out")
    if full_scale >= PERCENT and largest <= SHARES:
        return f"no response is above {largest:g} of a full scale of {full_scale:g}: of shares it is --full-scale 1"
    return None


def _twice(curve: TableCurve) -> str | None:
    """A table that was pasted twice has twice the values and limits that are too narrow."""
    pairs = Counter((d, r) for d, r in zip(curve.doses, curve.responses, strict=True) if np.isfinite(r))
    if len({response for _, response in pairs}) < _FEW or any(count % 2 for count in pairs.values()):
        return None
    return "every observation stands twice: if the table holds its rows twice, the limits are too narrow"


def _other_case(curve: TableCurve, curves: Sequence[TableCurve], spelled: Counter[str]) -> str | None:
    if spelled[_plain(curve.name)] < 2:
        return None
    others = dict.fromkeys(one.name for one in curves if _plain(one.name) == _plain(curve.name))
    return f"{' and '.join(map(repr, others))} differ only in case or blanks: if they are one, write it the same"


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
