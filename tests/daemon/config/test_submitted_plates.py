"""What a plate that was handed in may make the daemon read."""

import sys
import tomllib
from pathlib import Path

import pytest

from spheroidd.daemon.config.model import toml_of
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.protocols.errors import ConfigError
from tests.places import EXAMPLES

MAP = "well,role,compound,dose_um,patient\nA01,sample,C,1,P\n"
WATCHING = '[plate]\nname = "w"\n[source]\nkind = "{kind}"\nfolder = {folder!r}\nn_z = 2\npixel_um = 1\nz_step_um = 1\n'


def config(folder: Path, kind: str = "watch") -> str:
    return WATCHING.format(kind=kind, folder=str(folder))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "lab" / "data"
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("kind", ["watch", "matrix-screener"])
@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("/", "is a whole disk"),
        ("/etc/..", "is a whole disk"),
        ("{lab}", "holds the data directory"),
        ("{lab}/other/..", "holds the data directory"),
        ("{lab}/data", "lies in the data directory"),
        ("{lab}/data/P1.ome.zarr", "lies in the data directory"),
        ("here", "lies in the data directory"),  # relative: to where the daemon keeps the plate
    ],
)
def test_no_submitted_plate_watches_a_whole_disk_or_the_daemons_own_data(
    data_dir: Path, kind: str, folder: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        SubmittedPlates(data_dir).submit(config(Path(folder.format(lab=data_dir.parent)), kind), MAP)
    assert "source.folder" in caught.value.what
    assert "full path" in caught.value.do
    assert SubmittedPlates(data_dir).names() == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_is_followed_before_it_is_judged(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "looks-harmless").symlink_to(data_dir.parent)
    with pytest.raises(ConfigError, match="holds the data directory"):
        SubmittedPlates(data_dir).submit(config(tmp_path / "looks-harmless"), MAP)


def test_a_folder_of_the_microscope_is_watched(data_dir: Path, tmp_path: Path) -> None:
    assert SubmittedPlates(data_dir).submit(config(tmp_path / "microscope"), MAP).plate_name == "w"


def test_a_plate_that_was_kept_before_is_judged_when_it_is_started(data_dir: Path, tmp_path: Path) -> None:
    plates = SubmittedPlates(data_dir)
    plates.submit(config(tmp_path / "microscope"), MAP)
    (data_dir / "plans" / "w" / "plate.toml").write_text(config(data_dir), encoding="utf-8")
    with pytest.raises(ConfigError, match="lies in the data directory"):
        plates.load("w")


def on_a_rig(**source: object) -> str:
    """A plate for a microscope whose stages have limits."""
    tables = tomllib.loads((EXAMPLES / "plan-96.toml").read_text(encoding="utf-8"))
    return toml_of({**tables, "data": None, "plate": {"name": "rig"}, "source": {**tables["source"], **source}})


@pytest.mark.parametrize(
    ("source", "cells", "words"),
    [
        ({}, "B02,untreated,190\nB03,untreated,-9000\n", ["B02: its last slice", "B03: its first slice"]),
        ({"x_limits_um": [0.0, 20000.0]}, "B03,untreated,\nB04,untreated,\n", ["x = 29878.5", "and so do", "well B04"]),
    ],
    ids=["z", "x"],
)
def test_a_map_that_the_instrument_cannot_follow_is_refused_when_it_is_handed_in(
    data_dir: Path, source: dict[str, object], cells: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        SubmittedPlates(data_dir).submit(on_a_rig(**source), f"well,role,z_start_um\n{cells}")
    assert all(word in refused.value.what for word in words), refused.value.what
    assert SubmittedPlates(data_dir).names() == []
    assert SubmittedPlates(data_dir).submit(on_a_rig(), "well,role,z_start_um\nB02,untreated,90\n").plate_name == "rig"


@pytest.mark.parametrize(
    ("inference", "words"),
    [
        ({"model": "/etc/passwd"}, "inference.model: there are no such weights"),
        ({"model": "mine.safetensors"}, "inference.model: there are no such weights"),
        ({"model": "{card}"}, "inference.model: not a model card of this version"),
        ({"model": "threshold:high"}, "inference.model: 'high' is no threshold"),
        ({"regressor": "/etc/passwd"}, "inference.regressor: "),
    ],
    ids=["of another kind", "not there", "no card", "threshold", "regressor"],
)
def test_what_is_no_model_is_refused_when_it_is_handed_in_and_when_it_is_edited(
    data_dir: Path, tmp_path: Path, inference: dict[str, str], words: str
) -> None:
    card = tmp_path / "table.json"
    card.write_text('{"rows": []}', encoding="utf-8")
    card.with_suffix(".safetensors").write_bytes(b"0")
    before = '[plate]\nname = "P1"\n[source]\nkind = "push"\n'
    given = before + toml_of({"inference": {key: value.format(card=card) for key, value in inference.items()}})
    for kept in ([], ["P1"]):
        with pytest.raises(ConfigError) as refused:
            SubmittedPlates(data_dir).submit(given, MAP)
        assert refused.value.what.startswith(words)
        assert refused.value.where
        assert refused.value.do
        assert SubmittedPlates(data_dir).names() == kept
        SubmittedPlates(data_dir).submit(before, MAP)
    assert SubmittedPlates(data_dir).texts("P1")[0] == before


@pytest.mark.parametrize("model", ["default", "threshold:1.5", "emulator"])
def test_a_model_of_this_computer_is_taken(data_dir: Path, model: str) -> None:
    given = f'[plate]\nname = "P1"\n[source]\nkind = "push"\n[inference]\nmodel = "{model}"\n'
    assert SubmittedPlates(data_dir).submit(given, MAP).plate_name == "P1"
