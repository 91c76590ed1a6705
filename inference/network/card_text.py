"""A model's card as a page to read: what it is, how it came about, how good it was and how to check it."""

from collections.abc import Mapping, Sequence
from typing import Any

from spheroidd.inference.network.model_card import ModelCard


def card_text(card: ModelCard) -> str:
    """The card in Markdown, every number of the JSON that a person would ask for."""
    settings = card.settings
    spacing = " x ".join(f"{v:g}" for v in settings.spacing_um)
    parts = [f"# {card.name}", card.description or "No description was given."]
    parts.append(
        _table(
            ("", ""),
            [
                ("network", f"{settings.architecture}, base {settings.base}, {settings.levels} levels"),
                ("switches", _switches(card)),
                ("voxel size (z, y, x)", f"{spacing} um"),
                ("input", "calcein (live) and propidium iodide (dead), clipped and standardised as the settings say"),
                ("output", "probability of a live cell's body and of a dead cell's nucleus; cell densities"),
                ("normalisation seen", ", ".join(card.normalisation)),
                ("halo", f"{card.halo} voxels"),
                ("sha256", f"`{card.sha256}`"),
            ],
        )
    )
    made = [("command", f"`{card.command}`" if card.command else "unknown")]
    made += [(f"seed: {name}", str(value)) for name, value in card.seeds.items()]
    made.append(("data sha256", f"`{card.data_sha256}`" if card.data_sha256 else "not kept"))
    parts += ["## How it was made", _table(("", ""), made)]
    parts += ["## Validation", _metrics(card.metrics)]
    parts += ["## Spacing, width and time", _tradeoff(card.tradeoff)]
    parts += ["## How to check it", _check(card)]
    return "\n\n".join(parts) + "\n"


def _switches(card: ModelCard) -> str:
    names = ("residual", "deep_supervision", "density")
    return ", ".join(f"{name.replace('_', ' ')} {'on' if getattr(card.settings, name) else 'off'}" for name in names)


def _metrics(metrics: Mapping[str, Any]) -> str:
    """Groups of one-level figures as one table; single figures below it."""
    groups = {name: one for name, one in metrics.items() if isinstance(one, Mapping)}
    single = [(name, _figure(value)) for name, value in metrics.items() if not isinstance(value, Mapping)]
    columns = list(dict.fromkeys(key for one in groups.values() for key in one))
    parts = []
    if groups:
        rows = [(group, *(_figure(one.get(column)) for column in columns)) for group, one in groups.items()]
        parts.append(_table(("held-out plates", *(c.replace("_", " ") for c in columns)), rows))
    if single:
        parts.append(_table(("figure", "value"), single))
    return "\n\n".join(parts) or "Nothing was measured."


def _tradeoff(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "Not measured for this model."
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = _table([c.replace("_", " ") for c in columns], [[_figure(row.get(c)) for c in columns] for row in rows])
    told = "cpu s: seconds of inference of a `screen` stack, on the processor that wrote the card."
    if len(rows) > 1:
        told += (
            " Rows after the first are small networks of few steps on small crops: compare their Dice with each other."
        )
    return f"{table}\n\n{told}"


def _check(card: ModelCard) -> str:
    lines = [f"- `spheroidd model verify {card.name}`: the digest, the shapes, and the answer to a known input"]
    lines[0] += "." if card.probe else " (this card keeps none)."
    lines.append(f"- `spheroidd evaluate --model {card.name} --held-out`: the table above, from these weights.")
    return "\n".join(lines)


def _figure(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, (list, tuple)):
        return " x ".join(_figure(one) for one in value)
    return str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
