"""Whatever a file holds, opening it ends soon, in little memory, with an error that names it."""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.acquisition.images.open_stack import list_stacks, open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.images.stored_ledger import CATALOG_NAME, read_ledger
from spheroidd.acquisition.images.tiff.validation import WholeTiff
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import SliceIndex
from tests.acquisition.images.test_file_sets import write_micromanager
from tests.acquisition.images.test_recorded_formats import write_ndtiff
from tests.acquisition.sources.test_replay import write_imagej, write_ngff_04, write_ngff_05, write_ome

PLANES = np.random.default_rng(0).integers(1, 60000, (3, 8, 9)).astype(np.uint16)


def ifd(tags, following=0):
    """One plane's description in a little-endian TIFF: (tag, type, count, value) each."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


GREY = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]
GREY += [(278, 4, 1, 8), (279, 4, 1, 128)]
SIZE = 2 + 12 * len(GREY) + 4


def tiff(*ifds):
    return struct.pack("<2sHI", b"II", 42, 8 + 128) + bytes(128) + b"".join(ifds)


FIRST = 8 + 128
MANY = FIRST + SIZE + 2 + 12 * 1281 + 4  # more tags than anybody writes, and no more than tifffile passes over
LOOPS = {
    "to the first": tiff(ifd(GREY, FIRST + SIZE), ifd(GREY, FIRST)),
    "to itself": tiff(ifd(GREY, FIRST)),
    "among empty ones": tiff(ifd(GREY, FIRST + SIZE), ifd([], 16)),
    "of the second": tiff(ifd(GREY, FIRST + SIZE), ifd(GREY, FIRST + SIZE)),
    "behind 1281 tags": tiff(ifd(GREY, FIRST + SIZE), ifd([(0, 0, 0, 0)] * 1281, MANY), ifd([], MANY)),
    "to nothing": tiff(ifd(GREY, FIRST + SIZE)),
}
VERSIONS = {name: b"II" + struct.pack("<H", n) for name, n in (("DNG", 0x4352), ("Panasonic", 0x55), ("ORF", 0x4F52))}
LIES = {
    "strips without end": tiff(ifd([*GREY[:5], (273, 4, 2**31, 8), *GREY[6:]])),
    "a description beyond the end": tiff(ifd([*GREY[:5], (270, 2, 2**32 - 1, 8), *GREY[5:]])),
    "a plane of 2^64 pixels": tiff(ifd([(256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), *GREY[2:]])),
    "no pixels": tiff(ifd([(256, 4, 1, 0), (257, 4, 1, 0), *GREY[2:]])),
    "tags of no kind": tiff(ifd([(number, 99, 2**30, 2**31) for number in range(256, 300)])),
    "65535 tags": tiff(struct.pack("<H", 65535)),
    "a resolution without end": tiff(ifd([*GREY, (282, 5, 1, 8), (283, 5, 1, 8), (305, 2, 4, 0)])),
}


@pytest.mark.parametrize("read", [open_file, WholeTiff])
@pytest.mark.parametrize("content", [*LOOPS.values(), *LIES.values()], ids=[*LOOPS, *LIES])
def test_a_tiff_that_lies_is_refused(tmp_path, read, content):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    if content is LIES["a resolution without end"]:
        with contextlib.suppress(StackError):
            read(path).close()
        return
    with pytest.raises(StackError, match=r"a\.tif"):
        read(path)


def test_a_list_of_planes_that_turns_back_says_from_where_to_where(tmp_path):
    (tmp_path / "a.tif").write_bytes(LOOPS["to the first"])
    with pytest.raises(StackError, match="the list of its planes leads from plane 2 back to plane 1"):
        open_file(tmp_path / "a.tif")


@pytest.mark.parametrize("head", VERSIONS.values(), ids=VERSIONS)
def test_what_only_resembles_a_tiff_is_not_followed(tmp_path, head):
    (tmp_path / "a.tif").write_bytes(head + LOOPS["to itself"][4:])
    with pytest.raises(StackError, match=r"not a whole TIFF: its version is [0-9a-f]{4}, not 42 or 43"):
        open_file(tmp_path / "a.tif")


@pytest.mark.parametrize("resolution", [(0, 1), (1, 0), (0, 0), (2**32 - 1, 1), (1, 2**32 - 1)])
def test_a_resolution_that_is_none_gives_no_length(tmp_path, resolution):
    tifffile.imwrite(tmp_path / "a.tif", PLANES, imagej=True, resolution=(1, 1), metadata={"axes": "ZYX", "unit": "um"})
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        for page in file.pages:
            for name in ("XResolution", "YResolution"):
                at = page.tags[name].valueoffset if hasattr(page, "tags") else None
                if at:
                    struct.pack_into("<II" if file.byteorder == "<" else ">II", content, at, *resolution)
    (tmp_path / "a.tif").write_bytes(content)
    with RecordedStack({"": tmp_path / "a.tif"}) as stack:
        assert stack.pixel_um is None or stack.pixel_um > 0


def test_a_plane_that_unpacks_to_what_no_camera_gives_is_refused(tmp_path):
    huge = np.zeros((1, 9000, 9000), np.uint16)
    said = {"photometric": "minisblack", "metadata": None, "rowsperstrip": 9000}
    tifffile.imwrite(tmp_path / "a.tif", huge, compression="zlib", **said)
    with pytest.raises(StackError, match="claims 162000000 bytes of pixels and has"):
        open_file(tmp_path / "a.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.lif", "a.xlef", "a.npy", "a.lof"])
@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_only_regular_files_are_opened(tmp_path, name, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    path = tmp_path / name
    with contextlib.ExitStack() as stack:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX))).bind(name)
        with pytest.raises(StackError, match="it is not a regular file"):
            open_file(path)
        with pytest.raises(StackError):
            WholeTiff(path)
        if name.endswith((".lif", ".xlef", ".lof")):
            with pytest.raises(StackError):
                list_stacks(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_pipes_within_data_sets_are_not_opened(tmp_path):
    write_ndtiff(tmp_path / "set", ["p"], {"p": {("488", z): PLANES[z] for z in range(3)}})
    (tmp_path / "set" / "stack.tif").unlink()
    os.mkfifo(tmp_path / "set" / "stack.tif")
    with pytest.raises(StackError):
        open_file(tmp_path / "set")
    (tmp_path / "set" / "NDTiff.index").unlink()
    os.mkfifo(tmp_path / "set" / "NDTiff.index")
    with pytest.raises(StackError):
        open_file(tmp_path / "set")
    (tmp_path / "planes").mkdir()
    os.mkfifo(tmp_path / "planes" / "a_z0.tif")
    with pytest.raises(StackError, match="not a regular file"):
        open_file(tmp_path / "planes")
    write_ngff_05(tmp_path / "a.zarr")
    chunk = next(path for path in (tmp_path / "a.zarr" / "0").rglob("*") if path.is_file() and "zarr" not in path.name)
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(StackError, match="1 of 28 chunks are missing"):
        open_file(tmp_path / "a.zarr")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("write", [write_ngff_04, write_ngff_05])
def test_pipes_as_metadata_are_not_opened(tmp_path, write):
    write(tmp_path / "a.zarr")
    for path in sorted(p for p in (tmp_path / "a.zarr").rglob("*") if p.name in (".zattrs", ".zarray", "zarr.json")):
        kept = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(StackError, match="it is not a regular file"):
            open_file(tmp_path / "a.zarr")
        path.unlink()
        path.write_bytes(kept)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_for_a_ledger_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / CATALOG_NAME)
    found = read_ledger(tmp_path / "p.ome.zarr" / "A" / "01" / "0")
    assert "it is not a regular file" in str(found.unread)


DEEP = "[" * 60_000


@pytest.mark.parametrize(
    "write",
    [
        lambda f: (f / "zarr.json").write_text(DEEP),
        lambda f: (f / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"ome": 7}}'),
        lambda f: (f / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"ome": []}}'),
        lambda f: (f / "zarr.json").write_bytes(b"\xff\xfe\x00"),
        lambda f: ((f / ".zgroup").write_text('{"zarr_format": 2}'), (f / ".zattrs").write_text(DEEP)),
        lambda f: ((f / ".zgroup").write_text("[]"), (f / ".zattrs").write_text("[]")),
        lambda f: (f / "NDTiff.index").write_bytes(struct.pack("<I", 60_000) + DEEP.encode()),
        lambda f: (f / "NDTiff.index").write_bytes(struct.pack("<I", 2**31)),
        lambda f: (f / "NDTiff.index").write_bytes(entry('{"z": "x"}')),
        lambda f: (f / "NDTiff.index").write_bytes(entry('{"z": 1e999}')),
        lambda f: (f / "NDTiff.index").write_bytes(entry('{"z": [1]}')),
        lambda f: (f / "NDTiff.index").write_bytes(entry('{"z": 0}') + entry('{"z": 999999999}')),
        lambda f: (f / "NDTiff.index").write_bytes(entry('{"z": 0}', name="../../../etc/passwd")),
    ],
)
def test_metadata_that_cannot_be_right_are_refused(tmp_path, write):
    folder = tmp_path / "data.set"
    folder.mkdir()
    write(folder)
    with pytest.raises(StackError, match=r"data\.set"):
        open_file(folder)


def entry(axes, name="a.tif"):
    said = axes.encode()
    head = struct.pack("<I", len(said)) + said + struct.pack("<I", len(name)) + name.encode()
    return head + struct.pack("<IiiiiIii", 8, 4, 4, 1, 0, 8, 2**31 - 1, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 10**9, 12, 10]},
        {"shape": [2, 7, 10**12, 10]},
        {"shape": [0, 7, 12, 10]},
        {"shape": [-1, 7, 12, 10]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 10**6, 10**6]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1, 0, 10]}}},
        {"data_type": "float64"},
        {"codecs": [{"name": "nobody-has-this"}]},
        {"node_type": "group"},
    ],
    ids=str,
)
def test_a_zarr_array_that_cannot_be_is_refused(tmp_path, change):
    write_ngff_05(tmp_path / "a.ome.zarr")
    metadata = tmp_path / "a.ome.zarr" / "0" / "zarr.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | change))
    with pytest.raises(StackError, match=r"a\.ome\.zarr"):
        open_file(tmp_path / "a.ome.zarr")


OME = '<OME><Image><Pixels DimensionOrder="XYZCT" SizeX="9" SizeY="8" {}</Pixels></Image></OME>'
XML = {
    "10^18 planes": OME.format('SizeZ="1000000" SizeC="1000000" SizeT="1000000"><TiffData/>'),
    "planes named over and over": OME.format('SizeZ="20000" SizeC="1" SizeT="1">' + "<TiffData/>" * 60),
    "a negative count": OME.format('SizeZ="3" SizeC="1" SizeT="1"><TiffData IFD="0" PlaneCount="-5"/>'),
    "planes before the first": OME.format('SizeZ="3" SizeC="1" SizeT="1"><TiffData IFD="-3" PlaneCount="3"/>'),
    "planes after the last": OME.format('SizeZ="3" SizeC="1" SizeT="1"><TiffData IFD="1" PlaneCount="3"/>'),
    "a size that is none": OME.format('SizeZ="three" SizeC="1" SizeT="1"><TiffData/>'),
    "another file of the system": OME.format(
        'SizeZ="3" SizeC="1" SizeT="1"><TiffData IFD="0" PlaneCount="3"><UUID '
        'FileName="../../../../../../../etc/passwd"/></TiffData>'
    ),
    "itself as its description": '<OME><BinaryOnly MetadataFile="a.ome.tif" UUID="u"/></OME>',
    "a deep tree": "<OME>" + "<a>" * 100_000 + "</a>" * 100_000 + "</OME>",
}


@pytest.mark.parametrize("xml", XML.values(), ids=XML)
def test_an_ome_xml_that_lies_is_refused(tmp_path, xml):
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANES, description=xml, metadata=None, photometric="minisblack")
    if xml == XML["another file of the system"]:  # its name alone counts; there is no such file beside it
        with RecordedStack({"": tmp_path / "a.ome.tif"}) as stack:
            assert stack.n_z == 3
        return
    with pytest.raises(StackError, match=r"a\.ome\.tif"):
        open_file(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 60_000, b"\x93NUMPY\x09\x00"]
)
def test_a_npy_that_lies_is_refused(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(StackError, match=r"a\.npy"):
        open_file(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(10**12, 10**12, 10**12), (0, 4, 4), (-1, 4, 4), (2**70, 1, 1)])
def test_a_npy_of_an_impossible_shape_is_refused(tmp_path, shape):
    head = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + head.encode())
    with pytest.raises(StackError, match=r"a\.npy"):
        open_file(tmp_path / "a.npy")


def test_a_zip_is_no_zarr(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zarr", "w") as archive:
        archive.writestr("zarr.json", "{}")
    with pytest.raises(StackError, match=r"a\.zarr"):
        open_file(tmp_path / "a.zarr")


def test_a_micro_manager_index_that_promises_10_billion_planes_is_refused(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_micromanager(path, "A01", "gone.ome.tif", slices=999_999)
    said = b'"Channels": 2, "Frames": 1, "Positions": 3'
    content = path.read_bytes()
    assert said in content
    path.write_bytes(content.replace(said, b'"Channels":99999,"Frames":1,"Positions":3'.ljust(len(said))))
    with pytest.raises(StackError, match="99999 channels of 999999 slices are promised"):
        open_file(path)


KINDS = {
    "a.ome.tif": write_ome,
    "a.tif": write_imagej,
    "a.ome.zarr": write_ngff_05,
    "b.ome.zarr": write_ngff_04,
    "set": lambda path: write_ndtiff(path, ["p"], {"p": {("488", z): PLANES[z] for z in range(3)}}),
}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """A file or folder of each kind, written once."""
    path = tmp_path_factory.mktemp("whole") / request.param
    KINDS[request.param](path)
    return path


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_any_damage_gives_an_error_that_is_told_or_a_stack(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("wild") / whole.name
    (shutil.copytree if whole.is_dir() else shutil.copyfile)(whole, path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    victim = data.draw(st.sampled_from(files))
    content = bytearray(victim.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, min(len(content), 4000) - 1)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=12))
    victim.write_bytes(content)
    with contextlib.suppress(StackError), RecordedStack({"": path}) as stack:
        for index in [SliceIndex(channel, z) for channel in stack.channels for z in range(min(stack.n_z, 3))]:
            with contextlib.suppress(StackError):
                assert stack.plane(index).shape == (stack.height, stack.width)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from pathlib import Path
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.protocols.errors import StackError
try:
    open_file(Path(sys.argv[1]))
except StackError as error:
    print("told:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited here only")
def test_a_sparse_file_of_a_terabyte_is_refused_in_little_memory(tmp_path):
    for name in ("a.tif", "a.lif", "a.npy", "a.xlef"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)
        command = [sys.executable, "-c", LIMITED, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.startswith("told:"), done.stderr[-500:]


def test_a_file_that_is_no_tiff_is_named_without_a_word_of_what_it_holds(tmp_path):
    (tmp_path / "a.tif").write_text("root:$6$secret")
    with pytest.raises(StackError, match="not a whole TIFF: not a TIFF file; copy it again") as caught:
        open_file(tmp_path / "a.tif")
    assert "root" not in str(caught.value).replace(str(tmp_path), "")
