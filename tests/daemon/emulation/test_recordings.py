"""Recordings in place of the phantom: every kind that replay reads, its pixels, its faults, its truth."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.daemon.config.model import build_config, open_source
from spheroidd.daemon.emulation.known_truth import truth_of_recording, truth_of_run
from spheroidd.daemon.emulation.open_recording import open_recording
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.ports import Clock, StackSource
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.faults import FAULT_KINDS, Fault
from spheroidd.sim_emulator.folder_writer import write_plate
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock, SourceContract, take
from tests.daemon.emulation.recorded_plate import (
    DESIGN,
    GEOMETRY,
    N_Z,
    assert_equal,
    close_all,
    emulator,
    phantom,
    pictures,
    record,
    replayed,
)
from tests.places import REAL_DATA, needs_real_data

A01, A02, B01 = WellId(0, 0), WellId(0, 1), WellId(1, 0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plate map of a recorded plate."""
    return record(tmp_path_factory.mktemp("recorded") / "plate")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


def spheroidd(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


class TestEmulatorOverARecording(SourceContract):
    @pytest.fixture(autouse=True)
    def _over(self, recorded: Path) -> None:
        self.recorded = recorded

    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        return emulator(self.recorded, clock, pace="real")


# -- which recordings ------------------------------------------------------------------------------------------------


def test_it_shows_what_replay_gives_bit_by_bit_and_images_the_recordings_plate(recorded: Path) -> None:
    source = emulator(recorded)
    source.check()
    assert [(e.well, e.treatment) for e in source.plate_map] == [
        (e.well, e.treatment) for e in read_plate_map(recorded)
    ]
    assert_equal(pictures(source), replayed(recorded))


def other_forms(recorded: Path, folder: Path, form: str) -> Path:
    """The same plate in another form."""
    if form == "ome-zarr":
        return record(folder, "ome-zarr")
    if form == "a folder with a map":
        return recorded.parent
    if form == "a configuration of replay":
        path = folder / "replay.toml"
        path.write_text(f"[plate]\nmap = '{recorded}'\n[source]\nkind = 'replay'\n", encoding="utf-8")
        return path
    rows = ["well,path,role,pixel_um,z_step_um"]
    for entry in read_plate_map(recorded):
        with tifffile.TiffFile(entry.paths[""]) as file:
            stack = file.asarray().reshape(N_Z, 2, GEOMETRY["height"], GEOMETRY["width"])
        path = folder / f"{entry.well}.npy"
        if form == "npy":
            np.save(path, stack.transpose(1, 0, 2, 3))
        else:
            path = folder / str(entry.well)
            path.mkdir()
            for z in range(N_Z):
                for c, channel in enumerate(("488", "561")):
                    tifffile.imwrite(path / f"img_{channel}_z{z}.tif", stack[z, c])
        rows.append(f"{entry.well},{path.name},{entry.treatment.role if entry.well != B01 else 'sample'},0.5,1.0")
    (folder / "map.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "map.csv"


@pytest.mark.parametrize(
    "form", ["ome-zarr", "npy", "plane folders", "a folder with a map", "a configuration of replay"]
)
def test_every_form_of_a_recording_shows_the_same(recorded: Path, tmp_path: Path, form: str) -> None:
    source = emulator(other_forms(recorded, tmp_path / "form" if form == "ome-zarr" else tmp_path, form))
    assert_equal(pictures(source), replayed(recorded))


def test_a_plate_that_was_run_is_a_recording(recorded: Path, tmp_path: Path) -> None:
    tables: dict[str, Any] = {
        "data": {"dir": str(tmp_path / "run")},
        "plate": {"name": "P1", "map": str(recorded)},
        "source": {"kind": "replay"},
        "store": {"min_free_gb": 0.0},
        "service": {"enabled": False},
    }
    stored(tables, tmp_path)
    source = emulator(tmp_path / "run")
    source.check()
    assert_equal(pictures(source), replayed(recorded))
    assert [str(e.well) for e in source.plate_map] == ["A01", "A02", "B01"]


def stored(tables: dict[str, Any], folder: Path) -> None:
    """Store a plate as a run does, without scoring it."""
    config = build_config(tables, base=folder)
    source = open_source(config, FakeClock())
    with Catalog.create_or_open(config.data.dir) as catalog:
        catalog.register_plate(source.plate_map, config.model_dump_json())
        events: list[Any] = []
        store = ZarrStackStore(config.data.dir, source.plate_map, events.append)
        for plan in source.plans():
            catalog.expect(plan)
            store.open(plan)
            for frame in source.frames(plan, set(plan.indices())):
                store.append(frame)
            store.seal(plan.key)
        store.close()
        for event in events:
            if isinstance(event, SliceDurable):
                catalog.acknowledge(event, 1.0)


@needs_real_data
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("ndtiff/ndtiff3.2_monochrome/time=3", "path_488"),
        ("ndtiff/ndtiffv2.0_test/time=0", "path"),
        ("leica/LeicaLASX_wavelength-sweep_example.lif/x_y_z_t_lambdaEmi/T=1,λ=3", "path_488"),
        ("leica/experiment--test/slide--S00/chamber--U00--V00/field--X00--Y01", "path"),
    ],
    ids=["NDTiff 3", "NDTiff 2", "LIF", "Matrix Screener"],
)
def test_real_files_of_other_programs_are_recordings(tmp_path: Path, name: str, column: str) -> None:
    rows = f'well,role,z_step_um,{column}\nA01,sample,{"" if "lif" in name else 0.4},"{REAL_DATA / name}"\n'
    plate_map = text(tmp_path / "map.csv", rows)
    wanted = replayed(plate_map)
    assert wanted
    assert_equal(pictures(emulator(plate_map)), wanted)


def test_one_stack_lies_in_every_well_of_the_map(recorded: Path) -> None:
    source = emulator(recorded.parent / "B01.ome.tif", plate_map=recorded)
    wanted = replayed(recorded)
    for (_, index), pixels in pictures(source).items():
        np.testing.assert_array_equal(pixels, wanted["B01", index])


def test_a_well_that_the_recording_lacks_is_background_and_the_map_says_which_are_imaged(
    recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "map.csv").write_text("well,role\nA01,sample\nH12,sample\nB01,empty\n", encoding="utf-8")
    found = pictures(emulator(recorded, plate_map=tmp_path / "map.csv"))
    assert {well for well, _ in found} == {"A01", "H12"}
    wanted = replayed(recorded)
    assert_equal(
        {key: pixels for key, pixels in found.items() if key[0] == "A01"},
        {key: pixels for key, pixels in wanted.items() if key[0] == "A01"},
    )
    darkest = min(pixels.mean() for pixels in wanted.values())
    for key, pixels in found.items():
        if key[0] == "H12":
            assert pixels.std() > 2
            assert pixels.mean() < darkest + 10


def test_more_slices_than_were_recorded_show_background_above(recorded: Path) -> None:
    found = pictures(emulator(recorded, n_z=N_Z + 2))
    top = found["A01", SliceIndex("488", N_Z + 1)]
    assert top.mean() < found["A01", SliceIndex("488", 1)].mean()
    assert len(np.unique(top)) > 10


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "nowhere.csv", r"nowhere\.csv"),
        (lambda folder: folder / "nowhere.ome.tif", r"nowhere\.ome\.tif: there is no such file"),
        (
            lambda folder: text(folder / "m.csv", "well,role\nA01,sample\n"),
            r"names no file of any well; fill the column",
        ),
        (lambda folder: text(folder / "m.csv", "well,role,path\nA01,sample,a.npy\n"), r"a\.npy: there is no such"),
        (lambda folder: array(folder / "a.npy"), r"z_step_um is unknown.*; write z_step_um"),
        (lambda folder: text(folder / "c.toml", "[source]\nkind = 'emulator'\n"), r"kind 'emulator'; name a config"),
    ],
    ids=["no map", "no stack", "no paths", "no file", "no voxel size", "no replay"],
)
def test_what_is_no_recording_is_refused_before_the_run(tmp_path: Path, write: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_recording(write(tmp_path))


def text(path: Path, words: str) -> Path:
    path.write_text(words, encoding="utf-8")
    return path


def array(path: Path) -> Path:
    np.save(path, np.zeros((2, 3, 8, 8), np.uint16))
    return path


def test_a_damaged_stack_is_named_by_the_check(recorded: Path, tmp_path: Path) -> None:
    plate_map = record(tmp_path / "plate")
    damaged = plate_map.parent / "B01.ome.tif"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    with pytest.raises(ConfigError, match=r"B01\.ome\.tif: .*or take the well out of the recording's plate map"):
        emulator(plate_map).check()


def test_a_source_that_nobody_gave_the_recording_does_not_show_a_phantom_instead() -> None:
    with pytest.raises(ConfigError, match="the recording was not opened"):
        EmulatorSource(EmulatorSettings(recording=Path("a.tif")), None, "plate", FakeClock())


# -- exposure, pace, facts -------------------------------------------------------------------------------------------


def test_exposure_is_a_factor_that_the_images_say(recorded: Path) -> None:
    source = emulator(recorded, exposure=0.5)
    plan = source.plan(A01)
    (frame,) = source.frames(plan, {SliceIndex("488", 2)})
    full = replayed(recorded)["A01", SliceIndex("488", 2)].astype(float)
    assert frame.pixels.std() == pytest.approx(full.std() / 2, rel=0.15)
    assert frame.metadata["exposure_ms"] == 2.5  # recorded with 5 ms


def test_the_pace_is_the_instruments(recorded: Path) -> None:
    clock = FakeClock()
    source, start = emulator(recorded, clock, pace="real", slice_period_s=1.2), clock.now()
    plan = source.plan(A01)
    due = [frame.acquired_s - start for frame in source.frames(plan, set(plan.indices()))]
    assert due == pytest.approx([1.2 * k / 2 for k in range(2 * N_Z)])


# -- faults ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["phantom", "recording"])
def faulty(request: pytest.FixtureRequest, recorded: Path) -> Any:
    """The same plate, made up or recorded, with faults."""

    def made(*faults: Fault) -> tuple[EmulatorSource, FakeClock]:
        clock = FakeClock()
        given = {"faults": [fault.model_dump(exclude_none=True) for fault in faults]}
        if request.param == "recording":
            return emulator(recorded, clock, **given), clock
        settings = EmulatorSettings.model_validate({**DESIGN, **GEOMETRY, "pace": "fast", **given})
        return EmulatorSource(settings, None, "recorded", clock), clock

    return made


def test_a_phantom_and_a_recording_deliver_the_same_faults(faulty: Any) -> None:
    source, clock = faulty(
        Fault(kind="drop", well="A01", z=1),
        Fault(kind="duplicate", well="A01", z=1, channel="561"),
        Fault(kind="stall", well="A01", z=2, seconds=7),
        Fault(kind="cut", well="A01", z=3),
    )
    plan = source.plan(A01)
    frames = list(source.frames(plan, set(plan.indices())))
    came = [frame.index for frame in frames]
    assert SliceIndex("488", 1) not in came
    assert came.count(SliceIndex("561", 1)) == 2
    assert clock.slept_s == 7
    (cut,) = (frame for frame in frames if frame.index == ("488", 3))
    with pytest.raises(StackError, match=r"channel 488 z 3 is uint16 \(12, 32\); the plan says"):
        cut.check(plan)


@pytest.mark.parametrize(("kind", "error"), [("fail", StackError), ("lost", InstrumentError)])
def test_a_lost_stack_and_a_lost_connection_are_raised_by_name(faulty: Any, kind: Any, error: Any) -> None:
    source, _ = faulty(Fault(kind=kind, well="A02", z=1, times=1))
    with pytest.raises(error, match=r"A02/0: .*channel 488 z 1"):
        take(source, source.plan(A02), set(source.plan(A02).indices()))
    assert len(take(source, source.plan(A02), set(source.plan(A02).indices()))) == 2 * N_Z


@pytest.mark.parametrize("kind", ["bright", "dark", "defocus"])
def test_faults_of_the_picture_change_their_slice_and_no_other(faulty: Any, kind: Any) -> None:
    sound, _ = faulty()
    source, _ = faulty(Fault(kind=kind, well="A01", z=2, channel="both"))
    plan = source.plan(A01)
    wanted, found = (take(one, plan, set(plan.indices())) for one in (sound, source))
    for index, pixels in found.items():
        before = wanted[index].astype(float)
        if index.z != 2:
            assert np.array_equal(pixels, before)
        elif kind == "bright":
            assert pixels.mean() > 1.5 * before.mean()
        elif kind == "dark":
            assert pixels.std() < 0.5 * before.std()
            assert pixels.std() > 1
        else:
            assert np.abs(np.diff(pixels.astype(float))).mean() < np.abs(np.diff(before)).mean()


def test_a_fault_without_well_or_z_meets_every_one(recorded: Path) -> None:
    source = emulator(recorded, faults=[{"kind": "drop", "channel": "561"}])
    assert {index.channel for _, index in pictures(source)} == {"488"}


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_every_fault_can_be_said_on_the_command_line(kind: str) -> None:
    assert Fault.parse(f"{kind}:b1:3:561") == Fault(kind=kind, well="B01", z=3, channel="561")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    ["drop", "drop:A01", "vanish:A01:3", "drop:A01:x", "drop:somewhere:3", "drop:A01:3:405", "drop:A01:3:561:9"],
)
def test_a_fault_that_cannot_be_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=r"--fault is .*; write KIND:WELL:Z"):
        Fault.parse(words)


# -- files that grow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["ome-tiff", "ome-zarr"])
def test_a_recording_written_as_files_again_is_the_same_and_keeps_its_truth(
    recorded: Path, tmp_path: Path, layout: str
) -> None:
    done = spheroidd("emulate", tmp_path / "out", "--recording", recorded, "--layout", layout, "--preset", "unit")
    assert done.exit_code == 0, done.output
    assert_equal(replayed(tmp_path / "out" / "map.csv"), replayed(recorded))
    for path in sorted((recorded.parent / "truth").iterdir()):
        again = tmp_path / "out" / "truth" / path.name
        if path.suffix == ".csv":
            assert again.read_text().split() == path.read_text().split()
        else:
            assert again.read_bytes() == path.read_bytes()


def test_a_tree_grows_plane_by_plane_at_the_instruments_pace_with_its_map_first(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Watch(FakeClock):
        seen: list[tuple[float, int]] = []  # noqa: RUF012

        def sleep(self, seconds: float) -> None:
            assert (out / "map.csv").exists()
            self.seen.append((round(self.slept_s, 6), len(list(out.rglob("*--C0?.ome.tif")))))
            super().sleep(seconds)

    clock = Watch()
    write_plate(emulator(recorded, clock, pace="real", slice_period_s=2.0), out, "matrix-screener")
    assert [n for _, n in clock.seen[: 2 * N_Z - 1]] == list(range(1, 2 * N_Z))
    assert clock.seen[1][0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("fault", "n_files", "n_halves"),
    [("drop:A01:1", 2 * N_Z - 1, 0), ("cut:A01:1", 2 * N_Z, 1), ("short:A01:2", 4, 0), ("duplicate:A01:1", 2 * N_Z, 0)],
)
def test_faults_of_files_stand_in_the_tree(
    recorded: Path, tmp_path: Path, fault: str, n_files: int, n_halves: int
) -> None:
    options = ("--layout", "matrix-screener", "--wells", "A01", "--fault", fault)
    done = spheroidd("emulate", tmp_path / "out", "--recording", recorded, *options)
    assert done.exit_code == 0, done.output
    files = sorted((tmp_path / "out").rglob("*--C0?.ome.tif"))
    sizes = [path.stat().st_size for path in files]
    assert len(files) == n_files
    assert sum(size < max(sizes) // 2 + 1 for size in sizes) == n_halves


def test_a_lost_connection_ends_the_writing_with_a_message(recorded: Path, tmp_path: Path) -> None:
    done = spheroidd("emulate", tmp_path / "out", "--recording", recorded, "--fault", "lost:A02:1")
    assert done.exit_code == 3
    assert "A02/0: the emulator was set to fail at channel 488 z 1" in done.output


def test_exposure_without_a_recording_is_refused(tmp_path: Path) -> None:
    done = spheroidd("emulate", tmp_path / "out", "--exposure", "2")
    assert done.exit_code == 2
    assert "--exposure without --recording" in done.output


# -- truth -----------------------------------------------------------------------------------------------------------


def run_of(folder: Path, source: dict[str, Any], plate_map: Path | None = None) -> Path:
    """A data directory with a plate of that source, as far as its truth is concerned."""
    with Catalog.create_or_open(folder) as catalog:
        config = {"source": source, "plate": {"map": str(plate_map) if plate_map else None}}
        catalog.register_plate(phantom().plate_map, json.dumps(config, default=str))
    return folder


def test_the_truth_of_a_recording_is_found_beside_it_and_through_runs_of_it(recorded: Path, tmp_path: Path) -> None:
    folder = recorded.parent / "truth"
    assert truth_of_recording(recorded) == folder
    assert truth_of_recording(recorded.parent) == folder
    first = run_of(tmp_path / "1", {"kind": "emulator", "preset": "unit", "recording": str(recorded)})
    assert truth_of_run(first, "recorded") == folder
    second = run_of(tmp_path / "2", {"kind": "emulator", "preset": "unit", "recording": str(first)})
    assert truth_of_run(second, "recorded") == folder
    replay = run_of(tmp_path / "3", {"kind": "replay"}, recorded)
    assert truth_of_run(replay, "recorded") == folder


def test_a_run_of_the_phantom_is_the_truth_of_whatever_images_it_again(tmp_path: Path) -> None:
    first = run_of(tmp_path / "1", {"kind": "emulator", **DESIGN, **GEOMETRY})
    second = run_of(tmp_path / "2", {"kind": "emulator", "preset": "unit", "recording": str(first)})
    known = truth_of_run(second, "recorded")
    assert isinstance(known, EmulatorSource)
    assert np.array_equal(known.truth("A01").live, phantom().truth("A01").live)


@pytest.mark.parametrize("moved", [{"field_x_um": 3.0}, {"n_z": 2}, {"pixel_um": 0.25}], ids=str)
def test_imaged_otherwise_than_it_was_taken_its_truth_is_not_the_plates(
    recorded: Path, tmp_path: Path, moved: dict[str, Any]
) -> None:
    run = run_of(tmp_path, {"kind": "emulator", "preset": "unit", "recording": str(recorded), **moved})
    assert truth_of_run(run, "recorded") is None


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({}, True),
        ({"autofocus": {"range_um": 80.0}}, False),
        ({"plan": {"fields_um": [[10.0, 0.0]]}}, False),
        ({"pixel_um": 0.25}, False),
        ({"tilt_um": [1.0, 0.0]}, False),
    ],
    ids=["as recorded", "its own focus", "another field", "other pixels", "askew"],
)
def test_a_microscopes_trial_has_the_recordings_truth_where_it_imaged_the_same_place(
    recorded: Path, tmp_path: Path, changed: dict[str, Any], known: bool
) -> None:
    camera = {"recording": str(recorded), "tilt_um": changed.get("tilt_um"), "uneven_um": 0.0}
    run = run_of(tmp_path, {"kind": "micromanager", **GEOMETRY, **changed, "emulated_camera": camera})
    assert truth_of_run(run, "recorded") == (recorded.parent / "truth" if known else None)


def test_a_single_stack_and_a_map_without_truth_have_none(recorded: Path, tmp_path: Path) -> None:
    stack = tmp_path / "B01.ome.tif"
    stack.write_bytes((recorded.parent / "B01.ome.tif").read_bytes())
    plate_map = text(tmp_path / "m.csv", "well,role,path\nA01,sample,B01.ome.tif\n")
    assert truth_of_recording(stack) is None
    assert truth_of_recording(plate_map) is None
