"""How the report says things: numbers, statuses, times. What is not known is said, never shown as a number."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from spheroidd.protocols.dose import CurveStatus, DoseResponseFit
from spheroidd.protocols.phrase import phrase
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.quality import Verdict
from spheroidd.protocols.results import WellStatus

UNKNOWN = "—"
VERDICTS = {verdict: phrase(f"verdict-{verdict.value}") for verdict in Verdict}
METRICS = {
    "v_control": "viability, % of untreated",
    "v_count": "live cells, fraction",
    "v_score": "viability score, % of untreated",
    "live_um3": "live volume, µm³",
}
WELL_STATES = {status: phrase(f"well-{status.value}") for status in WellStatus}
ROLES = {role: phrase(f"role-{role.value}") for role in WellRole}


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many significant digits, without an exponent where a reader can do without.

    >>> number(0.012345), number(1234.5), number(100.0), number(2.5e-6), number(None)
    ('0.0123', '1230', '100', '2.5e-06', '—')
    """
    if value is None:
        return UNKNOWN
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:.8f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def fixed(value: float | None, places: int = 1, unit: str = "") -> str:
    """A figure with so many places after the point."""
    return UNKNOWN if value is None else f"{value:.{places}f}{unit}"


def dose(value: float | None) -> str:
    """A dose with its unit."""
    return UNKNOWN if value is None else f"{number(value)} µM"


def treatment(of: Treatment) -> str:
    """A treatment in a few words."""
    if of.role is WellRole.SAMPLE and of.compound is not None:
        return phrase("compound-at", compound=of.compound, dose=dose(of.dose_um))
    return ROLES[of.role]


class Ic50(NamedTuple):
    """The IC50 that a figure shows: the relative one, or the absolute where only that is known."""

    absolute: bool
    um: float
    low_um: float | None
    high_um: float | None


def known_ic50(fit: DoseResponseFit) -> Ic50 | None:
    """The IC50 to show; None where none is known."""
    if fit.ic50_rel is not None:
        return Ic50(False, fit.ic50_rel, fit.ic50_rel_lo, fit.ic50_rel_hi)
    if fit.ic50_abs is not None:
        return Ic50(True, fit.ic50_abs, fit.ic50_abs_lo, fit.ic50_abs_hi)
    return None


def estimate(value: float | None) -> str:
    """An estimate with three significant digits, zeros kept.

    >>> estimate(2.0), estimate(0.16), estimate(1163.0), estimate(2.5e-6)
    ('2.00', '0.160', '1160', '2.50e-06')
    """
    if value is None:
        return UNKNOWN
    if value == 0 or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}"
    places = 2 - math.floor(math.log10(abs(float(f"{value:.3g}"))))
    return f"{round(value, places):.{max(places, 0)}f}"


def interval(low: float | None, high: float | None) -> str:
    """The two ends of an interval; an end that the profile does not close is open."""
    if low is None and high is None:
        return UNKNOWN
    ends = (phrase("open") if end is None else estimate(end) for end in (low, high))
    return phrase("limits", **dict(zip(("low", "high"), ends, strict=True)))


def ic50(fit: DoseResponseFit, doses_um: tuple[float, ...]) -> str:
    """The IC50 with its unit, or what is known instead of it; `doses_um` are those tested, without 0."""
    found = known_ic50(fit)
    if found is not None:
        said = f"{estimate(found.um)} µM"
        said = phrase("absolute", value=said) if found.absolute else said
        return phrase("about", value=said) if fit.status is CurveStatus.APPROXIMATE else said
    return censored(fit, doses_um)


def censored(fit: DoseResponseFit, doses_um: tuple[float, ...]) -> str:
    """What is known where there is no IC50."""
    instead, unknown = fit.words.instead, phrase("curve-failed-instead")
    if instead in ("<", ">"):
        bound = min if instead == "<" else max
        return f"{instead} {dose(bound(doses_um))}" if doses_um else unknown
    return instead or unknown


def moment(seconds: float | None) -> str:
    """A time since 1970, in UTC."""
    return UNKNOWN if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def span(first: float, last: float) -> str:
    """Two times since 1970, in UTC; the day once where it is the same.

    >>> span(0, 3600)
    '1970-01-01 00:00 to 01:00 UTC'
    """
    began, ended = moment(first), moment(last)
    same_day = began[:10] == ended[:10]
    return f"{began.removesuffix(' UTC')} to {ended[11:] if same_day else ended}"


def listed(names: tuple[str, ...], most: int = 12) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def notes(annotations: Mapping[str, str]) -> str:
    """Further columns of the plate map that a well has: "passage 12; lot 7"."""
    return "; ".join(f"{name} {text}" for name, text in annotations.items()) or UNKNOWN


def shortened(text: str, letters: int) -> str:
    """A text that is cut where it would run out of its place."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def probability(p: float | None) -> str:
    """A p-value, as papers write it."""
    return UNKNOWN if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def sentence(text: str) -> str:
    """A message of another part of the program as a sentence: a capital, a full stop, micromolar as it is printed."""
    text = text.replace(" uM", " µM")
    return text if not text else text[0].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
