"""One well's recorded stack, read plane by plane, its channels told apart.

A file is checked whole before its first plane is given out, because the libraries that read it give zeros or fewer
planes for a damaged one.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, cast

import numpy as np

from spheroidd.acquisition.images.layout import CheckedFile, GrowingFile, LedgerFile, StackFile
from spheroidd.acquisition.images.metadata.channel_names import only_channel, tell_apart
from spheroidd.acquisition.images.metadata.units import agree
from spheroidd.acquisition.images.metadata.z_axis import measured_step_um, step_conflict
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import CHANNELS, SliceIndex


class RecordedStack:
    """One well's recorded stack: one file with all channels, or one file for each.

    `paths` is keyed by channel ("488", "561") or by "" for one file. `assignment` says how its channels were told
    apart; `doubts` is what a person should look at. `pixel_um` and `z_step_um` are what the files say, None where they
    are silent; `conflicts` has, by their names, what the files say twice and differently. `channel_order` is the user's
    word for which channel of a file is which. Use it in a `with` statement.
    """

    raw = None  # its images are slices, not raw frames

    def __init__(
        self, paths: Mapping[str, Path], *, growing: bool = False, channel_order: Sequence[str] | None = None
    ) -> None:
        self.where = ", ".join(str(path) for path in paths.values())
        with ExitStack() as opened:
            self._planes: dict[str, tuple[StackFile, int]] = {}
            self.assignment, doubts = "one file for each channel", []
            for key, path in paths.items():
                file = open_file(path, growing=growing)
                opened.callback(file.close)
                doubts += [f"{path}: {doubt}" for doubt in file.layout.doubts]
                if key:
                    self._planes[key] = (file, only_channel(path, file.layout, key))
                else:
                    found = tell_apart(path, file.layout, channel_order)
                    self.assignment = found.how
                    doubts += [f"{path}: its channels were distinguished {found.doubt}"] if found.doubt else []
                    self._planes |= {channel: (file, at) for channel, at in found.channels.items()}
            self.doubts = tuple(doubts)
            self.channels = tuple(channel for channel in CHANNELS if channel in self._planes)
            self._check_alike(paths)
            first = self._planes[self.channels[0]][0].layout
            self.n_z, self.height, self.width, self.dtype = first.n_z, first.height, first.width, first.dtype
            self.conflicts: dict[str, str] = {}
            self.pixel_um = self._said("pixel_um")
            self.z_step_um = self._shown_z_step(self._said("z_step_um"))
            self._opened = opened.pop_all()

    def _said(self, name: str) -> float | None:
        """A length as its files say it; where they differ, that is kept as a conflict."""
        layouts = [file.layout for file, _ in self._planes.values()]
        for layout in layouts:
            if name in layout.conflicts:
                self.conflicts[name] = layout.conflicts[name]
        sizes = [size for layout in layouts if (size := cast(float | None, getattr(layout, name))) is not None]
        if sizes and not all(agree(sizes[0], size) for size in sizes):
            self.conflicts[name] = "its files say " + " and ".join(f"{size:g} um" for size in dict.fromkeys(sizes))
        return sizes[0] if sizes else None

    def _shown_z_step(self, said_um: float | None) -> float | None:
        """The z-step: as it is said, else as the slices' own positions show it; StackError where these are uneven."""
        shown_um = None
        for channel, (file, at) in self._planes.items():
            if self.n_z > 1 and not isinstance(file, CheckedFile):
                facts = {z: file.metadata(at, z) for z in range(self.n_z)}
                own_um = measured_step_um(facts, said_um, f"{self.where}, channel {channel}")
                conflict = step_conflict(said_um or shown_um, own_um)
                self.conflicts |= {"z_step_um": conflict} if conflict else {}
                shown_um = shown_um or own_um
        return said_um or shown_um

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
            what = f"channel {index.channel} z {index.z} cannot be decoded: {type(error).__name__} {error}"
            raise StackError(what, where=self.where, do="record or copy the file again") from error
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
