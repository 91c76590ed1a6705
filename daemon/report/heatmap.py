"""The plate seen from above: a figure of each well, and how far each well can be trusted."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.axes import linear_axis
from spheroidd.daemon.report.drawing import (
    GREY,
    INK,
    ORANGE,
    PALE,
    RULE,
    VERMILLION,
    Box,
    Dot,
    Drawing,
    Line,
    Shape,
    Text,
)
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.result_columns import Origin, Place, Shown, seen_in
from spheroidd.protocols.results import WellResult, WellStatus
from spheroidd.protocols.trust import Trust
from spheroidd.protocols.well import WellId

# Rows and columns of the standard plates (ANSI/SLAS)
FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
SHEET, GAP, MARGIN, TOP = 482.0, 16.0, 13.0, 26.0  # a text column of A4; between maps; for row and column names
LEGEND = 30.0
LARGEST_CELL, LEAST_WIDTH = 36.0, 200.0  # of a map that stands alone; below, its legend would not fit
READABLE = 10.0  # a cell that can hold a number
TRUST_TITLE = "State and quality of each well"
# Seventeen equidistant colours of viridis (public domain); between them straight lines
_VIRIDIS = bytes.fromhex(
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"
)
READY = "#cfe3d8"


def plate_format(wells: Iterable[WellId]) -> tuple[int, int]:
    """Rows and columns of the smallest standard plate that has these wells."""
    rows, columns = (max(side) + 1 for side in zip(*((well.row, well.column) for well in wells), strict=True))
    return next((r, c) for r, c in FORMATS if r >= rows and c >= columns)


def viridis(share: float) -> str:
    """The colour of a share from 0 to 1; outside, that of the nearer end."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) // 3 - 1)
    left = min(int(place), len(_VIRIDIS) // 3 - 2)
    ends = zip(_VIRIDIS[3 * left : 3 * left + 3], _VIRIDIS[3 * left + 3 : 3 * left + 6], strict=True)
    return "#" + bytes(round(a + (b - a) * (place - left)) for a, b in ends).hex()


@dataclass(frozen=True, slots=True)
class Map:
    """One heatmap: what it shows, its figure of a result, the scale's end, and how a figure is written in a cell."""

    title: str
    figure: Callable[[WellResult], float | None]
    top: float
    scale: float
    places: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the wells of one map lie."""

    x: float
    y: float
    cell: float
    rows: int
    columns: int

    def corner(self, well: WellId) -> tuple[float, float]:
        """The upper left corner of a well."""
        return self.x + well.column * self.cell, self.y + well.row * self.cell


def plate_maps(entries: Mapping[WellId, WellEntry]) -> list[Drawing]:
    """Live volume, viability and trust, side by side; below each other on plates with more than 384 wells."""
    rows, columns = plate_format(entries)
    across = 3 if columns <= 24 else 1
    width = (SHEET - (across - 1) * GAP) / across
    cell = min((width - MARGIN) / columns, 30.0)
    volume = Map("Live volume, 10³ µm³", lambda found: found.live_um3, _top(entries, "live_um3", 1.0), 1e-3, 0)
    viability = Map("Viability, % of untreated", lambda found: found.v_control, _top(entries, "v_control", 100.0), 1, 0)
    height = TOP + rows * cell + LEGEND
    sheets = []
    for first in range(0, 3, across):
        shapes: list[Shape] = []
        for place, number in enumerate(range(first, first + across)):
            grid = Grid(place * (width + GAP) + MARGIN, TOP, cell, rows, columns)
            shapes += (
                _trust_map(grid, entries) if number == 2 else _value_map(grid, entries, (volume, viability)[number])
            )
        title = "; ".join((volume.title, viability.title, TRUST_TITLE)[first : first + across])
        sheets.append(Drawing(SHEET, height, title, tuple(shapes)))
    return sheets


METRICS = {
    column.name: column
    for column, _ in seen_in(Place.REPORT)
    if column.kind in ("number", "integer") and column.origin in (Origin.MEASURED, Origin.RELATED)
}
"""The figures of a well that `metric_map` draws, by their names."""


def metric_map(plate: str, entries: Mapping[WellId, WellEntry], metric: str) -> Drawing:
    """One figure of every well, as large as a page is wide, with each well's number where there is room for it.

    Untreated and killed wells carry their letters, excluded ones a cross. ConfigError for a metric there is not.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}", do=f"use one of {', '.join(METRICS)}")
    shown = METRICS[metric].shown or Shown(metric, metric)
    rows, columns = plate_format(entries)
    cell = min((SHEET - MARGIN) / columns, LARGEST_CELL)
    least = 100.0 / shown.scale if shown.unit == "%" else 1.0
    top = _top(entries, metric, least)
    drawn = Map(f"{plate}: {shown.title}", lambda found: getattr(found, metric), top, shown.scale, 0)
    grid = Grid(MARGIN, TOP, cell, rows, columns)
    shapes = [*_value_map(grid, entries, drawn), *_letters(grid, entries), *_crosses(grid, entries)]
    width = max(MARGIN + columns * cell + 1, LEAST_WIDTH)
    paper = Box(0, 0, width, TOP + rows * cell + LEGEND, fill="#ffffff")
    return Drawing(paper.width, paper.height, f"{shown.title} of each well of plate {plate}", (paper, *shapes))


def _letters(grid: Grid, entries: Mapping[WellId, WellEntry]) -> Iterator[Shape]:
    legend_y = grid.y + grid.rows * grid.cell + 20
    yield Text(grid.x, legend_y + 6, "U untreated, K killed, crossed out: excluded", 5.5, ink=GREY)
    if grid.cell < READABLE:
        return
    size = max(3.5, 0.2 * grid.cell)
    for well, entry in entries.items():
        letter = {WellRole.NEGATIVE_CONTROL: "U", WellRole.POSITIVE_CONTROL: "K"}.get(entry.treatment.role)
        if letter:
            x, y = grid.corner(well)
            yield Box(x + 0.04 * grid.cell, y + 0.04 * grid.cell, size * 1.1, size * 1.25, fill="#ffffff")
            yield Text(x + 0.04 * grid.cell + 0.55 * size, y + 0.04 * grid.cell + size, letter, size, "middle", INK)


def _crosses(grid: Grid, entries: Mapping[WellId, WellEntry]) -> Iterator[Shape]:
    """The ends of a cross, which leave the number in the middle to be read."""
    width, near, far = max(0.6, 0.05 * grid.cell), 0.3 * grid.cell, 0.7 * grid.cell
    for well, entry in entries.items():
        if entry.excluded is None:
            continue
        x, y = grid.corner(well)
        right, low = x + grid.cell, y + grid.cell
        for ink, line in (("#ffffff", 2.5 * width), (INK, width)):
            yield Line(x, y, x + near, y + near, ink, line)
            yield Line(x + far, y + far, right, low, ink, line)
            yield Line(x, low, x + near, y + far, ink, line)
            yield Line(x + far, y + near, right, y, ink, line)


def _top(entries: Mapping[WellId, WellEntry], name: str, least: float) -> float:
    """The end of a scale: the largest figure, as long as one well far out does not make all others alike."""
    values = sorted(value for entry in entries.values() if (value := entry.figure(name)) is not None)
    if not values:
        return least
    usual = statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[-1]
    return linear_axis(0, max(least, min(values[-1], 1.5 * usual)), 0, 1, 6).high


def _frame(grid: Grid, title: str, entries: Mapping[WellId, WellEntry]) -> list[Shape]:
    """The map's title, the names of rows and columns, as many as there is room for, and the wells not in use."""
    shapes: list[Shape] = [Text(grid.x, grid.y - 15, title, 7, bold=True)]
    size = min(5.5, max(2.6, 0.75 * grid.cell))
    every = 1 if grid.cell >= 5 else 4
    for row in range(0, grid.rows, every):
        middle = grid.y + (row + 0.5) * grid.cell + 0.35 * size
        shapes.append(Text(grid.x - 2.5, middle, WellId(row, 0).row_name, size, "end", GREY))
    wide = 1 if grid.cell >= 8 else 2 if grid.cell >= 5 else 4
    for column in range(0, grid.columns, wide):
        middle = grid.x + (column + 0.5) * grid.cell
        shapes.append(Text(middle, grid.y - 3, str(column + 1), size, "middle", GREY))
    shapes.append(Box(grid.x, grid.y, grid.columns * grid.cell, grid.rows * grid.cell, ink=RULE))
    used = {well for well, entry in entries.items() if entry.treatment.role is not WellRole.EMPTY}
    for well in (WellId(row, column) for row in range(grid.rows) for column in range(grid.columns)):
        if well not in used:
            x, y = grid.corner(well)
            shapes.append(Dot(x + grid.cell / 2, y + grid.cell / 2, min(0.1 * grid.cell, 1.2), RULE))
    return shapes


def _value_map(grid: Grid, entries: Mapping[WellId, WellEntry], shown: Map) -> list[Shape]:
    shapes = _frame(grid, shown.title, entries)
    inset = 0.04 * grid.cell
    for well, entry in entries.items():
        if entry.treatment.role is WellRole.EMPTY:
            continue
        x, y = grid.corner(well)
        value = entry.median(shown.figure)
        side = grid.cell - 2 * inset
        if value is None:
            shapes += [
                Box(x + inset, y + inset, side, side, fill=PALE, tip=f"{well}: not known; {entry.state_in_words}"),
                Line(x + 0.3 * grid.cell, y + 0.7 * grid.cell, x + 0.7 * grid.cell, y + 0.3 * grid.cell, GREY, 0.5),
            ]
            continue
        share = value / shown.top
        tip = f"{well}, {words.treatment(entry.treatment)}: {value * shown.scale:.{shown.places + 1}f}"
        shapes.append(Box(x + inset, y + inset, side, side, fill=viridis(share), tip=tip))
        if grid.cell >= READABLE:
            ink = "#ffffff" if share < 0.6 else INK
            figure = f"{value * shown.scale:.{shown.places}f}"
            size = min(6.5, 0.36 * grid.cell)
            shapes.append(Text(x + grid.cell / 2, y + grid.cell / 2 + 0.35 * size, figure, size, "middle", ink))
    return shapes + _scale(grid, shown)


def _scale(grid: Grid, shown: Map) -> list[Shape]:
    """The colour scale, with the diagonal that means "not known"."""
    y, width, steps = grid.y + grid.rows * grid.cell + 8, min(100.0, grid.columns * grid.cell * 0.62), 32
    shapes: list[Shape] = [
        Box(
            grid.x + width * n / steps,
            y,
            width / steps + (0.6 if n < steps - 1 else 0),
            5,
            fill=viridis((n + 0.5) / steps),
        )
        for n in range(steps)
    ]
    for share in (0.0, 0.5, 1.0):
        label = words.number(share * shown.top * shown.scale)
        shapes.append(Text(grid.x + share * width, y + 12, label, 5.5, "middle" if share else "start", GREY))
    unknown = grid.x + width + 12
    return [
        *shapes,
        Box(unknown, y, 5, 5, fill=PALE),
        Line(unknown + 1, y + 4, unknown + 4, y + 1, GREY, 0.5),
        Text(unknown + 7.5, y + 4.6, "not known", 5.5, ink=GREY),
    ]


def _trust_map(grid: Grid, entries: Mapping[WellId, WellEntry]) -> list[Shape]:
    shapes = _frame(grid, TRUST_TITLE, entries)
    seen: dict[str, None] = {}
    for well, entry in entries.items():
        if entry.treatment.role is WellRole.EMPTY:
            continue
        kind = trust(entry)
        seen[kind] = None
        x, y = grid.corner(well)
        tip = f"{well}, {words.treatment(entry.treatment)}: {entry.state_in_words}"
        shapes += _trust_cell(x, y, grid.cell, kind, tip)
        letter = {WellRole.NEGATIVE_CONTROL: "U", WellRole.POSITIVE_CONTROL: "K"}.get(entry.treatment.role)
        if letter and kind == "ready":
            size = 0.5 * min(grid.cell, 14)
            shapes.append(Text(x + grid.cell / 2, y + grid.cell / 2 + 0.36 * size, letter, size, "middle", INK))
    return shapes + _trust_legend(grid, [kind for kind in _KINDS if kind in seen])


_KINDS = {
    "ready": "ready",
    "flagged": "flagged",
    "excluded": "excluded",
    "failed": "failed",
    "skipped": "skipped",
    "aborted": "aborted",
    "open": "to come, or may change",
}


def trust(entry: WellEntry) -> str:
    """One word for a well: ready, flagged, excluded, failed, skipped or aborted (by a person), or open (its figures are
    still to come or may change). Of several stacks, one that a person left out says nothing beside the others.
    """
    if entry.excluded is not None:
        return "excluded"
    states = {result.status for result in entry.results}
    if any(state.went_wrong for state in states) or entry.trust is Trust.FAIL:
        return "failed"
    if states and all(state.was_ordered for state in states):
        return "skipped" if WellStatus.SKIPPED in states else "aborted"
    states = {state for state in states if not state.was_ordered}
    if states != {WellStatus.FINAL}:
        return "open"
    return "flagged" if entry.own_flags or entry.trust is Trust.CHECK else "ready"


def _trust_cell(x: float, y: float, cell: float, kind: str, tip: str = "") -> list[Shape]:
    """A mark for each kind besides its colour."""
    inset = 0.04 * cell
    side, near, far = cell - 2 * inset, 0.3 * cell, 0.7 * cell
    fill = _FILLS.get(kind)
    box = Box(x + inset, y + inset, side, side, fill=fill or "#ffffff", ink=None if fill else GREY, tip=tip)
    middle = (x + cell / 2, y + cell / 2)
    width = max(0.5, 0.08 * cell)
    marks: list[Shape] = []
    if kind == "flagged":
        marks = [Dot(*middle, 0.14 * cell, fill=INK)]
    if kind in ("skipped", "aborted"):
        marks = [Line(x + near, middle[1], x + far, middle[1], GREY, width)]
    if kind in ("excluded", "failed"):
        ink = "#ffffff" if kind == "failed" else INK
        marks = [
            Line(x + near, y + near, x + far, y + far, ink, width),
            Line(x + near, y + far, x + far, y + near, ink, width),
        ]
    return [box, *marks]


_FILLS = {"ready": READY, "flagged": ORANGE, "excluded": RULE, "failed": VERMILLION}


def _trust_legend(grid: Grid, kinds: list[str]) -> list[Shape]:
    x, y = grid.x, grid.y + grid.rows * grid.cell + 8
    shapes: list[Shape] = []
    for kind in kinds:
        shapes += [*_trust_cell(x, y - 0.5, 6, kind), Text(x + 8, y + 4.6, _KINDS[kind], 5.5, ink=GREY)]
        x += 14 + 2.9 * len(_KINDS[kind])
    shapes.append(Text(grid.x, y + 12, "U untreated, K killed", 5.5, ink=GREY))
    return shapes
