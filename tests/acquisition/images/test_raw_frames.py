"""Raw frames come out of each kind of file in the file's own order, with what it says; what is not whole is refused."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrc
import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.images.raw_frames import RawFile, open_raw
from spheroidd.protocols.errors import StackError

FRAMES = (np.arange(30 * 6 * 8) % 60000).astype(np.uint16).reshape(30, 6, 8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", ["raw.tif", "raw.ome.tif"])
def test_a_tiff_gives_its_pages_and_its_pixel_size(tmp_path: Path, name: str, dtype: str) -> None:
    path, frames = tmp_path / name, (FRAMES % 250).astype(dtype)
    if name.endswith(".ome.tif"):
        sizes = {"PhysicalSizeX": 80, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.08, "PhysicalSizeZ": 0.125}
        tifffile.imwrite(path, frames, metadata={"axes": "ZYX", **sizes}, photometric="minisblack")
    else:
        said = {"axes": "ZYX", "unit": "um", "spacing": 0.125}
        tifffile.imwrite(path, frames, imagej=True, resolution=(12.5, 12.5), metadata=said)
    raw = open_raw(path)
    assert np.array_equal(raw.frames, frames)
    assert raw.frames.dtype == dtype
    assert (raw.pixel_um, raw.z_step_um) == (pytest.approx(0.08), pytest.approx(0.125))
    assert raw.axes == (("Z", 30), ("Y", 6), ("X", 8))


def test_axes_are_flattened_as_they_lie_and_a_colour_is_chosen(tmp_path: Path) -> None:
    path, values = tmp_path / "raw.ome.tif", FRAMES.reshape(5, 2, 3, 6, 8)
    tifffile.imwrite(path, values, metadata={"axes": "TCZYX"}, photometric="minisblack")
    assert np.array_equal(open_raw(path).frames, FRAMES)
    assert np.array_equal(open_raw(path, channel=1).frames, values[:, 1].reshape(15, 6, 8))
    with pytest.raises(StackError, match="no channel 2"):
        open_raw(path, channel=2)


def test_pages_that_were_written_one_by_one_are_one_stack_where_they_are_alike(tmp_path: Path) -> None:
    alike, mixed = tmp_path / "alike.tif", tmp_path / "mixed.tif"
    with tifffile.TiffWriter(alike) as tiff:
        for frame in FRAMES:
            tiff.write(frame, photometric="minisblack")
    with tifffile.TiffFile(alike) as tiff:
        assert len(tiff.series) == len(FRAMES)
    assert np.array_equal(open_raw(alike).frames, FRAMES)
    assert open_raw(alike).axes == (("I", 30), ("Y", 6), ("X", 8))
    with tifffile.TiffWriter(mixed) as tiff:
        for frame in (*FRAMES[:9], FRAMES[9, :3]):
            tiff.write(frame, photometric="minisblack")
    with pytest.raises(StackError, match="holds 10 images"):
        open_raw(mixed)


@pytest.mark.parametrize("name", ["raw.dv", "raw.mrc"])
def test_a_deltavision_file_gives_its_sections_and_its_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    mrc.imsave(str(path), FRAMES, metadata={"dx": 0.08, "dy": 0.08, "dz": 0.125, "wave": [525, 0, 0, 0, 0]})
    raw = open_raw(path)
    assert np.array_equal(raw.frames, FRAMES)
    assert raw.emission_nm == 525
    assert (raw.pixel_um, raw.z_step_um) == (pytest.approx(0.08), pytest.approx(0.125))


@pytest.mark.parametrize("name", ["raw.tif", "raw.mrc"])
def test_signed_counts_of_a_camera_are_read_and_numbers_below_0_refused(tmp_path: Path, name: str) -> None:
    path, frames = tmp_path / name, (FRAMES % 30000).astype(np.int16)
    write = (lambda values: mrc.imsave(str(path), values)) if name == "raw.mrc" else _big_endian(path)
    write(frames)
    raw = open_raw(path)
    assert raw.frames.dtype == np.uint16
    assert np.array_equal(raw.frames, frames)
    frames[2, 3, 4] = -1
    write(frames)
    with pytest.raises(StackError, match="frame 3 has pixels below 0"):
        open_raw(path)


def _big_endian(path: Path) -> Callable[[Any], None]:
    return lambda values: tifffile.imwrite(path, values, byteorder=">", photometric="minisblack")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("pages.tif", lambda path, frames: tifffile.imwrite(path, frames, photometric="minisblack")),
        (
            "packed.tif",
            lambda path, frames: tifffile.imwrite(path, frames, photometric="minisblack", compression="zlib"),
        ),
        ("one-block.tif", lambda path, frames: tifffile.imwrite(path, frames, imagej=True, metadata={"axes": "ZYX"})),
        ("raw.ome.tif", lambda path, frames: tifffile.imwrite(path, frames, metadata={"axes": "ZYX"}, byteorder=">")),
        ("raw.dv", lambda path, frames: mrc.imsave(str(path), frames)),
    ],
)
def test_a_file_is_read_frame_by_frame_and_never_held(
    tmp_path: Path, name: str, write: Callable[[Path, Any], None]
) -> None:
    path, frames = tmp_path / name, np.tile(FRAMES, (4, 16, 16))
    write(path, frames)
    tracemalloc.start()
    try:
        with RawFile(path) as file:
            assert (file.n_frames, file.frame_shape, file.dtype) == (120, (96, 128), np.uint16)
            for number in (119, *range(120)):
                assert np.array_equal(file.frame(number), frames[number])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < frames.nbytes / 3


def test_what_is_not_whole_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    dv, tif = tmp_path / "raw.dv", tmp_path / "raw.tif"
    mrc.imsave(str(dv), FRAMES)
    tifffile.imwrite(tif, FRAMES, photometric="minisblack")
    for path in (dv, tif):
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(StackError):
            open_raw(path)
    (tmp_path / "raw.mrc").write_bytes(b"nothing of the kind" * 200)
    (tmp_path / "short.dv").write_bytes(dv.read_bytes()[:700])
    (tmp_path / "raw.czi").write_bytes(b"another kind")
    for name in ("raw.mrc", "short.dv", "raw.czi"):
        with pytest.raises(StackError):
            open_raw(tmp_path / name)


def test_pixels_that_are_no_numbers_or_of_a_strange_kind_are_refused(tmp_path: Path) -> None:
    values = np.ones((3, 6, 8), np.float32)
    values[1, 2, 3] = np.nan
    tifffile.imwrite(tmp_path / "nan.tif", values, photometric="minisblack")
    with pytest.raises(StackError, match="no numbers"):
        open_raw(tmp_path / "nan.tif")
    tifffile.imwrite(tmp_path / "int.tif", np.ones((3, 6, 8), np.int32), photometric="minisblack")
    with pytest.raises(StackError, match="int32"):
        open_raw(tmp_path / "int.tif")
