"""The way over a plate as a picture: a small map for the terminal, and SVG."""

from collections.abc import Iterator
from html import escape

from spheroidd.daemon.planning.dry_run import PlanReport, wells_in_turn
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.plate_format import PlateFormat, Point
from spheroidd.protocols.well import WellId

# Light fills under dark ink, told apart by lightness as well as by hue; the legend says each in words.
FILLS = {
    WellRole.SAMPLE: "#d6e6f5",
    WellRole.NEGATIVE_CONTROL: "#fbe7b2",
    WellRole.POSITIVE_CONTROL: "#e3b8d0",
    WellRole.EMPTY: "#ffffff",
}
INK, PALE, WAY, FAULT = "#333333", "#9a9a9a", "#1b5e9b", "#c62828"
WIDTH_PX = 1000
MARGIN_MM, LEGEND_MM = 9.0, 10.0


def to_text(report: PlanReport, width: int) -> str:
    """The plate with each well's turn; S, o and E (start, between, end) where numbers do not fit `width` columns."""
    turns = {well: str(number) for number, well in enumerate(wells_in_turn(report), start=1)}
    if not turns:
        return "no wells to image"
    plate = _plate(report)
    cell = max(len(str(len(turns))), len(str(plate.columns)))
    names = [WellId(row, 0).row_name for row in range(plate.rows)]
    margin = len(names[-1])
    if margin + plate.columns * (cell + 1) <= width:
        lines = [" " * margin + "".join(f" {column:>{cell}}" for column in range(1, plate.columns + 1))]
        gap, legend = " ", []
    else:
        way = list(turns)
        turns = {**dict.fromkeys(way, "o"), way[-1]: "E", way[0]: "S"}
        lines, gap, cell = [], "", 1
        legend = ["S: first well, E: last well, o: between them, .: not imaged"]
    for row, name in enumerate(names):
        marks = (turns.get(WellId(row, column), ".") for column in range(plate.columns))
        lines.append(f"{name:>{margin}}" + (gap or " ") + gap.join(f"{mark:>{cell}}" for mark in marks))
    return "\n".join([*lines, *legend])


def to_svg(report: PlanReport) -> str:
    """The plate in millimetres, A01 at the top left: wells by role, fields, and the way from the first to the last."""
    plate = _plate(report)
    left, top, width, height = _frame(plate)
    box = f"{left - MARGIN_MM:.2f} {top - MARGIN_MM:.2f} {width + 2 * MARGIN_MM:.2f} "
    box += f"{height + 2 * MARGIN_MM + LEGEND_MM:.2f}"
    title = escape(f"The way over plate {report.plate_map.name}")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{WIDTH_PX}" role="img" '
        'font-family="sans-serif">',
        f"<title>{title}</title>",
        f'<rect x="{left - MARGIN_MM:.2f}" y="{top - MARGIN_MM:.2f}" width="100%" height="100%" fill="#ffffff"/>',
        f'<rect x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" rx="2" fill="#f7f7f7" '
        f'stroke="{PALE}" stroke-width="0.2"/>',
        *_labels(plate),
        *_wells(report, plate),
        *_way(report, plate),
        *_legend(report, left, top + height + MARGIN_MM / 2),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def way_words(report: PlanReport) -> str:
    """How far the stage goes, as the end of a sentence; empty where nobody knows."""
    if (length_um := report.length_um) is None:
        return ""
    return f", {length_um / 1000:.0f} mm of way" if length_um < 1e6 else f", {length_um / 1e6:.2f} m of way"


def _plate(report: PlanReport) -> PlateFormat:
    """The plate's format; a lattice just large enough for its wells where none is known."""
    if report.sites is not None:
        return report.sites.plate
    wells = [entry.well for entry in report.plate_map]
    rows, columns = max(well.row for well in wells) + 1, max(well.column for well in wells) + 1
    return PlateFormat("of no known format", rows, columns, (9000.0, 9000.0), (6400.0, 6400.0))


def _frame(plate: PlateFormat) -> tuple[float, float, float, float]:
    """The plate's left, top, width and height in mm from A01's centre; a pitch around the wells where unknown."""
    if plate.outline_um is not None and plate.a01_from_corner_um is not None:
        (x, y), (width, height) = plate.a01_from_corner_um, plate.outline_um
        return -x / 1000, -y / 1000, width / 1000, height / 1000
    x, y = plate.pitch_um
    return -x / 1000, -y / 1000, x / 1000 * (plate.columns + 1), y / 1000 * (plate.rows + 1)


def _font_mm(plate: PlateFormat) -> float:
    return min(3.2, 0.55 * min(plate.pitch_um) / 1000)


def _labels(plate: PlateFormat) -> Iterator[str]:
    left, top, _, _ = _frame(plate)
    font = _font_mm(plate)
    style = f'font-size="{font:.2f}" fill="{INK}"'
    for column in range(plate.columns):
        x = column * plate.pitch_um[0] / 1000
        yield f'<text x="{x:.3f}" y="{top - 1:.2f}" text-anchor="middle" {style}>{column + 1}</text>'
    for row in range(plate.rows):
        y = row * plate.pitch_um[1] / 1000 + 0.35 * font
        name = WellId(row, 0).row_name
        yield f'<text x="{left - 1:.2f}" y="{y:.3f}" text-anchor="end" {style}>{name}</text>'


def _wells(report: PlanReport, plate: PlateFormat) -> Iterator[str]:
    """Every well, on a tile in its role's colour where it is imaged; in red where a field is out of reach."""
    roles = {entry.well: entry.treatment.role for entry in report.plate_map}
    turns = {well: number for number, well in enumerate(wells_in_turn(report), start=1)}
    faulty = {stop.key.well for stop in report.stops or () if stop.fault}
    width, height = plate.well_um[0] / 1000, plate.well_um[1] / 1000
    tile_x, tile_y = 0.45 * plate.pitch_um[0] / 1000, 0.45 * plate.pitch_um[1] / 1000
    tile = f'width="{2 * tile_x:.3f}" height="{2 * tile_y:.3f}"'
    font = _font_mm(plate) * min(1.0, 3 / len(str(len(turns))))
    for well in plate.wells():
        x, y = (place / 1000 for place in plate.centre_um(well))
        ink, stroke = (FAULT, 0.4) if well in faulty else (PALE, 0.1)
        style = f'fill="{"none" if well in turns else FILLS[WellRole.EMPTY]}" stroke="{ink}" stroke-width="{stroke}"'
        if well in turns:  # a spheroid well's floor is too small to show a colour
            yield f'<rect x="{x - tile_x:.3f}" y="{y - tile_y:.3f}" {tile} fill="{FILLS[roles[well]]}"/>'
        if plate.round_wells:
            yield f'<circle cx="{x:.3f}" cy="{y:.3f}" r="{width / 2:.3f}" {style}/>'
        else:
            corner = f'x="{x - width / 2:.3f}" y="{y - height / 2:.3f}"'
            yield f'<rect {corner} width="{width:.3f}" height="{height:.3f}" {style}/>'
        if well in turns:
            place = f'x="{x - 0.93 * tile_x:.3f}" y="{y - 0.93 * tile_y + 0.55 * font:.3f}"'
            yield f'<text {place} font-size="{0.7 * font:.2f}" fill="{INK}">{turns[well]}</text>'


def _way(report: PlanReport, plate: PlateFormat) -> Iterator[str]:
    places = [_place(report, plate, stop.key.well, stop.key.stack) for stop in report.stops or ()]
    if not places:
        return
    dot = 0.045 * min(plate.pitch_um) / 1000
    points = " ".join(f"{x:.3f},{y:.3f}" for x, y in places)
    yield f'<polyline points="{points}" fill="none" stroke="{WAY}" stroke-width="{dot / 2:.3f}"/>'
    for x, y in places:
        yield f'<circle cx="{x:.3f}" cy="{y:.3f}" r="{dot:.3f}" fill="{WAY}"/>'
    (x, y), (end_x, end_y) = places[0], places[-1]
    ring = f'fill="none" stroke="{WAY}" stroke-width="{dot:.3f}"'
    yield f'<circle cx="{x:.3f}" cy="{y:.3f}" r="{2.5 * dot:.3f}" {ring}/>'
    yield (
        f'<rect x="{end_x - 2.5 * dot:.3f}" y="{end_y - 2.5 * dot:.3f}" width="{5 * dot:.3f}" '
        f'height="{5 * dot:.3f}" {ring}/>'
    )


def _place(report: PlanReport, plate: PlateFormat, well: WellId, field: int) -> Point:
    x, y = plate.centre_um(well)
    dx, dy = report.sites.fields_um[field] if report.sites else (0.0, 0.0)
    return (x + dx) / 1000, (y + dy) / 1000


def _legend(report: PlanReport, left: float, y: float) -> Iterator[str]:
    """What the colours and marks mean, of those that are there."""
    used = {entry.treatment.role for entry in report.plate_map}
    style = f'font-size="2.6" fill="{INK}"'
    x = left
    for role, fill in FILLS.items():
        if role in used and role is not WellRole.EMPTY:
            words = role.value.replace("_", " ")
            swatch = f'width="2.6" height="2.6" fill="{fill}" stroke="{PALE}" stroke-width="0.1"'
            yield f'<rect x="{x:.2f}" y="{y:.2f}" {swatch}/>'
            yield f'<text x="{x + 3.4:.2f}" y="{y + 2.2:.2f}" {style}>{words}</text>'
            x += 6.0 + 1.25 * len(words)
    words = "ring: first, square: last"
    if any(stop.fault for stop in report.stops or ()):
        words += ", red: beyond the stage's limits"
    yield f'<text x="{x:.2f}" y="{y + 2.2:.2f}" {style}>{words}</text>'
    told = f"{len(wells_in_turn(report))} wells, {len(report.stops or ())} stacks{way_words(report)}"
    told = f"plate {report.plate_map.name}, {_plate(report).name}: {told}"
    yield f'<text x="{left:.2f}" y="{y + 7:.2f}" {style}>{escape(told)}</text>'
