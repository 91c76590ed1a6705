"""The command that compares: masks and viabilities beside what is true of them, on a plate or on held-out plates."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, JsonOption, app, console, told_when_interrupted
from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from spheroidd.daemon.evaluation.plate import Evaluation
    from spheroidd.inference.annotations.volume import ClassNames

Names = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A label's or area list's name; repeat.")]


@app.command()
def evaluate(
    data: Annotated[
        Path, typer.Argument(metavar="[DATA]", help="Data directory of a run.", envvar="SPHEROIDD_DATA")
    ] = DEFAULT_DATA,
    well: Annotated[str | None, typer.Option(help='Only this well, such as "A01".')] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder of truths (A01_live.tif, A01.xml, ...); with --well a true mask."),
    ] = None,
    label: Annotated[str, typer.Option(help="live or dead, with --well and a true mask.")] = "live",
    stack: Annotated[int, typer.Option(help="The well's stack, from 0, with --well and a true mask.")] = 0,
    plate: Annotated[str | None, typer.Option(help="The plate, where there are several.")] = None,
    live: Names = None,
    dead: Names = None,
    tolerance_um: Annotated[float, typer.Option(help="How near surfaces must be; 0 or more.")] = 1.0,
    surface: Annotated[bool, typer.Option(help="Surface Dice, which takes most of the time.")] = True,
    figures: Annotated[Path | None, typer.Option(metavar="DIR", help="Write figures and overlays there.")] = None,
    model: Annotated[
        str | None, typer.Option(help='With --held-out: "default", a name of `model list`, a file, or "threshold".')
    ] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Emulated plates that no network learnt from.")] = False,
    kind: Annotated[list[str] | None, typer.Option(help="With --held-out: only this kind of plate; repeat.")] = None,
    work: Annotated[
        Path, typer.Option(metavar="DIR", help="With --held-out: keeps what is done, to go on after Ctrl-C.")
    ] = Path("evaluation-cache"),
    device: Annotated[str, typer.Option(help="With --held-out: auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="With --held-out: threads of the model.")] = None,
    precision: Annotated[str, typer.Option(help="With --held-out: auto, fp32 or bf16.")] = "auto",
    as_json: JsonOption = False,
) -> int:
    """Compare masks with the truth (Dice, IoU, precision, recall, surface) and viability with references.

    Of an emulated plate the truth is known; of another give --truth. `--held-out` prints the table of a model's card.
    """
    from spheroidd.inference.annotations.volume import ClassNames

    names = ClassNames.given(live or (), dead or ())
    tolerance = tolerance_um if surface else None
    if held_out or model is not None:
        if not held_out or truth is not None or well is not None:
            do = "give --model and --held-out without --well or --truth; a plate is scored by `spheroidd score --model`"
            raise ConfigError("--model goes with --held-out alone", where="evaluate", do=do)
        return _held_out(model, kind or [], work, tolerance, (device, threads, precision), figures, as_json=as_json)
    if well is not None and truth is not None and not (truth.is_dir() and truth.suffix != ".zarr"):
        return _one_mask(data, well, truth, label, stack, plate, as_json=as_json)
    return _plate(data, plate, well, truth, names, tolerance, figures, as_json=as_json)


def _one_mask(data: Path, well: str, truth: Path, label: str, stack: int, plate: str | None, *, as_json: bool) -> int:
    from spheroidd.daemon.evaluation.mask_score import score_mask

    found = score_mask(data, well=well, truth=truth, label=label, stack=stack, plate=plate)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for key, value in found.items():
            typer.echo(f"{key:10} {value:.4f}" if isinstance(value, float) else f"{key:10} {value}")
    return 0


def _plate(
    data: Path,
    plate: str | None,
    well: str | None,
    truth: Path | None,
    names: "ClassNames",
    tolerance_um: float | None,
    figures: Path | None,
    *,
    as_json: bool,
) -> int:
    from rich.progress import Progress

    from spheroidd.daemon.evaluation import figures as evaluation_figures
    from spheroidd.daemon.evaluation import summary as evaluation_summary
    from spheroidd.daemon.evaluation import tables as evaluation_screen
    from spheroidd.daemon.evaluation.overlay import well_overlay
    from spheroidd.daemon.evaluation.plate import evaluate_plate

    if figures is not None:
        evaluation_figures.check_folder(figures)
    nothing = "Nothing of the evaluation is kept, and nothing of the plate was changed."
    with told_when_interrupted(nothing), Progress(console=_stderr(), transient=True) as progress:
        task = progress.add_task("wells")
        found = evaluate_plate(
            data,
            plate=plate,
            truth=truth,
            names=names,
            well=well,
            tolerance_um=tolerance_um,
            tell=lambda name, done, total: progress.update(task, description=name, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(evaluation_summary.record(found), indent=1, allow_nan=False))
    else:
        console().print(evaluation_screen.to_screen(found))
    if figures is not None:
        _tell_files(
            evaluation_figures.write_figures(found, figures, lambda one: well_overlay(data, one, truth, names)),
            as_json=as_json,
        )
    return 0


def _held_out(
    model: str | None,
    kinds: list[str],
    work: Path,
    tolerance_um: float | None,
    how: tuple[str, int | None, str],  # device, threads, precision
    figures: Path | None,
    *,
    as_json: bool,
) -> int:
    from rich.progress import Progress

    from spheroidd.daemon.evaluation import figures as evaluation_figures
    from spheroidd.daemon.evaluation import held_out_table as held_out_screen
    from spheroidd.daemon.evaluation.held_out import evaluate_held_out, only
    from spheroidd.daemon.training.run import HELD_OUT
    from spheroidd.inference.network.model_card import read_card
    from spheroidd.inference.segmentation.choice import open_segmenter
    from spheroidd.inference.segmentation.threshold import is_threshold

    unknown = sorted(set(kinds) - set(HELD_OUT))
    if unknown:
        raise ConfigError(f"--kind {unknown[0]}: there is none", where="evaluate", do=f"use {', '.join(HELD_OUT)}")
    if figures is not None:
        evaluation_figures.check_folder(figures)
    card = None if is_threshold(model) else read_card(model)
    segmenter = open_segmenter(model, *how)
    kept = f"Every well that was measured is kept in {work}: the same command goes on from there."
    with told_when_interrupted(kept), Progress(console=_stderr(), transient=True) as progress:
        task = progress.add_task("plates")
        found = evaluate_held_out(
            segmenter,
            only(HELD_OUT, kinds),
            work,
            tolerance_um=tolerance_um,
            tell=lambda name, done, total: progress.update(task, description=name, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(held_out_screen.record(card, found), indent=1, allow_nan=False))
    else:
        console().print(held_out_screen.to_screen(card, found))
    if figures is not None:
        _tell_files(_figures_of_groups(found, figures), as_json=as_json)
    return 0


def _figures_of_groups(found: "Mapping[str, Evaluation]", folder: Path) -> list[Path]:
    from spheroidd.daemon.evaluation.figures import write_figures

    return [path for group, one in found.items() for path in write_figures(one, folder / group.replace(" ", "-"))]


def _tell_files(files: list[Path], *, as_json: bool) -> None:
    for path in files:
        typer.echo(str(path), err=as_json)


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
