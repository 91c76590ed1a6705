"""The running order: every section and every block of it stands in the HTML and in the PDF."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from pypdf import PageObject, PdfReader
from reportlab.platypus import SimpleDocTemplate

from spheroidd.daemon.analysis.curves import curve_points
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.report import document, fonts, pdf, sections, series, tables
from spheroidd.daemon.report.content import MOST_SERIES
from spheroidd.daemon.report.document import Block, Column, FigureBlock, Note, Report, Row, Section, TableBlock
from spheroidd.daemon.report.html import to_html
from spheroidd.daemon.report.images import choose
from spheroidd.daemon.report.pdf import BOTTOM, FRAME, MARGIN, SECTION, to_pdf
from spheroidd.daemon.report.sections import AFTER_PLATES, BEFORE_PLATES, PLATE_SECTIONS, chapters
from spheroidd.daemon.report.series import Series
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.daemon.report.writer import gather
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

PATIENTS = ("pt1", "pt2")
HEADINGS = [section.heading for section in (*BEFORE_PLATES, *PLATE_SECTIONS, *AFTER_PLATES) if section.heading]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """Two plates of two patients, the first with one finding and one well with images: no section is empty."""
    data = tmp_path_factory.mktemp("screen") / "data"
    for patient in PATIENTS:
        doses = [plates.sample("drug", dose, patient) for dose in plates.DOSES_UM for _ in range(2)]
        treatments = [*[plates.UNTREATED] * 8, *[plates.KILLED] * 6, *doses]
        wells = plates.plate_map(f"plate-{patient}", {WellId(n // 12, n % 12): of for n, of in enumerate(treatments)})
        live = {}
        for place, one in enumerate(wells):
            alive = {plates.UNTREATED: 1.0, plates.KILLED: 0.03}.get(one.treatment)
            alive = plates.share_alive(one.treatment.dose_um or 0.0, 1.0) if alive is None else alive
            live[one.well] = plates.FULL_UM3 * alive * (0.4 if place == 3 else 1.0 + 0.002 * (place % 5))
        plates.register(data, wells)
        plates.score(data, wells, live)
        entries = [WellEntry(one.well, one.treatment, (result,)) for one, result in _results(data, wells)]
        first = choose(entries)[0]
        plates.store_images(data, wells, plates.plan_of(StackKey(wells.name, first.well)), 1.0)
        with Catalog.read_only(data) as catalog:
            (curve,) = curve_points(catalog, wells.name)
        for _, well, _ in series.chosen(curve)[:2]:
            if WellId.parse(well) != first.well:
                plates.store_images(data, wells, plates.plan_of(StackKey(wells.name, WellId.parse(well))), 0.5)
        plates.store_stripes(data, StackKey(wells.name, first.well))
    with Catalog.read_only(data) as catalog:
        return gather(catalog, data, now_s=1e9, who="Ada")


def _results(data: Path, wells):
    with Catalog.read_only(data) as catalog:
        rows = {result.well: result for result in catalog.results(wells.name)}
    return [(one, rows[str(one.well)]) for one in wells]


@pytest.fixture(scope="module")
def html(report) -> str:
    return to_html(report)


@pytest.fixture(scope="module")
def paper(report) -> PdfReader:
    return PdfReader(io.BytesIO(to_pdf(report)))


@pytest.fixture(scope="module")
def paper_text(paper) -> str:
    return _plain(" ".join(page.extract_text() for page in paper.pages))


def _plain(text: str) -> str:
    """Without white space: a line's end on paper is none in the text."""
    return "".join(text.split())


def large_lines(paper: PdfReader) -> list[str]:
    """The lines that are set as the headings of sections are."""
    found: list[str] = []

    def keep(text: str, _ctm: object, _matrix: object, _font: object, size: float) -> None:
        if size == SECTION.fontSize and text.strip():
            found.append(text.strip())

    for page in paper.pages:
        page.extract_text(visitor_text=keep)
    return found


def blocks(report: Report) -> list[Block]:
    return [block for chapter in chapters(report) for section in chapter.sections for block in section.blocks]


def test_the_running_order_is_this_one():
    assert HEADINGS == [
        "Overview",
        "Across patients",
        "The plate",
        "Controls",
        "Dose response",
        "Example images",
        "Doses in pictures",
        "Structured illumination",
        "Findings",
        "Wells",
        "Provenance",
        "This report",
    ]


def test_the_report_has_every_section_and_every_kind_of_block_but_the_notice(report):
    headings = [section.heading for chapter in chapters(report) for section in chapter.sections]
    assert set(HEADINGS) == set(filter(None, headings))
    assert {type(block) for block in blocks(report)} == set(get_args(Block)) - {document.Notice}


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_section_stands_in_both_documents(report, html, paper_text, heading):
    times = sum(section.heading == heading for chapter in chapters(report) for section in chapter.sections)
    assert html.count(f"<h3>{heading}</h3>") == times
    assert paper_text.count(_plain(heading)) >= times


def test_sections_come_in_the_same_order_in_both_documents(report, html, paper):
    headings = [section.heading for chapter in chapters(report) for section in chapter.sections if section.heading]
    assert re.findall("<h3>(.*?)</h3>", html) == headings
    assert large_lines(paper) == headings


def test_every_caption_stands_on_paper_with_its_number(report, paper_text):
    for kind, name in ((FigureBlock, "Figure"), (TableBlock, "Table")):
        captions = [block.caption for block in blocks(report) if isinstance(block, kind)]
        assert captions
        for number, caption in enumerate(captions, start=1):
            assert f"{name}{number}.{_plain(caption)[:60]}" in paper_text


def test_every_cell_note_and_fact_stands_in_both_documents(report, html, paper_text):
    page = _plain(re.sub("<[^>]*>", "", html).replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">"))
    for block in blocks(report):
        match block:
            case TableBlock():
                texts = [text for row in block.rows for text in (*row.cells, row.note)]
            case document.FactsBlock():
                texts = [text for fact in block.facts for text in fact]
            case document.KeyFigures():
                texts = [text for figure in block.figures for text in figure]
            case document.VerdictBox():
                texts = [block.head, *block.reasons]
            case document.Note():
                texts = [block.text]
            case _:
                texts = []
        for text in texts:
            assert _plain(text) in page
            assert _plain(text) in paper_text


def test_every_photograph_stands_in_both_documents(report, html, paper):
    n_pictures = sum(len(plate.pictures) for plate in report.plates)
    assert n_pictures == 2 * len(PATIENTS)
    n_photographs = html.count("data:image/jpeg")
    assert n_photographs >= n_pictures
    assert sum(len(page.images) for page in paper.pages) == n_photographs


def test_a_new_section_is_one_row_and_needs_neither_document(report, monkeypatch):
    new = Section("Drift", lambda plate: [Note(f"The stage drifted by 3 µm on {plate.name}.")])
    monkeypatch.setattr(sections, "PLATE_SECTIONS", (*PLATE_SECTIONS, new))
    paper = PdfReader(io.BytesIO(to_pdf(report)))
    text = _plain(" ".join(page.extract_text() for page in paper.pages))
    for plate in report.plates:
        assert f"The stage drifted by 3 µm on {plate.name}." in to_html(report)
        assert _plain(f"The stage drifted by 3 µm on {plate.name}.") in text


def test_a_section_with_nothing_to_show_leaves_no_heading(report, monkeypatch):
    monkeypatch.setattr(sections, "AFTER_PLATES", (Section("This report", lambda _: []),))
    assert "This report" not in to_html(report)


def test_an_unknown_kind_of_block_is_refused_by_both_documents(report, monkeypatch):
    section = Section("This report", lambda _: [object()])  # type: ignore[list-item,return-value]
    monkeypatch.setattr(sections, "AFTER_PLATES", (section,))
    with pytest.raises(AttributeError, match="object"):
        to_html(report)
    with pytest.raises(AssertionError, match="object"):
        to_pdf(report)


# On paper


def _lowest(page: PageObject) -> float:
    """Where the last text above the footer stands, in points from the lower end of the room for text."""
    found: list[float] = []

    def keep(text: str, ctm: list[float], matrix: list[float], _font: object, _size: float) -> None:
        if text.strip():
            found.append(ctm[1] * matrix[4] + ctm[3] * matrix[5] + ctm[5])

    page.extract_text(visitor_text=keep)
    return min(y for y in found if y > BOTTOM) - BOTTOM


def test_no_page_but_the_last_leaves_a_third_blank(paper):
    blank = [_lowest(page) / FRAME for page in paper.pages[:-1]]
    assert len(blank) >= 4
    assert max(blank) < 1 / 3


def test_every_font_is_embedded(paper):
    found = {}
    for page in paper.pages:
        for font in (page["/Resources"].get("/Font") or {}).values():
            described = font.get_object().get("/FontDescriptor")
            found[font.get_object()["/BaseFont"]] = described is not None and "/FontFile2" in described.get_object()
    assert len(found) == 2
    assert all(found.values()), found


@pytest.mark.parametrize("name", ["Doxorubicin", "Staurosporine-hydrochloride-trihydrate"])
def test_no_word_of_a_table_is_broken_in_two(name):
    columns = (Column("Compound", "name", 20), *tables.IC50_COLUMNS)
    row = Row((name, *["12.3 µM"] * len(tables.IC50_COLUMNS)))
    out = io.BytesIO()
    page = SimpleDocTemplate(out, leftMargin=MARGIN, rightMargin=MARGIN, initialFontName=fonts.PLAIN)
    page.build([pdf._table(TableBlock("caption", columns, (row,)))])
    text = PdfReader(out).pages[0].extract_text()
    assert name in text
    assert text.count("12.3 µM") == len(tables.IC50_COLUMNS)


def test_no_name_of_a_plate_is_broken_in_two(report):
    named = f"Plate {'W' * 64}"
    paper = PdfReader(io.BytesIO(to_pdf(replace(report, title=named))))
    assert any("W" * 64 in line for line in paper.pages[0].extract_text().splitlines()[:4])


def test_a_well_to_come_says_so_once(report):
    entry = report.plates[0].imaged[0]
    waiting = replace(entry.results[0], status=WellStatus.QUEUED, reason="not imaged yet")
    assert replace(entry, results=(waiting,), flags=(), excluded=None).state_in_words == "not imaged yet"


def test_compound_pages_have_all_curves_of_a_compound_and_a_page_each(report):
    bare = tuple(replace(plate, series=()) for plate in report.plates)
    asked = replace(report, plates=bare, compound_pages=True)
    found = [chapter for chapter in chapters(asked) if chapter.page_of_its_own]
    assert [chapter.heading for chapter in found] == ["drug"]
    (curves,), (fits,), (doses,) = (section.blocks for section in found[0].sections)
    assert isinstance(curves, FigureBlock)
    assert len(curves.drawings) == len(PATIENTS)
    assert [row.cells[:2] for row in fits.rows] == [(patient, f"plate-{patient}") for patient in PATIENTS]
    untreated = [row.cells for row in doses.rows if row.cells[2] == "untreated"]
    assert [cells[3] for cells in untreated] == ["7" if "excluded" in cells[-1] else "8" for cells in untreated]
    assert len(doses.rows) == len(PATIENTS) * (len(plates.DOSES_UM) + 1)
    paper = PdfReader(io.BytesIO(to_pdf(asked)))
    assert paper.pages[-1].extract_text().startswith("drug\n")


@pytest.mark.parametrize(
    ("n_curves", "n_strips", "headings"),
    [
        (1, 1, ["", "Doses in pictures", "IC50s", "Doses"]),
        (2, 2, ["", "Doses in pictures", "IC50s"]),
        (3, 3, ["", "Doses in pictures", "IC50s"]),
        (6, 1, ["", "Doses in pictures", "IC50s"]),
    ],
)
def test_a_compound_keeps_to_its_page_with_the_pictures_that_have_room(report, n_curves, n_strips, headings):
    curve = replace(report.plates[0].curves[0], patient="pt1")
    strips = tuple(Series("drug", report.plates[0].series[0].drawing) for _ in range(n_curves))
    plate = replace(report.plates[0], curves=(curve,) * n_curves, series=strips)
    asked = replace(report, plates=(plate,), compound_pages=True)
    (chapter,) = (chapter for chapter in chapters(asked) if chapter.page_of_its_own)
    assert [section.heading for section in chapter.sections] == headings
    assert len(chapter.sections[1].blocks[0].drawings) == n_strips
    paper = PdfReader(io.BytesIO(to_pdf(asked)))
    assert paper.pages[-1].extract_text().startswith("drug\n")


def test_a_report_of_few_curves_has_no_compound_pages(report):
    assert [chapter for chapter in chapters(report) if chapter.page_of_its_own] == []


@pytest.mark.parametrize(("n_doses", "n_pages"), [(1, 0), (2, MOST_SERIES + 1)])
def test_a_screen_has_its_doses_in_pictures_on_compound_pages(tmp_path, n_doses, n_pages):
    compounds = [f"c{n}" for n in range(MOST_SERIES + 1)]
    treated = [plates.sample(name, dose) for name in compounds for dose in plates.DOSES_UM[:n_doses]]
    treatments = [*[plates.UNTREATED] * 3, *treated]
    wells = plates.plate_map("P1", {WellId(n // 12, n % 12): of for n, of in enumerate(treatments)})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {one.well: plates.FULL_UM3 * (1 + 0.01 * n) for n, one in enumerate(wells)})
    for well in (WellId(0, 1), *(WellId(0, 3 + n) for n in range(n_doses))):  # the middle untreated one, and c0
        plates.store_images(tmp_path, wells, plates.plan_of(StackKey("P1", well)), 1.0)
    with Catalog.read_only(tmp_path) as catalog:
        found = gather(catalog, tmp_path, now_s=1e9, who="Ada")
        without = gather(catalog, tmp_path, now_s=1e9, who="Ada", compound_pages=False)
    own = [chapter for chapter in chapters(found) if chapter.page_of_its_own]
    assert [chapter.heading for chapter in own] == compounds[:n_pages]
    in_pictures = [
        chapter.heading for chapter in own if "Doses in pictures" in [one.heading for one in chapter.sections]
    ]
    assert in_pictures == compounds[: min(1, n_pages)]
    assert ("Doses in pictures" in to_html(found)) == bool(n_pages)
    assert "Doses in pictures" not in to_html(without)
