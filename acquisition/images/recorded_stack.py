"""One well's recorded stack, read plane by plane, its channels told apart.

A file is checked whole before its first plane is given out, because the libraries that read it give zeros or fewer
planes for a damaged one.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self, cast

import numpy as np

from spheroidd.acquisition.images.channel_names import _named, tell_apart
from spheroidd.acquisition.images.layout import CheckedFile, FileLayout, GrowingFile, LedgerFile, StackFile
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import CHANNELS, SliceIndex


class RecordedStack:
    """One well's recorded stack: one file with all channels, or one file for each.

    `paths` is keyed by channel ("488", "561") or by "" for one file. `assignment` says how its channels were told
    apart. Use it in a `with` statement.
    """

    def __init__(self, paths: Mapping[str, Path], *, growing: bool = False) -> None:
        with ExitStack() as opened:
            self._planes: dict[str, tuple[StackFile, int]] = {}
            self.assignment = "one file for each channel"
            for key, path in paths.items():
                file = open_file(path, growing=growing)
                opened.callback(file.close)
                if key:
                    self._planes[key] = (file, _only_channel(path, file.layout, key))
                else:
                    found, self.assignment = tell_apart(path, file.layout)
                    self._planes |= {channel: (file, at) for channel, at in found.items()}
            self.channels = tuple(channel for channel in CHANNELS if channel in self._planes)
            self._check_alike(paths)
            self._opened = opened.pop_all()
        first = self._planes[self.channels[0]][0].layout
        self.n_z, self.height, self.width, self.dtype = first.n_z, first.height, first.width, first.dtype
        self.pixel_um = self._said("pixel_um")
        self.z_step_um = self._said("z_step_um")

    def _said(self, name: str) -> float | None:
        sizes = (getattr(file.layout, name) for file, _ in self._planes.values())
        return next((cast(float, size) for size in sizes if size is not None), None)

    def _check_alike(self, paths: Mapping[str, Path]) -> None:
        shapes = {
            channel: (file.layout.n_z, file.layout.height, file.layout.width, file.layout.dtype)
            for channel, (file, _) in self._planes.items()
        }
        if len(set(shapes.values())) > 1:
            what = "its channels differ: " + ", ".join(f"{channel} is {shape}" for channel, shape in shapes.items())
            where = ", ".join(str(path) for path in paths.values())
            raise StackError(what, where=where, do="give two recordings of the same stack")

    def plane(self, index: SliceIndex) -> Pixels:
        """Read one plane (y, x), uint8 or uint16, in memory of its own; StackError where its data are damaged."""
        file, channel = self._planes[index.channel]
        try:
            pixels = file.plane(channel, index.z)
        except StackError:
            raise
        except Exception as error:  # decoders raise what they like; none of it may end the plate
            what = f"channel {index.channel} z {index.z} cannot be decoded: {error}"
            raise StackError(what, do="record or copy the file again") from error
        return np.array(pixels, dtype=self.dtype, order="C")

    def metadata(self, index: SliceIndex) -> Mapping[str, float | str]:
        """What the files say of one plane, under the names of `image_facts`; nothing where they say nothing."""
        file, channel = self._planes[index.channel]
        return file.metadata(channel, index.z)

    def unread(self) -> StackError | None:
        """Why nothing is known of its images but their pixels, where the recording has a ledger; None where it is."""
        files = (file for file, _ in self._planes.values())
        return next((why for file in files if isinstance(file, LedgerFile) and (why := file.unread())), None)

    def crc32c(self, index: SliceIndex) -> int | None:
        """The checksum that a plane was stored with; None where the recording has none."""
        file, channel = self._planes[index.channel]
        return file.crc32c(channel, index.z) if isinstance(file, CheckedFile) else None

    def has(self, index: SliceIndex) -> bool:
        """Whether a plane is whole by now; always so for a file that is not growing."""
        file, channel = self._planes[index.channel]
        return file.has(channel, index.z) if isinstance(file, GrowingFile) else True

    def close(self) -> None:
        """Let the files go; may be called twice."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _only_channel(path: Path, layout: FileLayout, channel: str) -> int:
    """Which plane of a file that was given for one channel."""
    if layout.n_channels == 1:
        return 0
    named = _named(layout)[channel]
    if len(named) == 1:
        return named[0]
    what = f"it holds {layout.n_channels} channels, and none or several say {channel}"
    raise StackError(what, where=str(path), do="give a file with one channel, or put the file under path")
