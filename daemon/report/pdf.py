"""The report as PDF pages (A4): the same figures, tables and words as the HTML, painted by reportlab."""

import io
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    KeepTogether,
    PageBreak,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from spheroidd.daemon.report import captions, fonts, tables
from spheroidd.daemon.report import patients as report_patients
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.content import PlateContent
from spheroidd.daemon.report.drawing import GREY, INK, RULE
from spheroidd.daemon.report.pdf_drawing import Figure
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.daemon.report.writer import Figures, Report
from spheroidd.protocols.quality import Verdict

WIDTH, HEIGHT = A4
MARGIN = (WIDTH - 482.0) / 2  # the figures are 482 points wide
COLUMN = 482.0
VERDICT_INK = {Verdict.PASS: "#00795a", Verdict.WARN: "#8a5a00", Verdict.FAIL: "#b3400a", Verdict.UNKNOWN: GREY}
BODY = ParagraphStyle("body", fontName=fonts.PLAIN, fontSize=8.5, leading=11.5, textColor=HexColor(INK))
SMALL = ParagraphStyle("small", BODY, fontSize=7, leading=9.2, textColor=HexColor(GREY))
CELL = ParagraphStyle("cell", BODY, fontSize=6.5, leading=8)
HASH = ParagraphStyle("hash", CELL, fontName=fonts.MONO, fontSize=6.2)
TITLE = ParagraphStyle("title", BODY, fontName=fonts.BOLD, fontSize=19, leading=23)
HEAD = ParagraphStyle("head", BODY, fontName=fonts.BOLD, fontSize=14, leading=18, spaceBefore=6, spaceAfter=2)
SECTION = ParagraphStyle("section", BODY, fontName=fonts.BOLD, fontSize=10, leading=13, spaceBefore=16, spaceAfter=5)
LOUD = ParagraphStyle("loud", BODY, backColor=HexColor("#fff3d6"), borderColor=HexColor("#e69f00"), borderWidth=1.2)
LOUD.borderPadding = 7
LOUD.spaceBefore = LOUD.spaceAfter = 12
RULES = TableStyle(
    [
        ("LINEABOVE", (0, 0), (-1, 0), 0.9, HexColor(INK)),
        ("LINEBELOW", (0, 0), (-1, 0), 0.5, HexColor(INK)),
        ("LINEBELOW", (0, 1), (-1, -1), 0.25, HexColor(RULE)),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
        ("FONT", (0, 0), (-1, -1), fonts.PLAIN, 6.5, 8),
        ("FONT", (0, 0), (-1, 0), fonts.BOLD, 6.5, 8),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 5),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ]
)


def to_pdf(report: Report) -> bytes:
    """The report as the bytes of a PDF file."""
    out = io.BytesIO()
    document = BaseDocTemplate(
        out,
        pagesize=A4,
        title=report.title,
        author=f"spheroidd {report.version}",
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=52,
        bottomMargin=56,
        lang="en",
    )
    frame = Frame(MARGIN, 56, COLUMN, HEIGHT - 108, 0, 0, 0, 0)
    document.addPageTemplates(PageTemplate("page", frame))
    document.build(_story(report), canvasmaker=_numbered(f"{report.title} · {report.byline}"))
    return out.getvalue()


def _story(report: Report) -> list[Flowable]:
    several = len(report.plates) > 1
    story: list[Flowable] = [
        _text("Viability and dose response", SMALL),
        _text(report.title, TITLE),
        _text(report.byline, SMALL),
        Spacer(0, 8),
    ]
    numbers = (count(1), count(1))  # of figures and tables
    if several:
        story += _overview(report, *numbers)
    story += _across_patients(report, numbers[1])
    for plate in report.plates:
        story += [PageBreak()] if several else []
        story += [_text(f"Plate {plate.name}", HEAD)] if several else []
        story += _plate(plate, *numbers)
    return [*story, *_section("This report"), _facts(report.facts)]


def _overview(report: Report, figures: "count[int]", table_numbers: "count[int]") -> list[Flowable]:
    rows = [tables.OVERVIEW_COLUMNS, *tables.overview_rows(report.plates)]
    cells = [[_text(cell, CELL if place else _CELL_HEAD) for cell in row] for place, row in enumerate(rows)]
    table = Table(cells, colWidths=[80, 92, 120, 42, 56, 46, 46], repeatRows=1, style=RULES)
    heading = _caption(f"Table {next(table_numbers)}.", captions.overview())
    forest = [Figure(sheet) for sheet in Figures.screen(report.plates)]
    below = [_caption(f"Figure {next(figures)}.", captions.forest())] if forest else []
    return [*_section("Overview"), heading, table, Spacer(0, 10), *forest, *below]


def _across_patients(report: Report, table_numbers: "count[int]") -> list[Flowable]:
    """Compounds across patients: numbers in one row, and under them in words what is known, where there is more."""
    found = Figures.patients(report)
    if not found:
        return []
    rows: list[list[Any]] = [[_text(name, _CELL_HEAD) for name in report_patients.COLUMNS]]
    style = list(RULES.getCommands())
    for row in found:
        rows.append([_text(cell, CELL) for cell in row.cells])
        if row.said:
            rows.append([_text(row.said, _CELL_WORDS), *[""] * (len(row.cells) - 1)])
            at = len(rows) - 1
            style += [("SPAN", (0, at), (-1, at)), ("NOSPLIT", (0, at - 1), (0, at))]
    widths = [52, 84, 58, 66, 72, 38, 40, 48, 24]
    table = Table(rows, colWidths=widths, repeatRows=1, style=style)
    heading = _caption(f"Table {next(table_numbers)}.", captions.patients())
    return [*_section("Across patients"), heading, table, Spacer(0, 10)]


def _plate(plate: PlateContent, figures: "count[int]", table_numbers: "count[int]") -> list[Flowable]:
    def caption(text: str) -> Paragraph:
        return _caption(f"Figure {next(figures)}.", text)

    def heading(text: str) -> Paragraph:
        return _caption(f"Table {next(table_numbers)}.", text)

    story: list[Flowable] = [_text(tables.plate_line(plate), SMALL)]
    if plate.provisional:
        story.append(Paragraph(f"<b>PROVISIONAL</b><br/>{_markup(plate.provisional)}", LOUD))
    story += [_verdict(plate), Spacer(0, 8), _key_figures(plate)]
    maps = [Figure(one) for one in Figures.plate_maps(plate)]
    story += [*_section("The plate"), *maps, caption(captions.maps(plate)), *_section("Controls")]
    strip = Figures.controls_strip(plate)
    if strip is None:
        story.append(_text("No control well of this plate has a figure.", SMALL))
    else:
        story.append(KeepTogether([Figure(strip), caption(captions.controls(plate))]))
    story += _section("Dose response")
    if plate.curves:
        plots = [Figure(Figures.curve_plot(curve)) for curve in plate.curves]
        story += [heading(captions.ic50_table()), _ic50_table(plate), Spacer(0, 10)]
        forest = [Figure(sheet) for sheet in Figures.forest(plate)]
        story += [*forest, caption(captions.forest())] if forest else []
        story.append(_grid(plots, 3))
        story.append(caption(captions.curves(plate)))
    else:
        story.append(_text("No well of this plate holds a compound at a dose.", SMALL))
    story += _section("Example images")
    if plate.pictures:
        story += [_grid([Figure(one) for one in plate.pictures], 2), caption(captions.pictures(plate))]
    story += [_text(f"Not shown: {line}", SMALL) for line in plate.unread]
    story += _section("Findings")
    if plate.quality.flags:
        story += [heading(captions.findings()), _findings(plate)]
    else:
        story.append(_text("Nothing stands out in the images or the figures of this plate.", SMALL))
    story += [*_section("Wells"), heading(captions.wells()), _wells(plate.imaged)]
    return [*story, *_section(f"Provenance of plate {plate.name}"), _facts(plate.facts)]


def _verdict(plate: PlateContent) -> Flowable:
    quality = plate.quality
    head = ParagraphStyle("verdict", BODY, fontName=fonts.BOLD, fontSize=11, leading=15)
    head.textColor = HexColor(VERDICT_INK[quality.verdict])
    lines = [_text(words.VERDICTS[quality.verdict], head)]
    lines += [_text(words.sentence(reason), BODY) for reason in quality.reasons]
    style = [("LINEBEFORE", (0, 0), (0, -1), 2.5, HexColor(VERDICT_INK[quality.verdict])), *_TIGHT]
    return Table([[line] for line in lines], colWidths=[COLUMN], style=[*style, ("LEFTPADDING", (0, 0), (-1, -1), 9)])


_TIGHT: list[Any] = [
    ("TOPPADDING", (0, 0), (-1, -1), 1),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
]


def _key_figures(plate: PlateContent) -> Flowable:
    figures = list(tables.key_figures(plate.quality))
    value = ParagraphStyle("value", BODY, fontSize=13, leading=16)
    rows = [
        [_text(name, SMALL) for name, _, _ in figures],
        [_text(shown, value) for _, shown, _ in figures],
        [_text(note, SMALL) for _, _, note in figures],
    ]
    line = ("LINEABOVE", (0, 0), (-1, 0), 0.4, HexColor(RULE))
    return Table(rows, colWidths=[COLUMN / len(figures)] * len(figures), style=[line, *_TIGHT])


def _grid(figures: Sequence[Flowable], across: int) -> Flowable:
    """Figures in rows, which a page may part."""
    rows: list[list[Any]] = [list(figures[n : n + across]) for n in range(0, len(figures), across)]
    rows[-1] += [""] * (across - len(rows[-1]))
    style = [*_TIGHT, ("RIGHTPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 8)]
    return Table(rows, colWidths=[COLUMN / across] * across, style=style)


def _ic50_table(plate: PlateContent) -> Flowable:
    """Numbers in one row, and under them in words what is known, where that is more than the numbers."""
    names = ["Compound", *(["Patient"] if plate.patients else [])]
    rows: list[list[Any]] = [[_text(name, _CELL_HEAD) for name in (*names, *tables.IC50_COLUMNS)]]
    style = list(RULES.getCommands())
    for row in tables.ic50_rows(plate.curves):
        labels = [row.compound, *([row.patient] if plate.patients else [])]
        rows.append([*(_text(label, CELL) for label in labels), *row.numbers])
        rows.append([_text(row.said, _CELL_WORDS), *[""] * (len(rows[0]) - 1)])
        at = len(rows) - 1
        style += [("SPAN", (0, at), (-1, at)), ("NOSPLIT", (0, at - 1), (0, at))]
        style.append(("LINEBELOW", (0, at - 1), (-1, at - 1), 0.25, HexColor("#ffffff")))
        style.append(("TOPPADDING", (0, at), (-1, at), 0))
    numbers = [52, 58, 48, 58, 24, 27, 31, 27, 28, 17, 30]
    room = (COLUMN - sum(numbers)) / len(names)
    return Table(rows, colWidths=[*([room] * len(names)), *numbers], repeatRows=1, style=style)


_CELL_WORDS = ParagraphStyle("cell words", CELL, textColor=HexColor(GREY))
_CELL_HEAD = ParagraphStyle("cell head", CELL, fontName=fonts.BOLD)


def _findings(plate: PlateContent) -> Flowable:
    rows = [tables.FINDING_COLUMNS, *tables.finding_rows(plate.quality.flags)]
    cells = [[_text(cell, CELL if place else _CELL_HEAD) for cell in row] for place, row in enumerate(rows)]
    return Table(cells, colWidths=[66, 38, 90, 160, 128], repeatRows=1, style=RULES)


def _wells(entries: Sequence[WellEntry]) -> Flowable:
    columns, found = tables.well_table(entries)
    rows: list[list[Any]] = [[_text(column.head, _CELL_HEAD) for column in columns]]
    for row in found:
        cells = zip(row.cells, columns, strict=True)
        rows.append([_text(cell, CELL) if column.kind in ("name", "words") else cell for cell, column in cells])
    widths = [column.width for column in columns]
    widths[-1] += COLUMN - sum(widths)
    return Table(rows, colWidths=widths, repeatRows=1, style=RULES)


def _facts(facts: Iterable[tuple[str, str]]) -> Flowable:
    hashes = ("SHA", "Audit", "Command")
    rows = [[_text(n, SMALL), _text(v, HASH if any(h in n for h in hashes) else CELL)] for n, v in facts]
    lines = ("LINEBELOW", (0, 0), (-1, -1), 0.25, HexColor(RULE))
    return Table(rows, colWidths=[120, COLUMN - 120], style=[*_TIGHT, lines])


def _section(name: str) -> list[Flowable]:
    """A heading that no page ends with."""
    return [CondPageBreak(110), _text(name, SECTION)]


def _caption(number: str, text: str) -> Paragraph:
    style = ParagraphStyle("caption", SMALL, spaceBefore=4, spaceAfter=5)
    return Paragraph(f'<font name="{fonts.BOLD}" color="{INK}">{number}</font> {_markup(text)}', style)


def _text(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(_markup(text, style.fontName), style)


def _markup(text: str, font: str = fonts.PLAIN) -> str:
    """Any text as a paragraph's markup: escaped, and each letter in a font that has it."""
    pieces = (
        escape(piece) if name == font else f'<font name="{name}">{escape(piece)}</font>'
        for piece, name in fonts.runs(text, font)
    )
    return "".join(pieces)


def _numbered(foot: str) -> type[Canvas]:
    """A canvas whose pages end with `foot` and "page n of m": m is known only when all pages are there."""

    class Numbered(Canvas):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._held: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            self._held.append(dict(self.__dict__))
            self._startPage()  # type: ignore[attr-defined]

        def save(self) -> None:
            for number, page in enumerate(self._held, start=1):
                self.__dict__.update(page)
                _footer(self, foot, f"page {number} of {len(self._held)}")
                super().showPage()
            super().save()

    return Numbered


def _footer(canvas: Canvas, left: str, right: str) -> None:
    canvas.saveState()
    canvas.setFillColor(HexColor(GREY))
    canvas.setStrokeColor(HexColor(RULE))
    canvas.setLineWidth(0.4)
    canvas.line(MARGIN, 44, WIDTH - MARGIN, 44)
    at = MARGIN
    for piece, name in fonts.runs(left):
        canvas.setFont(name, 6.5)
        canvas.drawString(at, 34, piece)
        at += canvas.stringWidth(piece, name, 6.5)
    canvas.setFont(fonts.PLAIN, 6.5)
    canvas.drawRightString(WIDTH - MARGIN, 34, right)
    canvas.restoreState()
