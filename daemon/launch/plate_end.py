"""What is said of a plate when it has ended: one line for a person, and whether it has ended at all."""

from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from spheroidd.daemon.analysis.plate_quality import plate_quality
from spheroidd.daemon.catalog.plate_ends import record_end
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.quality import Verdict
from spheroidd.protocols.results import WellStatus

_VERDICTS = {
    Verdict.PASS: "quality pass",
    Verdict.WARN: "quality pass with reservations",
    Verdict.FAIL: "quality FAIL",
    Verdict.UNKNOWN: "quality not judged",
}


def plate_ended(catalog: Catalog, plate: str, began_s: float, now_s: float, time_zone: str | None) -> str | None:
    """Write the end of a plate down with its verdict, and return it; None where wells are left to image or score."""
    rows = catalog.result_rows(plate)
    states = [row.result.status for row in rows]
    if not rows or not all(state.is_over for state in states):
        return None
    verdict = _verdict(catalog, plate, states, sum(row.to_look_at for row in rows), _span(began_s, now_s, time_zone))
    record_end(catalog, plate, verdict, began_s, now_s)
    return verdict


def was_aborted(catalog: Catalog, plate: str) -> bool:
    """Whether a person ended the plate before it was whole."""
    return any(row.result.status is WellStatus.ABORTED for row in catalog.result_rows(plate))


def _verdict(catalog: Catalog, plate: str, states: list[WellStatus], doubtful: int, span: str) -> str:
    quality = plate_quality(catalog, plate)
    scored = sum(state is WellStatus.FINAL for state in states)
    parts = [f"{scored} of {len(states)} wells have a row"]
    n = Counter(states)
    bad = {
        WellStatus.FAILED: f"{n[WellStatus.FAILED]} failed",
        WellStatus.INCOMPLETE: f"{n[WellStatus.INCOMPLETE]} incomplete",
        WellStatus.SKIPPED: f"{n[WellStatus.SKIPPED]} skipped",
        WellStatus.ABORTED: f"{n[WellStatus.ABORTED]} aborted",
    }
    parts += [words for state, words in bad.items() if n[state]]
    parts += [f"{doubtful} to be looked at"] if doubtful else []
    z_prime = "" if quality.z_prime is None else f", Z' {quality.z_prime:.2f}"
    return f"{', '.join(parts)}; {_VERDICTS[quality.verdict]}{z_prime}; {span}"


def _span(began_s: float, ended_s: float, time_zone: str | None) -> str:
    """From when to when, in the lab's zone, or in this computer's; the day once where it is the same."""
    zone = ZoneInfo(time_zone) if time_zone else None
    began, ended = (datetime.fromtimestamp(at, UTC).astimezone(zone) for at in (began_s, ended_s))
    until = f"{ended:%H:%M}" if began.date() == ended.date() else f"{ended:%Y-%m-%d %H:%M}"
    return f"run from {began:%Y-%m-%d %H:%M} until {until} {time_zone or began.tzname()}"
