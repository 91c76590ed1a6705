"""Plans to useq-schema and back: the same images in the same order at the same places, and what is refused."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.config.model import load_config, open_source
from spheroidd.daemon.planning.useq_export import export_useq
from spheroidd.daemon.planning.useq_import import import_useq
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.acquisition.plates.test_plan_geometry import laid
from tests.daemon.planning.test_dry_run import MAP, PLAN, written

useq = pytest.importorskip("useq", reason="useq-schema is not installed (extra `useq`)")
FILLED_IN = {
    "micromanager_dir": '"test-adapters"',
    "config": '"none.cfg"',
    "height": "100",
    "width": "100",
    "pixel_um": "1.0",
    "x_limits_um": "[-1e6, 1e6]",
    "y_limits_um": "[-1e6, 1e6]",
    "z_limits_um": "[0, 100]",
    "retract_z_um": "0",
}
Image = tuple[str, int, float, float, float, str, float]  # well, field, x, y, z, preset, exposure


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def fill_in(path: Path) -> Path:
    """What a person writes after an import."""
    text = path.read_text(encoding="utf-8")
    for key, value in FILLED_IN.items():
        text, n = re.subn(rf"^# {key} =.*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert n == 1, key
    path.write_text(text, encoding="utf-8")
    return path


def images(path: Path) -> list[Image]:
    """Every image that a run of this configuration asks its stages and its camera for, in order."""
    source = open_source(load_config(path), SystemClock())
    assert isinstance(source, MicroManagerSource)
    s = source._settings
    taken = []
    for plan in source.plans():
        x_um, y_um = s.xy_um(plan.key.well, plan.key.stack)
        for index in s.slice_order(plan):
            lit = s.channels[index.channel]  # type: ignore[index]
            where = (str(plan.key.well), plan.key.stack, round(x_um, 3), round(y_um, 3), round(s.z_um(index.z), 6))
            taken.append((*where, lit.preset, lit.exposure_ms))
    return taken


def events(path: Path) -> list[tuple[float, float, float, str, float]]:
    """The same as useq's own expansion of the file has it."""
    return [
        (round(e.x_pos, 3), round(e.y_pos, 3), round(e.z_pos, 6), e.channel.config, e.exposure)
        for e in useq.MDASequence.from_file(path)
    ]


def exported(folder: Path, changes: dict[str, str] | None = None, name: str = "plan.yaml") -> Path:
    path = folder / name
    export_useq(written(folder, changes), path)
    return path


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize("sequenced", [False, True])
def test_another_program_takes_the_same_images_in_the_same_order(tmp_path: Path, suffix: str, sequenced: bool) -> None:
    changes = {"n_z = 10": "n_z = 10\nz_sequencing = true"} if sequenced else {}
    file = exported(tmp_path, changes, f"plan.{suffix}")
    assert events(file) == [image[2:] for image in images(tmp_path / "plan.toml")]


@given(
    rotation=st.floats(-3, 3),
    mirrored=st.booleans(),
    order=st.sampled_from(["map", "rows", "columns", "serpentine-rows", "serpentine-columns"]),
    fields=st.lists(st.tuples(st.integers(-200, 200), st.integers(-200, 200)), min_size=1, max_size=4, unique=True),
    n_z=st.integers(1, 12),
    z_step_um=st.sampled_from([0.1, 0.5, 1.3]),
    imaged=st.sets(st.sampled_from([str(WellId(row, column)) for row in range(8) for column in range(12)]), min_size=1),
)
@settings(deadline=None, max_examples=20)
def test_there_and_back_is_the_same_plan(
    rotation: float,
    mirrored: bool,
    order: str,
    fields: list[tuple[int, int]],
    n_z: int,
    z_step_um: float,
    imaged: set[str],
) -> None:
    truth = laid(rotation, 1.0, mirrored, (3e4, 6e4))
    taught = {name: truth.stage_um(9000.0 * column, 9000.0 * row) for name, row, column in _TAUGHT}
    changes = {
        "[source.plan]\n": f'[source.plan]\norder = "{order}"\n',
        "[[-150, 0], [150, 0]]": json.dumps(fields),
        "A01 = [14000, 11000]\nH12 = [113000, 74000]": "\n".join(f"{k} = {json.dumps(v)}" for k, v in taught.items()),
        "n_z = 10": f"n_z = {n_z}",
        "z_step_um = 2.0": f"z_step_um = {z_step_um}",
    }
    rows = [
        f"{well},{'negative_control' if number % 3 == 0 else 'sample'},," for number, well in enumerate(sorted(imaged))
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = written(folder, changes, "\n".join(["well,role,compound,dose_um", *rows]))
        export_useq(original, folder / "plan.json")
        import_useq(folder / "plan.json", folder / "again.toml")
        again = fill_in(folder / "again.toml")
        assert images(again) == images(original)
        export_useq(again, folder / "second.json")
        first, second = (useq.MDASequence.from_file(folder / f"{one}.json") for one in ("plan", "second"))
        assert second.stage_positions == first.stage_positions
        assert (second.z_plan, second.channels) == (first.z_plan, first.channels)
        old, new = (read_plate_map(folder / f"{one}.csv") for one in ("map", "again"))
        assert {str(e.well): e.treatment.role for e in new} == {str(e.well): e.treatment.role for e in old}


_TAUGHT = [("A01", 0, 0), ("A12", 0, 11), ("H01", 7, 0)]


def test_a_plan_by_corner_and_pitch_goes_there_and_back(tmp_path: Path) -> None:
    tables = PLAN[PLAN.index("[source.plan]") : PLAN.index("[source.channels]")]
    file = exported(tmp_path, {tables: "", "n_z = 10": "a01_um = [14000, 80000]\npitch_um = [9000, -9000]\nn_z = 10"})
    import_useq(file, tmp_path / "again.toml")
    assert images(fill_in(tmp_path / "again.toml")) == images(tmp_path / "plan.toml")


def test_a_plate_from_a_file_travels_as_its_geometry(tmp_path: Path) -> None:
    import labware

    own = labware.load_labware()["SBS_96_well_plate"]
    (tmp_path / "mine.json").write_text(own.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
    file = exported(tmp_path, {'labware = "Akura_96_spheroid_microplate"': 'labware_file = "mine.json"'})
    (tmp_path / "mine.json").unlink()
    import_useq(file, tmp_path / "again.toml")
    plan = load_config(fill_in(tmp_path / "again.toml")).source.plan  # type: ignore[attr-defined]
    assert plan.format.pitch_um == (9000.0, 9000.0)
    assert "labware_file" not in file.read_text(encoding="utf-8")


def test_compounds_and_patients_stay_at_home(tmp_path: Path) -> None:
    plate_map = "well,role,compound,dose_um,patient\nA01,sample,SECRET-1,1,Smith\n"
    path = written(tmp_path, plate_map=plate_map)
    export_useq(path, tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text(encoding="utf-8")
    assert "SECRET" not in text
    assert "Smith" not in text


def foreign(folder: Path, **changed: Any) -> Path:
    """A sequence as another program makes one: a plate, a grid in each well, a z stack, two channels."""
    plate = useq.WellPlate(rows=8, columns=12, well_spacing=9, well_size=6.4)
    fields = useq.GridRowsColumns(rows=2, columns=2, fov_width=300, fov_height=300)
    selected = ([0, 1, 7], [0, 3, 11])
    positions = useq.WellPlatePlan(
        plate=plate, a1_center_xy=(100, 2000), rotation=2.5, selected_wells=selected, well_points_plan=fields
    )
    whole = {
        "axis_order": "pzc",
        "stage_positions": positions,
        "channels": [useq.Channel(config="488", exposure=5), useq.Channel(config="561", exposure=7)],
        "z_plan": useq.ZTopBottom(bottom=10, top=20, step=0.5),
    }
    path = folder / "foreign.yaml"
    path.write_text(useq.MDASequence(**whole | changed).yaml(), encoding="utf-8")
    return path


def test_a_plate_plan_of_another_program_is_read(tmp_path: Path) -> None:
    file = foreign(tmp_path)
    result = spheroidd("plan", "import", file, "-o", tmp_path / "new.toml")
    assert result.exit_code == 0, result.output
    taken = images(fill_in(tmp_path / "new.toml"))
    assert [image[2:] for image in taken] == events(file)
    assert list(dict.fromkeys(image[0] for image in taken)) == ["A01", "B04", "H12"]
    assert spheroidd("plan", "check", tmp_path / "new.toml").exit_code == 0


def test_presets_without_a_number_are_named_by_the_person(tmp_path: Path) -> None:
    file = foreign(
        tmp_path, channels=[useq.Channel(config="FITC", exposure=5), useq.Channel(config="TRITC", exposure=7)]
    )
    refused = spheroidd("plan", "import", file, "-o", tmp_path / "new.toml")
    assert refused.exit_code == 2
    assert "'FITC' does not say which" in refused.stderr
    assert "--channel 488=FITC" in refused.stderr
    named = ("--channel", "488=FITC", "--channel", "561=TRITC")
    assert spheroidd("plan", "import", file, "-o", tmp_path / "new.toml", *named).exit_code == 0
    assert {image[5] for image in images(fill_in(tmp_path / "new.toml"))} == {"FITC", "TRITC"}
    assert spheroidd("plan", "import", file, "-o", tmp_path / "x.toml", "--channel", "FITC").exit_code == 2


def channel(**changed: Any) -> list[Any]:
    return [useq.Channel(**{"config": "488", "exposure": 5} | changed)]


REFUSED = {
    "time_plan": {"time_plan": useq.TIntervalLoops(interval=1, loops=3)},
    "grid_plan": {"grid_plan": useq.GridRowsColumns(rows=2, columns=2)},
    "autofocus_plan": {
        "autofocus_plan": useq.AxesBasedAF(axes=("p",), autofocus_motor_offset=5),
        "z_plan": useq.ZRangeAround(range=10, step=1),
    },
    "keep_shutter_open_across": {"keep_shutter_open_across": ("z",)},
    "channels.0.do_stack": {"channels": channel(do_stack=False)},
    "channels.0.z_offset": {"channels": channel(z_offset=1.5)},
    "channels.0.acquire_every": {"channels": channel(acquire_every=2)},
    "channels.0.camera": {"channels": channel(camera="B")},
    "channels.0: exposure": {"channels": [useq.Channel(config="488")]},
    "channels.1": {"channels": [*channel(), *channel(group="Other")]},
    "channels: they are of different groups": {"channels": [*channel(), *channel(config="561", group="Other")]},
    "channels: there are none": {"channels": []},
    "z_plan: there is none": {"z_plan": None},
    "z_plan: ZRangeAround": {"z_plan": useq.ZRangeAround(range=10, step=1)},
    "z_plan: its slices": {"z_plan": useq.ZAbsolutePositions(absolute=[1, 2, 4])},
    "z_plan: its slices do not": {"z_plan": useq.ZTopBottom(bottom=10, top=20, step=1, go_up=False)},
    "axis_order: zpc": {"axis_order": "zpc"},
    "stage_positions: a list": {"stage_positions": [useq.Position(x=1, y=2)]},
    "stage_positions: there are none": {"stage_positions": []},
    "stage_positions.well_points_plan": {
        "stage_positions": useq.WellPlatePlan(
            plate=useq.WellPlate(rows=2, columns=3, well_spacing=9, well_size=6),
            a1_center_xy=(0, 0),
            selected_wells=([0], [0]),
            well_points_plan=useq.RandomPoints(num_points=3, fov_width=100, fov_height=100),
        )
    },
    "stage_positions.selected_wells": {
        "stage_positions": useq.WellPlatePlan(
            plate=useq.WellPlate(rows=2, columns=3, well_spacing=9, well_size=6), a1_center_xy=(0, 0)
        )
    },
    "metadata.spheroidd": {"metadata": {"spheroidd": "ours"}},
    "metadata.spheroidd.plan.taught": {
        "metadata": {"spheroidd": {"plan": {"labware": "96", "taught": {"A1": [0, 0]}}}}
    },
    "metadata.spheroidd.channels": {"metadata": {"spheroidd": {"channels": ["488"]}}},
    "is not a plate name": {"metadata": {"spheroidd": {"plate": "../../etc"}}},
}


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.filterwarnings("ignore:.*:UserWarning:useq")  # useq's own thoughts about what we made on purpose
def test_what_cannot_be_expressed_is_refused_by_name(tmp_path: Path, key: str) -> None:
    file = foreign(tmp_path, **REFUSED[key])
    result = spheroidd("plan", "import", file, "-o", tmp_path / "new.toml")
    assert result.exit_code == 2, result.output
    assert key in result.stderr
    assert str(file) in result.stderr
    assert not (tmp_path / "new.toml").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda p: p[3].update(x=p[3]["x"] + 5), "stage_positions.3: .* is not where the metadata's plan has field 1"),
        (lambda p: p[3].update(x=float("nan")), "stage_positions.3"),
        (lambda p: p[0].update(z=5.0), "stage_positions.0.z"),
        (lambda p: p[0].pop("plate_row"), "stage_positions.0: it does not say"),
        (lambda p: p.pop(), "well B01 has 1 of 2 fields"),
        (lambda p: p.append(p[0]), "well A01 is left and visited again"),
        (lambda p: p.__setitem__(slice(0, 2), [p[1], p[0]]), "stage_positions.0"),
        (lambda p: p[0].update(plate_row=40), "stage_positions.0|row 40"),
    ],
    ids=range(8),
)
def test_positions_that_were_moved_after_the_export_are_not_believed(tmp_path: Path, change: Any, what: str) -> None:
    table = json.loads(exported(tmp_path, name="plan.json").read_text(encoding="utf-8"))
    change(table["stage_positions"])
    (tmp_path / "moved.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ConfigError, match=what):
        import_useq(tmp_path / "moved.json", tmp_path / "again.toml")
    assert not (tmp_path / "again.toml").exists()


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("x.yaml", None, "cannot be read"),
        ("x.yaml", "[1, 2", "no sequence"),
        ("x.yaml", "- 1\n- 2\n", "x.yaml"),
        ("x.json", "{", "no sequence|x.json"),
        ("x.json", '{"z_plan": 7}', "z_plan"),
        ("x.txt", "", "name it .yaml or .json"),
    ],
)
def test_a_file_that_is_no_sequence_is_refused(tmp_path: Path, name: str, text: str | None, what: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=what):
        import_useq(tmp_path / name, tmp_path / "new.toml")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file = foreign(tmp_path)
    (tmp_path / "new.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="such a file already"):
        import_useq(file, tmp_path / "new.toml")
    assert (tmp_path / "new.csv").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["new.csv", "new", "new.yaml"])
def test_a_configuration_is_called_toml(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.toml"):
        import_useq(foreign(tmp_path), tmp_path / name)


def test_a_source_without_a_stage_has_no_plan_to_write(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[source]\nkind = "emulator"\n', encoding="utf-8")
    result = spheroidd("plan", "export", path, "--useq", tmp_path / "x.yaml")
    assert result.exit_code == 2
    assert "source.kind" in result.stderr


def test_a_plan_that_is_wrong_is_not_exported(tmp_path: Path) -> None:
    path = written(tmp_path, {"Akura": "Acura"})
    result = spheroidd("plan", "export", path, "--useq", tmp_path / "x.yaml")
    assert result.exit_code == 2
    assert "source.plan.labware" in result.stderr
    assert ", line " in result.stderr


def test_keys_of_stacks_are_fields_of_wells(tmp_path: Path) -> None:
    source = open_source(load_config(written(tmp_path, plate_map=MAP)), SystemClock())
    keys = [plan.key for plan in source.plans()]
    assert keys[:3] == [
        StackKey("P1", WellId(0, 0), 0),
        StackKey("P1", WellId(0, 0), 1),
        StackKey("P1", WellId(7, 11), 0),
    ]
