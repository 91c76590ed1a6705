"""What Micro-Manager writes into each file of a data set for that file alone: its index of planes, and its summary.

Its OME-XML stands in the first file of a set only; the index is in every one, so a file can be read without the others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spheroidd.acquisition.images.metadata.units import length_um
from spheroidd.acquisition.images.ome.description import Place
from spheroidd.acquisition.images.tiff.validation import damaged
from spheroidd.protocols.errors import StackError


@dataclass(frozen=True, slots=True)
class MicroManagerStack:
    """One position's stack as Micro-Manager's own index has it; `places` is (channel, z) -> `Place` in this file."""

    n_channels: int
    n_z: int
    channel_names: tuple[str, ...]
    pixel_um: float | None
    z_step_um: float | None
    places: dict[tuple[int, int], Place]


def micromanager_metadata(tiff: Any) -> dict[str, Any]:
    """A TIFF's Micro-Manager metadata, of the kind that has an index of planes; empty where it has none."""
    metadata = tiff.micromanager_metadata
    if not isinstance(metadata, dict) or not isinstance(metadata.get("Summary"), dict):
        return {}
    index = metadata.get("IndexMap")
    return metadata if index is not None and len(index) else {}


def summary_lengths(metadata: dict[str, Any]) -> tuple[float | None, float | None]:
    """Pixel size and z-step (um) of a summary; a negative step is a scan downwards, 0 is not said."""
    summary = metadata.get("Summary", {})
    pixel, step = summary.get("PixelSize_um"), summary.get("z-step_um")
    return length_um(pixel, "um"), length_um(abs(step), "um") if isinstance(step, int | float) else None


def read_index(tiff: Any, metadata: dict[str, Any], path: Path, time_point: int | None) -> MicroManagerStack:
    """The planes of one position and one time point; StackError where there are several, or planes are missing."""
    by_offset = {tiff.pages[number].offset: number for number in range(len(tiff.pages))}
    rows = [tuple(int(value) for value in row) for row in metadata["IndexMap"]]
    positions = sorted({row[3] for row in rows})
    if len(positions) > 1:
        what = f"it holds the positions {', '.join(map(str, positions[:20]))}"
        raise StackError(what, where=str(path), do="save one file for each position, as Micro-Manager can")
    times = sorted({row[2] for row in rows})
    if time_point is None and len(times) > 1:
        raise StackError(
            f"it holds {len(times)} time points", where=str(path), do=f"name one: {path.name}/T={times[0]}"
        )
    wanted = times[0] if time_point is None else time_point
    found = {(row[0], row[1]): row[4] for row in rows if row[2] == wanted}
    if not found:
        raise StackError(f"it holds no time point {wanted}", where=str(path), do=f"name one of {times[:20]}")
    lost = [offset for offset in found.values() if offset not in by_offset]
    if lost:
        raise damaged(path, f"its index names {len(lost)} planes that are not in its list of planes")
    summary = metadata["Summary"]
    n_channels = max(1 + max(channel for channel, _ in found), _count(summary.get("Channels")))
    n_z = max(1 + max(z for _, z in found), _count(summary.get("Slices")))
    names = summary.get("ChNames")
    return MicroManagerStack(
        n_channels,
        n_z,
        tuple(map(str, names)) if isinstance(names, list) and len(names) == n_channels else (),
        *summary_lengths(metadata),
        {plane: Place("", by_offset[offset]) for plane, offset in found.items()},
    )


def _count(said: Any) -> int:
    return said if isinstance(said, int) and 0 < said <= 1_000_000 else 0
