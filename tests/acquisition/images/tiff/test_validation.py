"""Whether a file is whole: every way of cutting an OME-TIFF short is seen, and hostile XML is refused."""

import contextlib
import functools
import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.acquisition.images.ome.description import read_ome
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.acquisition.images.tiff.validation import WholeTiff
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.ome_xml import ome_xml

N_PLANES, SHAPE = 8, (4, 6)
PLANES = np.random.default_rng(0).integers(1, 60000, (N_PLANES, *SHAPE)).astype(np.uint16)
PLAN = StackPlan(StackKey("p", WellId(0, 0)), CHANNELS, N_PLANES // 2, *SHAPE, pixel_um=0.5, z_step_um=1.0)


def contiguous(file):
    """As tifffile writes: every plane's pixels one after the other, all descriptions in front or behind."""
    tifffile.imwrite(file, PLANES, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")


def page_by_page(file):
    """As an instrument writes: a description and its pixels, plane after plane, the XML in the first."""
    text = ome_xml(PLAN, "A01", n_z=PLAN.n_z, channels=CHANNELS).encode()
    with tifffile.TiffWriter(file, byteorder="<") as writer:
        for plane in PLANES:
            writer.write(plane, description=text, metadata=None, contiguous=False, software=False)
            text = b""


def compressed(file):
    tifffile.imwrite(
        file, PLANES, ome=True, compression="zlib", rowsperstrip=2, metadata={"axes": "ZYX"}, photometric="minisblack"
    )


def big(file):
    tifffile.imwrite(file, PLANES, ome=True, bigtiff=True, metadata={"axes": "ZYX"}, photometric="minisblack")


@functools.cache
def whole(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


@pytest.mark.parametrize("write", [contiguous, page_by_page, compressed, big])
def test_a_whole_file_is_read_plane_by_plane(tmp_path, write):
    path = tmp_path / "a.ome.tif"
    path.write_bytes(whole(write))
    with WholeTiff(path) as tiff:
        assert (tiff.n_pages, tiff.height, tiff.width, tiff.dtype) == (N_PLANES, *SHAPE, "uint16")
        assert len(tiff.ome.ifds) == N_PLANES
        for number, plane in enumerate(PLANES):
            np.testing.assert_array_equal(tiff.page(number), plane)


@pytest.mark.parametrize("write", [page_by_page, *(pytest.param(w, marks=pytest.mark.slow) for w in (contiguous, big))])
def test_every_truncation_point_is_rejected(tmp_path, write):
    path, content = tmp_path / "a.ome.tif", whole(write)
    believed = []
    for n_bytes in range(len(content)):
        path.write_bytes(content[:n_bytes])
        with contextlib.suppress(StackError), WholeTiff(path):
            believed.append(n_bytes)
    assert believed == []


@pytest.mark.parametrize("read", [WholeTiff, open_file])
@given(write=st.sampled_from([contiguous, page_by_page, compressed, big]), kept=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=150)
def test_any_truncation_is_rejected_by_every_reader(tmp_path_factory, read, write, kept):
    path = tmp_path_factory.mktemp("cut") / "a.ome.tif"
    content = whole(write)
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(StackError, match=r"a\.ome\.tif"):
        read(path)


@given(at=st.integers(0, 10**6), junk=st.binary(min_size=1, max_size=8))
@settings(deadline=None, max_examples=300)
def test_overwritten_bytes_give_a_told_error_or_planes_of_the_right_shape(tmp_path_factory, at, junk):
    """What is not seen by its structure is at least never a crash, a hang or another shape."""
    content = bytearray(whole(page_by_page))
    at %= len(content) - len(junk)
    content[at : at + len(junk)] = junk
    path = tmp_path_factory.mktemp("junk") / "a.ome.tif"
    path.write_bytes(content)
    with contextlib.suppress(StackError), WholeTiff(path) as tiff:
        assert tiff.page(0).shape == (tiff.height, tiff.width)


def ome(pixels, tail=""):
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<OME xmlns="{schema}"><Image ID="i"><Pixels {pixels}>{tail}</Pixels></Image></OME>'


SIZES = 'DimensionOrder="XYZCT" SizeX="6" SizeY="4" SizeZ="3" SizeC="2" SizeT="1"'


@pytest.mark.parametrize(
    ("tiff_data", "ifds", "defect"),
    [
        ("<TiffData/>", {(c, z): 3 * c + z for c in range(2) for z in range(3)}, ""),
        ('<TiffData FirstC="1" FirstZ="1" IFD="0" PlaneCount="2"/>', {(1, 1): 0, (1, 2): 1}, ""),
        ('<TiffData FirstC="0" FirstZ="2"><UUID FileName="me.tif"/></TiffData>', {(0, 2): 0}, ""),
        ('<TiffData FirstC="0" FirstZ="2"><UUID FileName="other.tif"/></TiffData>', {}, ""),
        ('<TiffData FirstC="2" FirstZ="0" IFD="0"/>', {}, "FirstC=2 (SizeC=2)"),
        ('<TiffData FirstZ="x"/>', {}, "FirstZ=-1"),
        ('<TiffData IFD="0" PlaneCount="99"/>', {(c, z): 3 * c + z for c in range(2) for z in range(3)}, "99 planes"),
    ],
)
def test_tiff_data_say_where_planes_are(tmp_path, tiff_data, ifds, defect):
    image = read_ome(ome(SIZES, tiff_data), tmp_path / "me.tif")
    assert dict(image.ifds) == ifds
    assert defect in "; ".join(image.defects)
    assert bool(image.defects) == bool(defect)


LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><OME><Image><Pixels SizeX="&b;"/></Image></OME>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><OME><Image>&f;</Image></OME>'


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (LAUGHS, "EntitiesForbidden"),
        (OUTSIDE, "EntitiesForbidden"),
        ("<OME><Image>", "ParseError"),
        ("<OME/>", "holds no image"),
        (ome('SizeX="6" SizeY="4" SizeZ="-1"'), "SizeZ is '-1'|SizeZ"),
        (ome('SizeX="6" SizeY="4" SizeZ="99999999999"'), "SizeZ"),
    ],
)
def test_xml_that_cannot_be_right_is_refused_with_the_files_name(tmp_path, xml, message):
    with pytest.raises(StackError, match=message) as caught:
        read_ome(xml, tmp_path / "me.tif")
    assert "me.tif" in str(caught.value)


def test_an_ome_tiff_with_entities_is_refused(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PLANES[0], description=LAUGHS.encode(), metadata=None)
    with pytest.raises(StackError, match="EntitiesForbidden"):
        WholeTiff(path)
