"""Commands for models: list, info, verify, card, and packages for bioimage.io."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import JsonOption, console, sub_app
from spheroidd.protocols.errors import ConfigError

_group = sub_app("model", "Networks: what ships, what its card says, whether it is whole; packages in and out.")
NameArgument = Annotated[str, typer.Argument(metavar="[NAME]", help='A name that ships, a file, or "default".')]


@_group.command("list")
def list_command(
    folder: Annotated[
        list[Path] | None, typer.Option("--in", metavar="DIR", help="Look in this folder too; repeat.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """The networks that ship with spheroidd, and those of other folders."""
    from spheroidd.daemon.training.model_store import list_screen, model_rows
    from spheroidd.inference.network.model_card import WEIGHTS_FOLDER

    rows = model_rows((WEIGHTS_FOLDER, *(folder or ())))
    if as_json:
        typer.echo(json.dumps(rows, indent=1, allow_nan=False))
    else:
        console().print(list_screen(rows))
    return 0


@_group.command("info")
def info_command(name: NameArgument = "default", as_json: JsonOption = False) -> int:
    """A network's card: what it is, how it was made, how good it was."""
    from spheroidd.inference.network.model_card import read_card

    card = read_card(name)
    if as_json:
        typer.echo(json.dumps(card.as_json(), indent=1))
    else:
        from rich.markdown import Markdown

        from spheroidd.inference.network.card_text import card_text

        console().print(Markdown(card_text(card)))
    return 0


@_group.command("verify")
def verify_command(name: NameArgument = "default", as_json: JsonOption = False) -> int:
    """Check digest, shapes and the answer to a known input. Exit code 1 where one is wrong; "regressor" is one too."""
    from spheroidd.daemon.training.model_store import checks_screen, verify

    checks = verify(name)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        console().print(checks_screen(name, checks))
    return 0 if all(check.passes for check in checks) else 1


@_group.command("card")
def card_command(
    name: NameArgument = "default",
    write: Annotated[
        bool, typer.Option("--write", help="Write it beside the weights, with the answer to the known input.")
    ] = False,
    rivals: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --write: what `python -m bench.pareto` printed, for its last table."),
    ] = None,
) -> int:
    """Print a network's card as Markdown, or write it beside the weights."""
    from spheroidd.inference.network.card_text import card_text
    from spheroidd.inference.network.model_card import read_card

    if not write:
        if rivals is not None:
            raise ConfigError("--rivals changes a card that is not written", where="model card", do="add --write")
        typer.echo(card_text(read_card(name)), nl=False)
        return 0
    from spheroidd.daemon.training.model_store import tradeoff_rows
    from spheroidd.inference.network.weights import renew_card

    tradeoff = None if rivals is None else tradeoff_rows(name, rivals)
    typer.echo(str(renew_card(name, tradeoff=tradeoff)))
    return 0


@_group.command("export")
def export_command(
    name: NameArgument = "default",
    out: Annotated[Path | None, typer.Option("--bioimageio", metavar="FILE.zip", help="The package to write.")] = None,
    author: Annotated[str, typer.Option(help="Who is named as its author.")] = "The spheroidd developers",
) -> int:
    """Write a network as a bioimage.io model package."""
    from spheroidd.inference.network.bioimageio import export_package
    from spheroidd.inference.network.model_card import find_weights

    target = out or Path(f"{find_weights(name).stem}.bioimageio.zip")
    card = export_package(name, target, author=author)
    typer.echo(f"{card.name} ({card.sha256[:12]}) in {target}")
    return 0


@_group.command("import")
def import_command(
    package: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A package that `model export` wrote.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the weights and their card.")] = Path(),
) -> int:
    """Unpack a network from a bioimage.io model package, once its digest, shapes and answer are right."""
    from spheroidd.daemon.training.model_store import verify
    from spheroidd.inference.network.bioimageio import import_package

    card = import_package(package, out)
    path = out / f"{card.name}.safetensors"
    wrong = [check for check in verify(path) if not check.passes]
    for check in wrong:
        typer.echo(f"{path}: {check.name}: {check.words}", err=True)
    typer.echo(f"{card.name} ({card.sha256[:12]}): use it with model = {json.dumps(str(path))}")
    return 1 if wrong else 0
