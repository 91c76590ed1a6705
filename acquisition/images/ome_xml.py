"""What the OME-XML in other people's files says of one image: sizes, names, and which plane lies where.

The only module that reads their XML. It comes from outside, so entities and external references are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import defusedxml
from defusedxml import ElementTree

from spheroidd.acquisition.images.image_metadata import Facts
from spheroidd.acquisition.images.ome_planes import OmePlanes, read_planes
from spheroidd.acquisition.images.units import length_um, square_pixel_um
from spheroidd.protocols.errors import StackError


@dataclass(frozen=True, slots=True)
class OmeImage:
    """The first image of an OME-XML. `ifds` says where this file's planes are: (channel, z) -> number of the plane.

    `planes_elsewhere` counts those of other files; `defects` names what is wrong in it and can be lived with.
    """

    n_channels: int
    n_z: int
    n_t: int
    height: int
    width: int
    channel_names: tuple[str, ...] = ()
    pixel_um: float | None = None
    z_step_um: float | None = None
    ifds: Mapping[tuple[int, int], int] = field(default_factory=lambda: MappingProxyType({}))
    planes_elsewhere: int = 0
    defects: tuple[str, ...] = ()
    planes: OmePlanes = field(default_factory=OmePlanes)

    def facts_of(self, ifd: int) -> Facts:
        """What it says of the plane at a place of this file; of the image alone where it does not say which that is."""
        alone = (0, 0) if self.n_channels * self.n_z == 1 else (-1, -1)
        channel, z = next((plane for plane, at in self.ifds.items() if at == ifd), alone)
        return self.planes.facts(channel, z) if channel >= 0 else dict(self.planes.image)


def read_ome(xml: str | bytes, path: Path) -> OmeImage:
    """Read the OME-XML of the file `path` (or a file of its own); StackError where it is no OME-XML of an image."""
    try:
        # fromstring takes no XML of a str that declares another encoding
        root = ElementTree.fromstring(xml.encode() if isinstance(xml, str) else xml)
    except (ElementTree.ParseError, defusedxml.DefusedXmlException, ValueError, LookupError) as error:
        what = f"its OME-XML cannot be read: {type(error).__name__} {error}"
        raise StackError(what, where=str(path), do="export the file again") from error
    image = root.find("{*}Image")
    pixels = None if image is None else image.find("{*}Pixels")
    if pixels is None:
        raise StackError("its OME-XML holds no image", where=str(path), do="export the file again")
    sizes = {axis: _size(pixels, axis, path) for axis in "CZTYX"}
    x_um, y_um, z_um = (
        length_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XYZ"
    )
    defects: list[str] = []
    if pixels.get("PhysicalSizeZ") is not None and z_um is None:
        defects.append(f"PhysicalSizeZ is {pixels.get('PhysicalSizeZ')}")
    ifds, elsewhere = _where_planes_are(pixels, sizes, path.name, defects)
    # A name says most, but some writers give only the laser line.
    said = ("Name", "Fluor", "ExcitationWavelength")
    names = tuple(" ".join(c.get(key, "") for key in said).strip() for c in pixels.findall("{*}Channel"))
    return OmeImage(
        sizes["C"],
        sizes["Z"],
        sizes["T"],
        sizes["Y"],
        sizes["X"],
        names,
        square_pixel_um(path, y_um, x_um),
        z_um,
        MappingProxyType(ifds),
        elsewhere,
        tuple(dict.fromkeys(defects)),
        read_planes(root, image, of_one=sizes["C"] * sizes["Z"] * sizes["T"] == 1),
    )


def _size(pixels: Any, axis: str, path: Path) -> int:
    text = pixels.get(f"Size{axis}", "1")
    try:
        size = int(text)
    except ValueError:
        size = 0
    if not 1 <= size <= 1_000_000:
        raise StackError(f"its OME-XML says Size{axis} is {text!r}", where=str(path), do="export the file again")
    return size


def _where_planes_are(
    pixels: Any, sizes: Mapping[str, int], name: str, defects: list[str]
) -> tuple[dict[tuple[int, int], int], int]:
    """Follow the TiffData: this file's planes of the first time point, and how many planes are in other files."""
    order = _plane_order(pixels.get("DimensionOrder", "XYCZT"), sizes)
    position = {plane: at for at, plane in enumerate(order)}
    ifds: dict[tuple[int, int], int] = {}
    elsewhere = 0
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
        if uuid is not None and uuid.get("FileName", name) != name:
            elsewhere += count
            continue
        if at + count > len(order):
            defects.append(f"TiffData counts {count} planes from plane {at + 1} of {len(order)}")
        for k, (c, z, t) in enumerate(order[at : at + count]):
            if t == 0:
                ifds[c, z] = ifd + k
    return ifds, elsewhere


def _left_out(element: Any, order: list[tuple[int, int, int]]) -> int:
    """How many planes a TiffData without IFD and PlaneCount means: one where it names a first plane, else all."""
    named = any(element.get(f"First{axis}") is not None for axis in "CZT")
    return 1 if named else len(order)


def _plane_order(dimension_order: str, sizes: Mapping[str, int]) -> list[tuple[int, int, int]]:
    """Every (c, z, t) in the order in which planes follow one another in a file; the first letter runs fastest."""
    letters = dimension_order[2:] if sorted(dimension_order[2:]) == ["C", "T", "Z"] else "CZT"
    found = []
    for at in product(*(range(sizes[axis]) for axis in reversed(letters))):
        of = dict(zip(reversed(letters), at, strict=True))
        found.append((of["C"], of["Z"], of["T"]))
    return found


def _number(element: Any, name: str, otherwise: int) -> int:
    try:
        return int(element.get(name, otherwise))
    except ValueError:
        return -1
