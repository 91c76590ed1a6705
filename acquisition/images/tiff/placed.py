"""A stack of which every plane's place is known: this page of that file of a set. Nothing else of the set is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.images.layout import FileLayout
from spheroidd.acquisition.images.metadata.image_metadata import Facts
from spheroidd.acquisition.images.metadata.units import dtype_name
from spheroidd.acquisition.images.ome.description import MAX_PLANES, OmeImage, Place
from spheroidd.acquisition.images.tiff.validation import TiffPages, damaged
from spheroidd.protocols.errors import StackError

MAX_OPEN = 8  # files of a set; channels in files of their own are read in turns
MAX_NAMED = 5  # planes in one message


class TiffSet:
    """The files beside a TIFF, each opened when it is asked for; at most `MAX_OPEN` stay open."""

    def __init__(self, own: TiffPages) -> None:
        self._own = own
        self._opened: dict[str, TiffPages] = {}

    def file(self, name: str) -> TiffPages:
        """A file of the set by its name, "" for the opened one; StackError where it is not there or damaged."""
        if not name:
            return self._own
        if name not in self._opened:
            path = _beside(self._own.path, name)
            if not path.exists():
                what = f"planes of it are in {path.name}, which is not there"
                raise StackError(what, where=str(self._own.path), do="copy the whole set of files")
            while len(self._opened) >= MAX_OPEN:
                self._opened.pop(next(iter(self._opened))).close()
            self._opened[name] = TiffPages(path)
        return self._opened[name]

    def close(self) -> None:
        """Let every file go; may be called twice."""
        for pages in (self._own, *self._opened.values()):
            pages.close()


def _beside(path: Path, name: str) -> Path:
    """A file of the set: beside the named one, whatever folder a description gives for it."""
    return path.parent / name.replace("\\", "/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Described:
    """What a description says of a stack: sizes, names, lengths, where the planes are, and what is said of each.

    `conflicts` are lengths that it says twice and differently.
    """

    n_channels: int
    n_z: int
    channel_names: tuple[str, ...]
    pixel_um: float | None
    z_step_um: float | None
    places: Mapping[tuple[int, int], Place]
    facts: Callable[[int, int], Facts]
    conflicts: Mapping[str, str]
    doubts: tuple[str, ...] = ()


class PlacedTiff:
    """A StackFile over the pages that a description names, all of them whole, grey and alike."""

    def __init__(self, own: TiffPages, described: Described) -> None:
        self._set, self._said = TiffSet(own), described
        try:
            self.layout = self._checked(own)
        except BaseException:
            self._set.close()
            raise

    def _checked(self, own: TiffPages) -> FileLayout:
        """The stack's layout, where every plane is whole and like the first."""
        described = self._said
        self._check_places(own.path)
        first = own.tiff.pages[next(place.ifd for place in described.places.values() if not place.file)]
        if len(first.shape) != 2:
            do = "save one grey image for each channel and slice"
            raise StackError(f"its images are {first.shape}", where=str(own.path), do=do)
        (height, width), dtype = first.shape, dtype_name(own.path, np.dtype(first.dtype))
        for place in sorted(described.places.values()):  # file by file
            self._set.file(place.file).check_page(place.ifd, (height, width), dtype)
        return FileLayout(
            described.n_channels,
            described.n_z,
            height,
            width,
            dtype,
            described.channel_names,
            described.pixel_um,
            described.z_step_um,
            described.conflicts,
            described.doubts,
            self._own_channels(),
        )

    def plane(self, channel: int, z: int) -> NDArray[Any]:
        """Read the pixels (y, x) of one plane."""
        place = self._said.places[channel, z]
        pixels: NDArray[Any] = self._set.file(place.file).tiff.pages[place.ifd].asarray()
        return pixels

    def metadata(self, channel: int, z: int) -> Facts:
        """What is said of one plane."""
        return self._said.facts(channel, z)

    def close(self) -> None:
        """Let the files go; may be called twice."""
        self._set.close()

    def _own_channels(self) -> tuple[int, ...] | None:
        elsewhere = {channel for (channel, _), place in self._said.places.items() if place.file}
        own = tuple(channel for channel in range(self._said.n_channels) if channel not in elsewhere)
        return own if elsewhere else None

    def _check_places(self, path: Path) -> None:
        """Every plane has a place of its own, in a file that is there, and one of them is in this file."""
        said = self._said
        places = said.places
        if said.n_channels * said.n_z > MAX_PLANES:
            what = f"{said.n_channels} channels of {said.n_z} slices are promised, and {len(places)} planes are there"
            raise damaged(path, what)
        wanted = [(c, z) for c in range(said.n_channels) for z in range(said.n_z)]
        held = {file: self._set.file(file).n_pages for file in sorted({place.file for place in places.values()})}
        missing = [p for p in wanted if p not in places or not 0 <= places[p].ifd < held[places[p].file]]
        if missing:
            named = ", ".join(f"channel {c} slice {z}" for c, z in missing[:MAX_NAMED])
            more = ", ..." if len(missing) > MAX_NAMED else ""
            what = f"{len(missing)} of {len(wanted)} planes are missing (counted from 0): {named}{more}"
            raise damaged(path, what)
        if all(place.file for place in places.values()):
            listed = ", ".join(sorted({place.file for place in places.values()})[:MAX_NAMED])
            what = f"its description says that the planes are in {listed}, and none in this file"
            raise StackError(what, where=str(path), do="give the files of the set their own names again")
        if len(set(places.values())) < len(places):
            raise damaged(path, "its description says that several of its planes are one and the same")


def of_ome(ome: OmeImage, path: Path, n_pages: int) -> Described:
    """What an OME-XML says of a file's stack, with what may be known of its places where it is silent or wrong."""
    places = dict(ome.places)
    n_planes = ome.n_channels * ome.n_z
    others = {place.file for place in places.values()}
    if n_planes == n_pages == 1 and "" not in others:
        places = {(0, 0): Place("", 0)}  # Leica counts a lone plane as one of the whole field
    elif len(others) == 1 and "" not in others and not _beside(path, next(iter(others))).exists():
        places = {plane: Place("", place.ifd) for plane, place in places.items()}  # it was given another name
    return Described(
        ome.n_channels,
        ome.n_z,
        ome.channel_names,
        ome.pixel_um,
        ome.z_step_um,
        places,
        ome.planes.facts,
        {},
        tuple(ome.defects),
    )
