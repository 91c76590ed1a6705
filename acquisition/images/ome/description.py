"""What the OME-XML in other people's files says of one image: sizes, names, and which plane lies where.

The only module that reads their XML. It comes from outside, so entities and external references are refused. One XML
may describe the images of many files: the one that is meant is found by the file that its planes are said to lie in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import defusedxml
from defusedxml import ElementTree

from spheroidd.acquisition.images.metadata.image_metadata import Facts
from spheroidd.acquisition.images.metadata.units import length_um, square_pixel_um
from spheroidd.acquisition.images.ome.planes import OmePlanes, read_planes
from spheroidd.protocols.errors import StackError

MAX_PLANES = 1_000_000  # of one image, all its time points together
DO_EXPORT = "export the file again"


class Place(NamedTuple):
    """Where a plane lies: a file's name, "" for the described file itself, and the plane's number in it from 0."""

    file: str
    ifd: int


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image of an OME-XML. `places` says where its planes are: (channel, z) -> `Place`.

    `planes_elsewhere` counts those of other files, of all time points; `defects` names what is wrong in it and can be
    lived with. `pixel_type` is OME's word for it, "" where it says none.
    """

    n_channels: int
    n_z: int
    n_t: int
    height: int
    width: int
    channel_names: tuple[str, ...] = ()
    pixel_um: float | None = None
    z_step_um: float | None = None
    places: Mapping[tuple[int, int], Place] = field(default_factory=lambda: MappingProxyType({}))
    planes_elsewhere: int = 0
    defects: tuple[str, ...] = ()
    planes: OmePlanes = field(default_factory=OmePlanes)
    name: str = ""
    pixel_type: str = ""

    @property
    def ifds(self) -> dict[tuple[int, int], int]:
        """Where the planes are that lie in the described file itself: (channel, z) -> number of the plane."""
        return {plane: place.ifd for plane, place in self.places.items() if not place.file}

    def facts_of(self, ifd: int) -> Facts:
        """What it says of the plane at a place of this file; of the image alone where it does not say which that is."""
        alone = (0, 0) if self.n_channels * self.n_z == 1 else (-1, -1)
        channel, z = next((plane for plane, at in self.places.items() if at == ("", ifd)), alone)
        return self.planes.facts(channel, z) if channel >= 0 else dict(self.planes.image)


class OmeDocument:
    """An OME-XML as a list of images; `path` is the file that it was found in. StackError where it is no OME-XML.

    `metadata_file` is where the description lies where this one says no more than that (OME's BinaryOnly), and
    `metadata_uuid` which one it is.
    """

    def __init__(self, xml: str | bytes, path: Path) -> None:
        try:
            # fromstring takes no XML of a str that declares another encoding
            self._root = ElementTree.fromstring(xml.encode() if isinstance(xml, str) else xml)
        except (ElementTree.ParseError, defusedxml.DefusedXmlException, ValueError, LookupError) as error:
            what = f"its OME-XML cannot be read: {type(error).__name__} {error}"
            raise StackError(what, where=str(path), do=DO_EXPORT) from error
        self.path = path
        self.uuid = self._root.get("UUID", "")
        only = self._root.find("{*}BinaryOnly")
        self.metadata_file = only.get("MetadataFile", "") if only is not None else ""
        self.metadata_uuid = only.get("UUID", "") if only is not None else ""
        self._images = [image for image in self._root.findall("{*}Image") if image.find("{*}Pixels") is not None]

    def names(self) -> list[str]:
        """What its images can be called by, in their order: their names where these differ, else their IDs."""
        names = [image.get("Name", "") for image in self._images]
        ids = [image.get("ID", "") for image in self._images]
        return names if all(names) and len(set(names)) == len(names) else ids

    def image(self, path: Path, uuid: str = "", series: str = "", time_point: int = 0) -> OmeImage:
        """The image that the file `path`, whose own UUID is `uuid`, holds planes of; `series` names one of several.

        StackError where none is, where several are and none is named, and where the file's name says another one than
        its UUID, as happens when files change places.
        """
        if not self._images:
            raise StackError("its OME-XML holds no image", where=str(path), do=DO_EXPORT)
        found = self._called(series, path) if series else self._of_file(path, uuid)
        if len(found) > 1:
            names = self.names()
            listed = ", ".join(names[at] for at in found[:20])
            what = f"it holds {len(found)} images: {listed}{', ...' if len(found) > 20 else ''}"
            raise StackError(what, where=str(path), do=f"name one in the plate map: {path.name}/{names[found[0]]}")
        return self._read(self._images[found[0]], path, uuid, time_point)

    def _called(self, series: str, path: Path) -> list[int]:
        names = self.names()
        called = [(name, image.get("ID"), image.get("Name")) for name, image in zip(names, self._images, strict=True)]
        found = [at for at, names_of_one in enumerate(called) if series in names_of_one]
        if len(found) != 1:
            what = f"{len(found)} of its images are called {series!r}; it holds {', '.join(names[:20])}"
            raise StackError(what, where=str(path), do=f"name one in the plate map: {path.name}/{names[0]}")
        return found

    def _of_file(self, path: Path, uuid: str) -> list[int]:
        """The images of which this file holds planes, by its name and by its UUID, which must not contradict."""
        by_name, by_uuid, unnamed, files = [], [], [], set()
        for at, image in enumerate(self._images):
            elements = [element.find("{*}UUID") for element in image.iterfind("{*}Pixels/{*}TiffData")]
            said = {(u.get("FileName", ""), (u.text or "").strip()) for u in elements if u is not None}
            files |= {(name or text) for name, text in said}
            if any(_is_file(name, path.name) for name, _ in said):
                by_name.append(at)
            if uuid and any(text == uuid for _, text in said):
                by_uuid.append(at)
            if not said or None in elements:
                unnamed.append(at)
        if by_name and by_uuid and set(by_name).isdisjoint(by_uuid):
            names = self.names()
            what = f"its name says image {names[by_name[0]]}, its UUID says image {names[by_uuid[0]]}"
            raise StackError(what, where=str(path), do="give the files of the set their own names again")
        found = by_name or by_uuid or unnamed
        if not found and len(self._images) == 1:
            return [0]  # a file that was given another name, perhaps; none of its planes is said to lie in this one
        if not found:
            listed = ", ".join(sorted(files)[:5])
            what = f"its OME-XML describes {len(self._images)} images in other files, not in this one: {listed}"
            raise StackError(what, where=str(path), do="give the files of the set their own names again")
        return found

    def _read(self, image: Any, path: Path, uuid: str, time_point: int) -> OmeImage:
        pixels = image.find("{*}Pixels")
        sizes = {axis: _size(pixels, axis, path) for axis in "CZTYX"}
        if sizes["C"] * sizes["Z"] * sizes["T"] > MAX_PLANES:
            what = f"its OME-XML promises {sizes['C']} x {sizes['Z']} x {sizes['T']} planes"
            raise StackError(what, where=str(path), do=DO_EXPORT)
        x_um, y_um, z_um = (
            length_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XYZ"
        )
        defects: list[str] = []
        if pixels.get("PhysicalSizeZ") is not None and z_um is None:
            unit = pixels.get("PhysicalSizeZUnit", "")
            defects.append(f"PhysicalSizeZ is {pixels.get('PhysicalSizeZ')} {unit}".rstrip())
        places, elsewhere = _where_planes_are(pixels, sizes, _OwnFile(path.name, uuid), time_point, defects)
        return OmeImage(
            sizes["C"],
            sizes["Z"],
            sizes["T"],
            sizes["Y"],
            sizes["X"],
            tuple(_channel_name(channel) for channel in pixels.findall("{*}Channel")),
            square_pixel_um(path, y_um, x_um),
            z_um,
            MappingProxyType(places),
            elsewhere,
            tuple(dict.fromkeys(defects)),
            read_planes(self._root, image, time_point, of_one=sizes["C"] * sizes["Z"] * sizes["T"] == 1),
            image.get("Name", ""),
            (pixels.get("Type") or pixels.get("PixelType") or "").lower(),
        )


def read_ome(xml: str | bytes, path: Path) -> OmeImage:
    """Read the OME-XML of the file `path` (or a file of its own); StackError where it is no OME-XML of an image."""
    document = OmeDocument(xml, path)
    return document.image(path, document.uuid)


class _OwnFile(NamedTuple):
    """What a TiffData may call the file that is being read."""

    name: str
    uuid: str

    def holds(self, file: str, uuid: str) -> bool:
        return _is_file(file, self.name) or (bool(uuid) and uuid == self.uuid)


def _is_file(said: str, name: str) -> bool:
    """Whether a FileName means a file; some writers put a folder before it, and Windows knows no upper case."""
    return said.replace("\\", "/").rpartition("/")[2].casefold() == name.casefold()


def _channel_name(channel: Any) -> str:
    """All that says which dye it is: a name says most, but some writers give only the light."""
    said = " ".join(channel.get(key, "") for key in ("Name", "Fluor")).strip()
    light = "/".join(filter(None, (channel.get(f"{kind}Wavelength") for kind in ("Excitation", "Emission"))))
    return f"{said} {light}".strip()


def _size(pixels: Any, axis: str, path: Path) -> int:
    text = pixels.get(f"Size{axis}", "1")
    try:
        size = int(text)
    except ValueError:
        size = 0
    if not 1 <= size <= 1_000_000:
        raise StackError(f"its OME-XML says Size{axis} is {text!r}", where=str(path), do=DO_EXPORT)
    return size


def _where_planes_are(
    pixels: Any, sizes: Mapping[str, int], own: _OwnFile, time_point: int, defects: list[str]
) -> tuple[dict[tuple[int, int], Place], int]:
    """Follow the TiffData: the planes of one time point, and how many planes are in other files."""
    order = _plane_order(pixels.get("DimensionOrder", "XYCZT"), sizes)
    position = {plane: at for at, plane in enumerate(order)}
    places: dict[tuple[int, int], Place] = {}
    twice: set[tuple[int, int]] = set()
    elsewhere = followed = 0
    for element in pixels.findall("{*}TiffData"):
        first_c, first_z, first_t = (_number(element, f"First{axis}", 0) for axis in "CZT")
        first = (first_c, first_z, first_t)
        at = position.get(first)
        if at is None:
            what = ", ".join(f"First{a}={n} (Size{a}={sizes[a]})" for a, n in zip("CZT", first, strict=True))
            defects.append(f"TiffData points at a plane that is none: {what}")
            continue
        ifd = _number(element, "IFD", 0)
        count = _number(element, "PlaneCount", 1 if element.get("IFD") is not None else _left_out(element, order))
        uuid = element.find("{*}UUID")
        file = ""
        if uuid is not None and not own.holds(uuid.get("FileName", own.name), (uuid.text or "").strip()):
            file = uuid.get("FileName", "")
            elsewhere += count
        if at + count > len(order):
            defects.append(f"TiffData counts {count} planes from plane {at + 1} of {len(order)}")
        followed += min(max(count, 0), len(order))
        if followed > 4 * MAX_PLANES:
            defects.append("its TiffData name planes over and over")
            break
        for k, (c, z, t) in enumerate(order[at : at + max(count, 0)]):
            if t == time_point and places.setdefault((c, z), place := Place(file, ifd + k)) != place:
                defects.append(f"its TiffData name two places for channel {c} z {z}")
                twice.add((c, z))
    for plane in twice:  # nobody knows which one is meant: as good as missing
        del places[plane]
    return places, elsewhere


def _left_out(element: Any, order: list[tuple[int, int, int]]) -> int:
    """How many planes a TiffData without IFD and PlaneCount means: one where it names a first plane, else all."""
    named = any(element.get(f"First{axis}") is not None for axis in "CZT")
    return 1 if named else len(order)


def _plane_order(dimension_order: str, sizes: Mapping[str, int]) -> list[tuple[int, int, int]]:
    """Every (c, z, t) in the order in which planes follow one another in a file; the first letter runs fastest."""
    letters = dimension_order[2:] if sorted(dimension_order[2:]) == ["C", "T", "Z"] else "CZT"
    slowest_first = letters[::-1]
    c, z, t = (slowest_first.index(axis) for axis in "CZT")
    return [(at[c], at[z], at[t]) for at in product(*(range(sizes[axis]) for axis in slowest_first))]


def _number(element: Any, name: str, otherwise: int) -> int:
    try:
        return int(element.get(name, otherwise))
    except ValueError:
        return -1
