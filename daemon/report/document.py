"""What a report consists of, before it is HTML or PDF: chapters of sections, sections of blocks.

A block says what is shown and not how. The HTML has one macro for each kind of block and the PDF one function, so a new
section needs neither; only a new kind of block does, and both refuse one that they do not know.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.report.content import PlateContent
from spheroidd.daemon.report.drawing import Drawing
from spheroidd.daemon.report.provenance import Facts
from spheroidd.protocols.quality import Verdict

Kind = Literal["text", "name", "number", "range", "words"]
Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is written, in HTML as in PDF."""

    title: str
    byline: str
    version: str
    plates: tuple[PlateContent, ...]
    facts: Facts
    compound_pages: bool = False  # a chapter for each compound, over all patients and plates

    @property
    def curves(self) -> list[CurveOfPlate]:
        """The curves of all its plates."""
        return [curve for plate in self.plates for curve in plate.curves]


@dataclass(frozen=True, slots=True)
class CompoundContent:
    """One compound: its curves, of every patient and plate, and their doses in pictures. `with_plate` where the report
    has several plates.
    """

    name: str
    curves: tuple[CurveOfPlate, ...]
    with_plate: bool
    series: tuple[Drawing, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """A line in grey: what something is, or why nothing is shown."""

    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A box that nobody overlooks."""

    head: str
    text: str


@dataclass(frozen=True, slots=True)
class VerdictBox:
    """The verdict on a plate and its reasons."""

    verdict: Verdict
    head: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """Large numbers in a row: (name, value, note) of each."""

    figures: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """Drawings with one caption, `across` of them in a row."""

    drawings: tuple[Drawing, ...]
    caption: str
    across: Literal[1, 2, 3] = 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head, how its cells are set, and its width on paper in points.

    "number" is one number, "range" one with an interval, which may wrap; "name" a person's word; "words" a sentence.
    """

    head: str
    kind: Kind
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row; `note` is a sentence on it; `state` colours it; `link` is the chapter it leads to."""

    cells: tuple[str, ...]
    note: str = ""
    state: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table. Notes stand in a last column of the HTML, under `note_head`, and below their row on paper."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note_head: str = ""


@dataclass(frozen=True, slots=True)
class FactsBlock:
    """Names and values, some of them hashes or commands."""

    facts: Facts


Block = Note | Notice | VerdictBox | KeyFigures | FigureBlock | TableBlock | FactsBlock


@dataclass(frozen=True, slots=True)
class Section(Generic[Subject]):
    """A section of the running order: its heading, and how its blocks are made of a report or a plate.

    A section without a block is left out with its heading. An opening has no heading.
    """

    heading: str
    blocks: Callable[[Subject], list[Block]]


@dataclass(frozen=True, slots=True)
class ShownSection:
    """A section with the blocks that it has in one report."""

    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Sections that belong together. `anchor` is its name in links.

    On paper a chapter with a heading begins a page where it has a `page_of_its_own`, or less than a third is left.
    """

    anchor: str
    heading: str
    sections: tuple[ShownSection, ...]
    page_of_its_own: bool = False


def is_machine_text(name: str) -> bool:
    """Whether the fact of this name is a hash or a command, which both documents set in letters of one width."""
    return any(word in name for word in ("SHA", "Audit", "Command"))


def shown(sections: tuple[Section[Subject], ...], subject: Subject) -> tuple[ShownSection, ...]:
    """The sections that have something to show of this subject, in their order."""
    made = (ShownSection(section.heading, tuple(section.blocks(subject))) for section in sections)
    return tuple(section for section in made if section.blocks)
