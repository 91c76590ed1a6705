"""Every row of wells in every way of naming planes: no letter is taken for another."""

import itertools
import string

import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.images.names.files import NamePattern
from spheroidd.acquisition.images.names.leica import LeicaNames
from spheroidd.acquisition.images.names.planes import PlaneNameError, read_plane_names
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId

ROWS = [*string.ascii_uppercase, *(f"A{letter}" for letter in "ABCDEF")]
GRAMMARS = [
    "{well}_z{z:03d}_ch{c:02d}.tif",
    "{well}_c{c}_z{z}.ome.tif",
    "z{z}_c{c}_{well}.tif",
    "{well}-C{c}-Z{z}.tif",
    "Plate1_{well}_T0001F001L01A01Z{z:02d}C{c:02d}.tif",
    "img_channel{c:03d}_position000_time000000000_z{z:03d}.tif",
    "image--L00--U01--V02--Z{z:02d}--C{c:02d}.ome.tif",
    "r{row}c03f01p{z:02d}-ch{c}sk1fk1fl1.tiff",
    "{well}_{word}_Z{z}.TIF",
    "{well}_s1_w{c}_z{z}.tif",
    "{well}_w1{word}_z{z}.tif",
    "{well} {word} slice {z}.tif".replace(" slice ", "_z"),
    "{well}_s1_w{wave}_z{z}.tif",
    "Plate_{well}_w{wave}_z{z}.tif",
]
PLANES = list(itertools.product(range(2), range(4)))


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_every_row_is_read_in_every_grammar(grammar):
    for number, row in enumerate(ROWS):
        said = {"well": f"{row}03", "row": f"{number + 1:02d}"}
        names = {(c, z): grammar.format(**said, c=c, wave=c + 1, z=z, word=("GFP", "PI")[c]) for c, z in PLANES}
        found = read_plane_names(list(names.values()))
        by_number = {(c - min(c for c, _ in found.files), z): name for (c, z), name in found.files.items()}
        assert by_number == names, row


@pytest.mark.parametrize(
    "grammar", ["{well}_z{z}.tif", "Plate1_{well}_T0001F001L01A01Z{z:02d}C00.tif", "{well}_GFP_Z{z}.tif"]
)
def test_every_row_is_read_with_one_channel_too(grammar):
    for row in ROWS:
        names = [grammar.format(well=f"{row}03", z=z) for z in range(4)]
        found = read_plane_names(names).files
        assert [found[next(iter(found))[0], z] for z in range(4)] == names, row


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{well}.tif", "{row}{column}.tif"),
        ("*{well}*.tif", "plate_{row}{column}_x.tif"),
        ("*{well}.tif", "plate{row}{column}.tif"),
        ("**/{well}/{channel}_z{z}.tif", "day 1/{row}{column}/488_z01.tif"),
        ("*_{row}_{column}.tif", "x_{row}_{column}.tif"),
        ("*{row}{column}*", "x-{row}{column}.tif"),
        ("?{well}_z{z}.tif", "_{row}{column}_z01.tif"),
    ],
)
@pytest.mark.parametrize("column", ["1", "01", "12", "48"])
def test_every_well_is_read_in_every_pattern(pattern, name, column):
    names = NamePattern(pattern)
    for number, row in enumerate(ROWS):
        assert names.read(name.format(row=row, column=column)).well == WellId(number, int(column) - 1)


def test_every_row_is_read_in_leicas_grammar():
    for number in range(len(ROWS)):
        assert LeicaNames().read(f"image--U02--V{number:02d}--Z03--C01.ome.tif").well == WellId(number, 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["C03_z0_ch0.tif", "C04_z0_ch1.tif"], "2 numbers of its names could be the channel"),
        (["A01_GFP_z0.tif", "A02_GFP_z0.tif"], "several wells: A01, A02"),
        (["W01_z0.tif", "W02_z0.tif"], "several wells: W01, W02"),
        (["x_t0_z0.tif", "x_t1_z0.tif"], "several fields or time points: t0, t1"),
        (["a_c0_z0.tif", "b_c0_z0.tif", "a_c1_z0.tif"], "are both channel 0 z 0"),
    ],
)
def test_names_of_several_stacks_are_refused(names, message):
    with pytest.raises(PlaneNameError, match=message):
        read_plane_names(names)


def test_what_the_numbers_leave_open_is_told():
    assert read_plane_names(["a_z2.tif", "a_z3.tif"]).doubts == (
        "its slices are numbered from 2: look whether those before were lost",
    )
    assert read_plane_names(["a_z1.tif", "a_z2.tif"]).doubts == ()
    assert "columns of wells" in read_plane_names(["P_C03_Z1.tif", "P_C04_Z1.tif"]).doubts[0]


def test_a_folder_of_row_c_has_its_own_channels_and_slices(tmp_path):
    for (c, name), z in itertools.product(enumerate(("PI", "GFP")), range(3)):
        tifffile.imwrite(tmp_path / f"C03_{name}_z{z:03d}.tif", np.full((4, 5), 100 * c + z, np.uint16), metadata=None)
    with RecordedStack({"": tmp_path}) as stack:
        assert (stack.channels, stack.n_z) == (("488", "561"), 3)
        found = {
            (channel, z): int(stack.plane(SliceIndex(channel, z))[0, 0]) for channel in stack.channels for z in range(3)
        }
    assert found == {("561", z): z for z in range(3)} | {("488", z): 100 + z for z in range(3)}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (("0.5", "0.7"), None),
        (("0.5", "0.5"), "counts 9 slices, and the folder holds 2"),
    ],
)
def test_a_planes_own_description_must_agree_with_the_folder(tmp_path, sizes, message):
    n_z = 1 if message is None else 9
    for z, size in enumerate(sizes):
        said = f'SizeX="5" SizeY="4" SizeZ="{n_z}" SizeC="1" SizeT="1" PhysicalSizeX="{size}" PhysicalSizeY="{size}"'
        text = f'<OME><Image><Pixels DimensionOrder="XYZCT" {said}><TiffData IFD="0"/></Pixels></Image></OME>'
        tifffile.imwrite(tmp_path / f"a_z{z}.tif", np.zeros((4, 5), np.uint16), description=text, metadata=None)
    if message:
        with pytest.raises(StackError, match=message):
            RecordedStack({"": tmp_path})
    else:
        with RecordedStack({"": tmp_path}) as stack:
            assert stack.conflicts == {"pixel_um": "its planes say 0.5 um and 0.7 um"}
