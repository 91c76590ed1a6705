"""Commands for files of raw structured-illumination frames."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spheroidd.daemon.cli.app import JsonOption, console, sub_app
from spheroidd.protocols.errors import ConfigError, StackError

if TYPE_CHECKING:
    from spheroidd.daemon.reconstruction.raw_file import Stated

_group = sub_app("sim", "Raw structured-illumination frames: find their pattern, reconstruct them.")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Raw frames: .tif, .ome.tif, .dv or .mrc.")]
FileOrData = Annotated[
    Path,
    typer.Argument(
        metavar="FILE|DATA",
        help="Raw frames: .tif, .ome.tif, .dv or .mrc; or the directory of a run, which says by itself how they lie.",
    ),
]
Angles = Annotated[int, typer.Option(help="Angles of the stripes.")]
Phases = Annotated[int, typer.Option(help="Phases of each angle.")]
Order = Annotated[str, typer.Option(help="Axes of the frames in the file, slowest first.")]
BeamsOption = Annotated[str, typer.Option(help="Beams that interfere: two or three.")]
Na = Annotated[float | None, typer.Option(help="Aperture of the lens.")]
Emission = Annotated[float | None, typer.Option(help="Wavelength that the camera saw, nm.")]
Pixel = Annotated[float | None, typer.Option(help="Camera pixel in the sample, um; without it, the file's.")]
Sigma = Annotated[float | None, typer.Option(help="Sigma of a Gaussian PSF, um; without it, an ideal lens.")]
Table = Annotated[
    str | None, typer.Option(help="A measured OTF: values at equal steps from 0 to the cutoff, as 1,.8,.5,.2,0.")
]
Offset = Annotated[float, typer.Option(help="What the camera adds to every pixel.")]
Reversed = Annotated[bool, typer.Option("--reversed-steps", help="Phases step against the stated directions.")]
FlipY = Annotated[bool, typer.Option("--flip-y", help="Rows run against those of the stated directions.")]
Directions = Annotated[
    str | None, typer.Option(help="Directions that must be found: 0 along x, 90 down the rows, as 14.3,74.1,-45.6.")
]
Period = Annotated[float | None, typer.Option(help="Period of order 1, um, where it is known.")]
Search = Annotated[str | None, typer.Option(help="Where the stripes' frequency is looked for, shares of the cutoff.")]
ChannelOption = Annotated[int | None, typer.Option(help="Which colour of the file, from 0.")]
Tiles = Annotated[
    str | None, typer.Option(metavar="ROWSxCOLUMNS", help="Frames that lie side by side in each image, as 3x5.")
]
Slices = Annotated[int, typer.Option(min=1, help="In how many slices the pattern is looked for.")]


@_group.command()
def estimate(
    file: FileOrData,
    angles: Angles = 3,
    phases: Phases = 5,
    order: Order = "z-angle-phase",
    beams: BeamsOption = "two",
    na: Na = None,
    emission_nm: Emission = None,
    pixel_um: Pixel = None,
    psf_sigma_um: Sigma = None,
    otf_table: Table = None,
    offset: Offset = 0.0,
    reversed_steps: Reversed = False,
    flip_y: FlipY = False,
    angles_deg: Directions = None,
    period_um: Period = None,
    search: Search = None,
    channel: ChannelOption = None,
    tiles: Tiles = None,
    slices: Slices = 6,
    well: Annotated[str | None, typer.Option(help="Of a run only this well; without it its first stacks.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Find the stripes: frequency, direction, phases, modulation, and whether to trust them. Exit code 1: do not."""
    from spheroidd.daemon.reconstruction import words
    from spheroidd.daemon.reconstruction.raw_file import RawFile

    if file.is_dir():
        _refuse_folder_of_frames(file)
        return _estimate_run(file, well, as_json)
    stated = _stated(
        angles, phases, order, beams, na, emission_nm, pixel_um, psf_sigma_um, otf_table, offset, reversed_steps,
        flip_y, angles_deg, period_um, search, channel, tiles,
    )  # fmt: skip
    opened = RawFile.open(file, stated)
    found = opened.estimate(slices)
    if as_json:
        typer.echo(words.estimate_json(opened, found))
    else:
        console().print(words.estimate_screen(words.file_title(opened), found), highlight=False)
    return 0 if found.usable else 1


def _refuse_folder_of_frames(folder: Path) -> None:
    """ConfigError for a folder with a file for each frame: their names do not say which frame is which."""
    from spheroidd.acquisition.images.raw_frames import READ_NAMES

    files = [file for file in folder.iterdir() if file.name.lower().endswith(READ_NAMES)]
    if files and not (folder / "catalog.sqlite").exists():
        do = "give one of them; or, with one frame in each, save them in their order as one stack"
        raise ConfigError(f"it is a folder with {len(files)} image files", where=str(folder), do=do)


def _estimate_run(data: Path, well: str | None, as_json: bool) -> int:
    from spheroidd.daemon.reconstruction.stored_raw import all_known, estimate_stored, stored_json, stored_screen
    from spheroidd.protocols.well import WellId

    found = estimate_stored(data, WellId.parse(well) if well is not None else None)
    if as_json:
        typer.echo(stored_json(found))
    else:
        console().print(stored_screen(found), highlight=False)
    return 0 if all_known(found) else 1


@_group.command()
def reconstruct(
    file: FileArgument,
    out: Annotated[Path, typer.Option("--out", metavar="IMAGE", help="What to write: .ome.tif or .ome.zarr.")],
    angles: Angles = 3,
    phases: Phases = 5,
    order: Order = "z-angle-phase",
    beams: BeamsOption = "two",
    na: Na = None,
    emission_nm: Emission = None,
    pixel_um: Pixel = None,
    psf_sigma_um: Sigma = None,
    otf_table: Table = None,
    offset: Offset = 0.0,
    reversed_steps: Reversed = False,
    flip_y: FlipY = False,
    angles_deg: Directions = None,
    period_um: Period = None,
    search: Search = None,
    channel: ChannelOption = None,
    tiles: Tiles = None,
    slices: Slices = 6,
    wiener: Annotated[
        float | None, typer.Option(help="Wiener constant; without it, by each slice's noise and signal.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Counts written for one count of the frames.")] = 1.0,
    as_float: Annotated[bool, typer.Option("--float", help="Write float32 instead of uint16.")] = False,
    widefield: Annotated[
        bool, typer.Option("--widefield", help="Where the pattern cannot be trusted, write widefield.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="torch device, as cuda; without it, numba on the CPU.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Reconstruct every slice at half the pixel size. Slices whose stripes are dead become widefield, and are named."""
    from spheroidd.daemon.reconstruction import words
    from spheroidd.daemon.reconstruction.raw_file import RawFile
    from spheroidd.daemon.reconstruction.writer import reconstruct_file

    if not scale > 0 or (wiener is not None and not wiener > 0):
        raise ConfigError("--scale and --wiener are above 0", do="leave them out, or give a number above 0")
    stated = _stated(
        angles, phases, order, beams, na, emission_nm, pixel_um, psf_sigma_um, otf_table, offset, reversed_steps,
        flip_y, angles_deg, period_um, search, channel, tiles,
    )  # fmt: skip
    opened = RawFile.open(file, stated)
    found = opened.estimate(slices)
    if not found.usable and not widefield:
        do = "mend what it says, or write --widefield to have the images without the pattern"
        raise StackError(f"its pattern cannot be trusted: {found.verdict}", where=str(file), do=do)
    known = found if found.usable else None
    made = reconstruct_file(opened, known, out, wiener=wiener, scale=scale, as_float=as_float, device=device)
    if as_json:
        typer.echo(words.slices_json(made, {"out": str(out), "verdict": found.verdict}))
    else:
        console().print(words.slices_screen(made), highlight=False)
        console().print(f"{out}: {found.verdict}", highlight=False)
    return 0


def _stated(*said: Any) -> "Stated":
    from spheroidd.daemon.reconstruction.raw_file import Stated

    return Stated(*said)


@_group.command()
def check(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Directory of a run.")],
    plate: Annotated[str | None, typer.Option(help="Only this plate.")] = None,
    slices: Annotated[bool, typer.Option("--slices", help="A line for each slice, not for each stack.")] = False,
    as_json: JsonOption = False,
) -> int:
    """How each slice of a plate was made: SIM or widefield, modulation, contrast. Exit code 1: a pattern is lost."""
    from spheroidd.daemon.reconstruction.stored_slices import read_slices, slices_json, slices_screen

    found = read_slices(data, plate)
    if as_json:
        typer.echo(slices_json(found))
    else:
        console().print(slices_screen(found, each=slices), highlight=False)
    return 0 if all(_known(one.patterns.values()) for one in found) else 1


def _known(asked: Any) -> bool:
    """Whether each colour of a plate has a usable pattern in one of the stacks that were asked."""
    usable: dict[str, bool] = {}
    for by_channel in asked:
        for channel, estimate in by_channel.items():
            usable[channel] = usable.get(channel, False) or estimate.usable
    return all(usable.values())
