"""A held-out evaluation for people and for programs: a line for each kind of plate, beside what the card says.

A threshold has no card: `card` is None for it, and nothing is compared.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.analysis.results_table import UNKNOWN
from spheroidd.daemon.evaluation.held_out import card_figures
from spheroidd.daemon.evaluation.plate import Evaluation
from spheroidd.daemon.evaluation.summary import MASK_FIGURES, summarise
from spheroidd.inference.annotations.volume import LABELS
from spheroidd.inference.network.model_card import ModelCard

SAME = 5e-4  # figures of a card have four digits; another processor's rounding may turn the last


def differences(card: ModelCard | None, found: Mapping[str, Evaluation]) -> dict[str, tuple[float, float]]:
    """The figures that are not the card's: (card's, now) by "demo plate live_dice_mean"."""
    now = card_figures(found)
    told = {group: figures for group, figures in _metrics(card).items() if isinstance(figures, Mapping)}
    return {
        f"{group} {name}": (told[group][name], value)
        for group, figures in now.items()
        if group in told
        for name, value in figures.items()
        if name in told[group] and abs(told[group][name] - value) > SAME
    }


def record(card: ModelCard | None, found: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The evaluation as plain values: the card's table made anew, where it differs, and every figure by kind."""
    return {
        "model": card.name if card else _digest(found),
        "sha256": _digest(found),
        "precision": ", ".join(sorted({one.precision for one in found.values()})),
        "table": card_figures(found),
        "differs_from_card": {name: list(pair) for name, pair in differences(card, found).items()},
        "summary": {group: asdict(summarise(one.wells)) for group, one in found.items()},
    }


def to_screen(card: ModelCard | None, found: Mapping[str, Evaluation]) -> Group:
    """Masks, then viabilities, a line for each kind of plate and normalisation."""
    notes = ["Mean ± sd over wells. Held-out plates: seeds, patients and compounds that no network learnt from."]
    tolerance = next((one.tolerance_um for one in found.values()), None)
    if tolerance is not None:
        notes.append(f"Surface Dice within {tolerance:g} um.")
    lines = [Text(" ".join(notes), style="dim"), _verdict(card, found)]
    return Group(_masks(card, found), "", _viability(found), *lines)


def _metrics(card: ModelCard | None) -> Mapping[str, Any]:
    return card.metrics if card else {}


def _digest(found: Mapping[str, Evaluation]) -> str:
    return ", ".join(sorted({one.model_sha256 for one in found.values()}))


def _masks(card: ModelCard | None, found: Mapping[str, Evaluation]) -> Table:
    name = f"{card.name} ({card.sha256[:12]})" if card else _digest(found)
    table = Table(title=f"{name} on held-out plates", title_justify="left", box=None)
    table.add_column("plates, limits")
    table.add_column("mask")
    for name in ("wells", "Dice", "card's", "IoU", "precision", "recall", "surface Dice"):
        table.add_column(name, justify="right")
    for group, evaluation in found.items():
        summary = summarise(evaluation.wells)
        for label in LABELS:
            figures = summary.masks.get(label, {})
            told = _metrics(card).get(group, {}).get(f"{label}_dice_mean")
            cells = [
                UNKNOWN if (one := figures.get(name)) is None else f"{one.mean:.3f} ± {one.sd or 0:.3f}"
                for name in MASK_FIGURES
            ]
            cells.insert(1, UNKNOWN if told is None else f"{told:.3f}")
            table.add_row(group, label, str(figures["dice"].n), *cells)
    return table


def _viability(found: Mapping[str, Evaluation]) -> Table:
    table = Table(title="viability (MTT emulated)", title_justify="left", box=None)
    table.add_column("plates, limits")
    table.add_column("")
    for name in ("wells", "r", "MAE", "R2", "bias"):
        table.add_column(name, justify="right")
    for group, evaluation in found.items():
        for name, one in summarise(evaluation.wells).viability.items():
            values = ((one.pearson_r, ".3f"), (one.mae, ".1f"), (one.r2, ".3f"), (one.bias, "+.1f"))
            cells = [UNKNOWN if value is None else f"{value:{form}}" for value, form in values]
            table.add_row(group, name, str(one.n), *cells)
    return table


def _verdict(card: ModelCard | None, found: Mapping[str, Evaluation]) -> Text:
    if card is None:
        return Text("A threshold has no card to compare with.", style="dim")
    shared = [group for group in found if group in card.metrics]
    other = differences(card, found)
    if not shared:
        return Text("The card has no such table to compare with.", style="dim")
    if not other:
        return Text(f"The card's table is reproduced: every Dice of {', '.join(shared)}.", style="green")
    told = "; ".join(f"{name}: card {a:.4f}, now {b:.4f}" for name, (a, b) in list(other.items())[:6])
    return Text(f"{len(other)} figures are not the card's (another emulator or other weights): {told}", style="yellow")
