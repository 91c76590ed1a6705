"""What the page shows of a plate and of a well, as plain data: looked up in the catalog, coloured as in the report."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.heatmap import plate_format, viridis
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.phrase import as_data, constant
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.quality import PlateQuality, QualityFlag, Verdict
from spheroidd.protocols.result_columns import Place, seen_in
from spheroidd.protocols.results import WellResult, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import Trust, meaning
from spheroidd.protocols.well import WellId

JSON = dict[str, Any]
SCALE_END = 150.0  # percent of untreated: it stays, so that no colour changes as wells come in, and 100 is not the end
BRIGHT = 0.179  # relative luminance above which black is read better than white: always with 4.5 : 1 (WCAG 2.2, 1.4.3)
# What a well with several stacks shows: whatever still moves, then whatever went wrong, and last what was left out.
_FIRST = (
    WellStatus.ACQUIRING,
    WellStatus.SCORING,
    WellStatus.STORED,
    WellStatus.FAILED,
    WellStatus.INCOMPLETE,
    WellStatus.STOPPED,
    WellStatus.QUEUED,
    WellStatus.PROVISIONAL,
    WellStatus.FINAL,
    WellStatus.SKIPPED,
    WellStatus.ABORTED,
)
_LETTERS = {WellRole.NEGATIVE_CONTROL: "U", WellRole.POSITIVE_CONTROL: "K"}
_BAD = (Verdict.WARN, Verdict.FAIL)


def entries(catalog: CatalogReader, plate: str, flags: tuple[QualityFlag, ...] = ()) -> dict[WellId, WellEntry]:
    """Every well of a plate's map with its results, flags and exclusion; ConfigError for a plate there is not."""
    plate_map = catalog.plate_map(plate)
    excluded = catalog.wells_left_out(plate)
    results: dict[str, list[WellResult]] = {}
    for row in catalog.rows_under_way(plate):
        results.setdefault(row.result.well, []).append(row.result)
    by_well = flags_by_well(flags)
    return {
        one.well: WellEntry(
            one.well,
            one.treatment,
            tuple(results.get(str(one.well), ())),
            tuple(by_well.get(str(one.well), ())),
            excluded.get(str(one.well)),
            one.annotations,
        )
        for one in plate_map
    }


def flags_by_well(flags: tuple[QualityFlag, ...]) -> dict[str, list[QualityFlag]]:
    """The flags that name each well, by the well's name."""
    found: dict[str, list[QualityFlag]] = {}
    for flag in flags:
        for well in flag.wells:
            found.setdefault(well, []).append(flag)
    return found


def plate_view(catalog: CatalogReader, plate: str, quality: PlateQuality | None) -> JSON:
    """The plate as the page draws it; `quality` may be that of a moment ago."""
    found = entries(catalog, plate, quality.flags if quality else ())
    shown = {well: entry for well, entry in found.items() if entry.treatment.role is not WellRole.EMPTY}
    focus = focus_of(catalog, plate)
    top_um3 = top_of(entry.figure("live_um3") for entry in shown.values())
    around = surroundings(plate, found, top_um3, focus, [s for e in shown.values() for s in latencies_of(e)], quality)
    return around | {"wells": [cell(entry, top_um3, focus) for entry in shown.values()]}


def top_of(volumes_um3: Iterable[float | None]) -> float:
    """The volume at the end of the scale."""
    return max((value for value in volumes_um3 if value is not None), default=1.0) or 1.0


def latencies_of(entry: WellEntry) -> tuple[float, ...]:
    """How long the well's rows took."""
    return tuple(result.latency_s for result in entry.results if result.latency_s is not None)


def surroundings(
    plate: str,
    wells: Iterable[WellId],
    top_um3: float,
    focus: Mapping[WellId, float],
    latencies: Sequence[float],
    quality: PlateQuality | None,
) -> JSON:
    """All of the view but its wells."""
    rows, columns = plate_format(wells)
    return {
        "plate": plate,
        "rows": [WellId(row, 0).row_name for row in range(rows)],
        "columns": columns,
        "tops": {"viability": SCALE_END, "volume": top_um3 / 1000},
        "focus_um": [min(focus.values()), max(focus.values())] if focus else None,
        "scale": [viridis(n / 16) for n in range(17)],
        "latency_s": [statistics.median(latencies), max(latencies)] if latencies else None,
        "quality": _quality(quality),
    }


def cell(entry: WellEntry, top_um3: float, focus: Mapping[WellId, float]) -> JSON:
    """One well of the view."""
    return _cell(entry, top_um3) | ({"focus": _focus_figure(focus.get(entry.well), focus)} if focus else {})


def _cell(entry: WellEntry, top_um3: float) -> JSON:
    state = state_of(entry)
    bad = [flag for flag in entry.own_flags if flag.verdict in _BAD]
    trust = entry.trust
    return {
        "well": str(entry.well),
        "row": entry.well.row,
        "column": entry.well.column,
        "letter": _LETTERS.get(entry.treatment.role, ""),
        "state": state.value if state else "queued",
        "flagged": bool(bad) or trust in (Trust.CHECK, Trust.FAIL),
        "trust": trust.value if trust else "",
        "excluded": entry.excluded is not None,
        "viability": _figure(entry.figure("v_control"), SCALE_END, 1.0),
        "volume": _figure(entry.figure("live_um3"), top_um3, 1e-3),
        "compound": entry.treatment.compound,
        "dose_um": entry.treatment.dose_um,
        "dose": words.number(entry.treatment.dose_um) if entry.treatment.dose_um is not None else "",
        "patient": entry.treatment.patient,
        "role": entry.treatment.role.value,
        "words": [
            as_data(words.treatment(entry.treatment)),
            *map(as_data, entry.told or [words.WELL_STATES[WellStatus.QUEUED]]),
        ],
    }


def state_of(entry: WellEntry) -> WellStatus | None:
    """One state for a well; None where nothing was planned for it yet."""
    states = {result.status for result in entry.results}
    return next((state for state in _FIRST if state in states), None)


def _figure(value: float | None, top: float, scale: float) -> list[str] | None:
    """The figure as it stands in a cell, the cell's colour and that of the figure; None where it is not known."""
    if value is None:
        return None
    colour = viridis(value / top)
    return [f"{value * scale:.0f}", colour, "#000000" if luminance(colour) > BRIGHT else "#ffffff"]


def focus_of(catalog: CatalogReader, plate: str) -> dict[WellId, float]:
    """Where the focus of each well's first field was found, in micrometres of the focus stage."""
    found = {one.key: one.focus_z_um for one in catalog.focus_map(plate) if one.focus_z_um is not None}
    return {key.well: found[key] for key in sorted(found, key=lambda key: -key.stack)}


def _focus_figure(z_um: float | None, focus: Mapping[WellId, float]) -> list[str] | None:
    """As `_figure`, from the lowest well to the highest."""
    if z_um is None:
        return None
    low_um, high_um = min(focus.values()), max(focus.values())
    colour = viridis((z_um - low_um) / max(high_um - low_um, 1.0))
    return [f"{z_um:.1f}", colour, "#000000" if luminance(colour) > BRIGHT else "#ffffff"]


def luminance(colour: str) -> float:
    """The relative luminance of an sRGB colour "#rrggbb", 0 to 1 (WCAG 2.2)."""
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _quality(quality: PlateQuality | None) -> JSON | None:
    if quality is None:
        return None
    return {
        "verdict": as_data(words.VERDICTS[quality.verdict]),
        "code": quality.verdict.value,
        "reasons": [as_data(reason) for reason in quality.reasons],
        "z_prime": quality.z_prime,
        "control_cv": quality.control_cv,
        "findings": [
            {**_finding(flag.what, flag.do), "wells": list(flag.wells)}
            for flag in quality.flags
            if flag.verdict in _BAD
        ],
    }


def well_view(catalog: CatalogReader, plate: str, well: WellId, quality: PlateQuality | None) -> JSON:
    """All that is known of one well; ConfigError for a well that is not on the plate's map."""
    found = entries(catalog, plate, quality.flags if quality else ()).get(well)
    if found is None:
        raise ConfigError(f"plate {plate} has no well {well}", do="choose one of its map")
    states = {row.key: row for row in catalog.stacks(plate) if row.key.well == well}
    stacks = []
    for result in found.results:
        row = states.get(StackKey(plate, well, result.stack))
        stacks.append(
            {
                "stack": result.stack,
                "state": result.status.value,
                "reason": as_data(result.why) or None,
                "done": result.n_slices_acked,
                "total": result.n_slices_expected,
                "figures": _figures(result),
                "flags": [_finding(one.meaning, one.do) for one in map(meaning, result.trust_flags or ())],
                "opened_s": row.opened_s if row else None,
                "history": _history(catalog, StackKey(plate, well, result.stack)),
                "n_z": row.plan.n_z if row else 0,
                "raw": row is not None and row.plan.raw is not None,
            }
        )
    return {
        "plate": plate,
        "well": str(well),
        "path": f"{plate}.ome.zarr/{well.row_name}/{well.column_name}",
        "treatment": as_data(words.treatment(found.treatment)),
        "patient": found.treatment.patient,
        "notes": list(found.annotations.items()),
        "role": found.treatment.role.value,
        "compound": found.treatment.compound,
        "dose_um": found.treatment.dose_um,
        "state": (state_of(found) or WellStatus.QUEUED).value,
        "excluded": f"{found.excluded.reason} ({found.excluded.who})" if found.excluded else None,
        "exclusion_reason": found.excluded.reason if found.excluded else None,
        "flags": [_finding(flag.what, flag.do) for flag in found.own_flags],
        "stacks": stacks,
    }


def _finding(what: str, do: str) -> JSON:
    return {"what": as_data(what), "do": as_data(do)}


def _figures(result: WellResult) -> list[tuple[str, Any]]:
    """Each column's name and its value as a person reads it; what is a share of a whole comes first."""
    figures = sorted(seen_in(Place.PANEL), key=lambda seen: seen[1].unit != "%")
    return [(column.name, as_data(constant(column.in_words(result, unknown=words.UNKNOWN)))) for column, _ in figures]


def _history(catalog: CatalogReader, key: StackKey) -> list[JSON]:
    """The changes of a stack's row, newest first."""
    changes = catalog.result_changes(key)[:-51:-1]
    return [
        {
            "when_s": change.changed_s,
            "why": as_data(constant(change.reason)),
            "status": change.new.get("status"),
            "from": _percent(change.old),
            "to": _percent(change.new),
        }
        for change in changes
    ]


def _percent(row: Mapping[str, Any] | None) -> str:
    return words.UNKNOWN if row is None else words.fixed(row.get("v_control"), 1, " %")
