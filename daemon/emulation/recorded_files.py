"""`spheroidd emulate`: a recorded plate, as a microscope's software would have left it, with its truth beside it."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.progress import Progress

from spheroidd.daemon.emulation.emulated_plate import PlateOptions
from spheroidd.daemon.emulation.known_truth import recorded_truth
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, Treatment, WellRole
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.faults import Fault
from spheroidd.sim_emulator.folder_writer import Layout, write_plate


def write_recording(
    out: Path,
    options: PlateOptions,
    *,
    layout: str,
    wells: str | None,
    pace: str,
    faults: Sequence[str],
    console: Console,
) -> int:
    """Write the plate into the new or empty folder `out`, at that pace; the exit code.

    `wells` ("A01,B03") writes only these; they are the same bytes as in the whole plate. ConfigError for an option
    that cannot be.
    """
    for option, given, choices in (("--layout", layout, get_args(Layout)), ("--pace", pace, ("real", "fast"))):
        if given not in choices:
            raise ConfigError(f"{option} is {given!r}", do=f"write one of {', '.join(choices)}")
    source = options.source(pace=pace, faults=tuple(map(Fault.parse, faults)), only=_only(wells) if wells else None)
    truth = recorded_truth(options.recording, source) if options.recording is not None else None
    with closing(source), Progress(console=console) as progress:
        task = progress.add_task("wells")
        write_plate(
            source,
            out,
            cast(Layout, layout),
            lambda well, done, total: progress.update(task, description=f"well {well}", completed=done, total=total),
            truth,
        )
    known = f", their truth in {out / 'truth'}" if (out / "truth").is_dir() else "; their truth is not known"
    console.print(f"{len(source.plate_map.imaged())} wells in {out}{known}", highlight=False, soft_wrap=True)
    return 0


def _only(wells: str) -> Callable[[PlateMap], PlateMap]:
    """The map with every other well empty: a well's place on the plate, and so its edge effect, stays what it is."""
    named = [WellId.parse(text) for text in wells.split(",") if text.strip()]
    if not named:
        raise ConfigError("--wells names no well", do='write wells such as "A01,B03"')

    def chosen(plate_map: PlateMap) -> PlateMap:
        kept = {plate_map[well].well for well in named}
        empty = Treatment(WellRole.EMPTY)
        rows = (entry if entry.well in kept else replace(entry, treatment=empty) for entry in plate_map)
        return PlateMap(plate_map.name, tuple(rows))

    return chosen
