"""Commands that run, replay, re-score and record plates."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, NewDataArgument, app, console
from spheroidd.protocols.errors import ConfigError

EngineOption = Annotated[str, typer.Option(help="embedded, or ray: on the nodes of a Ray cluster.")]
AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The cluster; else RAY_ADDRESS, else this computer.")
]
WorkersOption = Annotated[int | None, typer.Option(help="Workers of the cluster; without it one for each GPU.")]


@app.command()
def demo(
    data: NewDataArgument = Path("demo-data"),
    seed: Annotated[int, typer.Option(help="Another seed is another plate.")] = 0,
    preset: Annotated[
        str,
        typer.Option(
            help="demo; sim: raw frames of structured illumination, reconstructed on the way; unit: small and quick."
        ),
    ] = "demo",
    keep: Annotated[bool, typer.Option("--keep", help="Go on with the demonstration that is there.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier demonstration without asking; never anything else.")
    ] = False,
) -> int:
    """Run an emulated plate, live, and compare its viability rows with the truth; sim: from raw frames."""
    from spheroidd.daemon.launch.demo import check_preset, run_demo
    from spheroidd.daemon.launch.demo_directory import clear, holds_demonstration

    check_preset(preset)
    if holds_demonstration(data) and not keep:
        if not force:
            _ask_to_replace(data)
        clear(data)
    from spheroidd.daemon.system.last_data import remember_data

    remember_data(data)
    return run_demo(data, seed=seed, preset=preset, console=console(lasting=True))


def _ask_to_replace(data: Path) -> None:
    """ConfigError unless the person at the terminal says yes."""
    what = "an earlier demonstration is there"
    if not sys.stdin.isatty():
        raise ConfigError(what, where=str(data), do="add --force to replace it, or --keep to go on with it")
    if not typer.confirm(f"{data}: {what}, with its images and rows. Delete it and start anew?"):
        raise ConfigError(f"{what}, and is kept", where=str(data), do="--keep goes on with it")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (TOML).")],
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
    from_well: Annotated[
        str | None, typer.Option(metavar="WELL", help="Begin at this well; those before it come last.")
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A trial: the light comes from a recording (a plate map with paths, a run's "
            "data directory, one stack).",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Another data directory; of a trial, without it, beside the configuration's."),
    ] = None,
) -> int:
    """Acquire and score a plate. An interrupted run is taken up where it stopped.

    Exit code 1: a well has no viability, because it has no row or its images failed. Wells whose trust is check are
    named at the end, and leave it at 0; `results` and `status` end with 1 for them, too.
    """
    from spheroidd.daemon.system.garbage import not_before_settled

    with not_before_settled():
        return _run(config, plain=plain, from_well=from_well, recording=recording, data=data)


def _run(config: Path, *, plain: bool, from_well: str | None, recording: Path | None, data: Path | None) -> int:
    from spheroidd.daemon.config.model import load_config
    from spheroidd.daemon.launch.run import run_plate
    from spheroidd.daemon.system.last_data import remember_data
    from spheroidd.protocols.well import WellId

    begin_at = WellId.parse(from_well) if from_well is not None else None
    loaded = load_config(config)
    if recording is not None:
        from spheroidd.daemon.emulation.trial import trial_of

        loaded, told = trial_of(loaded, recording.absolute(), data)
        console().print(told, markup=False, highlight=False, soft_wrap=True)
    elif data is not None:
        loaded = loaded.model_copy(update={"data": loaded.data.model_copy(update={"dir": data.absolute()})})
    remember_data(loaded.data.dir)
    return run_plate(loaded, console=console(lasting=True), live=not plain, from_well=begin_at)


@app.command()
def replay(
    plate_map: Annotated[
        Path, typer.Argument(metavar="MAP", help="Plate map (CSV) with the paths of the recordings, or a run's data.")
    ],
    data: NewDataArgument = DEFAULT_DATA,
    name: Annotated[str | None, typer.Option(help="The plate's name; without it the map's file name.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="WORD=ROLE", help="What a word of the map means; repeat for more."),
    ] = None,
    pace: Annotated[str, typer.Option(help="real: the instrument's own pace; fast: as fast as possible.")] = "fast",
    pixel_um: Annotated[float | None, typer.Option(help="Pixel size (um), where neither file nor map says it.")] = None,
    z_step_um: Annotated[float | None, typer.Option(help="z-step (um), where neither file nor map says it.")] = None,
    voxel_from: Annotated[
        str | None, typer.Option(help="file, map or settings: whose voxel size holds where they differ.")
    ] = None,
    channel_order: Annotated[
        str | None, typer.Option(metavar="LIST", help="The channels of a file in its order, such as 561,488 or 488,-.")
    ] = None,
    model: Annotated[
        str, typer.Option(help='"default", a name of `model list`, a .safetensors file, or "threshold".')
    ] = "default",
    normalisation: Annotated[str | None, typer.Option(help="stack or plate.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of the model.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16: what the model computes in.")] = None,
    cell_um: Annotated[
        str | None,
        typer.Option(
            metavar="UM", help="How wide a living cell is, or auto: found by itself; without it about 12.6 um."
        ),
    ] = None,
    faults: Annotated[
        Path | None, typer.Option(metavar="TOML", help="What is to go wrong: [[faults]], as in [[source.faults]].")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the images, where that is not the data directory.")
    ] = None,
    engine: EngineOption = "embedded",
    ray_address: AddressOption = None,
    ray_workers: WorkersOption = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
) -> int:
    """Run a recorded plate through the same pipeline as a microscope. Exit codes are those of `run`."""
    from spheroidd.daemon.cli.map import own_words
    from spheroidd.daemon.config.model import build_config
    from spheroidd.daemon.emulation.replayed_plate import map_of_run, read_faults
    from spheroidd.daemon.launch.run import run_plate
    from spheroidd.daemon.system.last_data import remember_data

    if plate_map.is_dir():
        plate_map = map_of_run(plate_map, data, name)
    given = read_faults(faults) if faults is not None else None
    tables = {
        "data": _given(dir=str(data), images=str(images) if images else None),
        "plate": _given(name=name, map=str(plate_map), roles=own_words(role) or None),
        "source": _given(
            kind="replay",
            pace=pace,
            pixel_um=pixel_um,
            z_step_um=z_step_um,
            voxel_from=voxel_from,
            channel_order=channel_order.replace(" ", "").split(",") if channel_order else None,
            faults=given,
        ),
        "inference": _given(
            model=model,
            normalisation=normalisation,
            device=device,
            threads=threads,
            precision=precision,
            cell_diameter_um=cell_um,
        ),
        "scoring": _given(engine=engine, ray_address=ray_address, ray_workers=ray_workers),
    }
    config = build_config(tables, base=Path.cwd(), where="replay")
    remember_data(config.data.dir)
    return run_plate(config, console=console(lasting=True), live=not plain)


@app.command()
def score(
    data: DataArgument = DEFAULT_DATA,
    model: Annotated[
        str | None,
        typer.Option(
            help='"default", a name of `model list`, a .safetensors file, or "threshold"; without it the run\'s.'
        ),
    ] = None,
    normalisation: Annotated[str | None, typer.Option(help="stack or plate; without it the run's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of the model.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16; without it the run's.")] = None,
    cell_um: Annotated[
        str | None,
        typer.Option(
            metavar="UM", help="How wide a living cell is, or auto: found by itself; without it as in the run."
        ),
    ] = None,
    objects: Annotated[
        bool | None, typer.Option("--objects/--no-objects", help="Write each counted object down, as label and table.")
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Only stacks that have no row by this model.")] = False,
    engine: EngineOption = "embedded",
    ray_address: AddressOption = None,
    ray_workers: WorkersOption = None,
) -> int:
    """Score every stored stack again. Raw data stay as they are; every changed row is logged.

    Exit codes are those of `run`; 1 also where a stack that had a row could not be scored again.
    """
    from spheroidd.daemon.config.model import scoring_settings
    from spheroidd.daemon.launch.run import score_plate

    return score_plate(
        data,
        model=model,
        normalisation=normalisation,
        device=device,
        threads=threads,
        precision=precision,
        objects=objects,
        cell_um=cell_um,
        scoring=scoring_settings(_given(engine=engine, ray_address=ray_address, ray_workers=ray_workers)),
        missing=missing,
        console=console(lasting=True),
    )


@app.command()
def emulate(
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Directory to write to; with --as push the daemon's data directory."),
    ],
    instrument: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="KIND",
            help="leica-cam: be a LAS X that scans on command; push: a program that pushes slices into a daemon.",
        ),
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Image a recording instead of the phantom: a plate map with paths, a run's "
            "data directory, or one stack.",
        ),
    ] = None,
    exposure: Annotated[float, typer.Option(help="With --recording: how many times its light.")] = 1.0,
    preset: Annotated[str, typer.Option(help="unit, demo, screen or whole.")] = "demo",
    seed: Annotated[int, typer.Option(help="Another seed is another plate.")] = 0,
    layout: Annotated[str, typer.Option(help="ome-tiff, matrix-screener or ome-zarr.")] = "ome-tiff",
    wells: Annotated[str | None, typer.Option(help='Only these wells, such as "A01,B03".')] = None,
    name: Annotated[str, typer.Option(help="The plate's name.")] = "emulated",
    plate_map: Annotated[
        Path | None, typer.Option("--map", help="The plate; without it the recording's, or a made-up one.")
    ] = None,
    host: Annotated[str, typer.Option(help="With --as leica-cam: the address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --as leica-cam: the port; 0 takes a free one.")
    ] = 8895,
    pace: Annotated[
        str | None, typer.Option(help="real or fast; without it real with --as, and fast where a plate is written.")
    ] = None,
    slice_period_s: Annotated[
        float | None, typer.Option("--period", metavar="S", help="Seconds per z-step; without it the preset's.")
    ] = None,
    packets: Annotated[str, typer.Option(help="With --as leica-cam: whole, split or burst.")] = "whole",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT",
            help='Such as "drop:A01:3", with --as leica-cam "missing:A01:3" or "mute:startscan"; may be repeated.',
        ),
    ] = None,
) -> int:
    """Write a plate as an instrument does, with its truth; or, with --as, be an instrument."""
    from spheroidd.daemon.emulation.emulated_plate import PlateOptions

    options = PlateOptions(preset, seed, name, plate_map, recording, exposure, slice_period_s)
    if instrument is None:
        from spheroidd.daemon.emulation.recorded_files import write_recording

        return write_recording(
            out,
            options,
            layout=layout,
            wells=wells,
            pace=pace or "fast",
            faults=fault or (),
            console=console(lasting=True),
        )
    from spheroidd.daemon.emulation.fake_lasx import check_instrument, serve_leica

    check_instrument(instrument)
    if instrument == "push":
        from spheroidd.daemon.launch.pushed_plate import push_plate

        return push_plate(out, options, pace=pace or "real", faults=fault or (), console=console(lasting=True))
    return serve_leica(
        out,
        options,
        host=host,
        port=port,
        pace=pace or "real",
        packets=packets,
        faults=fault or (),
        console=console(lasting=True),
    )


def _given(**values: object) -> dict[str, object]:
    """The options that were given: the others keep the configuration's defaults."""
    return {name: value for name, value in values.items() if value is not None}
