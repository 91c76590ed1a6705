"""One well's raw frames, read frame by frame: those that this program stored, or files in a stated order.

They look like a `RecordedStack` of which each image is a raw frame; height, width and pixel_um are those of the slices.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np

from spheroidd.acquisition.images.raw_frames import RawFile
from spheroidd.acquisition.images.stored_stack import OwnZarrFile, is_own
from spheroidd.acquisition.store import ngff
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.sim_pattern import SimPattern
from spheroidd.protocols.stack import CHANNELS, PIXEL_BYTES, UPSAMPLING, RawIndex, SliceIndex

Facts = Mapping[str, float | str]


def is_stored_raw(path: Path) -> bool:
    """Whether a folder holds raw frames that this program stored."""
    return is_own(path) and "raw" in ngff.read_attributes(path).get(ngff.OWN, {})


class _RawStack:
    """What both kinds have in common with a recorded stack."""

    assignment = "raw frames in the order that was stated"
    doubts: tuple[str, ...] = ()
    channels: tuple[str, ...]
    n_z: int
    height: int
    width: int
    dtype: str
    pixel_um: float | None
    z_step_um: float | None
    raw: SimPattern

    def __init__(self) -> None:
        self.conflicts: dict[str, str] = {}

    def unread(self) -> StackError | None:
        """Raw frames have no facts beside their pixels that a replay could miss."""
        return None

    def has(self, index: SliceIndex) -> bool:
        """Every frame is there: a file is opened once it is whole."""
        return True

    def metadata(self, index: SliceIndex) -> Facts:
        """Nothing is known of a single frame."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the files go; may be called twice."""
        raise NotImplementedError


class StoredRawStack(_RawStack):
    """Raw frames of a run, each checked against the checksum that it was stored with."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = OwnZarrFile(path)
        plan = self._plan = self._file.plan
        if plan.raw is None:
            raise StackError("it holds no raw frames", where=str(path), do="give the folder of a raw stack")
        self.raw, self.channels, self.n_z, self.dtype = plan.raw, plan.channels, plan.n_z, plan.dtype
        self.height, self.width = plan.height, plan.width
        self.pixel_um, self.z_step_um = plan.pixel_um, plan.z_step_um

    def plane(self, index: SliceIndex) -> Pixels:
        """One frame (y, x); StackError where it is not as it was stored."""
        return np.array(self._file.plane(self.channels.index(index.channel), self._plan.plane_of(index)), order="C")

    def crc32c(self, index: SliceIndex) -> int | None:
        """The checksum that a frame was stored with."""
        return self._file.crc32c(self.channels.index(index.channel), self._plan.plane_of(index))

    def close(self) -> None:
        """See above."""
        self._file.close()


class RawFilesStack(_RawStack):
    """Raw frames in files, one with all colours or one for each, read one at a time while the stack is open."""

    def __init__(self, paths: Mapping[str, Path], pattern: SimPattern, channel_order: tuple[str, ...] | None) -> None:
        super().__init__()
        self.raw = pattern
        self._files: dict[str, RawFile] = {}
        try:
            for key, path in paths.items():
                for channel, number in _colours(key, path, channel_order):
                    self._files[channel] = RawFile(path, number)
            self._agree(pattern, where=", ".join(map(str, paths.values())))
        except BaseException:
            self.close()
            raise

    def _agree(self, pattern: SimPattern, where: str) -> None:
        """All colours are whole slices of one shape; StackError where they are not."""
        files = self._files.values()
        shapes = {((one.n_frames, *one.frame_shape), one.dtype.name) for one in files}
        (n_frames, height, width), dtype = min(shapes)
        self.n_z, rest = divmod(n_frames, pattern.n_frames)
        if len(shapes) > 1 or rest or not self.n_z:
            what = f"its colours have {sorted(n for (n, *_), _ in shapes)} frames, slices need {pattern.n_frames} each"
            do = "give every colour the same whole slices, and state the numbers of angles and phases"
            raise StackError(what, where=where, do=do)
        if dtype not in PIXEL_BYTES:
            do = "export it as the camera took it, in uint8 or uint16"
            raise StackError(f"its pixels are {dtype}", where=where, do=do)
        self.channels = tuple(channel for channel in CHANNELS if channel in self._files)
        self.height, self.width, self.dtype = UPSAMPLING * height, UPSAMPLING * width, dtype
        pixel_um, self.z_step_um = next((one.pixel_um, one.z_step_um) for one in files)
        self.pixel_um = None if pixel_um is None else pixel_um / UPSAMPLING

    def plane(self, index: SliceIndex) -> Pixels:
        """One frame (y, x)."""
        if not isinstance(index, RawIndex):
            raise StackError(f"{index} is no raw frame", do="ask for an angle and a phase")
        number = self.raw.frame_number(index.z, index.angle, index.phase, self.n_z)
        return self._files[index.channel].frame(number)

    def crc32c(self, index: SliceIndex) -> int | None:
        """Files of other programs have none."""
        return None

    def close(self) -> None:
        """See above."""
        for file in self._files.values():
            file.close()


def _colours(key: str, path: Path, channel_order: tuple[str, ...] | None) -> list[tuple[str, int | None]]:
    """Which colours of a file are which: by the map's column, by the stated order, or the only one there is."""
    if key:
        return [(key, None)]
    with RawFile(path) as file:
        n_colours = dict(file.axes).get("C", 1)
    order = channel_order or (CHANNELS if n_colours == len(CHANNELS) else CHANNELS[:1])
    if len(order) != n_colours:
        do = "state channel_order: which colour of the file is which, in its order"
        raise StackError(f"it has {n_colours} colours, {len(order)} are stated", where=str(path), do=do)
    return [(channel, n if n_colours > 1 else None) for n, channel in enumerate(order) if channel != "-"]
