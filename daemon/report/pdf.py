"""The report as PDF pages (A4): the same figures, tables and words as the HTML, painted by reportlab."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, assert_never
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

from spheroidd.daemon.report import fonts
from spheroidd.daemon.report.document import (
    Block,
    FactsBlock,
    FigureBlock,
    KeyFigures,
    Note,
    Notice,
    Report,
    ShownSection,
    TableBlock,
    VerdictBox,
    is_machine_text,
)
from spheroidd.daemon.report.drawing import GREY, INK, RULE
from spheroidd.daemon.report.pdf_drawing import LEAST, Figure
from spheroidd.daemon.report.sections import chapters
from spheroidd.protocols.quality import Verdict

WIDTH, HEIGHT = A4
MARGIN = (WIDTH - 482.0) / 2  # the figures are 482 points wide
BOTTOM = 56.0
COLUMN, FRAME = 482.0, HEIGHT - 108
VERDICT_INK = {Verdict.PASS: "#00795a", Verdict.WARN: "#8a5a00", Verdict.FAIL: "#b3400a", Verdict.UNKNOWN: GREY}


def _style(name: str, size: float, leading: float, parent: ParagraphStyle | None = None, **more: Any) -> ParagraphStyle:
    """Sizes as of Helvetica; a word is never broken but where a column is narrower than the word itself."""
    return ParagraphStyle(name, parent, fontSize=fonts.SIZE * size, leading=leading, **more)


BODY = _style("body", 8.5, 11.5, fontName=fonts.PLAIN, textColor=HexColor(INK))
SMALL = _style("small", 7, 9.2, BODY, textColor=HexColor(GREY))
CELL = _style("cell", 6.5, 8, BODY)
HASH = _style("hash", 6.2, 8, CELL)
TITLE = _style("title", 19, 23, BODY, fontName=fonts.BOLD)
HEAD = _style("head", 14, 18, BODY, fontName=fonts.BOLD, spaceBefore=6, spaceAfter=2)
SECTION = _style("section", 10, 13, BODY, fontName=fonts.BOLD, spaceBefore=16, spaceAfter=5)
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
        ("FONT", (0, 0), (-1, -1), fonts.PLAIN, CELL.fontSize, 8),
        ("FONT", (0, 0), (-1, 0), fonts.BOLD, CELL.fontSize, 8),
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
        bottomMargin=BOTTOM,
        lang="en",
        initialFontName=fonts.PLAIN,  # else each page would name Helvetica, without one letter of it
    )
    frame = Frame(MARGIN, BOTTOM, COLUMN, FRAME, 0, 0, 0, 0)
    document.addPageTemplates(PageTemplate("page", frame))
    document.build(_story(report), canvasmaker=_numbered(f"{report.title} · {report.byline}"))
    return out.getvalue()


def _story(report: Report) -> list[Flowable]:
    story: list[Flowable] = [
        _text("Viability and dose response", SMALL),
        _text(report.title, _fitting(report.title)),
        _text(report.byline, SMALL),
        Spacer(0, 8),
    ]
    numbers = Numbers(count(1), count(1))
    for chapter in chapters(report):
        if chapter.heading:
            apart = PageBreak() if chapter.page_of_its_own else CondPageBreak(FRAME / 3)
            story += [apart, _text(chapter.heading, HEAD)]
        for section in chapter.sections:
            story += _section(section) if section.heading else []
            for block in section.blocks:
                story += _set(block, numbers)
    return story


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers that the next figure and the next table get."""

    figures: "count[int]"
    tables: "count[int]"


def _set(block: Block, numbers: Numbers) -> list[Flowable]:
    """One block as what a page takes."""
    match block:
        case Note():
            return [_text(block.text, SMALL)]
        case Notice():
            return [Paragraph(f"<b>{_markup(block.head.upper())}</b><br/>{_markup(block.text)}", LOUD)]
        case VerdictBox():
            return [_verdict(block), Spacer(0, 8)]
        case KeyFigures():
            return [_key_figures(block)]
        case FigureBlock():
            return _figure(block, _caption(f"Figure {next(numbers.figures)}.", block.caption))
        case TableBlock():
            return [_caption(f"Table {next(numbers.tables)}.", block.caption), _table(block), Spacer(0, 10)]
        case FactsBlock():
            return [_facts(block)]
        case _:
            assert_never(block)


def _verdict(block: VerdictBox) -> Flowable:
    head = _style("verdict", 11, 15, BODY, fontName=fonts.BOLD)
    head.textColor = HexColor(VERDICT_INK[block.verdict])
    lines = [_text(block.head, head), *(_text(reason, BODY) for reason in block.reasons)]
    style = [("LINEBEFORE", (0, 0), (0, -1), 2.5, HexColor(VERDICT_INK[block.verdict])), *_TIGHT]
    return Table([[line] for line in lines], colWidths=[COLUMN], style=[*style, ("LEFTPADDING", (0, 0), (-1, -1), 9)])


_TIGHT: list[Any] = [
    ("FONT", (0, 0), (-1, -1), fonts.PLAIN),
    ("TOPPADDING", (0, 0), (-1, -1), 1),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
]


def _key_figures(block: KeyFigures) -> Flowable:
    value = _style("value", 13, 16, BODY)
    rows = [
        [_text(name, SMALL) for name, _, _ in block.figures],
        [_text(shown, value) for _, shown, _ in block.figures],
        [_text(note, SMALL) for _, _, note in block.figures],
    ]
    line = ("LINEABOVE", (0, 0), (-1, 0), 0.4, HexColor(RULE))
    return Table(rows, colWidths=[COLUMN / len(block.figures)] * len(block.figures), style=[line, *_TIGHT])


def _figure(block: FigureBlock, caption: Flowable) -> list[Flowable]:
    """A single drawing stays with its caption; several may be parted by a page's end."""
    drawings: list[Flowable] = [Figure(drawing) for drawing in block.drawings]
    if block.across > 1:
        return [_grid(drawings, block.across, caption)]
    return [KeepTogether([*drawings, caption])] if len(drawings) == 1 else [*drawings, caption]


def _grid(figures: Sequence[Flowable], across: int, caption: Flowable) -> Flowable:
    """Figures in rows, which a page may part; the last one stays with the caption."""
    rows: list[list[Any]] = [list(figures[n : n + across]) for n in range(0, len(figures), across)]
    rows[-1] += [""] * (across - len(rows[-1]))
    rows.append([caption, *[""] * (across - 1)])
    keep = [("SPAN", (0, -1), (-1, -1)), ("NOSPLIT", (0, -2), (0, -1))]
    style = [*keep, *_TIGHT, ("RIGHTPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 8)]
    return Table(rows, colWidths=[COLUMN / across] * across, style=style)


_CELL_WORDS = ParagraphStyle("cell words", CELL, textColor=HexColor(GREY))
_CELL_HEAD = ParagraphStyle("cell head", CELL, fontName=fonts.BOLD)


def _table(block: TableBlock) -> Flowable:
    """Cells in one row, and under them across its whole width the note on it, where there is one."""
    rows: list[list[Any]] = [[_text(column.head, _CELL_HEAD) for column in block.columns]]
    style = list(RULES.getCommands())
    for row in block.rows:
        cells = zip(row.cells, block.columns, strict=True)
        # a number needs no paragraph, and a plate of 1536 wells has thousands of them
        rows.append([cell if column.kind == "number" else _text(cell, CELL) for cell, column in cells])
        if row.note:
            rows.append([_text(row.note, _CELL_WORDS), *[""] * (len(row.cells) - 1)])
            at = len(rows) - 1
            style += [("SPAN", (0, at), (-1, at)), ("NOSPLIT", (0, at - 1), (0, at))]
            style.append(("LINEBELOW", (0, at - 1), (-1, at - 1), 0.25, HexColor("#ffffff")))
            style.append(("TOPPADDING", (0, at), (-1, at), 0))
    return Table(rows, colWidths=_widths(block), repeatRows=1, style=style)


def _widths(block: TableBlock) -> list[float]:
    """Columns as wide as their longest word, and what is left for those whose cells would like to be wider, then for
    heads that would like to stand in two lines.

    Where the words alone are too wide for the page, every column gives way alike.
    """
    least, cells_wish, heads_wish = [], [], []
    for place, column in enumerate(block.columns):
        cells = [*{row.cells[place] for row in block.rows}]
        head = max(_room(word, fonts.BOLD) for word in column.head.split() or [""])
        whole = column.kind == "number"  # is set in one line
        least.append(max(head, *(_room(part) for cell in cells for part in ([cell] if whole else cell.split())), 0.0))
        wanted = max(least[-1], min(WIDEST, max((_room(cell) for cell in cells), default=0.0)))
        cells_wish.append(wanted - least[-1])
        heads_wish.append(max(0.0, HEAD_SHARE * _room(column.head, fonts.BOLD) - wanted))
    if sum(least) >= COLUMN:
        return [COLUMN * width / sum(least) for width in least]
    widths = least
    for wishes in (cells_wish, heads_wish):
        spare = COLUMN - sum(widths)
        share = min(1.0, spare / sum(wishes)) if sum(wishes) else 0.0
        widths = [a + share * more for a, more in zip(widths, wishes, strict=True)]
    widths[-1] += COLUMN - sum(widths)
    return widths


HEAD_SHARE = 0.6  # of a head's length, so that two lines hold its words
WIDEST = 200.0  # of a column of sentences, as long as others need room
_PADDING = 5.0  # right of every cell; see RULES
_ROUNDING = 0.1


def _room(text: str, font: str = fonts.PLAIN) -> float:
    return fonts.width(text, CELL.fontSize, font) + _PADDING + _ROUNDING if text else 0.0


def _facts(block: FactsBlock) -> Flowable:
    rows = [[_text(name, SMALL), _text(v, HASH if is_machine_text(name) else CELL)] for name, v in block.facts]
    lines = ("LINEBELOW", (0, 0), (-1, -1), 0.25, HexColor(RULE))
    return Table(rows, colWidths=[120, COLUMN - 120], style=[*_TIGHT, lines])


def _fitting(title: str) -> ParagraphStyle:
    """The title's style, smaller where its longest word would be broken at the column's edge."""
    longest = max(fonts.width(word, TITLE.fontSize, fonts.BOLD) for word in title.split() or [""])
    return (
        TITLE if longest < COLUMN else ParagraphStyle("long title", TITLE, fontSize=TITLE.fontSize * COLUMN / longest)
    )


def _section(section: ShownSection) -> list[Flowable]:
    """A heading that no page ends with, nor leaves a figure that it belongs to."""
    first, room = section.blocks[0], 110.0
    if isinstance(first, FigureBlock) and first.across == 1:
        figure = first.drawings[0]
        height = figure.height * min(1.0, COLUMN / figure.width)
        room = max(room, min(FRAME / 3, (height if len(first.drawings) == 1 else LEAST * height) + 60))
    return [CondPageBreak(room), _text(section.heading, SECTION)]


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
        canvas.setFont(name, CELL.fontSize)
        canvas.drawString(at, 34, piece)
        at += canvas.stringWidth(piece, name, CELL.fontSize)
    canvas.setFont(fonts.PLAIN, CELL.fontSize)
    canvas.drawRightString(WIDTH - MARGIN, 34, right)
    canvas.restoreState()
