"""The columns of a result row, once: name, kind, unit, meaning, where the value comes from, and how people see it.

SQL, exports, REST and gRPC, the page, the report, the results table and docs/schema.md are all derived from this list.
A new figure is a row here, a field of `WellResult` and of `StackMeasurement` or `Related`, and a field of the message
`Result` in the wire contract (then `make proto` and `make docs`); tests/protocols/test_result_columns.py walks the list
through every place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, Flag, StrEnum, auto
from typing import Any, Literal

from spheroidd.protocols.phrase import constant, phrase

Kind = Literal["text", "integer", "number", "truth", "list", "record"]  # a list of texts, texts by name


class Origin(StrEnum):
    """Where the value of a column comes from, and with it who keeps it."""

    KEY = "key"  # names the row
    TREATMENT = "treatment"  # the plate map: an attribute of `Treatment`
    ANNOTATION = "annotation"  # the plate map: what else it says of the well, which nothing here rests on
    EXCLUSION = "exclusion"  # a person: an attribute of `Exclusion`, known from the audit trail
    STACK = "stack"  # the ledger of the stack
    MEASURED = "measured"  # an attribute of `StackMeasurement`; a column of the table `results`
    RELATED = "related"  # an attribute of `Related`; a column of the table `results`
    RECORDED = "recorded"  # known when the row is written; a column of the table `results`
    PLAN = "plan"  # geometry and times of the stack; stands in exports and views alone


class Place(Flag):
    """Where people see a column."""

    TABLE = auto()  # `spheroidd results` and the live table
    PANEL = auto()  # a well on the page
    REPORT = auto()  # the report's table of wells
    EVERYWHERE = TABLE | PANEL | REPORT


@dataclass(frozen=True, slots=True)
class Shown:
    """How people see a column: `heading` in the terminal, `label` on the page and in the report.

    A number is multiplied by `scale` and gets `places` decimals and the shown `unit`; `ends` names the columns with the
    ends of its interval, told in the places `ends_where`; a text is cut to `letters`; `unset` stands where a row that
    was scored has no value. A column that is not `always` there is left out of a table where nothing is known of it.
    """

    heading: str
    label: str
    unit: str = ""
    scale: float = 1.0
    places: int = 1
    ends: tuple[str, str] | None = None
    ends_where: Place = Place.EVERYWHERE
    letters: int | None = None
    unset: str = ""
    where: Place = Place.EVERYWHERE
    always: bool = False

    @property
    def title(self) -> str:
        """The label with its unit, for the head of a column."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column. `unit` is empty for text, counts and yes or no; `exported` is its name in SQL views and files."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    origin: Origin
    exported: str = ""
    shown: Shown | None = None

    @property
    def export_name(self) -> str:
        """The name in views and exported files, where the unit stands in it."""
        return self.exported or self.name

    @property
    def text(self) -> str:
        """Meaning and unit in one phrase, for the text of the REST side."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning

    def in_words(self, row: object, place: Place = Place.PANEL, *, unit: bool = True, unknown: str = "—") -> str:
        """The value of a result row as people see it in a place; `unknown` where it is None or not there."""
        value = getattr(row, self.name)
        shown = self.shown or Shown(self.name, self.name, self.unit)
        if value is None:
            scored = getattr(row, "model_sha256", None) is not None
            return constant((scored and shown.unset) or unknown)
        if self.kind == "text":
            return str(plain(value))[: shown.letters]
        if self.kind == "list":
            return ", ".join(value) or unknown
        if self.kind == "record":
            return "; ".join(f"{name} {text}" for name, text in value.items()) or unknown
        text = _number(value, self.kind, shown)
        text += f" {shown.unit}" if unit and shown.unit else ""
        ends = [getattr(row, name) for name in shown.ends or ()]
        if not ends or None in ends or place not in shown.ends_where:
            return text
        low, high = (_number(end, self.kind, shown) for end in ends)
        return phrase("with-interval", value=text, low=low, high=high)


def _number(value: float, kind: Kind, shown: Shown) -> str:
    return f"{value:d}" if kind == "integer" else f"{value * shown.scale:.{shown.places}f}"


def plain(value: Any) -> Any:
    """A value as JSON and the wire take it: an enumeration is its text, a tuple a list, a mapping an object."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return value.value if isinstance(value, Enum) else value


def stored(value: Any) -> Any:
    """A value as the catalog and a cell of a table keep it: a list or an object is its JSON."""
    if value is None or type(value) in (float, int, str):
        return value
    found = plain(value)
    return json.dumps(found, ensure_ascii=False) if isinstance(found, list | dict) else found


def from_stored(kind: Kind, value: Any) -> Any:
    """The inverse of `stored`, with plain values."""
    return json.loads(value) if kind in ("list", "record") and value is not None else value


_ON_PAPER = Place.PANEL | Place.REPORT
_VOLUME = "10³ µm³"

COLUMNS: tuple[ResultColumn, ...] = (
    ResultColumn("plate", "text", "", "the plate's name", Origin.KEY),
    ResultColumn("well", "text", "", "row letter and column number, A01", Origin.KEY),
    ResultColumn("stack", "integer", "", "the well's stack, from 0", Origin.KEY),
    ResultColumn(
        "role", "text", "", "sample, negative_control (untreated) or positive_control (killed)", Origin.TREATMENT
    ),
    ResultColumn("compound", "text", "", "the compound", Origin.TREATMENT),
    ResultColumn("dose_um", "number", "uM", "its dose", Origin.TREATMENT),
    ResultColumn("patient", "text", "", "whose cells", Origin.TREATMENT),
    ResultColumn(
        "annotations", "record", "", "further columns of the plate map: a JSON object of texts", Origin.ANNOTATION
    ),
    ResultColumn(
        "status",
        "text",
        "",
        "queued, acquiring, stored, scoring, provisional, final, failed, incomplete, skipped, aborted or stopped",
        Origin.RELATED,
    ),
    ResultColumn("reason", "text", "", "why a figure is missing, or what the well waits for", Origin.RELATED),
    ResultColumn(
        "excluded",
        "truth",
        "",
        "a person left the well out of curves, summaries and the control median",
        Origin.EXCLUSION,
    ),
    ResultColumn("exclusion_reason", "text", "", "why", Origin.EXCLUSION),
    ResultColumn("excluded_by", "text", "", "who", Origin.EXCLUSION),
    ResultColumn("excluded_at_utc", "text", "ISO 8601", "when", Origin.EXCLUSION),
    ResultColumn(
        "n_slices_expected", "integer", "", "camera images that were promised, all channels together", Origin.STACK
    ),
    ResultColumn("n_slices_acked", "integer", "", "camera images that are on disk and in the ledger", Origin.STACK),
    ResultColumn(
        "live_um3",
        "number",
        "um3",
        "volume of the live mask",
        Origin.MEASURED,
        shown=Shown("", "Live volume", _VOLUME, scale=1e-3, where=_ON_PAPER),
    ),
    ResultColumn(
        "dead_um3",
        "number",
        "um3",
        "volume of the dead mask",
        Origin.MEASURED,
        shown=Shown("", "Dead volume", _VOLUME, scale=1e-3, where=_ON_PAPER),
    ),
    ResultColumn("n_live", "integer", "", "live cells", Origin.MEASURED, shown=Shown("live", "Live cells")),
    ResultColumn("n_dead", "integer", "", "dead cells", Origin.MEASURED, shown=Shown("dead", "Dead cells")),
    ResultColumn(
        "v_count",
        "number",
        "fraction",
        "n_live / (n_live + n_dead), 0 to 1; missing where the images failed",
        Origin.MEASURED,
        exported="v_count_fraction",
        shown=Shown(
            "V count",
            "Live share",
            "%",
            scale=100.0,
            ends=("v_count_lo", "v_count_hi"),
            ends_where=_ON_PAPER,  # a terminal has no room for it
            always=True,
        ),
    ),
    ResultColumn(
        "v_count_lo",
        "number",
        "fraction",
        "lower end of the 90 % interval of the live share of all cells in the field",
        Origin.RELATED,
        exported="v_count_lo_fraction",
    ),
    ResultColumn("v_count_hi", "number", "fraction", "upper end of it", Origin.RELATED, exported="v_count_hi_fraction"),
    ResultColumn(
        "v_count_reason",
        "text",
        "",
        "why v_count has no interval",
        Origin.RELATED,
        shown=Shown("", "Live share without an interval", where=Place.PANEL),
    ),
    ResultColumn(
        "v_control",
        "number",
        "percent",
        "live volume, percent of the plate's untreated median; may pass 100",
        Origin.RELATED,
        exported="v_control_percent",
        shown=Shown("V control", "Viability", "%", always=True),
    ),
    ResultColumn(
        "v_score",
        "number",
        "percent",
        "estimate of an MTT assay, percent of the untreated",
        Origin.RELATED,
        exported="v_score_percent",
        shown=Shown("V score", "Score", "%", places=0, ends=("v_score_lo", "v_score_hi")),
    ),
    ResultColumn(
        "v_score_lo",
        "number",
        "percent",
        "lower end of its 90 % interval",
        Origin.RELATED,
        exported="v_score_lo_percent",
    ),
    ResultColumn(
        "v_score_hi",
        "number",
        "percent",
        "upper end of its 90 % interval",
        Origin.RELATED,
        exported="v_score_hi_percent",
    ),
    ResultColumn("normalisation", "text", "", "where the intensity limits come from: stack or plate", Origin.MEASURED),
    ResultColumn(
        "depth_seen_um",
        "number",
        "um",
        "how deep below the surface cells can be told apart; counts from further below rest on haze",
        Origin.MEASURED,
        shown=Shown("", "Cells told apart down to", "µm", places=0, where=_ON_PAPER),
    ),
    ResultColumn(
        "foreign_score",
        "number",
        "",
        "how far what the network sees, or how wide cells look to it, lies from what it knows, over healthy ones' most",
        Origin.MEASURED,
        shown=Shown("", "Foreign to the network, above 1", "", places=2, where=_ON_PAPER),
    ),
    ResultColumn(
        "cell_diameter_um",
        "number",
        "um",
        'how wide a cell was stated to be, or found ("auto"); missing: as wide as those that the network knows',
        Origin.MEASURED,
        shown=Shown("", "Cell diameter, stated or found", "µm", where=Place.PANEL),
    ),
    ResultColumn(
        "precision",
        "text",
        "",
        "what the network computed in: fp32 or bf16",
        Origin.MEASURED,
        shown=Shown("", "Precision", where=Place.PANEL),
    ),
    ResultColumn(
        "model_sha256",
        "text",
        "",
        "digest of the network that made the figures",
        Origin.RECORDED,
        shown=Shown("model", "Model", letters=12, where=Place.PANEL),
    ),
    ResultColumn(
        "latency_s",
        "number",
        "s",
        "from the last slice acknowledged to the row committed",
        Origin.RECORDED,
        shown=Shown("after", "Row after last slice", "s", where=Place.TABLE | Place.PANEL),
    ),
    ResultColumn(
        "trust",
        "text",
        "",
        "ok, check (somebody should look) or fail (the images carry no number); missing where nobody judged the row",
        Origin.RELATED,
        shown=Shown("trust", "Trust", unset="not judged", always=True),
    ),
    ResultColumn(
        "trust_flags",
        "list",
        "",
        "what was found: a JSON list of flags (docs/schema.md explains them)",
        Origin.RELATED,
    ),
    ResultColumn("n_z", "integer", "", "slices of one channel", Origin.PLAN),
    ResultColumn("height_px", "integer", "pixels", "height of a slice", Origin.PLAN),
    ResultColumn("width_px", "integer", "pixels", "width of a slice", Origin.PLAN),
    ResultColumn("pixel_um", "number", "um", "side of a pixel", Origin.PLAN),
    ResultColumn("z_step_um", "number", "um", "distance of two slices", Origin.PLAN),
    ResultColumn("opened_at_utc", "text", "ISO 8601", "when the stack was begun", Origin.PLAN),
    ResultColumn("last_slice_at_utc", "text", "ISO 8601", "when its last slice was acknowledged", Origin.PLAN),
    ResultColumn("measured_at_utc", "text", "ISO 8601", "when it was measured", Origin.PLAN),
)


def of(*origins: Origin) -> tuple[ResultColumn, ...]:
    """The columns that come from these places, in the list's order."""
    return tuple(column for column in COLUMNS if column.origin in origins)


def seen_in(place: Place) -> tuple[tuple[ResultColumn, Shown], ...]:
    """The columns that people see in a place, with how; in the list's order."""
    return tuple((column, column.shown) for column in COLUMNS if column.shown and place in column.shown.where)


ROW = tuple(column for column in COLUMNS if column.origin is not Origin.PLAN)
"""The columns of a row as JSON, CSV, REST and gRPC give it."""
STORED = of(Origin.MEASURED, Origin.RELATED, Origin.RECORDED)
"""The columns that the catalog keeps in its table `results` under the same names."""
