"""`spheroidd emulate`: a recorded plate, as a microscope's software would have left it, with its truth beside it."""

from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.progress import Progress

from spheroidd.daemon.config.model import build_config
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, Treatment, WellRole
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.folder_writer import Layout, write_plate
from spheroidd.sim_emulator.source import EmulatorSource


def write_recording(
    out: Path, *, preset: str, seed: int, layout: str, wells: str | None, name: str, console: Console
) -> int:
    """Write the emulator's plate of that preset and seed into the new or empty folder `out`; the exit code.

    `wells` ("A01,B03") writes only these; they are the same bytes as in the whole plate. ConfigError for an option
    that cannot be.
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"--layout is {layout!r}", do=f"write one of {', '.join(get_args(Layout))}")
    tables = {"plate": {"name": name}, "source": {"kind": "emulator", "preset": preset, "seed": seed, "pace": "fast"}}
    config = build_config(tables, base=Path.cwd(), where="emulate")
    source = cast(EmulatorSource, build_source(config.source, None, config.plate_name))
    if wells is not None:
        chosen = _only(source.plate_map, wells)
        source = cast(EmulatorSource, build_source(config.source, chosen, config.plate_name))
    with Progress(console=console) as progress:
        task = progress.add_task("wells")
        write_plate(
            source,
            out,
            cast(Layout, layout),
            lambda well, done, total: progress.update(task, description=f"well {well}", completed=done, total=total),
        )
    console.print(f"{len(source.plate_map.imaged())} wells in {out}, their truth in {out / 'truth'}", highlight=False)
    return 0


def _only(plate_map: PlateMap, wells: str) -> PlateMap:
    """The map with every other well empty: a well's place on the plate, and so its edge effect, stays what it is."""
    chosen = {plate_map[WellId.parse(text)].well for text in wells.split(",") if text.strip()}
    if not chosen:
        raise ConfigError("--wells names no well", do='write wells such as "A01,B03"')
    empty = Treatment(WellRole.EMPTY)
    rows = (entry if entry.well in chosen else replace(entry, treatment=empty) for entry in plate_map)
    return PlateMap(plate_map.name, tuple(rows))
