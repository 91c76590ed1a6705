"""How single wells are imaged, out of the plate map: read, kept, refused with everything that is wrong."""

from pathlib import Path

import pytest

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.columns import read_column
from spheroidd.protocols.plate_map.file import read_plate_map, write_plate_map
from spheroidd.protocols.well import WellId

A01, A02 = WellId(0, 0), WellId(0, 1)
TEXT = """well,role,exposure_ms,exposure_ms_561,z_start_um
A01,negative_control,50,80.5,-12.5
A02,negative_control,,,
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "map.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_well_is_imaged_as_its_row_says(tmp_path: Path) -> None:
    found = read_plate_map(written(tmp_path, TEXT))
    own = found[A01].imaging
    assert (own.exposure_of("488"), own.exposure_of("561"), own.z_start_um) == (50.0, 80.5, -12.5)
    assert found[A02].imaging.exposure_of("488") is None
    assert found[A01].annotations == {"exposure_ms": "50", "exposure_ms_561": "80.5", "z_start_um": "-12.5"}
    assert found[A02].annotations == {}
    again = tmp_path / "again.csv"
    write_plate_map(again, found)
    assert read_plate_map(again).wells == found.wells


def test_a_grid_says_it_too(tmp_path: Path) -> None:
    text = "role,1,2\nA,untreated,untreated\n\nexposure_ms_488,1,2\nA,20,30\n"
    found = read_plate_map(written(tmp_path, text))
    assert [found[well].imaging.exposure_of("488") for well in (A01, A02)] == [20.0, 30.0]


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = TEXT.replace(",50,", ",0,").replace("A02,negative_control,,,", "A02,negative_control,long,,")
    with pytest.raises(ConfigError) as told:
        read_plate_map(written(tmp_path, text))
    assert "2 things are wrong" in told.value.what
    assert "exposure_ms is 0; write milliseconds, 0.01 to 60000" in told.value.what
    assert "exposure_ms is 'long'" in told.value.what


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ("1e9,,", ["exposure_ms is 1e+09"]),
        ("0.009,60001,", ["exposure_ms is 0.009", "exposure_ms_561 is 60001"]),
        ("0.01,60000,-20000", []),
        (",,20000.1", ["z_start_um is 20000.1"]),
        ("-5,,high", ["z_start_um is 'high'", "exposure_ms is -5"]),
        ("high,-5,-1e6", ["exposure_ms is 'high'", "exposure_ms_561 is -5", "z_start_um is -1e+06"]),
    ],
)
def test_what_no_instrument_does_is_refused_with_all_else_of_its_row(
    tmp_path: Path, cells: str, told: list[str]
) -> None:
    text = f"{TEXT.splitlines()[0]},pixel_um\nA01,untreated,{cells},\nA02,chief,,,,1e9\n"
    with pytest.raises(ConfigError) as refused:
        read_plate_map(written(tmp_path, text))
    said = [line.strip() for line in refused.value.what.splitlines()[1:]]
    assert [line.partition("; ")[0] for line in said if line.startswith("line 2")] == [f"line 2: {one}" for one in told]
    assert [line.partition("; ")[0] for line in said if line.startswith("line 3")] == [
        "line 3: pixel_um is 1e+09",
        "line 3: role is 'chief'",
    ]


@pytest.mark.parametrize("title", ["Exposure", "exposure (ms)", "Exposure 488", "exposure_ms_405", "z start (um)"])
def test_a_title_that_is_nearly_one_is_refused(title: str) -> None:
    with pytest.raises(ConfigError, match=r"exposure_ms|z_start_um"):
        read_column(title)


@pytest.mark.parametrize("title", ["Exposure time", "Exposure time (h)", "exposed by", "Start"])
def test_a_drugs_exposure_is_an_annotation(title: str) -> None:
    assert read_column(title).name == ""
