"""`spheroidd plan`: a plate's way before it is gone: checked, shown, drawn, exchanged with other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spheroidd.daemon.cli.app import JsonOption, console, sub_app
from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from spheroidd.daemon.planning.dry_run import PlanReport

plan_app = sub_app("plan", "Plates and plans: formats, a dry run of a plate, exchange with useq.")

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (TOML).")]
PastOption = Annotated[
    Path | None, typer.Option("--past", metavar="DATA", help="Learn times from this data directory.")
]


@plan_app.command("check")
def plan_check(
    config: ConfigArgument,
    past: PastOption = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the way over the plate.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Check a plate without its microscope: positions, fields, limits, disk, time. Exit code 2 where the plan is wrong.

    Times are learnt from what is in the data directory already; --past names another one.
    """
    from spheroidd.daemon.planning import dry_run as checking

    report = checking.dry_run(config, past)
    if svg is not None:
        _draw(report, svg)
    if as_json:
        typer.echo(checking.to_json(report))
    else:
        _show_check(report)
    for check in report.failed:  # in one piece, as every other refusal is told
        typer.echo(f"spheroidd: {check.what}\n  To do: {check.do}.", err=True)
    return report.exit_code


@plan_app.command("show")
def plan_show(config: ConfigArgument, as_json: JsonOption = False) -> int:
    """List every stack in its turn, with the stage's position for it."""
    from rich.table import Table

    from spheroidd.daemon.planning import dry_run as checking

    report = checking.dry_run(config)
    if as_json:
        typer.echo(checking.to_json(report))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("turn", "well", "stack", "x (um)", "y (um)"):
        table.add_column(name, justify="left" if name == "well" else "right")
    for stop in report.stops or ():
        place = [f"{value:.1f}" for value in stop.xy_um] if stop.xy_um else ["-", "-"]
        table.add_row(str(stop.number), str(stop.key.well), str(stop.key.stack), *place)
    if report.stops is None:
        typer.echo("The source learns what it images only while it runs.")
    else:
        console().print(table)
    return 0


@plan_app.command("formats")
def plan_formats(
    word: Annotated[str, typer.Argument(metavar="[WORD]", help="Only those with this word, such as 96 or ultra.")] = "",
    as_json: JsonOption = False,
) -> int:
    """List the plates that can be named as [source.plan] labware."""
    import json
    from dataclasses import asdict

    from spheroidd.acquisition.plates.labware_formats import listed_formats

    found = [one for one in listed_formats() if word.lower() in f"{one.name} {one.title} {one.coating}".lower()]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("labware", "wells", "pitch (mm)", "well (mm)", "shape", "coating"):
        table.add_column(name, justify="right" if name == "wells" else "left", overflow="fold")
    for one in found:
        plate = one.plate
        pitch, well = (" x ".join(f"{v / 1000:g}" for v in dict.fromkeys(s)) for s in (plate.pitch_um, plate.well_um))
        shape = "round" if plate.round_wells else "rectangular"
        table.add_row(one.name, str(plate.n_wells), pitch, well, shape, one.coating)
    if found:
        console().print(table)
    else:
        typer.echo(f"no plate of the catalogue has {word!r} in its name or coating")
    return 0


@plan_app.command("export")
def plan_export(
    config: ConfigArgument,
    useq: Annotated[Path, typer.Option("--useq", metavar="FILE", help="File to write: .yaml or .json.")],
) -> int:
    """Write a plan as a useq-schema sequence, for other acquisition programs."""
    from spheroidd.daemon.planning.useq_export import export_useq

    typer.echo(export_useq(config, useq))
    return 0


@plan_app.command("import")
def plan_import(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A useq-schema sequence (.yaml, .json), or a position list of Micro-Manager (.pos)."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="CONFIG", help="Configuration to write (TOML).")],
    channels: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="488=PRESET", help="Which preset is 488 or 561; may be repeated."),
    ] = None,
    labware: Annotated[
        str | None, typer.Option("--labware", metavar="NAME", help="Of a .pos: the plate, as `plan formats` lists it.")
    ] = None,
    z_offset_um: Annotated[
        float, typer.Option("--z-offset", metavar="UM", help="Of a .pos: how far above its focus a stack begins.")
    ] = 0.0,
) -> int:
    """Make a configuration and a plate map of another program's plan. What cannot be expressed is refused by name."""
    from spheroidd.daemon.planning.positions_import import import_positions, presets_of

    presets = presets_of(channels or ())
    if file.suffix.lower() == ".pos":
        if labware is None:
            do = "name the plate by --labware, such as 96; `spheroidd plan formats` lists them"
            raise ConfigError("a position list does not say what plate it is", where=str(file), do=do)
        made = import_positions(file, out, labware, presets, z_offset_um)
    else:
        from spheroidd.daemon.planning.useq_import import import_useq

        made = import_useq(file, out, presets)
    for written in made:
        typer.echo(written)
    return 0


def _draw(report: "PlanReport", path: Path) -> None:
    from spheroidd.daemon.planning.plan_drawing import to_svg
    from spheroidd.daemon.planning.useq_export import write_text

    write_text(path, to_svg(report))


def _show_check(report: "PlanReport") -> None:
    from rich.table import Table
    from rich.text import Text

    from spheroidd.daemon.monitoring.preflight import Verdict
    from spheroidd.daemon.planning.plan_drawing import to_text, way_words

    screen = console()
    if report.stops is not None:
        typer.echo(to_text(report, screen.width))
        screen.print(f"plate {report.plate_map.name}: {len(report.stops)} stacks{way_words(report)}\n", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "", "found", "what to do"):
        table.add_column(name, overflow="fold")
    styles = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
    for check in report.checks:
        table.add_row(check.name, Text(check.verdict, style=styles[check.verdict]), Text(check.what), check.do)
    screen.print(table)
    words = "The plan cannot be run as it is." if report.exit_code else "The plan can be run."
    screen.print(Text(words, style="bold"))
