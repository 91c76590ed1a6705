"""What a header says that pixels need is applied exactly or refused; a codec that is missing is told before the run."""

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr

from spheroidd.acquisition.images.codecs import CodecError
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.stack import SliceIndex

PLANES = np.random.default_rng(0).integers(1, 30000, (3, 20, 17)).astype(np.uint16)


def write_imagej(path, planes, **said):
    metadata = {"axes": "ZYX", "spacing": 1, "unit": "um", **said}
    tifffile.imwrite(path, planes, imagej=True, resolution=(2, 2), metadata=metadata)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (PLANES, {}),
        (PLANES, {"cf": 0, "c0": 0.0, "c1": 1.0}),
        (PLANES, {"cf": 20}),
        (PLANES + 32768, {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "Gray Value"}),
        (PLANES // 2, {"cf": 0, "c0": 1, "c1": 2}),
        ((PLANES // 256).astype(np.uint8), {"cf": 0, "c0": 0, "c1": 100}),
    ],
)
def test_imagejs_straight_line_is_applied(tmp_path, stored, said):
    write_imagej(tmp_path / "a.tif", stored, **said)
    offset, slope = int(said.get("c0", 0)), int(said.get("c1", 1))
    with RecordedStack({"": tmp_path / "a.tif"}) as stack:
        for z in range(3):
            found = stack.plane(SliceIndex("488", z))
            assert found.dtype == stack.dtype
            np.testing.assert_array_equal(found, stored[z].astype(np.int64) * slope + offset)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"cf": 0, "c0": 0.5, "c1": 1.0}, r"its pixel values are calibrated: value = 0\.5 \+ 1\.0 x pixel"),
        ({"cf": 0, "c0": 0, "c1": 0.25, "vunit": "photons"}, r"value \(photons\) = 0 \+ 0\.25 x pixel"),
        ({"cf": 0, "c0": 0, "c1": -1}, "calibrated"),
        ({"cf": 0, "c0": "x", "c1": 1}, "calibrated"),
        ({"cf": 4, "c0": 0, "c1": 1}, "calibrated by a curve"),
        ({"cf": 21}, "calibrated by a curve"),
    ],
)
def test_a_calibration_that_cannot_be_applied_exactly_is_refused(tmp_path, said, message):
    write_imagej(tmp_path / "a.tif", PLANES, **said)
    with pytest.raises(StackError, match=message):
        open_file(tmp_path / "a.tif")


def test_pixels_that_a_calibration_takes_below_zero_are_refused(tmp_path):
    write_imagej(tmp_path / "a.tif", PLANES, cf=0, c0=-32768, c1=1)
    with (
        RecordedStack({"": tmp_path / "a.tif"}) as stack,
        pytest.raises(StackError, match=r"pixels are -32\d+ to -\d+"),
    ):
        stack.plane(SliceIndex("488", 0))


def test_other_headers_that_change_what_pixels_mean_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "white.tif", PLANES, photometric="miniswhite", metadata=None)
    with pytest.raises(StackError, match="its grey values are inverted"):
        open_file(tmp_path / "white.tif")
    gdal = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.5</Item></GDALMetadata>'
    tags = [(42112, 2, len(gdal) + 1, gdal, True)]
    tifffile.imwrite(tmp_path / "gdal.tif", PLANES, photometric="minisblack", metadata=None, extratags=tags)
    with pytest.raises(StackError, match=r"calibrated: value = 0 \+ 0\.5 x pixel"):
        open_file(tmp_path / "gdal.tif")
    group = zarr.create_group(tmp_path / "a.zarr")
    array = group.create_array("0", shape=PLANES.shape, dtype="uint16", chunks=(1, 20, 17))
    array[:] = PLANES
    array.attrs.update({"scale_factor": 2, "add_offset": -100})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
    with pytest.raises(StackError, match="its pixel values are scaled: value = -100 \\+ 2 x pixel"):
        open_file(tmp_path / "a.zarr")


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "how",
    [
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": 2},
        {"compression": "zlib", "predictor": 2},
        {"compression": "zstd"},
        {"compression": "packbits"},
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "lzw"},
        {"bigtiff": True, "rowsperstrip": 3},
    ],
    ids=str,
)
def test_what_other_programs_pack_is_unpacked(tmp_path, how, byteorder):
    tifffile.imwrite(tmp_path / "a.tif", PLANES, photometric="minisblack", metadata=None, byteorder=byteorder, **how)
    with closing(open_file(tmp_path / "a.tif")) as file:
        for z in range(3):
            np.testing.assert_array_equal(file.plane(0, z), PLANES[z])


def test_a_codec_that_nobody_has_is_told_when_the_file_is_opened(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANES, photometric="minisblack", metadata=None)
    content = (tmp_path / "a.tif").read_bytes()
    old = b"\x03\x01\x03\x00\x01\x00\x00\x00\x01\x00"  # Compression, SHORT, 1: none
    assert content.count(old) == 3
    (tmp_path / "a.tif").write_bytes(content.replace(old, old[:8] + b"\x39\x30"))
    with pytest.raises(CodecError, match=r"packed with number 12345, which needs imagecodecs.*pip install imagecodecs"):
        open_file(tmp_path / "a.tif")


WITHOUT = """
import sys
sys.modules["imagecodecs"] = None
from spheroidd.daemon.cli import main
sys.exit(main())
"""


def test_without_imagecodecs_a_replay_of_lzw_is_refused_before_it_starts(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANES, photometric="minisblack", metadata=None, compression="lzw")
    (tmp_path / "map.csv").write_text("well,path,role,pixel_um,z_step_um\nA01,a.tif,sample,0.5,2\n")
    command = [sys.executable, "-c", WITHOUT, "replay", "map.csv", "d"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == ConfigError.exit_code, told
    assert "a.tif: its planes are packed with LZW, which needs imagecodecs" in told
    assert "pip install imagecodecs" in told
    assert not (tmp_path / "d" / "map.ome.zarr").exists()


@pytest.mark.parametrize("dtype", [np.int16, np.int8, np.uint32, np.float32, np.float64, np.complex64])
def test_signed_and_real_pixels_are_refused_with_what_to_do(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", PLANES.astype(dtype), photometric="minisblack", metadata=None)
    with pytest.raises(StackError, match="only uint8 and uint16 can be read; save it as uint16"):
        open_file(tmp_path / "a.tif")


def test_colour_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 8, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(StackError, match="grey"):
        open_file(tmp_path / "a.tif")
    coloured = np.zeros((3, 8, 9, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", coloured, photometric="rgb", metadata={"axes": "ZYXS"})
    with pytest.raises(StackError, match=r"a\.ome\.tif"):
        open_file(tmp_path / "a.ome.tif")


def test_an_ome_xml_that_calls_pixels_signed_is_refused_with_both(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANES, photometric="minisblack", metadata={"axes": "ZYX"})
    text = tifffile.tiffcomment(tmp_path / "a.ome.tif")
    assert 'Type="uint16"' in text
    tifffile.tiffcomment(tmp_path / "a.ome.tif", text.replace('Type="uint16"', 'Type="int16"').encode())
    with pytest.raises(StackError, match="its pixels are uint16 in the TIFF and int16 in its OME-XML"):
        open_file(tmp_path / "a.ome.tif")
