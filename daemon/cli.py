"""The command line. A command imports what it needs when it is called, so that `status` and `--help` answer at once."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from spheroidd.protocols.errors import ConfigError, SpheroiddError

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_DATA = Path("spheroidd-data")
WIDTH = 140  # columns of what goes into a file or a pipe
INTERRUPTED = 130  # the shell's own code for Ctrl-C


class _Commands(TyperGroup):
    """The one place where a failure becomes words and an exit code. A command returns its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command and end the program."""
        try:
            code = super().invoke(ctx)
        except SpheroiddError as error:
            typer.echo(describe(error), err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            typer.echo("Interrupted. Every acknowledged slice and every committed row is kept.", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def describe(error: SpheroiddError) -> str:
    """An error in one or two lines: where and what, then what to do."""
    head = f"{error.where}: {error.what}" if error.where else error.what
    return f"spheroidd: {head}" + (f"\n  To do: {error.do}." if error.do else "")


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
)
config_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
app.add_typer(config_app, name="config", help="Look at a configuration: effective values, schema, faults.")

DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Data directory of a run.", envvar="SPHEROIDD_DATA")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback(invoke_without_command=True)
def _spheroidd(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False
) -> None:
    """Images of tumour spheroids in, viability per well out, while the microscope is still at it."""
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"spheroidd {installed_version('spheroidd')}")
        sys.exit(0)


# Running


@app.command()
def demo(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where the demonstration writes.")] = Path("demo-data"),
    seed: Annotated[int, typer.Option(help="Another seed is another plate.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Go on with what is there instead of starting anew.")] = False,
) -> int:
    """Run an emulated plate, live, and compare its viability rows with the truth."""
    from spheroidd.daemon.catalog_reader import CATALOG_NAME
    from spheroidd.daemon.demo import run_demo

    if data.exists() and not (data.is_dir() and (not any(data.iterdir()) or (data / CATALOG_NAME).exists())):
        do = "give --data a new directory: the demonstration replaces what is there"
        raise ConfigError("something else than a data directory is there", where=str(data), do=do)
    return run_demo(data, seed=seed, console=_console(), keep=keep)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (TOML).")],
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
) -> int:
    """Acquire and score a plate. An interrupted run is taken up where it stopped."""
    from spheroidd.daemon.config import load_config
    from spheroidd.daemon.run import run_plate

    return run_plate(load_config(config), console=_console(), live=not plain)


@app.command()
def replay(
    plate_map: Annotated[Path, typer.Argument(metavar="MAP.csv", help="Plate map with the paths of the recordings.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Data directory to write.")] = DEFAULT_DATA,
    name: Annotated[str | None, typer.Option(help="The plate's name; without it the map's file name.")] = None,
    pace: Annotated[str, typer.Option(help="real: the instrument's own pace; fast: as fast as possible.")] = "fast",
    pixel_um: Annotated[float | None, typer.Option(help="Pixel size where neither file nor map says it.")] = None,
    z_step_um: Annotated[float | None, typer.Option(help="z step where neither file nor map says it.")] = None,
    model: Annotated[str, typer.Option(help='"default", or a .safetensors file.')] = "default",
    normalisation: Annotated[str | None, typer.Option(help="stack or plate.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of the model.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
) -> int:
    """Run a recorded plate through the same pipeline as a microscope."""
    from spheroidd.daemon.config import build_config
    from spheroidd.daemon.run import run_plate

    tables = {
        "data": {"dir": str(data)},
        "plate": _given(name=name, map=str(plate_map)),
        "source": _given(kind="replay", pace=pace, pixel_um=pixel_um, z_step_um=z_step_um),
        "inference": _given(model=model, normalisation=normalisation, device=device, threads=threads),
    }
    config = build_config(tables, base=Path.cwd(), where="replay")
    return run_plate(config, console=_console(), live=not plain)


@app.command()
def score(
    data: DataArgument = DEFAULT_DATA,
    model: Annotated[str | None, typer.Option(help='"default", or a .safetensors file; without it the run\'s.')] = None,
    normalisation: Annotated[str | None, typer.Option(help="stack or plate; without it the run's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of the model.")] = None,
) -> int:
    """Score every stored stack again. Raw data stay as they are; every changed row is logged."""
    from spheroidd.daemon.run import score_plate

    return score_plate(
        data, model=model, normalisation=normalisation, device=device, threads=threads, console=_console()
    )


@app.command()
def emulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write the recorded plate to.")],
    preset: Annotated[str, typer.Option(help="unit, demo, screen or whole.")] = "demo",
    seed: Annotated[int, typer.Option(help="Another seed is another plate.")] = 0,
    layout: Annotated[str, typer.Option(help="ome-tiff, matrix-screener or ome-zarr.")] = "ome-tiff",
    wells: Annotated[str | None, typer.Option(help='Only these wells, such as "A01,B03".')] = None,
    name: Annotated[str, typer.Option(help="The plate's name.")] = "emulated",
) -> int:
    """Write a recorded plate with its truth beside it."""
    from spheroidd.daemon.recording import write_recording

    return write_recording(out, preset=preset, seed=seed, layout=layout, wells=wells, name=name, console=_console())


# Looking


@app.command()
def status(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second until Ctrl-C.")] = False,
) -> int:
    """Say how the daemon is. Exit code 0: healthy, 1: somebody should look, 3: stopped with work left."""
    from spheroidd.daemon import status as looking
    from spheroidd.daemon.catalog import Catalog

    with Catalog.read_only(data) as catalog:
        found = looking.look(data, catalog)
        if as_json:
            typer.echo(looking.to_json(found))
        elif watch:
            found = _watch(data, catalog)
        else:
            _console().print(looking.to_screen(found))
    return found.exit_code


@app.command()
def results(
    data: DataArgument = DEFAULT_DATA,
    as_json: JsonOption = False,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write CSV.")] = None,
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's rows (the start of its sha256).")] = None,
) -> int:
    """Print a row for every imaged well: viability where there is one, and why where there is none."""
    from spheroidd.daemon import results as rows_out
    from spheroidd.daemon.catalog import Catalog

    with Catalog.read_only(data) as catalog:
        if plate is not None and plate not in catalog.plates():
            known = ", ".join(catalog.plates()) or "none"
            raise ConfigError(f"there is no plate {plate!r}", where=str(data), do=f"the plates are: {known}")
        rows = catalog.result_rows(plate, _model_digest(model, catalog.models(plate)))
    if as_json:
        typer.echo(rows_out.to_json(rows))
    if csv is not None:
        rows_out.write_csv(rows, csv)
    if not as_json and csv is None:
        console = _console()
        for name in dict.fromkeys(row.result.plate for row in rows):
            console.print(rows_out.results_table([row for row in rows if row.result.plate == name], f"plate {name}"))
    return 0


@app.command()
def evaluate(
    data: DataArgument,
    well: Annotated[str, typer.Option(help='The well, such as "A01".')],
    truth: Annotated[Path, typer.Option(metavar="FILE", help="True mask (z, y, x): .npy, .tif or .zarr.")],
    label: Annotated[str, typer.Option(help="live or dead.")] = "live",
    stack: Annotated[int, typer.Option(help="The well's stack, from 0.")] = 0,
    plate: Annotated[str | None, typer.Option(help="The plate, where there are several.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Compare a stored mask with a true one: Dice, IoU, precision, recall."""
    from spheroidd.daemon.mask_score import score_mask

    figures = score_mask(data, well=well, truth=truth, label=label, stack=stack, plate=plate)
    if as_json:
        import json

        typer.echo(json.dumps(figures))
    else:
        for key, value in figures.items():
            typer.echo(f"{key:10} {value:.4f}" if isinstance(value, float) else f"{key:10} {value}")
    return 0


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Configuration (TOML).")] = None,
    as_json: JsonOption = False,
) -> int:
    """Check before a run: configuration, disk, model, device, clock, source. Exit code 1 where a check fails."""
    from spheroidd.daemon import doctor as checking

    checks = checking.examine(config)
    if as_json:
        typer.echo(checking.to_json(checks))
    else:
        _console().print(checking.to_screen(checks))
    return checking.exit_code(checks)


# Configuration


@config_app.command("show")
def config_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration (TOML).")], as_json: JsonOption = False
) -> int:
    """Print the effective configuration, defaults included."""
    from spheroidd.daemon.config import load_config, to_toml

    config = load_config(file)
    typer.echo(config.model_dump_json(indent=2) if as_json else to_toml(config), nl=as_json)
    return 0


@config_app.command("schema")
def config_schema() -> int:
    """Print the JSON schema of the configuration, for editors."""
    import json

    from spheroidd.daemon.config import config_schema as schema

    typer.echo(json.dumps(schema(), indent=2))
    return 0


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration (TOML).")]) -> int:
    """Check a configuration and the plate map it names. Exit code 2 where one is wrong."""
    from spheroidd.daemon.config import load_config

    config = load_config(file)
    plate_map = config.plate_map()
    wells = f"{len(plate_map.imaged())} wells to image" if plate_map else "the source designs the plate itself"
    typer.echo(f"{file}: good; plate {config.plate_name}, {wells}, source {config.source_kind}")
    return 0


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _given(**values: object) -> dict[str, object]:
    """The options that were given: the others keep the configuration's defaults."""
    return {name: value for name, value in values.items() if value is not None}


def _model_digest(start: str | None, models: list[str]) -> str | None:
    """The one model whose digest starts so."""
    if start is None:
        return None
    found = [digest for digest in models if digest.startswith(start)]
    if len(found) != 1:
        known = ", ".join(digest[:12] for digest in models) or "none"
        raise ConfigError(f"--model {start}: {len(found)} models start so", do=f"the models are: {known}")
    return found[0]


def _watch(data: Path, catalog: Any) -> Any:
    """Show the status until Ctrl-C; the last one."""
    import time

    from rich.live import Live

    from spheroidd.daemon import status as looking

    found = looking.look(data, catalog)
    with suppress(KeyboardInterrupt), Live(console=_console(), auto_refresh=False) as live:
        while True:
            live.update(looking.to_screen(found), refresh=True)
            time.sleep(1.0)
            found = looking.look(data, catalog)
    return found


def main() -> None:
    """The console script's entry."""
    app()
