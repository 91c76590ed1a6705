"""How the report says things: numbers, statuses, times. What is not known is said, never shown as a number."""

from datetime import UTC, datetime

from spheroidd.daemon.results import UNKNOWN
from spheroidd.protocols.dose import CurveStatus, DoseResponseFit
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.quality import Verdict
from spheroidd.protocols.results import WellStatus

VERDICTS = {
    Verdict.PASS: "Pass",
    Verdict.WARN: "Pass with reservations",
    Verdict.FAIL: "Fail",
    Verdict.UNKNOWN: "Not judged",
}
STATUSES = {
    CurveStatus.OK: "IC50 known",
    CurveStatus.APPROXIMATE: "approximate: the interval is wider than tenfold",
    CurveStatus.INACTIVE: "inactive: no effect that could be placed",
    CurveStatus.ALL_DEAD: "dead at every dose",
    CurveStatus.CENSORED_LOW: "below the lowest dose",
    CurveStatus.CENSORED_HIGH: "above the highest dose",
    CurveStatus.FAILED: "no curve could be fitted",
}
METRICS = {
    "v_control": "viability, % of untreated",
    "v_count": "live cells, fraction",
    "v_score": "viability score, % of untreated",
    "live_um3": "live volume, µm³",
}
WELL_STATES = {
    WellStatus.QUEUED: "not imaged yet",
    WellStatus.ACQUIRING: "being imaged",
    WellStatus.STORED: "waits for the model",
    WellStatus.SCORING: "being scored",
    WellStatus.PROVISIONAL: "provisional",
    WellStatus.FINAL: "final",
    WellStatus.FAILED: "failed",
    WellStatus.INCOMPLETE: "incomplete",
}


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
    if of.role is WellRole.SAMPLE:
        return "sample" if of.compound is None else f"{of.compound}, {dose(of.dose_um)}"
    return ROLES[of.role]


ROLES = {
    WellRole.NEGATIVE_CONTROL: "untreated",
    WellRole.POSITIVE_CONTROL: "killed",
    WellRole.EMPTY: "empty",
    WellRole.SAMPLE: "sample",
}


def interval(low: float | None, high: float | None) -> str:
    """The two ends of an interval; an end that the profile does not close is open."""
    if low is None and high is None:
        return UNKNOWN
    return f"{'open' if low is None else number(low)} to {'open' if high is None else number(high)}"


def ic50(fit: DoseResponseFit, doses_um: tuple[float, ...]) -> str:
    """The relative IC50 with its unit, or what is known instead of it; `doses_um` are those tested, without 0."""
    lowest, highest = (min(doses_um), max(doses_um)) if doses_um else (None, None)
    match fit.status:
        case CurveStatus.OK if fit.ic50_rel is not None:
            return dose(fit.ic50_rel)
        case CurveStatus.APPROXIMATE if fit.ic50_rel is not None:
            return f"about {dose(fit.ic50_rel)}"
        case CurveStatus.CENSORED_LOW | CurveStatus.ALL_DEAD if lowest is not None:
            return f"< {dose(lowest)}"
        case CurveStatus.CENSORED_HIGH if highest is not None:
            return f"> {dose(highest)}"
        case CurveStatus.INACTIVE:
            return "no effect"
    return "not known"


def moment(seconds: float | None) -> str:
    """A time since 1970, in UTC."""
    return UNKNOWN if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def listed(names: tuple[str, ...], most: int = 12) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def shortened(text: str, letters: int) -> str:
    """A text that is cut where it would run out of its place."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def probability(p: float | None) -> str:
    """A p-value, as papers write it."""
    return UNKNOWN if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def sentence(text: str) -> str:
    """A message as a sentence: a capital and a full stop."""
    return text if not text else text[0].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
