"""Label images: TIFF, .npy and OME-Zarr labels (NGFF 0.4 and 0.5), each as one volume of whole numbers."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
import zarr.errors
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from spheroidd.inference.annotations.volume import MAX_VOXELS, Annotation, ClassNames, micrometres, smallest_type
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.protocols.errors import ConfigError

_DO = "give one label volume (z, y, x) of whole numbers"


def read_tiff_labels(path: Path) -> Annotation:
    """A label TIFF with the voxel size that ImageJ or OME wrote into it (None where nobody did).

    Where the file's own name means live or dead ("A01_live.tif"), all its labels do; else they are called by number.
    """
    try:
        with tifffile.TiffFile(path) as file:
            _check_size(file.series[0].shape, str(path))
            pixels, spacing = np.asarray(file.asarray()), _tiff_spacing(file)
            if "S" in file.series[0].axes:
                raise ConfigError("it is a colour picture", where=str(path), do=_DO)
    except ConfigError:
        raise
    except Exception as error:  # tifffile raises whatever a broken file makes of it: IndexError, zlib.error, ...
        raise ConfigError(f"cannot be read as a TIFF: {error}", where=str(path), do=_DO) from error
    return _annotation(pixels, spacing, {}, path.name.split(".")[0], str(path))


def read_array_labels(path: Path) -> Annotation:
    """A .npy volume; its voxel size is not known."""
    try:
        pixels: NDArray[Any] = open_memmap(path, mode="r")  # unlike np.load it takes no archive that is called .npy
        _check_size(pixels.shape, str(path))
        pixels = np.array(pixels)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"cannot be read as .npy: {error}", where=str(path), do=_DO) from error
    return _annotation(pixels, None, {}, path.stem, str(path))


def read_zarr_labels(path: Path) -> Annotation:
    """OME-Zarr labels: an image with a "labels" group (its one label, or "live" and "dead" merged), or one label.

    Names come from image-label properties ("class" or "name" of a label-value), else from the label's own name.
    """
    where = str(path)
    try:
        group = zarr.open_group(path, mode="r")
        found = _label_groups(group, path.name.split(".")[0])
        parts = [_one_label(name, node, where) for name, node in found]
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zarr.errors.BaseZarrError) as error:
        raise ConfigError(f"cannot be read as OME-Zarr labels: {error!r}", where=where, do=_DO) from error
    return parts[0] if len(parts) == 1 else _merged(parts, where)


def _label_groups(group: zarr.Group, stem: str) -> list[tuple[str, zarr.Group]]:
    names = group.get("labels")
    if names is None:
        return [(stem, group)]
    if not isinstance(names, zarr.Group):
        raise ValueError("labels is no group")
    groups = [(name, node) for name, node in names.groups()]
    if not groups:
        raise ValueError("its labels group is empty")
    both = [(name, node) for name, node in groups if ClassNames().of(name)]
    if len(groups) > 1 and not both:
        listed = ", ".join(name for name, _ in groups)
        raise ValueError(f"it has several labels: {listed}; give the path of one")
    return both or groups


def _one_label(name: str, group: zarr.Group, where: str) -> Annotation:
    ome = _attributes(group)
    scales = ome.get("multiscales") or [{"datasets": [{"path": "0"}]}]
    first = scales[0]["datasets"][0]
    array = group[first["path"]]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name} holds no array")
    _check_size(array.shape, f"{where}, label {name}")
    axes = scales[0].get("axes")
    spacing = _zarr_spacing(axes, first.get("coordinateTransformations") or (), array.ndim) if axes else None
    properties = (ome.get("image-label") or {}).get("properties") or ()
    names = {int(one["label-value"]): str(one.get("class") or one.get("name") or "") for one in properties}
    names = {label: text for label, text in names.items() if text}
    return _annotation(np.asarray(array[...]), spacing, names, name, f"{where}, label {name}")


def _attributes(group: zarr.Group) -> dict[str, Any]:
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    return dict(ome) if isinstance(ome, Mapping) else attributes


def _zarr_spacing(
    axes: Iterable[Mapping[str, Any]], transforms: Iterable[Mapping[str, Any]], ndim: int
) -> Spacing | None:
    scale = next((one["scale"] for one in transforms if one.get("type") == "scale"), None)
    if scale is None or len(scale) != ndim:
        return None
    found = {
        axis["name"]: float(step) * unit
        for axis, step in zip(axes, scale, strict=True)
        if (unit := micrometres(str(axis.get("unit", "")))) is not None
    }
    return (found["z"], found["y"], found["x"]) if {"z", "y", "x"} <= found.keys() else None


def _merged(parts: list[Annotation], where: str) -> Annotation:
    """Several one-class labels as one volume: the later has the voxels that two claim."""
    shapes = {part.labels.shape for part in parts}
    if len(shapes) > 1:
        raise ConfigError(f"its labels are {sorted(shapes)}", where=where, do="give labels of one shape")
    total = sum(int(part.labels.max(initial=0)) for part in parts)
    labels = np.zeros(parts[0].labels.shape, smallest_type(total))
    names: dict[int, str] = {}
    overlap = offset = 0
    for part in parts:
        inside = part.labels != 0
        overlap += int(np.count_nonzero(labels[inside]))
        labels[inside] = part.labels[inside].astype(labels.dtype) + labels.dtype.type(offset)
        names |= {label + offset: name for label, name in part.names.items()}
        offset += int(part.labels.max(initial=0))
    return Annotation(labels, parts[0].spacing_um, names, where, overlap)


def _annotation(
    pixels: NDArray[Any], spacing: Spacing | None, names: Mapping[int, str], own_name: str, where: str
) -> Annotation:
    labels = whole_numbers(pixels, where)
    values = [int(value) for value in np.unique(labels) if value]
    if ClassNames().of(own_name.replace("_", " ")) is not None:
        names = dict.fromkeys(values, own_name) | dict(names)
    return Annotation(labels, spacing, {value: names.get(value, str(value)) for value in values}, where)


def whole_numbers(pixels: NDArray[Any], where: str) -> NDArray[np.unsignedinteger[Any]]:
    """A volume (z, y, x) of labels in the smallest type that holds them; ConfigError for NaN, fractions, below 0."""
    while pixels.ndim > 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or not pixels.size:
        raise ConfigError(f"it is {pixels.shape}", where=where, do=_DO)
    if pixels.dtype.kind not in "buif":
        raise ConfigError(f"its numbers are {pixels.dtype}", where=where, do=_DO)
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high < 2**32) or (pixels.dtype.kind == "f" and not np.array_equal(pixels, np.floor(pixels))):
        what = f"its numbers go from {low} to {high}" + ("" if low < 0 else ", or are no whole ones")
        raise ConfigError(what, where=where, do=_DO)
    return np.asarray(pixels, smallest_type(int(high)))


def _check_size(shape: Iterable[int], where: str) -> None:
    if math.prod(shape) > MAX_VOXELS:
        raise ConfigError(f"it is {tuple(shape)}", where=where, do="give a volume of less than 2^31 voxels")


def _tiff_spacing(file: tifffile.TiffFile) -> Spacing | None:
    if file.ome_metadata:
        return _ome_spacing(file.ome_metadata)
    told = file.imagej_metadata or {}
    unit = micrometres(str(told.get("unit", "")))
    tags = file.pages.first.tags
    if unit is None or "XResolution" not in tags or "YResolution" not in tags or "spacing" not in told:
        return None
    try:
        y, x = (_per_pixel(tags[name].value) * unit for name in ("YResolution", "XResolution"))
        return float(told["spacing"]) * unit, y, x
    except (ValueError, TypeError, ZeroDivisionError):
        return None


def _per_pixel(resolution: tuple[int, int]) -> float:
    pixels, units = resolution
    return units / pixels


def _ome_spacing(text: str) -> Spacing | None:
    """PhysicalSizeZ, Y and X of the first image; None where one is missing or, as some cameras write it, 0."""
    try:
        root: ET.Element = fromstring(text, forbid_dtd=True)
    except (ET.ParseError, DefusedXmlException, ValueError):
        return None
    pixels = next((node for node in root.iter() if re.sub(r"^\{.*\}", "", node.tag) == "Pixels"), None)
    if pixels is None:
        return None
    found: list[float] = []
    for axis in "ZYX":
        unit = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = pixels.get(f"PhysicalSize{axis}", "0")
        if unit is None or not re.fullmatch(r"[\d.eE+-]+", size) or not float(size) > 0:
            return None
        found.append(float(size) * unit)
    return found[0], found[1], found[2]
