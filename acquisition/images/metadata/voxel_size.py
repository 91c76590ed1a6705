"""One length of a voxel out of several sources: the file, the plate map, the settings. Nothing is chosen silently."""

from collections.abc import Mapping
from typing import Literal

from spheroidd.acquisition.images.metadata.units import agree
from spheroidd.protocols.errors import StackError

VoxelFrom = Literal["file", "map", "settings"]
LengthName = Literal["pixel_um", "z_step_um"]
LENGTHS: tuple[LengthName, ...] = ("pixel_um", "z_step_um")
SMALLEST_UM, LARGEST_UM = 0.02, 20.0  # below, no objective resolves it; above, a spheroid is three slices
_CALLED = {"file": "its files", "map": "the plate map", "settings": "the settings"}


class DisagreementError(StackError):
    """Two sources of one number say different things, or one says what can hardly be."""


def settle_length(
    name: LengthName,
    said: Mapping[VoxelFrom, float | None],
    wins: VoxelFrom | None,
    *,
    where: str,
    conflict: str = "",
) -> float | None:
    """The length in micrometres; None where no source says it.

    `wins` is the source that the user has chosen for where they differ, and for a length that can hardly be.
    `conflict` is what the files alone say twice and differently. DisagreementError names both numbers.
    """
    known = {source: um for source, um in said.items() if um is not None}
    if wins in known and not (wins == "file" and conflict):
        return known[wins]
    if conflict:
        do = (
            f'correct the file, or write {name} into the plate map or the settings and voxel_from = "map" or "settings"'
        )
        raise DisagreementError(f"{name} is not sure: {conflict}", where=where, do=do)
    if not known:
        return None
    first, um = next(iter(known.items()))
    for source, other in known.items():
        if not agree(um, other):
            what = f"{name} is {um:g} um in {_CALLED[first]} and {other:g} um in {_CALLED[source]}"
            do = f'correct one of them, or say which wins: voxel_from = "{first}" or "{source}"'
            raise DisagreementError(what, where=where, do=f"{do} (spheroidd replay --voxel-from)")
    if not SMALLEST_UM <= um <= LARGEST_UM:
        what = f"{name} is {um:g} um in {' and '.join(_CALLED[source] for source in known)}, which can hardly be"
        do = f'look for a wrong unit; where it is right, write voxel_from = "{first}" (spheroidd replay --voxel-from)'
        raise DisagreementError(what, where=where, do=do)
    return um
