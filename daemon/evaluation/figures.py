"""Figures of an evaluation: calibration, Bland-Altman, Dice by well (SVG), and the best and worst masks (PNG)."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from spheroidd.daemon.evaluation.plate import Evaluation, WellFigures
from spheroidd.daemon.evaluation.summary import mask_figure, pairs
from spheroidd.daemon.report.axes import Axis, linear_axis
from spheroidd.daemon.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    RULE,
    VERMILLION,
    Dot,
    Drawing,
    Line,
    Shape,
    Text,
    svg,
)
from spheroidd.inference.agreement.method_comparison import paired_figures
from spheroidd.protocols.errors import ConfigError, StorageError

_SIDE, _LEFT, _TOP, _GAP, _FOOT = 190.0, 46.0, 26.0, 62.0, 34.0
_INKS = {"v_score against MTT": BLUE, "v_count against truth": GREEN}
_WORDS = {
    "v_score against MTT": ("V score (% of untreated)", "MTT (% of untreated)"),
    "v_count against truth": ("V count (%)", "true viability in the field (%)"),
}
Paint = Callable[[WellFigures], bytes]  # the overlay of a well as PNG


def write_figures(evaluation: Evaluation, folder: Path, paint: Paint | None = None) -> list[Path]:
    """Write every figure that the evaluation has data for into `folder`; the files. StorageError where it cannot."""
    drawings = {
        "calibration.svg": calibration(evaluation.wells),
        "bland_altman.svg": bland_altman(evaluation.wells),
        "dice.svg": dice_by_well(evaluation.wells),
    }
    contents = {name: standalone(drawing).encode() for name, drawing in drawings.items() if drawing is not None}
    contents |= {name: paint(well) for name, well in extremes(evaluation.wells).items()} if paint is not None else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        do = "give --figures a folder that you may write to"
        raise StorageError(f"cannot write the figures: {error.strerror}", where=str(folder), do=do) from error
    return [folder / name for name in contents]


def check_folder(folder: Path) -> None:
    """Make the folder; ConfigError where the figures could not be written in the end."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError("it is a file", where=str(folder), do="give --figures a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        do = "give --figures a folder that you may write to"
        raise ConfigError(f"no figure can be written there: {error.strerror}", where=str(folder), do=do) from error


def extremes(wells: Sequence[WellFigures]) -> dict[str, WellFigures]:
    """The wells with the highest and the lowest Dice of each label, by the name of their picture."""
    found: dict[str, WellFigures] = {}
    for label in ("live", "dead"):
        known = [(dice, well) for well in wells if (dice := mask_figure(well, label, "dice")) is not None]
        if known:
            found[f"{label}_best.png"] = max(known, key=lambda pair: pair[0])[1]
            found[f"{label}_worst.png"] = min(known, key=lambda pair: pair[0])[1]
    return found


def standalone(drawing: Drawing) -> str:
    """The drawing as an SVG file of its own, on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{1.6 * drawing.width:.0f}" height="{1.6 * drawing.height:.0f}"'
    )
    style = ' style="background:#fff;font-family:Helvetica,Arial,sans-serif"'
    return str(svg(drawing)).replace("<svg", head + style, 1) + "\n"


def calibration(wells: Sequence[WellFigures]) -> Drawing | None:
    """Estimates over references with the line where they are equal; None where no pair is known."""
    panels: list[list[Shape]] = []
    for name, ink in _INKS.items():
        found = pairs(wells, name)
        if found:
            left = _LEFT + len(panels) * (_SIDE + _GAP)
            panels.append(_calibration_panel(name, found, ink, left))
    return _sheet(panels, "Estimated against reference viability")


def _calibration_panel(name: str, found: list[tuple[WellFigures, float, float]], ink: str, left: float) -> list[Shape]:
    values = [value for _, given, true in found for value in (given, true)]
    low, high = min(0.0, *values), max(100.0, *values)
    x, y = linear_axis(low, high, left, left + _SIDE), linear_axis(low, high, _TOP + _SIDE, _TOP)
    estimate, reference = _WORDS[name]
    shapes = _frame(x, y, reference, estimate)
    shapes.append(Line(x.at(x.low), y.at(y.low), x.at(x.high), y.at(y.high), GREY, 0.6, (3, 2)))
    for well, given, true in found:
        if name.startswith("v_score") and well.v_score_lo is not None and well.v_score_hi is not None:
            ends = (min(max(v, y.low), y.high) for v in (well.v_score_lo, well.v_score_hi))
            shapes.append(Line(x.at(true), y.at(next(ends)), x.at(true), y.at(next(ends)), ink, 0.35))
        tip = f"{well.plate}/{well.well}: {given:.1f}, reference {true:.1f}"
        shapes.append(Dot(x.at(true), y.at(given), 2.1, ink, "#ffffff", 0.5, tip))
    figures = paired_figures(*_columns(found), ["one"] * len(found))
    told = [f"n = {figures.n}"]
    told += [] if figures.pearson_r is None else [f"r = {figures.pearson_r:.3f}"]
    told += [] if figures.mae is None else [f"MAE = {figures.mae:.1f}"]
    told += [] if figures.r2 is None else [f"R² = {figures.r2:.3f}"]
    return [*shapes, *_corner(told, left)]


def bland_altman(wells: Sequence[WellFigures]) -> Drawing | None:
    """Differences over means with the bias and its limits of agreement; None where no two pairs are known."""
    panels: list[list[Shape]] = []
    for name, ink in _INKS.items():
        found = pairs(wells, name)
        if len(found) > 1:
            left = _LEFT + len(panels) * (_SIDE + _GAP)
            panels.append(_bland_altman_panel(name, found, ink, left))
    return _sheet(panels, "Differences between estimate and reference (Bland and Altman)")


def _bland_altman_panel(name: str, found: list[tuple[WellFigures, float, float]], ink: str, left: float) -> list[Shape]:
    figures = paired_figures(*_columns(found), ["one"] * len(found))
    means = [(given + true) / 2 for _, given, true in found]
    apart = [given - true for _, given, true in found]
    lines = [v for v in (figures.bias, figures.loa_low, figures.loa_high) if v is not None]
    reach = max(5.0, *(abs(v) for v in (*apart, *lines))) * 1.05
    x = linear_axis(min(0.0, *means), max(100.0, *means), left, left + _SIDE)
    y = linear_axis(-reach, reach, _TOP + _SIDE, _TOP)
    estimate, reference = (word.split(" (")[0] for word in _WORDS[name])
    shapes = _frame(x, y, f"mean of {estimate} and {reference} (%)", "difference (points)")
    shapes.append(Line(x.start, y.at(0), x.stop, y.at(0), GREY, 0.6))
    for value, dash in ((figures.bias, None), (figures.loa_low, (3.0, 2.0)), (figures.loa_high, (3.0, 2.0))):
        if value is not None:
            shapes.append(Line(x.start, y.at(value), x.stop, y.at(value), VERMILLION, 0.8, dash))
            shapes.append(Text(x.stop + 3, y.at(value) + 2, f"{value:+.1f}", 6, "start", VERMILLION))
    for (well, *_), mean, gap in zip(found, means, apart, strict=True):
        shapes.append(Dot(x.at(mean), y.at(gap), 2.1, ink, "#ffffff", 0.5, f"{well.plate}/{well.well}: {gap:+.1f}"))
    return shapes


def dice_by_well(wells: Sequence[WellFigures]) -> Drawing | None:
    """Live and dead Dice of each well, in the plate's order; None where no mask was compared."""
    shown = [well for well in wells if well.labels]
    if not shown:
        return None
    step = max(3.0, min(16.0, 440 / len(shown)))
    width = step * len(shown)
    values = [v for well in shown for label in ("live", "dead") if (v := mask_figure(well, label, "dice")) is not None]
    y = linear_axis(min(0.8, *values), 1.0, _TOP + 130, _TOP)
    x = Axis(0, len(shown), _LEFT, _LEFT + width, ())
    shapes = _frame(x, y, "", "Dice")
    every = -(-6 // int(step)) if step < 7 else 1
    for number, well in enumerate(shown):
        place = _LEFT + (number + 0.5) * step
        if number % every == 0:
            shapes.append(Text(place + 2, y.start + 12, well.well, 5.5, "middle", GREY, turned=True))
        for label, ink in (("live", GREEN), ("dead", VERMILLION)):
            dice = mask_figure(well, label, "dice")
            if dice is not None:
                shapes.append(
                    Dot(place, y.at(dice), 2.0, ink, "#ffffff", 0.4, f"{well.plate}/{well.well} {label} {dice:.3f}")
                )
    for number, (label, ink) in enumerate((("live", GREEN), ("dead", VERMILLION))):
        shapes += [Dot(_LEFT + 6 + 40 * number, 14, 2.2, ink), Text(_LEFT + 11 + 40 * number, 16.2, label, 7)]
    return Drawing(
        _LEFT + max(width, 90) + 14, _TOP + 130 + _FOOT, "Dice of live and dead masks by well", tuple(shapes)
    )


def _columns(found: list[tuple[WellFigures, float, float]]) -> tuple[list[float], list[float]]:
    return [given for _, given, _ in found], [true for *_, true in found]


def _frame(x: Axis, y: Axis, below: str, beside: str) -> list[Shape]:
    """Axes with ticks, a light grid, and what they are."""
    shapes: list[Shape] = []
    for value, name in x.ticks:
        at = x.at(value)
        shapes += [Line(at, y.stop, at, y.start, RULE, 0.3), Text(at, y.start + 9, name, 6, "middle", GREY)]
    for value, name in y.ticks:
        at = y.at(value)
        shapes += [Line(x.start, at, x.stop, at, RULE, 0.3), Text(x.start - 4, at + 2, name, 6, "end", GREY)]
    shapes += [Line(x.start, y.start, x.stop, y.start, INK), Line(x.start, y.start, x.start, y.stop, INK)]
    middle = (x.start + x.stop) / 2
    shapes.append(Text(middle, y.start + 22, below, 7, "middle", INK))
    return [*shapes, Text(x.start - 30, (y.start + y.stop) / 2, beside, 7, "middle", INK, turned=True)]


def _corner(lines: Sequence[str], left: float) -> list[Shape]:
    return [Text(left + 6, _TOP + 10 + 9 * n, line, 7) for n, line in enumerate(lines)]


def _sheet(panels: list[list[Shape]], title: str) -> Drawing | None:
    if not panels:
        return None
    width = _LEFT + len(panels) * _SIDE + (len(panels) - 1) * _GAP + 34
    shapes = [shape for panel in panels for shape in panel]
    return Drawing(width, _TOP + _SIDE + _FOOT, title, (Text(_LEFT, 14, title, 8, bold=True), *shapes))
