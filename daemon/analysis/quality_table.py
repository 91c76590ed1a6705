"""The quality of plates for people (a table of figures, then the flags) and for programs (JSON, an exit code)."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.analysis.results_table import UNKNOWN
from spheroidd.protocols.quality import PlateQuality, QualityFlag, Verdict

STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "magenta"}
EXIT_CODES = {Verdict.PASS: 0, Verdict.WARN: 1, Verdict.UNKNOWN: 1, Verdict.FAIL: 3}  # 2 is a wrong command line
_WELLS_SHOWN = 8


def exit_code(plates: Sequence[PlateQuality]) -> int:
    """Of the worst plate: 0 passes, 1 somebody should look (warn, unknown), 3 fails."""
    return max((EXIT_CODES[plate.verdict] for plate in plates), default=0)


def to_json(plates: Sequence[PlateQuality]) -> str:
    """A JSON list with one object for each plate; its keys are the fields of `PlateQuality`."""
    return json.dumps([asdict(plate) for plate in plates], indent=1, allow_nan=False)


def to_screen(plate: PlateQuality) -> RenderableType:
    """The verdict with its reasons, the figures, and every flag with what to do."""
    head = Text.assemble(f"plate {plate.plate}, by {plate.metric}: ", (plate.verdict, STYLES[plate.verdict]))
    parts: list[RenderableType] = [
        head,
        *(Text(f"  {reason}", style="dim") for reason in plate.reasons),
        _figures(plate),
    ]
    if plate.flags:
        parts.append(_flags(plate.flags))
    return Group(*parts)


def _figures(plate: PlateQuality) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    percent = 100.0 if plate.metric == "v_count" else 1.0  # a fraction; the other metrics are in percent already
    for name, value, form in (
        ("untreated controls", plate.n_negative, "d"),
        ("killed controls", plate.n_positive, "d"),
        ("untreated median, %", _scaled(plate.negative_median, percent), ".1f"),
        ("killed median, %", _scaled(plate.positive_median, percent), ".1f"),
        ("robust Z'", plate.z_prime, ".2f"),
        ("robust SSMD", plate.ssmd, ".1f"),
        ("signal window", plate.signal_window, ".1f"),
        ("control CV, %", plate.control_cv, ".1f"),
        ("edge / inner", plate.edge_ratio, ".2f"),
    ):
        table.add_row(name, UNKNOWN if value is None else f"{value:{form}}")
    return table


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _flags(flags: Sequence[QualityFlag]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("flag", "", "wells", "what", "what to do"):
        table.add_column(name, no_wrap=name in ("flag", ""), overflow="fold")
    for flag in flags:
        table.add_row(flag.code, Text(flag.verdict, style=STYLES[flag.verdict]), _wells(flag.wells), flag.what, flag.do)
    return table


def _wells(wells: Sequence[str]) -> str:
    shown = " ".join(wells[:_WELLS_SHOWN])
    return shown + (f" and {len(wells) - _WELLS_SHOWN} more" if len(wells) > _WELLS_SHOWN else "")
