"""TrakEM2 projects: the area lists that a person drew over a stack, as a label volume. Knows the project's XML alone.

What is read of it: `t2_layer_set` (the canvas and its calibration), `t2_layer` (oid, z), `t2_patch` (where the images
lie), `t2_area_list` (title, transform) with a `t2_area` for each layer, and in it a `t2_path` for each outline; an
outline inside another is a hole. Layers count z in pixels, so the step between slices is that times pixelWidth.
Coordinates are edges: pixel (0, 0) covers 0 to 1, and belongs to an area where its centre does (even-odd rule).
"""

import gzip
import math
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from spheroidd.inference.annotations.volume import MAX_VOXELS, Annotation, micrometres, smallest_type
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.protocols.errors import ConfigError

MAX_BYTES = 1 << 29  # of XML; a hundred thousand outlines of a hundred points are 150 MB
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(rf"[MLzZ]|{_NUMBER}|\S")
_MATRIX = re.compile(rf"\s*matrix\(({_NUMBER}(?:[\s,]+{_NUMBER}){{5}})\)\s*")
_UNEVEN = 0.01  # how far steps between layers, or the two z calibrations, may differ: typed numbers are rounded

Outline = NDArray[np.float64]  # (n, 2): x, y


class _Field(NamedTuple):
    """The part of the canvas that the images cover, in pixels, and the layers from below, by oid."""

    x: float
    y: float
    width: int
    height: int
    planes: dict[str, int]
    step_px: float


def read_trakem2(path: Path) -> Annotation:
    """Every area list of a project as one label, in the file's order, the volume as large as the images it lies on.

    Labels are named by the area list's title; where that says nothing of its own ("area_list"), by the project tree's
    node above it. The voxel size is None where the project was never calibrated. ConfigError names what is wrong.
    """
    where = str(path)
    root = _parse(path)
    layer_set = root.find("t2_layer_set")
    if root.tag != "trakem2" or layer_set is None:
        raise ConfigError("it is not a TrakEM2 project", where=where, do="save the project from TrakEM2 as XML")
    field = _field(layer_set, where)
    lists = layer_set.findall("t2_area_list")
    labels = np.zeros((len(field.planes), field.height, field.width), smallest_type(len(lists)))
    titles = _names(root)
    names: dict[int, str] = {}
    overlap = 0
    for label, area_list in enumerate(lists, start=1):
        names[label] = _name(area_list, titles)
        for z, mask, (y, x) in _areas(area_list, field, f"{where}, area list {names[label]!r}"):
            region = labels[z, y : y + mask.shape[0], x : x + mask.shape[1]]
            taken = region[mask]
            overlap += int(np.count_nonzero((taken != 0) & (taken != label)))
            region[mask] = label
    return Annotation(labels, _spacing_um(layer_set, field, where), names, where, overlap)


def _parse(path: Path) -> ET.Element:
    """The project's root. Entities and everything outside the file are refused: a project needs neither."""
    try:
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if path.name.lower().endswith(".gz") else file
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(
                f"more than {MAX_BYTES >> 20} MB of XML", where=str(path), do="check that it is a project"
            )
        root: ET.Element = fromstring(data, forbid_dtd=False, forbid_entities=True, forbid_external=True)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), do="check the path") from error
    except (ET.ParseError, DefusedXmlException, ValueError, LookupError) as error:  # an unknown encoding is a lookup
        what = f"not well-formed XML: {error or type(error).__name__}"
        raise ConfigError(what, where=str(path), do="save the project from TrakEM2 again") from error
    return root


def _field(layer_set: ET.Element, where: str) -> _Field:
    layers = sorted(layer_set.findall("t2_layer"), key=lambda layer: _number(layer, "z", where))
    if not layers:
        raise ConfigError("it has no layer", where=where, do="import the stack into the project first")
    planes = {layer.get("oid", ""): z for z, layer in enumerate(layers)}
    if len(planes) < len(layers) or "" in planes:
        raise ConfigError("layers have no oid of their own", where=where, do="save the project from TrakEM2 again")
    patches = [patch for layer in layers for patch in layer.findall("t2_patch")]
    x, y, width, height = _extent(layer_set, patches, where)
    if not (width >= 1 and height >= 1 and width * height * len(layers) <= MAX_VOXELS):
        what = f"a canvas of {width:g} x {height:g} pixels and {len(layers)} layers"
        raise ConfigError(what, where=where, do="check layer_width and layer_height of the project")
    return _Field(x, y, round(width), round(height), planes, _step_px(layers, where))


def _extent(layer_set: ET.Element, patches: list[ET.Element], where: str) -> tuple[float, float, float, float]:
    """The rectangle (x, y, width, height) that every image covers, or the whole canvas where they differ."""
    if patches:
        places = {(_matrix(patch, where), patch.get("width"), patch.get("height")) for patch in patches}
        matrix = _matrix(patches[0], where)
        if len(places) == 1 and matrix[:4] == (1.0, 0.0, 0.0, 1.0):
            return matrix[4], matrix[5], _number(patches[0], "width", where), _number(patches[0], "height", where)
    return 0.0, 0.0, _number(layer_set, "layer_width", where), _number(layer_set, "layer_height", where)


def _step_px(layers: list[ET.Element], where: str) -> float:
    """What one slice is thick, in pixels."""
    z = [_number(layer, "z", where) for layer in layers]
    if len(z) == 1:
        return _number(layers[0], "thickness", where)
    steps = np.diff(z)
    if not steps.min() > 0 or np.ptp(steps) > _UNEVEN * steps.max():
        what = f"its layers are {steps.min():g} to {steps.max():g} pixels apart"
        raise ConfigError(what, where=where, do="give every slice a layer, all of one thickness")
    return float(steps.mean())


def _spacing_um(layer_set: ET.Element, field: _Field, where: str) -> Spacing | None:
    """The voxel size; None for a project in pixels. ConfigError where layers and pixelDepth disagree."""
    calibration = layer_set.find("t2_calibration")
    unit = None if calibration is None else micrometres(calibration.get("unit", "pixel"))
    if calibration is None or unit is None:
        return None
    x, y, depth = (unit * _number(calibration, f"pixel{name}", where) for name in ("Width", "Height", "Depth"))
    z = field.step_px * x
    if abs(z - depth) > _UNEVEN * max(abs(z), abs(depth)):
        what = f"its layers are {z:g} um apart, its calibration says {depth:g} um"
        do = "set the layers' thickness to pixelDepth / pixelWidth, or give the voxel size yourself"
        raise ConfigError(what, where=where, do=do)
    return z, y, x


def _areas(
    area_list: ET.Element, field: _Field, where: str
) -> Iterator[tuple[int, NDArray[np.bool_], tuple[int, int]]]:
    """Each drawn layer of an area list: its z, a mask (y, x), and where in the plane the mask's corner is."""
    a, b, c, d, e, f = _matrix(area_list, where)
    for area in area_list.findall("t2_area"):
        layer = area.get("layer_id", "")
        if layer not in field.planes:
            do = "save the project from TrakEM2 again, with all its layers"
            raise ConfigError(f"an area lies on layer {layer!r}, which is not there", where=where, do=do)
        outlines = [outline for path in area.findall("t2_path") for outline in read_path(path.get("d", ""), where)]
        moved = [outline @ [[a, b], [c, d]] + [e - field.x, f - field.y] for outline in outlines]
        mask, corner = fill(moved, field.height, field.width)
        if mask.size:
            yield field.planes[layer], mask, corner


def read_path(text: str, where: str = "") -> list[Outline]:
    """The closed outlines of a path "M x y L x y ... z"; ConfigError for other commands, odd or wild numbers.

    >>> [outline.tolist() for outline in read_path("M 0 0 L 4 0 L 4 4 z")]
    [[[0.0, 0.0], [4.0, 0.0], [4.0, 4.0]]]
    """
    outlines: list[list[float]] = []
    for token in _TOKEN.findall(text):
        if token == "M":
            outlines.append([])
        elif token not in ("L", "z", "Z", ","):
            try:
                value = float(token)
            except ValueError:
                value = math.nan
            if not outlines or not abs(value) < 1e7:
                do = "draw the area again: a path is M x y, L x y, ..., z"
                raise ConfigError(f"a path holds {token!r}", where=where, do=do)
            outlines[-1].append(value)
    if any(len(outline) % 2 for outline in outlines):
        raise ConfigError("a path has an x without a y", where=where, do="draw the area again")
    return [np.array(outline, np.float64).reshape(-1, 2) for outline in outlines if len(outline) >= 6]


def fill(outlines: list[Outline], height: int, width: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The pixels of a plane whose centres lie inside an odd number of outlines: a mask (y, x) and its corner (y, x).

    Only the rectangle around the outlines is filled, and of it what lies in the plane.
    """
    nothing = np.zeros((0, 0), np.bool_), (0, 0)
    if not outlines:
        return nothing
    points = np.concatenate(outlines)
    left, top = (max(0, math.floor(v)) for v in points.min(0))
    right, bottom = (min(side, math.ceil(v)) for side, v in zip((width, height), points.max(0), strict=True))
    if right <= left or bottom <= top:
        return nothing
    crossings = np.zeros((bottom - top, right - left + 1), np.bool_)
    for outline in outlines:
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, 0), strict=True):
            low, high = min(y0, y1), max(y0, y1)
            rows = np.arange(max(math.ceil(low - 0.5), top), min(math.ceil(high - 0.5), bottom))
            if len(rows):
                x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
                columns = np.ceil(x - 0.5).clip(left, right).astype(np.int64) - left
                crossings[rows - top, columns] ^= True  # an edge crosses each row once
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(crossings, axis=1)[:, :-1]
    return inside, (top, left)


def _names(root: ET.Element) -> dict[str, list[str]]:
    """What the project tree calls each area list, by oid: its own title first, then the nodes above it."""
    found: dict[str, list[str]] = {}

    def visit(node: ET.Element, above: tuple[str, ...]) -> None:
        for thing in node:
            titles = (*(t for t in (thing.get("title"), thing.tag) if t), *above)
            if thing.get("oid"):
                found[thing.get("oid", "")] = list(titles)
            if len(titles) < 200:  # a tree as deep as that is no tree of a person's
                visit(thing, titles)

    for project in root.findall("project"):
        visit(project, ())
    return found


def _name(area_list: ET.Element, titles: dict[str, list[str]]) -> str:
    oid = area_list.get("oid", "")
    candidates = [area_list.get("title", ""), *titles.get(oid, ())]
    return next((name for name in candidates if not _says_nothing(name)), oid or "area_list")


def _says_nothing(name: str) -> bool:
    """ "area_list", "Area List 12", "anything" and a bare number are what TrakEM2 writes itself."""
    return re.sub(r"[\W_\d]+", "", name.lower()) in ("", "arealist", "anything", "project")


def _matrix(element: ET.Element, where: str) -> tuple[float, ...]:
    """The six numbers of transform="matrix(a,b,c,d,e,f)": x' = a x + c y + e, y' = b x + d y + f."""
    text = element.get("transform", "matrix(1,0,0,1,0,0)")
    match = _MATRIX.fullmatch(text)
    numbers = tuple(float(n) for n in re.findall(_NUMBER, match[1])) if match else ()
    if len(numbers) != 6 or not all(abs(n) < 1e7 for n in numbers):
        raise ConfigError(f"transform is {text[:60]!r}", where=where, do="save the project from TrakEM2 again")
    return numbers


def _number(element: ET.Element, name: str, where: str) -> float:
    text = element.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and abs(value) < 1e9):
        do = "save the project from TrakEM2 again"
        raise ConfigError(f"{name} of its {element.tag} is {text[:40]!r}", where=where, do=do)
    return value
