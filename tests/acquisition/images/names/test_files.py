"""What names say: patterns of the user's, and Leica's own grammar, old and new."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spheroidd.acquisition.images.names.files import ImageName, NamePattern
from spheroidd.acquisition.images.names.leica import LeicaNames, is_field_metadata, leica_letters
from spheroidd.protocols.well import WellId

NEW = "experiment--x/slide--S00/chamber--U02--V01/field--X00--Y00/"
NEW += "image--L0000--S00--U02--V01--J08--E00--O00--X00--Y00--T0000--Z13--C01.ome.tif"
OLD = "slide--S00/chamber--U02--V01/field--X00--Y00/"
OLD += "image--L00--S00--U02--V01--J20--E00--O00--X00--Y00--T00--Z13--C01.ome.tif"


@pytest.mark.parametrize("path", [NEW, OLD, NEW.rpartition("/")[2], OLD.replace(".ome.tif", ".tif")])
def test_old_and_new_names_of_leica_say_the_same(path):
    assert LeicaNames().read(path) == ImageName(WellId(1, 2), 0, "561", 13)


def test_the_last_letter_wins():
    """Folders may be renamed by hand; the file's own letters hold."""
    assert leica_letters("chamber--U09--V09/image--U01--V02") == {"U": 1, "V": 2}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (NEW.replace("S00--U", "S03--U"), "slide S03"),
        (NEW.replace("T0000", "T0007"), "time point T07"),
        (NEW.replace("X00--Y00--T", "X01--Y00--T"), "field X01--Y00"),
        (NEW.replace("C01", "C04"), "channel C04"),
        (NEW.replace("V01", "V77"), "on no plate"),
        ("image--L00--Z00--C00.ome.tif", "does not say U and V"),
    ],
)
def test_what_is_not_wanted_has_its_reason(path, said):
    assert said in LeicaNames().read(path)


@pytest.mark.parametrize("path", ["TileConfiguration.txt", ".DS_Store", "image.tif", "x--Z00.ome.tif", ""])
def test_other_files_are_no_images(path):
    assert LeicaNames().read(path) is None


def test_a_job_and_further_fields_can_be_chosen():
    names = LeicaNames(fields=((0, 0), (1, 0)), job=8)
    assert names.read(NEW.replace("X00--Y00--T", "X01--Y00--T")).stack == 1
    assert "job J09" in names.read(NEW.replace("J08", "J09"))


def test_a_fields_metadata_are_known():
    assert is_field_metadata("field--X00--Y00/metadata/image--L00--U00--V00--T00.ome.xml")
    assert not is_field_metadata("field--X00--Y00/image--L00--U00--V00--T00.ome.xml")


@given(st.text(max_size=80))
def test_no_name_is_a_crash(text):
    said = LeicaNames().read(text)
    assert said is None or isinstance(said, str | ImageName)
    assert isinstance(NamePattern("**/{well}_{z}.*").read(text), str | ImageName | None)


@pytest.mark.parametrize(
    ("pattern", "path", "said"),
    [
        ("{well}.ome.tif", "A1.ome.tif", ImageName(WellId(0, 0))),
        ("{well}.ome.tif", "a01.OME.TIF", ImageName(WellId(0, 0))),
        ("**/{well}.*", "day 1/x/H12.lif", ImageName(WellId(7, 11))),
        ("**/{well}.*", "H12.lif", ImageName(WellId(7, 11))),
        ("{well}/488_{z}.tif", "A10/488_007.tif", ImageName(WellId(0, 9), z=7)),
        ("{row}/{column}/0", "B/03/0", ImageName(WellId(1, 2))),
        ("plate.lif/*/{row}/{column}", "plate.lif/TileScan 1/B/3", ImageName(WellId(1, 2))),
        (r"raw\{well}.tif", "raw/A01.tif", ImageName(WellId(0, 0))),
        ("*{well}.tif", "plate_AA01.tif", ImageName(WellId(26, 0))),
        ("*{well}.tif", "plateAF48.tif", ImageName(WellId(31, 47))),
        ("*{well}.tif", "plateB2.tif", ImageName(WellId(1, 1))),
        ("*_{row}_{column}_*.tif", "x_AB_12_y.tif", ImageName(WellId(27, 11))),
        ("{well}_*{z}.tif", "A01_img012.tif", ImageName(WellId(0, 0), z=12)),
        ("r{row}c{column}f*p{z}-*.tiff", "r03c12f01p07-ch1sk1.tiff", ImageName(WellId(2, 11), z=7)),
        ("{well}.tif", "A100.tif", None),
        ("{well}.tif", "AA.tif", None),
        ("{well}.tif", "sub/A01.tif", None),
        ("{well}_?.tif", "A01_xy.tif", None),
        ("{well}.(tif)", "A01.tif", None),
        ("{well}.tif", "ZZ1.tif", "'ZZ1' is on no plate"),
    ],
)
def test_patterns_of_the_users(pattern, path, said):
    assert NamePattern(pattern).read(path) == said


def test_channels_fields_and_the_first_slice_are_as_they_are_said():
    names = NamePattern("{well}_{field}_{channel}_z{z}.tif", {"488": "GFP", "561": "PI"}, ("f1", "f2"), first_z=1)
    assert names.read("A01_f2_gfp_z001.tif") == ImageName(WellId(0, 0), 1, "488", 0)
    assert "source.fields" in names.read("A01_f3_GFP_z001.tif")
    assert "source.channels" in names.read("A01_f1_DAPI_z001.tif")
    assert names.read("A01_f1_PI_z000.tif").z == -1, "numbered before the first: whoever reads the plate tells of it"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{well}" + "*a" * 9 + ".tif", "A01" + "a" * 200 + ".tix"),
        ("*_" * 9 + "{well}.tif", "_" * 200),
        ("**/" * 9 + "{well}.tif", "a/" * 200 + "A01.tix"),
        ("**/a/" * 9 + "{well}.tif", "a/" * 300 + "x"),
        ("*?" * 9 + "{well}.tif", "a" * 200),
    ],
)
def test_a_pattern_of_many_stars_reads_a_long_name_at_once(pattern, name):
    assert NamePattern(pattern).read(name) is None


@pytest.mark.parametrize(
    ("pattern", "name", "well"),
    [
        ("*_*_{well}.tif", "a_b_c_B02.tif", "B02"),
        ("*_*{well}*_*.tif", "x_A01_B02_y.tif", "B02"),
        ("*a*ab*{well}.tif", "aab-C03.tif", "C03"),
        ("**/day?/**/{well}.tif", "x/day1/day2/y/D04.tif", "D04"),
        ("**/**/*_*/{well}.tif", "p/q_/E05.tif", "E05"),
    ],
)
def test_many_stars_find_the_well_that_one_star_would(pattern, name, well):
    assert NamePattern(pattern).read(name) == ImageName(WellId.parse(well))
