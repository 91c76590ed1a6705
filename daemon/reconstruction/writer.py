"""A file of raw frames into a computed image that says so: OME-TIFF or OME-Zarr, slice after slice."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from spheroidd.daemon.reconstruction.raw_file import CHANNEL, RawFile
from spheroidd.inference.reconstruction.plan import ReconstructionPlan
from spheroidd.inference.reconstruction.raw_slice import Raw, ReconstructedSlice
from spheroidd.inference.reconstruction.reconstructor import OUT_OFFSET, CpuReconstructor, to_uint16
from spheroidd.protocols.durable import replacing
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation

_FEWEST_COUNTS = 100  # between the darkest and the brightest value: with fewer an image is steps
_TIFF, _ZARR = (".ome.tif", ".ome.tiff", ".tif", ".tiff"), (".ome.zarr", ".zarr")


class Reconstructor(Protocol):
    """On whichever device."""

    def reconstruct(self, frames: Raw, z: int = 0) -> ReconstructedSlice:
        """One slice."""
        ...


def make_reconstructor(plan: ReconstructionPlan, device: str | None) -> Reconstructor:
    """numba and scipy without a device, else torch on it; ConfigError where there is no such device."""
    if device is None:
        return CpuReconstructor(plan)
    from spheroidd.inference.reconstruction.torch_reconstructor import TorchReconstructor

    try:
        return TorchReconstructor(plan, device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: {error}", do="write cpu or cuda, or leave it out") from error


def reconstruct_file(
    file: RawFile,
    found: PatternEstimate | None,
    out: Path,
    *,
    wiener: float | None,
    scale: float,
    as_float: bool,
    device: str | None,
) -> list[SliceModulation]:
    """Write `out` and return how each slice came about; without an estimate every slice is widefield.

    StackError where values do not fit into 16 bits at this scale, or make only a few counts; then nothing is written.
    """
    kind = out.name.lower()
    if not kind.endswith((*_TIFF, *_ZARR)):
        raise ConfigError(f"--out is {out.name}", do="write a name that ends in .ome.tif or .ome.zarr")
    if out.exists():
        raise ConfigError("it exists already", where=str(out), do="give another name: nothing is overwritten")
    if not out.parent.is_dir():
        raise ConfigError("its folder does not exist", where=str(out), do="make the folder first")
    if not as_float:
        _refuse_few_counts(file, scale)
    plan = ReconstructionPlan.of(file.pattern, CHANNEL, file.shape, file.pixel_um, found, wiener)
    made: list[SliceModulation] = []
    images = _images(file, make_reconstructor(plan, device), scale, as_float, made)
    shape = (len(file.slices), *plan.out_shape)
    dtype = np.dtype(np.float32 if as_float else np.uint16)
    facts = _facts(file, plan, scale, as_float)
    if kind.endswith(_TIFF):
        _write_tiff(out, images, shape, dtype, plan.out_pixel_um, file.raw.z_step_um, facts)
    else:
        _write_zarr(out, images, shape, dtype, plan.out_pixel_um, file.raw.z_step_um, facts, made)
    return made


def _images(
    file: RawFile, reconstructor: Reconstructor, scale: float, as_float: bool, made: list[SliceModulation]
) -> Iterator[NDArray[Any]]:
    for z in range(len(file.slices)):
        done = reconstructor.reconstruct(file.frames_of(z), z)
        made.append(done.modulation)
        if as_float:
            yield done.image
            continue
        counts, cut = to_uint16(done.image, scale)
        if cut:
            low, high = float(done.image.min()), float(done.image.max())
            what = f"z {z}: {cut} pixels do not fit into 16 bits at scale {scale:g} (values {low:.4g} to {high:.4g})"
            do = f"give --scale {_fitting_scale(low, high):g} or less, or --float"
            raise StackError(what, where=str(file.raw.path), do=do)
        yield counts


def _fitting_scale(low: float, high: float) -> float:
    """The largest scale of one digit at which these values fit into 16 bits above the offset."""
    below = OUT_OFFSET / -low if low < 0 else math.inf
    above = (np.iinfo(np.uint16).max - OUT_OFFSET) / high if high > 0 else math.inf
    largest = min(below, above)
    step = 10.0 ** math.floor(math.log10(largest))
    return math.floor(largest / step) * step


def _refuse_few_counts(file: RawFile, scale: float) -> None:
    """Frames of small numbers, 0 to 1 perhaps, would be rounded to nothing."""
    low, high = float(file.raw.frames.min()), float(file.raw.frames.max())
    counts = scale * (high - low)
    if file.raw.frames.dtype.kind == "f" and 0 < counts < _FEWEST_COUNTS:
        what = f"its values, {low:.4g} to {high:.4g}, are {counts:.2g} counts apart at scale {scale:g}"
        do = f"give --scale {10.0 ** math.floor(math.log10(1e4 / (high - low))):g}, or --float"
        raise StackError(what, where=str(file.raw.path), do=do)


def _facts(file: RawFile, plan: ReconstructionPlan, scale: float, as_float: bool) -> dict[str, Any]:
    return {
        "computed": "structured-illumination reconstruction" if plan.bands else "widefield of raw frames, no pattern",
        "by": f"spheroidd {version('spheroidd')}",
        "from": file.raw.path.name,
        "counts": "float" if as_float else f"round({scale:g} x value + {OUT_OFFSET:g})",
        "value": f"raw counts above {file.pattern.offset_adu:g}",
        "wiener": plan.wiener if plan.stated else "by each slice's noise and signal",
        "reach_per_um": plan.reach_per_um,
        "pattern": asdict(file.pattern),
        "estimate": None if plan.estimate is None else asdict(plan.estimate),
    }


def _write_tiff(
    out: Path,
    images: Iterator[NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    pixel_um: float,
    z_step_um: float | None,
    facts: dict[str, Any],
) -> None:
    metadata: dict[str, Any] = {
        "axes": "ZYX",
        "Name": "reconstruction (computed)",
        "Description": json.dumps(facts),
        "PhysicalSizeX": pixel_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": pixel_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["computed"]},
    }
    if z_step_um is not None:
        metadata |= {"PhysicalSizeZ": z_step_um, "PhysicalSizeZUnit": "µm"}
    with replacing(out) as partial:
        tifffile.imwrite(
            partial,
            images,
            shape=shape,
            dtype=dtype,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            predictor=dtype == np.uint16,
            metadata=metadata,
        )


def _write_zarr(
    out: Path,
    images: Iterator[NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    pixel_um: float,
    z_step_um: float | None,
    facts: dict[str, Any],
    made: list[SliceModulation],
) -> None:
    try:
        group = zarr.open_group(out, mode="w-", zarr_format=3)
        array = group.create_array(
            "0", shape=shape, chunks=(1, *shape[1:]), dtype=dtype, dimension_names=("z", "y", "x")
        )
        for z, image in enumerate(images):
            array[z] = image
        z_axis: dict[str, str] = {"name": "z", "type": "space"} | ({"unit": "micrometer"} if z_step_um else {})
        axes = [z_axis, *({"name": name, "type": "space", "unit": "micrometer"} for name in "yx")]
        scale = {"type": "scale", "scale": [z_step_um or 1.0, pixel_um, pixel_um]}
        level: dict[str, Any] = {"path": "0", "coordinateTransformations": [scale]}
        image_entry = {"name": "reconstruction (computed)", "axes": axes, "datasets": [level]}
        group.update_attributes(
            {
                "ome": {"version": "0.5", "multiscales": [image_entry]},
                "spheroidd": facts | {"slices": [asdict(one) for one in made]},
            }
        )
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
