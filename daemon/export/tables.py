"""The tables that are handed out: their columns with kind, unit and meaning, and their rows.

One place says what a column is; CSV, Parquet and the tests of docs/schema.md read it from here. What is not known is
None, which every format writes as its own "missing" and none as 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.dose import STATUS_WORDS
from spheroidd.protocols.result_columns import COLUMNS, Kind

Row = dict[str, Any]
UNITS = {"v_control": "percent", "v_score": "percent", "v_count": "fraction"}  # of each metric's responses


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: `unit` is empty for text, counts and yes or no."""

    name: str
    kind: Kind
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table ready to be written: every row has exactly the columns, in their order, None for what is not known."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


WELLS = tuple(Column(column.export_name, column.kind, column.unit, column.meaning) for column in COLUMNS)

CURVES = (
    Column("plate", "text", "", "the plate's name"),
    Column("patient", "text", "", "whose cells"),
    Column("compound", "text", "", "the compound"),
    Column("metric", "text", "", "what the responses are: v_control, v_score or v_count"),
    Column("unit", "text", "", "of top, bottom, auc and e_max: percent (of the untreated) or fraction"),
    Column("status", "text", "", ", ".join(STATUS_WORDS) + "; docs/dose-response.md says when"),
    Column("reason", "text", "", "the status in a sentence"),
    Column("model", "text", "", "LL.3, LL.4 or LL.5 as in R drc; missing where nothing was fitted"),
    Column("ic50_rel_um", "number", "uM", "dose halfway between the plateaus (EC50)"),
    Column("ic50_rel_lo_um", "number", "uM", "lower 95 % profile-likelihood limit"),
    Column("ic50_rel_hi_um", "number", "uM", "upper 95 % profile-likelihood limit"),
    Column("ic50_abs_um", "number", "uM", "dose where the response is half of the control's"),
    Column("ic50_abs_lo_um", "number", "uM", "lower 95 % profile-likelihood limit"),
    Column("ic50_abs_hi_um", "number", "uM", "upper 95 % profile-likelihood limit"),
    Column("hill", "number", "", "slope of the curve"),
    Column("top", "number", "unit", "upper plateau"),
    Column("bottom", "number", "unit", "lower plateau"),
    Column("auc", "number", "unit", "mean response over ln dose, within the doses that the plate's curves share"),
    Column("e_max", "number", "unit", "response at the highest dose"),
    Column("n", "integer", "", "wells in the fit, the untreated ones included"),
    Column("p_effect", "number", "", "p of the F-test against no effect"),
    Column("residual_sd", "number", "unit", "residual standard deviation"),
    Column("dose_min_um", "number", "uM", "lowest dose above 0 in the fit"),
    Column("dose_max_um", "number", "uM", "highest dose in the fit"),
    Column("n_controls", "integer", "", "untreated wells in the fit"),
    Column("n_excluded", "integer", "", "wells that a person left out"),
    Column("n_missing", "integer", "", "treated wells without a figure"),
    Column("n_failed", "integer", "", "wells left out because their images failed, treated and untreated"),
    Column("provisional", "truth", "", "a figure behind the curve may still change"),
    Column("warnings", "text", "", "what a person should know, separated by semicolons"),
)

CURVE_POINTS = (
    Column("plate", "text", "", "the plate's name"),
    Column("patient", "text", "", "whose cells the curve is of"),
    Column("compound", "text", "", "the compound of the curve"),
    Column("metric", "text", "", "what the response is: v_control, v_score or v_count"),
    Column("unit", "text", "", "of the response: percent (of the untreated) or fraction"),
    Column("well", "text", "", "the well; an untreated well comes once for each curve it stands in"),
    Column("dose_um", "number", "uM", "the dose; 0 for untreated wells"),
    Column("response", "number", "unit", "the response, the median of the well's stacks"),
    Column("control", "truth", "", "an untreated well"),
    Column("in_fit", "truth", "", "the well takes part in the fit"),
    Column("exclusion_reason", "text", "", "why a person left it out"),
    Column("missing_reason", "text", "", "why it has no response"),
)
TABLES: dict[str, tuple[Column, ...]] = {"wells": WELLS, "curves": CURVES, "curve_points": CURVE_POINTS}


def wells_table(catalog: CatalogReader, plates: Sequence[str]) -> Table:
    """A row for each stack that counts of every imaged well: the rows of `wells_view`."""
    names = {column.name for column in WELLS if column.kind == "truth"}
    rows = [
        {column.name: bool(row[column.name]) if column.name in names else row[column.name] for column in WELLS}
        for plate in plates
        for row in catalog.query("SELECT * FROM wells_view WHERE plate = :plate", {"plate": plate})
    ]
    return Table("wells", WELLS, tuple(rows))


def curves_table(curves: Sequence[CurveOfPlate]) -> Table:
    """A row for each curve."""
    return Table("curves", CURVES, tuple(_curve_row(curve) for curve in curves))


def curve_points_table(curves: Sequence[CurveOfPlate]) -> Table:
    """A row for each well of each curve, whether it takes part in the fit or not, and why not."""
    return Table("curve_points", CURVE_POINTS, tuple(row for curve in curves for row in _point_rows(curve)))


def _curve_row(curve: CurveOfPlate) -> Row:
    fit = curve.fit
    doses = [dose for dose in curve.fitted()[0] if dose > 0]
    return {
        "plate": curve.plate,
        "patient": curve.patient,
        "compound": curve.compound,
        "metric": curve.metric,
        "unit": UNITS[curve.metric],
        "status": fit.status.value,
        "reason": fit.reason,
        "model": fit.model or None,
        **{f"{name}_um": getattr(fit, name) for name in _DOSES},
        **{name: getattr(fit, name) for name in _FIGURES},
        "dose_min_um": min(doses, default=None),
        "dose_max_um": max(doses, default=None),
        "n_controls": len(curve.control_responses),
        "n_excluded": len(curve.excluded_controls) + sum(reason is not None for reason in curve.excluded),
        "n_missing": len(curve.missing),
        "n_failed": len(curve.failed),
        "provisional": curve.provisional,
        "warnings": "; ".join(fit.warnings) or None,
    }


_DOSES = ("ic50_rel", "ic50_rel_lo", "ic50_rel_hi", "ic50_abs", "ic50_abs_lo", "ic50_abs_hi")
_FIGURES = ("hill", "top", "bottom", "auc", "e_max", "n", "p_effect", "residual_sd")


def _point_rows(curve: CurveOfPlate) -> Iterator[Row]:
    for well, response in zip(curve.control_wells, curve.control_responses, strict=True):
        yield _point(curve, well, 0.0, response, control=True)
    for well, response, why in curve.excluded_controls:
        yield _point(curve, well, 0.0, response, control=True, excluded=why)
    for well, dose, response, reason in zip(curve.wells, curve.doses_um, curve.responses, curve.excluded, strict=True):
        yield _point(curve, well, dose, response, excluded=reason)
    for missing in curve.missing:
        yield _point(curve, missing.well, missing.dose_um, None, excluded=missing.excluded, missing=missing.reason)


def _point(
    curve: CurveOfPlate,
    well: str,
    dose_um: float,
    response: float | None,
    *,
    control: bool = False,
    excluded: str | None = None,
    missing: str | None = None,
) -> Row:
    return {
        "plate": curve.plate,
        "patient": curve.patient,
        "compound": curve.compound,
        "metric": curve.metric,
        "unit": UNITS[curve.metric],
        "well": well,
        "dose_um": dose_um,
        "response": response,
        "control": control,
        "in_fit": excluded is None and missing is None,
        "exclusion_reason": excluded,
        "missing_reason": missing,
    }
