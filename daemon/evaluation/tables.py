"""An evaluation for people: one table of masks, one of viabilities, one of wells."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.analysis.results_table import UNKNOWN, describe
from spheroidd.daemon.evaluation.plate import Evaluation, WellFigures
from spheroidd.daemon.evaluation.summary import MASK_FIGURES, Summary, by_patient, mask_figure, summarise
from spheroidd.inference.agreement.method_comparison import LEAST_GROUPS, PairedFigures, Spread
from spheroidd.inference.annotations.volume import LABELS

_TITLES = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall", "surface_dice": "surface Dice"}


def to_screen(evaluation: Evaluation, *, wells: bool = True) -> Group:
    """Pooled figures, each patient's where there are several, and with `wells` every well's."""
    summary = summarise(evaluation.wells)
    parts: list[RenderableType] = []
    if wells:
        parts += [wells_table(evaluation.wells, evaluation.title), ""]
    parts += [masks_table(summary), viability_table(summary, evaluation.reference)]
    patients = by_patient(evaluation.wells)
    if len(patients) > 1:
        parts += ["", patients_table(patients)]
    parts.append(Text(_notes(evaluation, len(patients)), style="dim"))
    parts += [Text(f"{well} left out: {reason}", style="dim") for well, reason in evaluation.left_out.items()]
    return Group(*parts)


def _notes(evaluation: Evaluation, n_patients: int) -> str:
    notes = ["Mean ± sd over wells; in brackets the 95 % interval of the mean when patients are drawn anew."]
    if n_patients < LEAST_GROUPS:
        notes = ["Mean ± sd over wells. No intervals: fewer than three patients do not tell how others would differ."]
    if evaluation.tolerance_um is not None:
        notes.append(f"Surface Dice within {evaluation.tolerance_um:g} um.")
    return " ".join(notes)


def masks_table(summary: Summary) -> Table:
    """Live and dead masks: each figure's mean, sd and interval."""
    table = _table("masks against truth")
    table.add_column("mask")
    for name in ("wells", *_TITLES.values()):
        table.add_column(name, justify="right")
    for label in LABELS:
        found = summary.masks.get(label)
        if found:
            cells = [_spread(found.get(name)) for name in MASK_FIGURES]
            table.add_row(label, str(found["dice"].n), *cells)
    return table


def viability_table(summary: Summary, reference: str) -> Table:
    """Viabilities beside their references, in percent points."""
    table = _table(f"viability{f' (MTT {reference})' if reference else ''}")
    table.add_column("")
    for name in ("wells", "r", "MAE", "R2", "bias", "limits of agreement"):
        table.add_column(name, justify="right")
    for name, found in summary.viability.items():
        table.add_row(name, str(found.n), *_paired(found))
    if summary.coverage_90 is not None:
        table.add_row("90 % interval of v_score", "", "", "", "", "", f"holds MTT in {100 * summary.coverage_90:.0f} %")
    return table


def patients_table(patients: dict[str, Summary]) -> Table:
    """One line for each patient."""
    table = _table("by patient")
    table.add_column("patient")
    for name in ("wells", "live Dice", "dead Dice", "v_score r", "v_score MAE", "v_count MAE"):
        table.add_column(name, justify="right")
    for patient, summary in patients.items():
        live, dead = (summary.masks.get(label, {}).get("dice") for label in LABELS)
        score, count = (summary.viability.get(name) for name in ("v_score against MTT", "v_count against truth"))
        n = max((one.n for one in (live, dead, score, count) if one is not None), default=0)
        table.add_row(
            patient,
            str(n),
            _spread(live),
            _spread(dead),
            _number(score.pearson_r if score else None, ".3f"),
            _number(score.mae if score else None, ".1f"),
            _number(count.mae if count else None, ".1f"),
        )
    return table


def wells_table(wells: Sequence[WellFigures], title: str) -> Table:
    """One line for each well."""
    table = _table(title)
    for name in ("well", "treatment"):
        table.add_column(name)
    for name in ("live Dice", "surface", "dead Dice", "surface", "V count", "true", "V score", "MTT"):
        table.add_column(name, justify="right")
    several = len({well.plate for well in wells}) > 1
    for well in wells:
        masks = [mask_figure(well, label, name) for label in LABELS for name in ("dice", "surface_dice")]
        percent = (well.v_count, well.v_count_true, well.v_score, well.mtt)
        name = f"{well.plate}/{well.well}" if several else well.well
        table.add_row(
            f"{name}/{well.stack}" if well.stack else name,
            describe(well.treatment),
            *(_number(value, ".3f") for value in masks),
            *(_number(value, ".1f", " %") for value in percent),
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")


def _spread(found: Spread | None) -> str:
    if found is None or found.mean is None:
        return UNKNOWN
    sd = "" if found.sd is None else f" ± {found.sd:.3f}"
    interval = "" if found.mean_lo is None else f" ({found.mean_lo:.3f}-{found.mean_hi:.3f})"
    return f"{found.mean:.3f}{sd}{interval}"


def _paired(found: PairedFigures) -> list[str]:
    cells = []
    for name, form in (("pearson_r", ".3f"), ("mae", ".1f"), ("r2", ".3f"), ("bias", "+.1f")):
        low, high = found.intervals.get(name, (None, None))
        interval = "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"
        cells.append(_number(getattr(found, name), form) + interval)
    limits = (_number(found.loa_low, "+.1f"), _number(found.loa_high, "+.1f"))
    return [*cells, " to ".join(limits)]


def _number(value: float | None, form: str, unit: str = "") -> str:
    return UNKNOWN if value is None else f"{value:{form}}{unit}"
