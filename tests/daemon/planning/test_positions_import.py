"""Position lists of Micro-Manager 1.4 and 2 as plans: the same places for the same wells, and what is refused."""

import json
import math
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.config.model import load_config, open_source
from spheroidd.daemon.planning.position_list import Position, read_positions
from spheroidd.daemon.planning.positions_import import import_positions
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

PITCH_UM, TURN = 9000.0, math.radians(1.5)
SITES_UM = ((-400.0, 0.0), (400.0, 0.0))
FILLED_IN = {
    "n_z": "10",
    "z_step_um": "1.0",
    "z_start_um": "5.0",
    "micromanager_dir": '"test-adapters"',
    "config": '"none.cfg"',
    "height": "100",
    "width": "100",
    "pixel_um": "1.0",
    "x_limits_um": "[-1e6, 1e6]",
    "y_limits_um": "[-1e6, 1e6]",
    "z_limits_um": "[0, 100]",
    "retract_z_um": "0",
    "exposure_ms": "20",
}
Spot = tuple[str, float, float, float | None]


def place(well: str, site: tuple[float, float] = (0.0, 0.0)) -> tuple[float, float]:
    """Where the stage stands over a plate that lies turned, its corner at (2000, -700)."""
    of = WellId.parse(well)
    x, y = of.column * PITCH_UM + site[0], of.row * PITCH_UM + site[1]
    cos, sin = math.cos(TURN), math.sin(TURN)
    return 2000 + cos * x - sin * y, -700 + sin * x + cos * y


def spots(wells: Sequence[str], z_um: Sequence[float | None] | float | None = 40.0) -> list[Spot]:
    heights = z_um if isinstance(z_um, Sequence) else [z_um] * len(wells)
    return [
        (f"{well}-Site_{n}", *place(well, site), z)
        for well, z in zip(wells, heights, strict=True)
        for n, site in enumerate(SITES_UM)
    ]


def old(path: Path, given: Sequence[Spot]) -> Path:
    """As Micro-Manager 1.4 writes it: the focus stage's height is called X."""
    entries = []
    for label, x, y, z in given:
        devices = [{"DEVICE": "XYStage", "AXES": 2, "X": x, "Y": y, "Z": 0}]
        if z is not None:
            devices.insert(0, {"DEVICE": "ZStage", "AXES": 1, "X": z, "Y": 0, "Z": 0})
        grid = {"GRID_ROW": 0, "GRID_COL": 0, "PROPERTIES": {}}
        stages = {"DEFAULT_Z_STAGE": "", "DEFAULT_XY_STAGE": "XYStage"}
        entries.append({"LABEL": label, "DEVICES": devices, **grid, **stages})
    head = {"VERSION": 3, "ID": "Micro-Manager XY-position list"}
    path.write_text(json.dumps({**head, "POSITIONS": entries}), encoding="utf-8")
    return path


def scalar(kind: str, value: object) -> dict[str, object]:
    return {"type": kind, "scalar": value}


def new(path: Path, given: Sequence[Spot], further: Sequence[str] = ()) -> Path:
    """As Micro-Manager 2 writes it; `further` are other stages of one axis."""
    entries = []
    for label, x, y, z in given:
        axes = {"XYStage": [x, y]} if z is None else {"ZStage": [z], "XYStage": [x, y]}
        axes |= {name: [0.0] for name in further}
        devices = [
            {"Device": scalar("STRING", name), "Position_um": {"type": "DOUBLE", "array": at}}
            for name, at in axes.items()
        ]
        entries.append(
            {
                "DefaultXYStage": scalar("STRING", "XYStage"),
                "DefaultZStage": scalar("STRING", "" if z is None else "ZStage"),
                "DevicePositions": {"type": "PROPERTY_MAP", "array": devices},
                "GridCol": scalar("INTEGER", 0),
                "GridRow": scalar("INTEGER", 0),
                "Label": scalar("STRING", label),
                "Properties": scalar("PROPERTY_MAP", {}),
            }
        )
    head = {"encoding": "UTF-8", "format": "Micro-Manager Property Map", "major_version": 2, "minor_version": 0}
    tree = {"StagePositions": {"type": "PROPERTY_MAP", "array": entries}}
    path.write_text(json.dumps({**head, "map": tree}), encoding="utf-8")
    return path


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def fill_in(path: Path) -> Path:
    text = path.read_text(encoding="utf-8")
    for key, value in FILLED_IN.items():
        text = re.sub(rf"^# {key} =.*$", f"{key} = {value}", text, flags=re.MULTILINE)
    assert not re.search("^# [a-z_]+ =", text, re.MULTILINE), text
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("write", [old, new], ids=["1.4", "2"])
def test_a_list_becomes_a_plan_with_the_same_places(tmp_path: Path, write: Any) -> None:
    wells = ["A01", "B01", "H12", "A12", "D06"]
    given = spots(wells, [40.0, 41.5, 39.0, 42.0, 40.5])
    path = write(tmp_path / "list.pos", given[::-1])  # a well's sites go by their numbers
    out = tmp_path / "plate.toml"
    presets = ("--channel", "488=FITC", "--channel", "561=Cy3")
    done = spheroidd("plan", "import", path, "-o", out, "--labware", "96", "--z-offset", "-4", *presets)
    assert done.exit_code == 0, done.output
    with closing(open_source(load_config(fill_in(out)), SystemClock())) as source:
        assert isinstance(source, MicroManagerSource)
        plans = source.plans()
        assert [str(plan.key.well) for plan in plans[::2]] == wells[::-1]
        for label, x, y, z in given:
            well, _, site = label.partition("-Site_")
            key = StackKey("plate", WellId.parse(well), int(site))
            order = source._order(source.plan(key), set(source.plan(key).indices()), source._wells.of(key).z_start_um)
            assert (order.x_um, order.y_um) == pytest.approx((x, y), abs=0.01)
            assert order.slices[0].z_um == pytest.approx(z - 4)
    assert spheroidd("plan", "check", out).exit_code == 0


def test_one_height_for_all_wells_stands_in_the_configuration(tmp_path: Path) -> None:
    files = import_positions(new(tmp_path / "list.pos", spots(["A01", "H12", "A12"])), tmp_path / "p.toml", "96")
    assert "z_start_um = 40.0" in files[0].read_text(encoding="utf-8")
    assert "z_start_um" not in files[1].read_text(encoding="utf-8")


def test_a_list_without_a_focus_leaves_it_to_fill_in(tmp_path: Path) -> None:
    given = spots(["A01", "H12", "A12"], None)
    files = import_positions(old(tmp_path / "list.pos", given), tmp_path / "p.toml", "96", {"488": "FITC"})
    fill_in(files[0])
    assert load_config(files[0]).source.z_start_um == 5.0  # type: ignore[attr-defined]
    assert [str(entry.well) for entry in read_plate_map(files[1])] == ["A01", "H12", "A12"]


@pytest.mark.parametrize("label", ["B03", "b3", "Well B03", "B3-Site_2", "12-B3-Site_0", "B03_1", "B03 pos 4"])
def test_a_label_names_its_well(tmp_path: Path, label: str) -> None:
    given = [(label, *place("B03"), None), ("H12", *place("H12"), None), ("A12", *place("A12"), None)]
    _, plate_map = import_positions(old(tmp_path / "list.pos", given), tmp_path / "p.toml", "96")
    assert [str(entry.well) for entry in read_plate_map(plate_map)] == ["B03", "H12", "A12"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([("Pos0", 0.0, 0.0, None), ("Pos1", 1.0, 0.0, None)], "position 1 is called 'Pos0'; position 2 is called"),
        ([("A123", 0.0, 0.0, None), ("A1", 1.0, 0.0, None)], "position 1 is called 'A123'"),
        ([(f"A1-Site_{'1' * 5000}", 0.0, 0.0, None), ("A2", 1.0, 0.0, None)], "position 1 is called 'A1-Site_111"),
        ([("A1", 10**400, 0.0, None), ("A2", 1.0, 0.0, None)], "is no place"),
        (spots(["B02"]), "positions of one well"),
        ([*spots(["A01", "H12", "A12"]), ("D06", *place("D06"), 40.0)], "well D06 has 1 positions and A01 has 2"),
        (
            [*spots(["A01", "H12", "A12"]), *((n, x + 600, y, z) for n, x, y, z in spots(["D06"]))],
            "well D06 lies 600 um from where the plate has it",
        ),
        (
            [*spots(["A01", "H12", "A12"]), ("D06-Site_0", *place("D06"), 4.0), ("D06-Site_1", *place("D06"), 4.0)],
            "a position of well D06 lies 400 um",
        ),
        (
            [*spots(["A01", "H12", "A12"])[:-1], ("A12-Site_1", *place("A12", (400, 0)), 70.0)],
            "well A12: they stand at",
        ),
        ([*spots(["A01", "H12"]), *spots(["A12"], None)], "well A12: it has no focus, and other wells have one"),
    ],
    ids=[
        "no well",
        "no well either",
        "a site of 5000 digits",
        "a place of 400 digits",
        "one well",
        "sites",
        "plate",
        "site",
        "two heights",
        "no height",
    ],
)
def test_what_is_no_plate_is_refused(tmp_path: Path, given: Sequence[Spot], words: str) -> None:
    path = old(tmp_path / "list.pos", given)
    with pytest.raises(ConfigError, match=re.escape(words)) as told:
        import_positions(path, tmp_path / "p.toml", "96")
    assert str(path) in str(told.value)
    assert told.value.do
    assert not (tmp_path / "p.toml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "it is no position list"),
        ("[]", "no position list of Micro-Manager 1.4 or 2"),
        ('{"POSITIONS": []}', "it has 0 positions"),
        ('{"POSITIONS": [3]}', "position 1: it is no position"),
        ('{"POSITIONS": [{"LABEL": "A1", "DEVICES": []}]}', "position 1: it has no XY stage"),
        (
            '{"POSITIONS": [{"LABEL": "A1", "DEVICES": [{"DEVICE": "XY", "AXES": 2, "X": "far", "Y": 0}]}]}',
            "is no place",
        ),
        ('{"map": {"StagePositions": {"array": [{"DevicePositions": 1}]}}}', "position 1: it has no XY stage"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "list.pos"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        read_positions(path)


def test_of_several_focus_stages_the_default_one_is_meant(tmp_path: Path) -> None:
    given = spots(["A01"], 40.0)
    found = read_positions(new(tmp_path / "list.pos", given, further=("PFSOffset",)))
    assert found[0] == Position("A01-Site_0", place("A01", SITES_UM[0]), 40.0)
    without = new(tmp_path / "other.pos", [(n, x, y, None) for n, x, y, _ in given], further=("Z", "PFSOffset"))
    with pytest.raises(ConfigError, match="Z and PFSOffset could each be the focus stage"):
        read_positions(without)


def test_a_list_needs_its_plates_name(tmp_path: Path) -> None:
    done = spheroidd("plan", "import", old(tmp_path / "list.pos", spots(["A01", "H12"])), "-o", tmp_path / "p.toml")
    assert done.exit_code == 2
    assert "name the plate by --labware" in done.output
