"""Curves of a table, fitted, for people (a table with every status in words) and for programs (JSON)."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.analysis.fit_table import TableCurve
from spheroidd.daemon.analysis.table_doubts import table_doubts
from spheroidd.inference.dose_response.fit import fit_many, standard_errors
from spheroidd.inference.dose_response.growth_rate import growth_rate_curve
from spheroidd.inference.dose_response.quantal import fit_quantal
from spheroidd.protocols.dose import CurveStatus, DoseResponseFit
from spheroidd.protocols.errors import ConfigError

UNKNOWN = "—"
STYLES = {
    CurveStatus.OK: "green",
    CurveStatus.APPROXIMATE: "yellow",
    CurveStatus.FAILED: "bold red",
}
_FIGURES = (
    *("ic50_rel", "ic50_rel_lo", "ic50_rel_hi", "ic50_abs", "ic50_abs_lo", "ic50_abs_hi"),
    *("hill", "top", "bottom", "auc", "e_max"),
)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How the curves of a table are fitted; `model` is LL.4, or LL.2 for counts with totals, unless it is given."""

    model: str | None = None
    increasing: bool = False
    robust: bool = False
    pooled_variance: bool = False
    full_scale: float | None = None


def fit_table(curves: Sequence[TableCurve], options: FitOptions, *, where: str) -> list[DoseResponseFit]:
    """Fit them: as shares where there are totals, as GR values where there are counts at time 0, else as they are.

    ConfigError, naming the table (`where`), for numbers or options that cannot be right.
    """
    try:
        asked = table_doubts(curves, options.full_scale)
        fits = _fits(curves, options)
    except ConfigError as error:
        raise ConfigError(error.what, where=f"{where}: {error.where}" if error.where else where, do=error.do) from error
    return [replace(fit, warnings=(*fit.warnings, *doubts)) for fit, doubts in zip(fits, asked, strict=True)]


def _fits(curves: Sequence[TableCurve], options: FitOptions) -> list[DoseResponseFit]:
    if any(curve.totals is not None for curve in curves):
        return _quantal(curves, options)
    if any(curve.time_zero is not None for curve in curves):
        _refuse(options, increasing="GR falls with the dose", full_scale="GR is relative to the control already")
        data = [
            replace(growth_rate_curve(c.name, c.doses, c.responses, c.time_zero or []), dose_unit=c.dose_unit)
            for c in curves
        ]
        top: float | None = 1.0
    else:
        data, top = [curve.curve(options.full_scale) for curve in curves], None
    return fit_many(
        data,
        model=options.model or "LL.4",
        robust=options.robust,
        increasing=options.increasing,
        top=top,
        pooled_variance=options.pooled_variance,
    )


def _quantal(curves: Sequence[TableCurve], options: FitOptions) -> list[DoseResponseFit]:
    _refuse(
        options,
        robust="a binomial likelihood has no robust loss",
        pooled_variance="a binomial likelihood has no residual variance",
        full_scale="a share's full scale is 1",
    )
    return [
        fit_quantal(
            c.doses,
            c.responses,
            c.totals or [],
            name=c.name,
            increasing=options.increasing,
            model=options.model or "LL.2",
            dose_unit=c.dose_unit,
        )
        for c in curves
    ]


def _refuse(options: FitOptions, **reasons: str) -> None:
    for name, reason in reasons.items():
        if getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} does not go with these columns: {reason}", do=f"leave {option} out")


def record(curve: TableCurve, fit: DoseResponseFit, full_scale: float | None = None) -> dict[str, Any]:
    """A fit as plain values, None for what is not known. `aac` is the area between the full scale and the curve."""
    whole = fit.top if full_scale is None else full_scale
    figures = {name: _finite(getattr(fit, name)) for name in _FIGURES}
    return {
        "name": fit.name,
        "by": curve.by,
        "status": fit.status.value,
        "reason": fit.reason,
        "dose_unit": fit.dose_unit,
        **figures,
        "aac": None if whole is None or fit.auc is None else _finite(whole - fit.auc),
        "n": fit.n,
        "p_effect": _finite(fit.p_effect),
        "model": fit.model,
        "parameters": {name: _finite(value) for name, value in fit.parameters.items()},
        "standard_errors": {name: _finite(value) for name, value in standard_errors(fit).items()},
        "residual_sd": _finite(fit.residual_sd),
        "warnings": list(fit.warnings),
    }


def to_json(curves: Sequence[TableCurve], fits: Sequence[DoseResponseFit], full_scale: float | None = None) -> str:
    """A JSON list with one object for each curve."""
    records = [record(curve, fit, full_scale) for curve, fit in zip(curves, fits, strict=True)]
    return json.dumps(records, indent=1, allow_nan=False)


def to_screen(fits: Sequence[DoseResponseFit], title: str) -> Group:
    """The fits as a table, the reasons and warnings below it."""
    table = Table(title=title, title_justify="left")
    table.add_column("curve")
    table.add_column("status")
    unit = next((f" ({fit.dose_unit})" for fit in fits if fit.dose_unit), "")
    ic50s = (f"IC50 rel{unit}", "95 %", f"IC50 abs{unit}", "95 %")
    for name in (*ic50s, "hill", "top", "bottom", "AUC", "E max", "n", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for fit in fits:
        table.add_row(
            Text(fit.name),
            Text(fit.status.value, style=STYLES.get(fit.status, "")),
            *_ic50(fit.ic50_rel, fit.ic50_rel_lo, fit.ic50_rel_hi),
            *_ic50(fit.ic50_abs, fit.ic50_abs_lo, fit.ic50_abs_hi),
            *(_short(getattr(fit, name)) for name in ("hill", "top", "bottom", "auc", "e_max")),
            str(fit.n),
            _short(fit.p_effect, 2),
        )
    said = [Text.assemble((fit.name, "bold"), ": ", "; ".join((fit.reason, *fit.warnings))) for fit in fits]
    unknown = [] if unit or not fits else [Text("Doses as in the table: its header names no unit (--dose-unit does).")]
    return Group(table, *said, *unknown)


def _ic50(value: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    if value is None:
        return UNKNOWN, ""
    return _short(value), f"{_short(low)} to {_short(high)}"


def _short(value: float | None, digits: int = 3) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
