"""A plate is taken up with the files and settings that its stored images came from, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import Config, build_config
from spheroidd.daemon.launch.stored_images import check_stored
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

WELL = WellId(0, 0)


def files(folder: Path, name: str = "A01.tif", content: bytes = b"abc") -> PlateMap:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return PlateMap("P1", (PlateWell(WELL, plates.UNTREATED, {"": folder / name}),))


LIMITS = {channel: {"low": 100.0, "high": 900.0, "mean": 300.0, "sd": 90.0} for channel in ("488", "561")}


def configured(data: Path, normalisation: str = "plate", limits: Any = None, **source: Any) -> Config:
    tables = {
        "data": {"dir": str(data)},
        "plate": {"name": "P1"},
        "source": {"kind": "replay", "map": "m.csv", **source},
        "inference": {"normalisation": normalisation} | ({"limits": limits} if limits else {}),
    }
    return build_config(tables, base=data)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A plate of one well that was imaged from a file and scored."""
    wells, data = files(tmp_path / "here"), tmp_path / "data"
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        catalog.register_plate(wells, configured(data).model_dump_json())
        catalog.expect(plates.plan_of(plates.StackKey("P1", WELL)))
    plates.score(data, wells, {WELL: 1000.0})
    return data


def check(data: Path, wells: PlateMap, config: Config) -> None:
    with Catalog.read_only(data) as catalog:
        check_stored(catalog, wells, config)


def test_the_same_file_may_be_moved_or_copied(stored: Path, tmp_path: Path) -> None:
    copied = files(tmp_path / "there")
    check(stored, copied, configured(stored))
    (tmp_path / "here" / "A01.tif").unlink()
    check(stored, files(tmp_path / "there", content=b"moved, and nobody can compare"), configured(stored))


@pytest.mark.parametrize(
    ("name", "content"), [("A02.tif", b"abc"), ("A01.tif", b"xyz"), ("A01.tif", b"abcd")], ids=["name", "bytes", "size"]
)
def test_another_file_for_a_well_that_has_images_is_refused(
    stored: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(ConfigError, match=r"its images are from .*A01\.tif, and the map now names") as caught:
        check(stored, files(tmp_path / "there", name, content), configured(stored))
    assert "another name" in caught.value.do


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channel_order": ["561", "488"]}, 'channel_order = none, and it is ["561", "488"] now'),
        ({"normalisation": "stack"}, 'normalisation = "plate", and it is "stack" now'),
        ({"limits": LIMITS}, 'limits = none, and it is {"488": {"low": 100.0'),
    ],
)
def test_settings_that_would_change_nothing_of_what_is_there_are_refused(
    stored: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(stored, files(tmp_path / "here"), configured(stored, **settings))
    assert said in caught.value.what


def test_once_every_row_was_scored_by_the_new_setting_the_plate_goes_on(stored: Path, tmp_path: Path) -> None:
    with Catalog.create_or_open(stored) as catalog, catalog.transaction():
        catalog.connection.execute("UPDATE results SET normalisation = 'stack'")
    check(stored, files(tmp_path / "here"), configured(stored, "stack"))


def test_a_well_without_images_may_come_from_anywhere(tmp_path: Path) -> None:
    wells, data = files(tmp_path / "here"), tmp_path / "data"
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        catalog.register_plate(wells, json.dumps({"source": {"kind": "replay"}, "inference": {}}))
    check(data, files(tmp_path / "there", "A02.tif"), configured(data, channel_order=["561", "488"]))
