"""A file that is one of a set: the stack that the named file holds, never the first of the set."""

import json
import shutil
import struct
import uuid
from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr

from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import SliceIndex
from tests.acquisition.images.test_recorded_formats import write_ndtiff

WELLS = ("A01", "A02", "B07")
N_Z, SHAPE = 3, (6, 5)
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def pixels(well, channel, z):
    return np.full(SHAPE, 1000 * (WELLS.index(well) + 1) + 100 * channel + z, np.uint16)


def own_uuid(well):
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_DNS, well)}"


def image(at, well, file, n_channels=2, n_t=1):
    """An Image whose planes lie in `file`, channel by channel."""
    planes = [(c, z) for z in range(N_Z) for c in range(n_channels)]
    data = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="0" IFD="{ifd}" PlaneCount="1">'
        + (f'<UUID FileName="{file}">{own_uuid(well)}</UUID>' if file else "")
        + "</TiffData>"
        for ifd, (c, z) in enumerate(planes)
    )
    channels = "".join(f'<Channel ID="Channel:{at}:{c}" Name="{("Calcein", "PI")[c]}"/>' for c in range(n_channels))
    sizes = f'SizeX="{SHAPE[1]}" SizeY="{SHAPE[0]}" SizeZ="{N_Z}" SizeC="{n_channels}" SizeT="{n_t}"'
    lengths = 'PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeZ="2"'
    return (
        f'<Image ID="Image:{at}" Name="{well}"><Pixels ID="Pixels:{at}" DimensionOrder="XYCZT" Type="uint16" {sizes} '
        f"{lengths}>{channels}{data}</Pixels></Image>"
    )


def document(body, own=""):
    said = f' UUID="{own}"' if own else ""
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{SCHEMA}"{said}>{body}</OME>'


def write_pages(path, text, planes):
    with tifffile.TiffWriter(path) as writer:
        for at, plane in enumerate(planes):
            description = text.encode() if at == 0 else None
            writer.write(plane, description=description, metadata=None, contiguous=False)


def planes_of(well):
    return [pixels(well, c, z) for z in range(N_Z) for c in range(2)]


def write_set(folder, name="plate_{}.ome.tif"):
    """Every file says where the planes of all of them are."""
    images = "".join(image(at, well, name.format(well)) for at, well in enumerate(WELLS))
    for well in WELLS:
        write_pages(folder / name.format(well), document(images, own_uuid(well)), planes_of(well))


def write_companion(folder):
    """Each file names a file beside it that says where the planes of all of them are."""
    master = "urn:uuid:00000000-0000-0000-0000-00000000cccc"
    images = "".join(image(at, well, f"plate_{well}.ome.tif") for at, well in enumerate(WELLS))
    (folder / "plate.companion.ome").write_text(document(images, master))
    for well in WELLS:
        only = document(f'<BinaryOnly MetadataFile="plate.companion.ome" UUID="{master}"/>', own_uuid(well))
        write_pages(folder / f"plate_{well}.ome.tif", only, planes_of(well))


def write_master(folder):
    """The first file says where the planes of all of them are, the others name it."""
    images = "".join(image(at, well, f"plate_{well}.ome.tif") for at, well in enumerate(WELLS))
    for at, well in enumerate(WELLS):
        only = document(f'<BinaryOnly MetadataFile="plate_A01.ome.tif" UUID="{own_uuid("A01")}"/>', own_uuid(well))
        text = only if at else document(images, own_uuid(well))
        write_pages(folder / f"plate_{well}.ome.tif", text, planes_of(well))


def assert_is(path, well, n_channels=2):
    with RecordedStack({"": path}) as stack:
        assert (stack.n_z, stack.channels) == (N_Z, ("488", "561")[:n_channels])
        assert (stack.pixel_um, stack.z_step_um) == (0.5, 2.0)
        for at, channel in enumerate(stack.channels):
            for z in range(N_Z):
                np.testing.assert_array_equal(stack.plane(SliceIndex(channel, z)), pixels(well, at, z))


@pytest.mark.parametrize("write", [write_set, write_companion, write_master])
@pytest.mark.parametrize("well", WELLS)
def test_of_a_set_the_named_file_is_taken(tmp_path, write, well):
    write(tmp_path)
    assert_is(tmp_path / f"plate_{well}.ome.tif", well)


@pytest.mark.parametrize("well", WELLS)
def test_a_file_of_a_set_needs_no_other_file_of_it(tmp_path, well):
    write_set(tmp_path)
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / f"plate_{well}.ome.tif", tmp_path / "alone")
    assert_is(tmp_path / "alone" / f"plate_{well}.ome.tif", well)


def test_a_renamed_file_is_known_by_its_uuid(tmp_path):
    write_set(tmp_path)
    (tmp_path / "plate_B07.ome.tif").rename(tmp_path / "other.ome.tif")
    assert_is(tmp_path / "other.ome.tif", "B07")


def test_files_that_changed_places_are_refused(tmp_path):
    write_set(tmp_path)
    (tmp_path / "plate_A01.ome.tif").rename(tmp_path / "x")
    (tmp_path / "plate_A02.ome.tif").rename(tmp_path / "plate_A01.ome.tif")
    with pytest.raises(StackError, match=r"plate_A01\.ome\.tif: its name says image A01, its UUID says image A02"):
        open_file(tmp_path / "plate_A01.ome.tif")


def test_a_file_that_no_image_names_is_refused(tmp_path):
    write_set(tmp_path)
    text = tifffile.tiffcomment(tmp_path / "plate_B07.ome.tif").replace(f'UUID="{own_uuid("B07")}"', "")
    write_pages(tmp_path / "other.ome.tif", text, planes_of("B07"))
    with pytest.raises(StackError, match=r"other\.ome\.tif: .*describes 3 images in other files, not in this one"):
        open_file(tmp_path / "other.ome.tif")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: (f / "plate.companion.ome").unlink(),
            "its description is in plate.companion.ome, which is not beside",
        ),
        (
            lambda f: (f / "plate.companion.ome").write_text(
                document(image(0, "A01", "plate_A01.ome.tif"), "urn:uuid:x")
            ),
            "it belongs to the set urn:uuid:0+-.*cccc, and plate.companion.ome beside it describes the set urn:uuid:x",
        ),
    ],
)
def test_a_description_that_is_not_there_or_another_sets_is_named(tmp_path, spoil, message):
    write_companion(tmp_path)
    spoil(tmp_path)
    with pytest.raises(StackError, match=message):
        open_file(tmp_path / "plate_A02.ome.tif")


def write_several(path, n_t=1):
    """One file with an image for each well, one behind the other."""
    parts = []
    for at, well in enumerate(WELLS):
        part = image(at, well, "", n_t=n_t)
        for ifd in reversed(range(2 * N_Z)):
            part = part.replace(f'IFD="{ifd}" ', f'IFD="{ifd + at * 2 * N_Z}" ')
        parts.append(part)
    write_pages(path, document("".join(parts)), [plane for well in WELLS for plane in planes_of(well)])


def test_of_several_images_in_a_file_one_must_be_named(tmp_path):
    write_several(tmp_path / "plate.ome.tif")
    with pytest.raises(
        StackError, match=r"holds 3 images: A01, A02, B07; name one in the plate map: plate.ome.tif/A01"
    ):
        open_file(tmp_path / "plate.ome.tif")
    with pytest.raises(StackError, match=r"0 of its images are called 'C01'"):
        open_file(tmp_path / "plate.ome.tif" / "C01")
    for well in WELLS:
        assert_is(tmp_path / "plate.ome.tif" / well, well)
    assert_is(tmp_path / "plate.ome.tif" / "Image:1", "A02")


def test_of_several_time_points_one_must_be_named(tmp_path):
    text = document(image(0, "A01", "", n_t=2)).replace("</Pixels>", '<TiffData FirstT="1" IFD="6"/></Pixels>')
    write_pages(tmp_path / "a.ome.tif", text, planes_of("A01") + planes_of("A02"))
    with pytest.raises(StackError, match=r"holds 2 time points; save one, or name one: a.ome.tif/T=0"):
        open_file(tmp_path / "a.ome.tif")
    assert_is(tmp_path / "a.ome.tif" / "T=0", "A01")
    with pytest.raises(StackError, match="5 of 6 planes are missing"):
        open_file(tmp_path / "a.ome.tif" / "T=1")
    with pytest.raises(StackError, match="holds 2 time points"):
        open_file(tmp_path / "a.ome.tif" / "T=7")


def test_a_channel_in_a_file_of_its_own_is_found_beside(tmp_path):
    data = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{z}" PlaneCount="1">'
        f'<UUID FileName="c{c}.ome.tif">u{c}</UUID></TiffData>'
        for c in range(2)
        for z in range(N_Z)
    )
    whole = image(0, "A02", "")
    text = document(whole[: whole.index("<TiffData")] + data + "</Pixels></Image>")
    for c in range(2):
        write_pages(tmp_path / f"c{c}.ome.tif", text, [pixels("A02", c, z) for z in range(N_Z)])
    assert_is(tmp_path / "c0.ome.tif", "A02")
    with RecordedStack({"488": tmp_path / "c0.ome.tif", "561": tmp_path / "c1.ome.tif"}) as stack:
        np.testing.assert_array_equal(stack.plane(SliceIndex("561", 2)), pixels("A02", 1, 2))
    with pytest.raises(StackError, match="it is given for 488, and its channel's name 'PI' means 561"):
        RecordedStack({"488": tmp_path / "c1.ome.tif", "561": tmp_path / "c0.ome.tif"})
    (tmp_path / "c1.ome.tif").unlink()
    with pytest.raises(StackError, match=r"planes of it are in c1\.ome\.tif, which is not there; copy the whole set"):
        open_file(tmp_path / "c0.ome.tif")


def test_planes_that_a_description_leaves_out_or_gives_twice_are_named(tmp_path):
    whole = document(image(0, "A01", ""))
    write_pages(
        tmp_path / "gap.ome.tif", whole.replace('FirstC="1" FirstZ="1"', 'FirstC="1" FirstZ="2"'), planes_of("A01")
    )
    with pytest.raises(
        StackError, match=r"2 of 6 planes are missing \(counted from 0\): channel 1 slice 1, channel 1 sl"
    ):
        open_file(tmp_path / "gap.ome.tif")
    write_pages(tmp_path / "one.ome.tif", whole.replace('IFD="4"', 'IFD="2"'), planes_of("A01"))
    with pytest.raises(StackError, match="several of its planes are one and the same"):
        open_file(tmp_path / "one.ome.tif")


# -- Micro-Manager's own index, in every file of a data set ------------------------------------------------------------


def write_micromanager(path, well, master, step_um=2.0, slices=N_Z):
    """A file of one position as Micro-Manager writes it: a header with its summary and its index of planes, then the
    planes, each with its own metadata; the OME-XML names the first file of the set.
    """
    summary = {"Slices": slices, "Channels": 2, "Frames": 1, "Positions": 3, "ChNames": ["488", "561"]}
    summary |= {"PixelSize_um": 0.5, "z-step_um": -step_um}
    text = document(f'<BinaryOnly MetadataFile="{master}" UUID="urn:uuid:m"/>').encode()
    said = json.dumps(summary).encode()
    head = struct.pack("<2sHIIIIIIIII", b"II", 42, 0, 54773648, 0, 483765892, 0, 99384722, 0, 2355492, len(said)) + said
    index, out = [], bytearray(head)
    offsets = []
    for z in range(N_Z):
        for c in range(2):
            plane, tags = pixels(well, c, z).tobytes(), json.dumps({"ZPositionUm": -step_um * z}).encode()
            first = not offsets
            at = len(out) + len(out) % 2
            out += b"\0" * (at - len(out))
            entries = [(256, 3, 1, SHAPE[1]), (257, 3, 1, SHAPE[0]), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
            body = at + 2 + 12 * (10 if first else 9) + 4
            strip, note = body, body + len(plane)
            if first:
                entries.append((270, 2, len(text) + 1, note + len(tags) + 1))
            entries += [(273, 4, 1, strip), (277, 3, 1, 1), (279, 4, 1, len(plane)), (51123, 2, len(tags) + 1, note)]
            out += struct.pack("<H", len(entries))
            out += b"".join(struct.pack("<HHII", *entry) for entry in entries)
            offsets.append((at, len(out)))
            out += b"\0" * 4 + plane + tags + b"\0" + (text + b"\0" if first else b"")
            index.append((c, z, 0, WELLS.index(well), at))
    for (_, link), (following, _) in zip(offsets, [*offsets[1:], (0, 0)], strict=True):
        struct.pack_into("<I", out, link, following)
    struct.pack_into("<I", out, 4, offsets[0][0])
    struct.pack_into("<I", out, 12, len(out))
    out += struct.pack("<II", 3453623, len(index)) + b"".join(struct.pack("<IIIII", *row) for row in index)
    path.write_bytes(bytes(out))


@pytest.mark.parametrize("well", WELLS)
def test_micromanagers_file_of_a_position_is_read_without_the_others(tmp_path, well):
    path = tmp_path / f"scr_1_MMStack_{well}-Site_0.ome.tif"
    write_micromanager(path, well, "scr_1_MMStack_A00-Site_0.ome.tif")
    with tifffile.TiffFile(path, is_ome=False, is_mmstack=False) as tiff:
        assert len(tiff.micromanager_metadata["IndexMap"]) == 2 * N_Z, "the file is as tifffile reads Micro-Manager's"
    assert_is(path, well)


def test_slices_that_micromanager_did_not_come_to_are_named(tmp_path):
    write_micromanager(tmp_path / "a_MMStack.ome.tif", "A01", "gone.ome.tif", slices=N_Z + 1)
    with pytest.raises(StackError, match=r"2 of 8 planes are missing .*channel 0 slice 3, channel 1 slice 3"):
        open_file(tmp_path / "a_MMStack.ome.tif")


def test_positions_that_contradict_the_summary_leave_the_step_open(tmp_path):
    write_micromanager(tmp_path / "a_MMStack.ome.tif", "A01", "gone.ome.tif")
    content = (tmp_path / "a_MMStack.ome.tif").read_bytes()
    (tmp_path / "a_MMStack.ome.tif").write_bytes(content.replace(b'"z-step_um": -2.0', b'"z-step_um": -1.0'))
    with RecordedStack({"": tmp_path / "a_MMStack.ome.tif"}) as stack:
        assert stack.conflicts == {"z_step_um": "its z-step is 1 um, and its slices' positions are 2 um apart"}


# -- other containers --------------------------------------------------------------------------------------------------


def test_a_zarr_of_several_images_is_not_its_first(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [{"name": "A01"}, {"name": "A02"}]}})
    with pytest.raises(StackError, match="it holds 2 images: A01, A02"):
        open_file(tmp_path / "a.zarr")
    group.attrs.update({"ome": {"version": "0.5", "plate": {"wells": [{"path": "A/1"}, {"path": "A/2"}]}}})
    with pytest.raises(StackError, match=r"it holds several images: A/1, A/2; name one in the plate map: a\.zarr/A/1"):
        open_file(tmp_path / "a.zarr")


def test_a_series_collection_of_bioformats2raw_is_not_its_first(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.attrs.update({"bioformats2raw.layout": 3})
    for name in ("0", "1", "OME"):
        group.create_group(name)
    with pytest.raises(StackError, match=r"it holds several images: 0, 1; name one in the plate map: a\.zarr/0"):
        open_file(tmp_path / "a.zarr")


def test_an_ndtiff_named_by_its_file_is_that_data_set(tmp_path):
    planes = {"A1": {("488", z): pixels("A01", 0, z) for z in range(N_Z)}}
    write_ndtiff(tmp_path / "set", ["A1"], planes)
    with closing(open_file(tmp_path / "set" / "stack.tif" / "position=A1")) as file:
        np.testing.assert_array_equal(file.plane(0, 2), pixels("A01", 0, 2))
    planes["B1"] = {("488", z): pixels("B07", 0, z) for z in range(N_Z)}
    write_ndtiff(tmp_path / "two", ["A1", "B1"], planes)
    with pytest.raises(StackError, match="several planes for channel '488' z 0, as position=B1"):
        open_file(tmp_path / "two" / "stack.tif")


def test_a_plain_tiff_of_two_stacks_is_refused_and_a_smaller_copy_is_no_second_stack(tmp_path):
    stack = np.stack([pixels("A01", 0, z) for z in range(N_Z)])
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        for shape in (slice(None), slice(0, 4)):
            writer.write(stack[:, shape], photometric="minisblack", metadata=None)
    with pytest.raises(StackError, match="it holds 2 series of images"):
        open_file(tmp_path / "two.tif")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(stack, photometric="minisblack", metadata=None)
        writer.write(stack[:, ::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
    with closing(open_file(tmp_path / "pyramid.tif")) as file:
        assert (file.layout.n_z, file.layout.height) == (N_Z, SHAPE[0])
        np.testing.assert_array_equal(file.plane(0, 1), stack[1])
