"""The models that there are: what ships, and what a path names; and whether each is what its card says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from spheroidd.inference.network.model_card import DEFAULT_MODEL, WEIGHTS_FOLDER, find_weights, read_card
from spheroidd.protocols.errors import ConfigError, ModelError
from spheroidd.protocols.json_text import parse_json


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified of a model, whether it holds, and in words."""

    name: str
    passes: bool
    words: str


def model_rows(folders: tuple[Path, ...] = (WEIGHTS_FOLDER,)) -> list[dict[str, Any]]:
    """One record for each network in these folders, the default first; a broken card is told in `problem`.

    ConfigError for what is no folder.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise ConfigError("there is no such folder", where=str(missing[0]), do="give --in a folder with weights")
    rows = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.safetensors"))):
        if _is_regressor(path):
            continue
        row: dict[str, Any] = {"name": path.stem, "default": path == WEIGHTS_FOLDER / f"{DEFAULT_MODEL}.safetensors"}
        row["bytes"] = path.stat().st_size
        try:
            card = read_card(path)
        except ModelError as error:
            rows.append({**row, "problem": str(error)})
            continue
        settings = card.settings
        row |= {
            "architecture": settings.architecture,
            "spacing_um": list(settings.spacing_um),
            "base": settings.base,
            "levels": settings.levels,
            "sha256": card.sha256,
            "live_dice": _dice(card.metrics, "live"),
            "dead_dice": _dice(card.metrics, "dead"),
            "description": card.description,
        }
        rows.append(row)
    return sorted(rows, key=lambda row: not row["default"])


def _is_regressor(path: Path) -> bool:
    return path.stem == "regressor"


def _dice(metrics: Any, label: str) -> float | None:
    """The mean over the kinds of held-out plates, under the plate's limits where the card tells them apart."""
    groups = [one for name, one in dict(metrics).items() if isinstance(one, dict) and "stack" not in name.split()]
    told = (one.get(f"{label}_dice_mean") for one in groups)
    found = [float(dice) for dice in told if isinstance(dice, int | float)]
    return sum(found) / len(found) if found else None


def tradeoff_rows(name_or_path: str | Path | None, rivals: Path) -> list[dict[str, Any]]:
    """The table of a card: the model's own row, measured now, and a row for each point that `bench.pareto` printed.

    ConfigError where the file holds something else.
    """
    from spheroidd.inference.network.weights import load_model
    from spheroidd.inference.segmentation.compute_cost import tradeoff_row
    from spheroidd.inference.segmentation.segmenter import UNetSegmenter

    try:
        found = parse_json(rivals.read_text(encoding="utf-8"))
        rows = [
            {
                "network": f"bench.pareto, {found['steps']} steps",
                "spacing_um": [point["spacing_um"]] * 3,
                "base": point["base"],
                "levels": 3,
                "live_dice": point["live"]["dice"],
                "dead_dice": point["dead"]["dice"],
                "cpu_s": point["cpu_s_per_screen_stack"],
            }
            for point in found["points"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        do = "give a file with what `python -m bench.pareto` printed"
        raise ConfigError(f"not the points of a Pareto front: {error!r:.200}", where=str(rivals), do=do) from error
    model, card = load_model(name_or_path)
    own = tradeoff_row(UNetSegmenter(model, card, "cpu"), card.metrics)
    return [own, *sorted(rows, key=lambda row: (-row["spacing_um"][0], row["base"]))]


def list_screen(rows: list[dict[str, Any]]) -> Table:
    """The models as a table."""
    table = Table(title=f"{len(rows)} models", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("name", "network", "voxel um"):
        table.add_column(name)
    for name in ("live Dice", "dead Dice", "MB"):
        table.add_column(name, justify="right")
    table.add_column("sha256")
    for row in rows:
        name = f"{row['name']} (default)" if row["default"] else row["name"]
        if "problem" in row:
            table.add_row(name, Text(row["problem"], style="red"))
            continue
        dice = ("—" if row[key] is None else f"{row[key]:.3f}" for key in ("live_dice", "dead_dice"))
        spacing = " x ".join(f"{v:g}" for v in row["spacing_um"])
        kind = f"{row['architecture']}, base {row['base']}, {row['levels']} levels"
        table.add_row(name, kind, spacing, *dice, f"{row['bytes'] / 1e6:.1f}", row["sha256"][:12])
    return table


def verify(name_or_path: str | Path | None) -> list[Check]:
    """Whether the digest, the shapes and the answer to the known input are what the card says, up to the first no."""
    if str(name_or_path) == "regressor" or Path(str(name_or_path)).stem == "regressor":
        return _verify_regressor(Path(str(name_or_path)))
    from spheroidd.inference.network.known_answer import TOLERANCE, compare
    from spheroidd.inference.network.weights import load_model

    try:
        path = find_weights(name_or_path)
        model, card = load_model(path)  # checks the digest, then the arrays' names, shapes and kinds
    except ModelError as error:
        return [Check("files", False, str(error))]
    n = sum(value.numel() for value in model.state_dict().values())
    checks = [
        Check("digest", True, f"sha256 {card.sha256[:16]}... is the card's"),
        Check("architecture", True, f"{n} numbers fit {card.settings.architecture}"),
    ]
    try:
        found = compare(model, card.probe)
    except ModelError as error:
        return [*checks, Check("known input", False, str(error))]
    if found.difference is None:
        words = "the card keeps no answer; `spheroidd model card NAME --write` adds one"
    elif found.same_bits:
        words = "the same bits as where it was made"
    else:
        words = f"within {found.difference:.1e} of where it was made (allowed: {TOLERANCE:g})"
    return [*checks, Check("known input", found.passes, words)]


def _verify_regressor(path: Path) -> list[Check]:
    from spheroidd.inference.viability.regressor import DEFAULT_REGRESSOR, ViabilityRegressor

    chosen = DEFAULT_REGRESSOR if str(path) == "regressor" else path.with_suffix(".safetensors")
    try:
        regressor = ViabilityRegressor.load(chosen)
    except ModelError as error:
        return [Check("files", False, str(error))]
    return [
        Check("digest", True, f"sha256 {regressor.sha256[:16]}... is the card's"),
        Check("architecture", True, "its arrays are the regressor's"),
    ]


def checks_screen(name: str, checks: list[Check]) -> Group:
    """The checks, one a line."""
    lines = [
        Text(f"{'ok' if c.passes else 'NO':3} {c.name}: {c.words}", style="" if c.passes else "red") for c in checks
    ]
    return Group(Text(f"model {name}", style="bold"), *lines)
