"""How the slices of a plate's raw frames were made, as its catalog has it: what `spheroidd sim check` says."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation
from spheroidd.protocols.stack import StackKey


@dataclass(frozen=True, slots=True)
class StoredSlices:
    """What is known of one plate's patterns, by the stack that they were found in, and of each stack's slices."""

    plate: str
    patterns: Mapping[StackKey, Mapping[str, PatternEstimate]]
    stacks: Mapping[StackKey, tuple[SliceModulation, ...]]
    z_step_um: Mapping[StackKey, float]


def read_slices(data_dir: Path, plate: str | None) -> list[StoredSlices]:
    """Of one plate, or of all that were imaged with raw frames; ConfigError where there is nothing to tell."""
    with CatalogReader.read_only(data_dir) as catalog:
        names = catalog.plates()
        if plate is not None and plate not in names:
            raise ConfigError(f"there is no plate {plate}", where=str(data_dir), do=f"name one of {', '.join(names)}")
        found = [_of_plate(catalog, name) for name in names if plate in (None, name)]
    told = [one for one in found if one.patterns or one.stacks]
    if not told:
        do = "give a directory whose plate was imaged with raw frames, and of which a stack is whole"
        raise ConfigError("no slice here was made of raw frames", where=str(data_dir), do=do)
    return told


def _of_plate(catalog: CatalogReader, plate: str) -> StoredSlices:
    stacks = catalog.sim_slices(plate)
    steps = {row.key: row.plan.z_step_um for row in catalog.stacks(plate)}
    return StoredSlices(plate, catalog.sim_patterns(plate), stacks, steps)


def last_alive_um(slices: tuple[SliceModulation, ...], z_step_um: float) -> float | None:
    """How far above the stack's first slice the last one lies in which every angle's stripes are alive."""
    alive = [one.z for one in slices if one.method == "sim"]
    return max(alive) * z_step_um if alive else None


def slices_json(plates: list[StoredSlices]) -> str:
    """All of it: patterns, and each slice."""
    return json.dumps(
        [
            {
                "plate": one.plate,
                "patterns": [
                    {"found_in": str(key), "usable": estimate.usable, "verdict": estimate.verdict, **asdict(estimate)}
                    for key, by_channel in one.patterns.items()
                    for estimate in by_channel.values()
                ],
                "stacks": [
                    {"stack": str(key), "slices": [{"method": s.method, **asdict(s)} for s in slices]}
                    for key, slices in one.stacks.items()
                ],
            }
            for one in plates
        ],
        indent=2,
    )


def slices_screen(plates: list[StoredSlices], *, each: bool) -> RenderableType:
    """A line for each stack and colour, or for each slice."""
    return Group(*(part for plate in plates for part in _plate_screen(plate, each=each)))


def _plate_screen(plate: StoredSlices, *, each: bool) -> Iterator[RenderableType]:
    for key, by_channel in plate.patterns.items():
        for channel, estimate in by_channel.items():
            yield Text(f"{channel} in {key}: {estimate.verdict}", style="" if estimate.usable else "yellow")
            yield from (Text(f"  {note}", style="dim") for note in estimate.notes)
    table = Table(title=f"plate {plate.plate}", box=None, pad_edge=False, header_style="bold")
    named = ("well", "channel", "z", "method", "modulation", "contrast")
    summed = ("well", "channel", "SIM", "partial", "widefield", "SIM up to um")
    for name in named if each else summed:
        table.add_column(name, justify="left" if name in ("well", "channel", "method") else "right")
    for key, slices in plate.stacks.items():
        for channel in dict.fromkeys(one.channel for one in slices):
            of_channel = tuple(one for one in slices if one.channel == channel)
            if each:
                for one in of_channel:
                    cells = (_listed(one.modulation), _listed(one.contrast))
                    table.add_row(str(key.well), channel, str(one.z), one.method, *cells)
                continue
            counts = [str(sum(one.method == name for one in of_channel)) for name in ("sim", "partial", "widefield")]
            depth = last_alive_um(of_channel, plate.z_step_um[key])
            table.add_row(str(key.well), channel, *counts, "–" if depth is None else f"{depth:.1f}")
    yield table


def _listed(by_angle: tuple[tuple[float, ...], ...]) -> str:
    return " ".join("/".join(f"{one:.2f}" for one in orders) for orders in by_angle)
