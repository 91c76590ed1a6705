"""Micro-Manager as a source: the contract, a plate pixel by pixel, sequences, what it refuses, the Java backend."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spheroidd.acquisition.sources.micromanager.core import AbortedError, Stages, describe, load_core
from spheroidd.acquisition.sources.micromanager.frame_ring import FrameRing
from spheroidd.acquisition.sources.micromanager.messages import (
    CoreReady,
    Doing,
    FrameTaken,
    Leave,
    PlannedSlice,
    StackOrder,
    StackOver,
)
from spheroidd.acquisition.sources.micromanager.session import CoreSession
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource, name_slices
from spheroidd.daemon.config.model import load_config, open_source
from spheroidd.daemon.emulation.camera_over_plate import CameraOverPlate, PhantomView
from spheroidd.daemon.emulation.emulated_camera import (
    EmulatedCamera,
    MicroManagerRun,
    MicroManagerRunSettings,
    emulated_plate,
)
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, InstrumentError
from spheroidd.protocols.ports import Clock, StackSource
from spheroidd.protocols.stack import RawIndex, SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import SourceContract
from tests.acquisition.sources.micromanager.faults import attach_hanging, attach_painted, fake_java, painted
from tests.acquisition.sources.micromanager.rig import (
    DEMO_CFG,
    SEQUENCED,
    assert_same,
    needs_core,
    painted_stack,
    plate,
    settings,
    warm_cores,
)
from tests.faults.plate_runs import spheroidd

pytestmark = warm_cores
EXAMPLE = DEMO_CFG.with_suffix(".toml")


@pytest.fixture(scope="module")
def shared() -> Iterator[MicroManagerSource]:
    """One core for all that need just any: loading it takes longer than all else together."""
    with closing(MicroManagerSource(settings(), plate(), "rig", SystemClock(), attach=attach_painted)) as source:
        yield source


@needs_core
class TestMicroManagerSource(SourceContract):
    @pytest.fixture(autouse=True)
    def _reuse(self, shared: MicroManagerSource) -> None:
        self.core = shared

    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        return _Kept(self.core)

    def test_it_may_be_closed_twice(self, source: StackSource) -> None:
        """The core behind it, this time; what comes after needs a new one."""
        self.core.check()
        self.core.close()
        self.core.close()
        assert self.core.pid is None


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MicroManagerSource]:
    """As `shared`, with a focus stage that steps by hardware."""
    config = tmp_path_factory.mktemp("stepping") / "rig.cfg"
    config.write_text(DEMO_CFG.read_text(encoding="utf-8") + SEQUENCED, encoding="utf-8")
    rig = settings(config=config, z_sequencing=True, n_z=6)
    with closing(MicroManagerSource(rig, plate(), "rig", SystemClock(), attach=attach_painted)) as source:
        yield source


@needs_core
class TestMicroManagerSourceThatStepsByHardware(SourceContract):
    @pytest.fixture(autouse=True)
    def _reuse(self, stepping: MicroManagerSource) -> None:
        self.core = stepping

    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        return _Kept(self.core)


class _Kept:
    """A source that its user may close without ending the core behind it."""

    def __init__(self, source: MicroManagerSource) -> None:
        self.plate_map, self.check = source.plate_map, source.check
        self.plans, self.frames = source.plans, source.frames

    def close(self) -> None:
        pass


@needs_core
def test_frames_say_where_and_how_they_were_taken(shared: MicroManagerSource) -> None:
    rig, plan = settings(), shared.plans()[1]
    frames = list(shared.frames(plan, set(plan.indices())))
    assert [frame.index for frame in frames] == list(plan.indices())
    for frame in frames:
        found = frame.metadata
        assert found["x_um"] == pytest.approx(1000, abs=0.1)
        assert found["y_um"] == pytest.approx(1000, abs=0.1)
        assert found["z_um"] == found["z_planned_um"] == rig.z_um(frame.index.z)
        assert (found["preset"], found["exposure_ms"], found["camera"]) == (frame.index.channel, 1.0, "Camera")
        assert abs(float(found["host_time_s"]) - frame.acquired_s) < 60
        assert found["instrument_time"]
    assert [f.acquired_s for f in frames] == sorted(f.acquired_s for f in frames)


@needs_core
@pytest.mark.parametrize("sequenced", [False, True], ids=["slice by slice", "z by hardware"])
def test_a_plate_through_the_real_core_is_the_emulated_plate_pixel_by_pixel(tmp_path: Path, sequenced: bool) -> None:
    config = tmp_path / "rig.cfg"
    config.write_text(DEMO_CFG.read_text(encoding="utf-8") + SEQUENCED * sequenced, encoding="utf-8")
    wells = plate("A01", "B03") if sequenced else plate("A01", "A02", "B01")
    camera, n_z = EmulatedCamera(preset="unit", seed=3), 6
    rig = MicroManagerRunSettings.model_validate(
        settings(config=config, z_sequencing=sequenced, n_z=n_z, first_frame_s=60).model_dump()
        | {"emulated_camera": camera}
    )
    with closing(MicroManagerRun(rig, wells, "rig", SystemClock())) as source:
        source.check()
        wanted = emulated_plate(rig, camera, wells)
        for plan in source.plans():
            frames = list(source.frames(plan, set(plan.indices())))
            assert_same(
                {frame.index: frame.pixels for frame in frames},
                {frame.index: frame.pixels for frame in wanted.frames(plan, set(plan.indices()))},
            )
            if sequenced:
                assert [f.index for f in frames] == [SliceIndex(c, z) for c in ("488", "561") for z in range(n_z)]


RAW: dict[str, Any] = {"phases": 3, "na": 0.5, "emission_nm": {"488": 515, "561": 617}, "offset_adu": 100}


def raw_rig(folder: Path, *, sequenced: bool) -> MicroManagerRunSettings:
    """Two slices of raw frames: a camera of 96 pixels of 0.25 um, slices of 192."""
    config = folder / "rig.cfg"
    text = DEMO_CFG.read_text(encoding="utf-8").replace("PixelSize_um,unit,0.5", "PixelSize_um,unit,0.25")
    config.write_text(text + SEQUENCED * sequenced, encoding="utf-8")
    side = {"height": 192, "width": 192, "pixel_um": 0.125}
    rig = settings(config=config, z_sequencing=sequenced, n_z=2, first_frame_s=60, raw=RAW, **side)
    return MicroManagerRunSettings.model_validate(rig.model_dump() | {"emulated_camera": {"seed": 3}})


@pytest.fixture(scope="module", params=[False, True], ids=["slice by slice", "z by hardware"])
def striped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[MicroManagerRunSettings, MicroManagerSource]]:
    """A rig whose camera takes raw frames, and its source."""
    rig = raw_rig(tmp_path_factory.mktemp("striped"), sequenced=request.param)
    with closing(MicroManagerRun(rig, plate(), "rig", SystemClock())) as source:
        source.check()
        yield rig, source


@needs_core
class TestMicroManagerSourceOfRawFrames(SourceContract):
    @pytest.fixture(autouse=True)
    def _reuse(self, striped: tuple[MicroManagerRunSettings, MicroManagerSource]) -> None:
        self.rig, self.core = striped

    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        return _Kept(self.core)

    def test_they_are_the_emulated_ones_frame_by_frame(self) -> None:
        assert self.rig.emulated_camera is not None
        wanted = emulated_plate(self.rig, self.rig.emulated_camera, plate())
        plan = self.core.plans()[1]
        assert plan.raw == self.rig.raw.pattern()  # type: ignore[union-attr]
        assert (plan.frame_shape, plan.frame_pixel_um, plan.n_slices) == ((96, 96), 0.25, 2 * 2 * 9)
        frames = list(self.core.frames(plan, set(plan.indices())))
        assert_same(
            {frame.index: frame.pixels for frame in frames},
            {frame.index: frame.pixels for frame in wanted.frames(plan, set(plan.indices()))},
        )
        assert [frame.metadata["x_um"] for frame in frames] == pytest.approx([1000] * len(frames), abs=0.1)
        images = [(a, p) for a in range(3) for p in range(3)]
        order = (
            [("488", 0), ("488", 1), ("561", 0), ("561", 1)]
            if self.rig.z_sequencing
            else [("488", 0), ("561", 0), ("488", 1), ("561", 1)]
        )
        assert [frame.index for frame in frames] == [RawIndex(*one, *image) for one in order for image in images]

    def test_a_slice_of_which_a_frame_is_missing_is_taken_whole_and_gives_only_that_frame(self) -> None:
        """A sequence plays the pattern from its beginning; a frame that is kept already must not come twice."""
        plan = self.core.plans()[0]
        lost = {RawIndex("561", 1, 2, 1), RawIndex("561", 1, 0, 2)}
        whole = {frame.index: frame.pixels for frame in self.core.frames(plan, set(plan.indices()))}
        frames = list(self.core.frames(plan, lost))
        assert_same({frame.index: frame.pixels for frame in frames}, {index: whole[index] for index in lost})
        assert len(frames) == len(lost)


@needs_core
def test_the_example_is_a_rig_that_passes_its_check() -> None:
    config = load_config(EXAMPLE)
    with closing(open_source(config, SystemClock())) as source:
        source.check()
        assert [str(plan.key.well) for plan in source.plans()] == ["A01", "A02", "A03", "B01", "B02", "B03"]


@needs_core
@pytest.mark.slow
def test_the_example_runs_to_final_rows(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace("../demo-data/micromanager", (tmp_path / "data").as_posix())
    for name in (EXAMPLE.with_suffix(".csv").name, DEMO_CFG.name):
        text = text.replace(f'"{name}"', f'"{(EXAMPLE.parent / name).as_posix()}"')
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    done = spheroidd("run", str(tmp_path / "run.toml"), "--plain")
    assert done.returncode == 0, done.stderr
    found = json.loads(spheroidd("results", str(tmp_path / "data"), "--json").stdout)
    rows = {row["well"]: (row["status"], row["n_slices_acked"]) for row in found}
    assert rows == dict.fromkeys(("A01", "A02", "A03", "B01", "B02", "B03"), ("final", 48))


@needs_core
def test_a_core_that_does_not_load_in_time_is_ended() -> None:
    hasty = settings(start_timeout_s=0.001)
    with (
        closing(MicroManagerSource(hasty, plate(), "rig", SystemClock(), attach=attach_hanging)) as source,
        pytest.raises(InstrumentError, match=r"did not answer for 0\.001 s while starting, and was killed"),
    ):
        source.check()
    assert source.pid is None


@needs_core
def test_a_configuration_that_does_not_load_says_why(tmp_path: Path) -> None:
    config = tmp_path / "bad.cfg"
    config.write_text(
        DEMO_CFG.read_text(encoding="utf-8").replace("DemoCamera,DCam", "NoSuchAdapter,DCam"), encoding="utf-8"
    )
    with (
        closing(MicroManagerSource(settings(config=config), plate(), "rig", SystemClock())) as source,
        pytest.raises(InstrumentError, match=r"bad\.cfg: the core cannot be started: .*NoSuchAdapter"),
    ):
        source.check()
    assert source.pid is None


@pytest.mark.parametrize(
    ("answers", "changed", "message"),
    [
        ({"get_xy_stage_device": ""}, {}, "no XYStage; add the line Property,Core,XYStage"),
        ({"get_focus_device": ""}, {}, "no Focus"),
        ({"get_camera_device": ""}, {}, "no Camera"),
        ({"is_config_defined": False}, {}, "source.channels: there is no preset '488' in the group 'Channel'"),
        ({"is_stage_sequenceable": False}, {"z_sequencing": True}, "z_sequencing: the focus stage 'Z' cannot step"),
    ],
    ids=str,
)
def test_a_core_that_lacks_what_a_plate_needs_is_refused(
    java: dict[str, Any], answers: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    rig = settings(backend="java", **changed)
    core = load_core(rig)
    java["answers"] = answers
    with pytest.raises(ConfigError, match=message):
        describe(core, rig)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pixel_um": 0.4}, r"pixel_um: Micro-Manager's pixel is 0\.5 um, the settings say 0\.4"),
        ({"width": 128}, r"the camera gives .*\(96, 96, 2\), the settings say \(128, 96, 2\)"),
        ({"dtype": "uint8"}, r"the camera gives .*\(96, 96, 2\), the settings say \(96, 96, 1\)"),
    ],
    ids=str,
)
def test_a_camera_that_is_not_that_of_the_settings_is_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    source = MicroManagerSource(settings(**changed), plate(), "rig", SystemClock())
    monkeypatch.setattr(source._process, "start", lambda: CoreReady(96, 96, 2, 0.5, "MMCore"))
    with pytest.raises(ConfigError, match=message):
        source.check()
    source.close()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": Path("nowhere.cfg")}, "source.config = nowhere.cfg: there is no such file"),
        ({"micromanager_dir": Path("nowhere")}, "source.micromanager_dir = nowhere: there is no such folder"),
        ({"x_limits_um": (-100, 500)}, "well B02: x = 1000 um lies outside the limits"),
        ({"a01_um": (0, -99.5), "y_limits_um": (0, 20000)}, "well A01: y = -99.5 um lies outside"),
    ],
    ids=str,
)
def test_what_can_be_known_without_the_core_is_refused_without_it(changed: dict[str, Any], message: str) -> None:
    source = MicroManagerSource(settings(**changed), plate(), "rig", SystemClock())
    with pytest.raises(ConfigError, match=message):
        source.check()
    assert source.pid is None
    source.close()


@pytest.mark.parametrize(
    "changed",
    [
        {"z_start_um": 1e9},
        {"z_start_um": 199.0},  # the last slice is outside
        {"retract_z_um": -1.0},
        {"z_limits_um": (200, 0)},
        {"x_limits_um": (0, 0)},
        {"z_limits_um": (0, float("inf"))},
        {"pitch_um": (9000, 0)},
        {"channels": {}},
        {"channels": {"405": {"preset": "a", "exposure_ms": 1}}},
        {"channels": {"488": {"preset": "", "exposure_ms": 1}}},
        {"channels": {"488": {"preset": "a", "exposure_ms": 0}}},
        {"micromanager_dir": None},
        {"config": None},
        {"backend": "matlab"},
        {"ring_mb": 0},
        {"typo": 1},
        {"raw": RAW | {"order": ("angle", "z", "phase")}},  # a sequence is one slice
        {"raw": RAW | {"emission_nm": {"488": 515}}},
        {"raw": RAW, "height": 97},
    ],
    ids=str,
)
def test_settings_refuse_nonsense(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**changed)


def test_limits_and_geometry_have_no_defaults() -> None:
    required = {name for name, field in MicroManagerSettings.model_fields.items() if field.is_required()}
    assert required >= {"x_limits_um", "y_limits_um", "z_limits_um", "retract_z_um", "z_start_um", "n_z"}
    with pytest.raises(ValidationError, match="nothing says where the wells are"):
        settings(a01_um=None)


def test_a_plate_map_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"plate\.map is missing"):
        MicroManagerSource(settings(), None, "rig", SystemClock())


def test_three_slice_periods_are_a_stall_but_never_less_than_the_floor() -> None:
    assert settings(slice_period_s=1.2).stall_s == pytest.approx(3.6)
    assert settings(slice_period_s=0.02, min_stall_s=1.0).stall_s == 1.0
    assert settings(slice_period_s=None).period_s == pytest.approx(2 * (0.001 + 0.05))


def test_the_cores_buffer_holds_a_hardware_sequence() -> None:
    assert settings().core_buffer_mb == 64
    assert settings(z_sequencing=True, n_z=200, height=800, width=800, z_limits_um=(0, 500)).core_buffer_mb == 320
    assert settings(buffer_mb=256).core_buffer_mb == 256


@given(st.integers(0, 31), st.integers(0, 47), st.sampled_from([9000.0, -9000.0, 4500.0, 1125.0]), st.floats(-1.5, 1.5))
def test_a_position_leads_back_to_its_well(row: int, column: int, pitch_um: float, off_um: float) -> None:
    rig = settings(pitch_um=(pitch_um, -pitch_um), a01_um=(5e3, -7e3))
    x, y = rig.xy_um(WellId(row, column))
    assert rig.well_at(x + off_um, y - off_um) == WellId(row, column)
    assert rig.well_at(x + pitch_um / 2, y) is None


@given(st.sets(st.tuples(st.sampled_from(["488", "561"]), st.integers(0, 40)).map(lambda pair: SliceIndex(*pair))))
def test_named_slices_are_the_slices(slices: set[SliceIndex]) -> None:
    named = set()
    for part in filter(None, name_slices(slices).split("; ")):
        channel, _, runs = part.partition(" z ")
        for run in runs.split(", "):
            first, _, last = run.partition("-")
            named |= {SliceIndex(channel, z) for z in range(int(first), int(last or first) + 1)}
    assert named == slices


class FakeStage:
    """A core of stages alone, that notes every move."""

    def __init__(self) -> None:
        self.x, self.y, self.z, self.moves = 0.0, 0.0, 50.0, []  # type: tuple[float, float, float, list[Any]]
        self.busy = 0

    def __getattr__(self, name: str) -> Any:
        return {"get_focus_device": lambda: "Z", "get_xy_stage_device": lambda: "XY"}[name]

    def get_position(self) -> float:
        return self.z

    def get_x_position(self) -> float:
        return self.x

    def get_y_position(self) -> float:
        return self.y

    def set_position(self, stage: str, z_um: float) -> None:
        self.moves.append(("z", z_um))
        self.z = z_um

    def set_xy_position(self, stage: str, x_um: float, y_um: float) -> None:
        self.moves.append(("xy", x_um, y_um))
        self.x, self.y = x_um, y_um

    def load_stage_sequence(self, stage: str, positions_um: Any) -> None:
        self.moves.append(("sequence", *positions_um))

    def device_busy(self, label: str) -> bool:
        self.busy = max(0, self.busy - 1)
        return self.busy > 0

    def stop(self, label: str) -> None:
        self.moves.append(("stop", label))


class TestStages:
    @pytest.fixture
    def core(self) -> FakeStage:
        return FakeStage()

    @pytest.fixture
    def stages(self, core: FakeStage) -> Stages:
        self.aborted = threading.Event()
        return Stages(core, settings(retract_z_um=5.0, move_timeout_s=0.2), lambda *_: None, self.aborted)  # type: ignore[arg-type]

    def test_z_is_retracted_before_xy_moves(self, core: FakeStage, stages: Stages) -> None:
        stages.go_to(1000, 2000, "B02")
        assert core.moves == [("z", 5.0), ("xy", 1000, 2000)]

    def test_nothing_moves_where_the_stage_is_there_already(self, core: FakeStage, stages: Stages) -> None:
        stages.go_to(1.0, -1.0, "A01")
        assert core.moves == []

    @pytest.mark.parametrize(("x", "y"), [(-101, 0), (0, 20001), (float("nan"), 0)])
    def test_no_place_outside_the_limits_is_gone_to(self, core: FakeStage, stages: Stages, x: float, y: float) -> None:
        with pytest.raises(ConfigError, match="outside the limits"):
            stages.go_to(x, y, "A01")
        with pytest.raises(ConfigError, match="outside the limits"):
            stages.move_z(201, "moving")
        assert core.moves == []

    def test_the_engine_meets_the_same_limits_and_never_moves_xy(self, core: FakeStage, stages: Stages) -> None:
        stages.guard()
        with pytest.raises(ConfigError):
            core.set_position("Z", 1e9)
        assert isinstance(stages.complaint, ConfigError)
        with pytest.raises(ConfigError):
            core.load_stage_sequence("Z", [1.0, 2.0, 500.0])
        with pytest.raises(InstrumentError, match="within a stack"):
            core.set_xy_position("XY", 1000.0, 0.0)
        assert core.moves == []
        core.set_xy_position("XY", 0.5, 0.0)  # where it stands: no need to move
        core.set_position("Z", 60.0)
        assert core.moves == [("z", 60.0)]
        assert stages.complaint is None

    def test_a_stage_that_never_rests_is_stopped(self, core: FakeStage, stages: Stages) -> None:
        core.busy = 10**9
        with pytest.raises(InstrumentError, match=r"'Z' was still moving after 0\.2 s"):
            stages.move_z(10, "moving z")
        assert core.moves[-1] == ("stop", "Z")

    def test_an_abort_stops_the_stage(self, core: FakeStage, stages: Stages) -> None:
        core.busy = 10**9
        self.aborted.set()
        with pytest.raises(AbortedError):
            stages.move_z(10, "moving z")
        assert core.moves[-1] == ("stop", "Z")


@pytest.fixture
def java(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A Micro-Manager at the other end of a port, as far as pycromanager shows it."""
    state: dict[str, Any] = {}
    pycromanager, mmpycorex = fake_java(state)
    monkeypatch.setitem(sys.modules, "pycromanager", pycromanager)
    monkeypatch.setitem(sys.modules, "mmpycorex", mmpycorex)
    return state


def test_the_java_backend_takes_the_same_events_by_its_port(java: dict[str, Any]) -> None:
    """Through everything but Micro-Manager itself: core, stages, engine, checks, ring."""
    rig = settings(backend="java", port=4999, micromanager_dir=None, config=None)
    core = load_core(rig)
    assert java["core"] == {"port": 4999}
    assert describe(core, rig).pixel_um == 0.5
    slices = tuple(PlannedSlice(SliceIndex(c, z), rig.z_um(z)) for z in range(2) for c in ("488", "561"))
    ours, theirs = Pipe()
    with closing(FrameRing(8, rig.frame_bytes)) as ring:
        session = CoreSession(rig, core, theirs, ring.writer())
        thread = threading.Thread(target=session.serve)
        thread.start()
        # The fake's exposure follows its events, as a camera's would.
        ours.send(StackOrder("rig/B02/0", 1000.0, 1000.0, slices, {"488": 1.0, "561": 1.0}, rig.stall_s))
        got = {}
        while not isinstance(message := ours.recv(), StackOver):
            if isinstance(message, FrameTaken):
                got[message.index] = ring.take(message.number, (96, 96), "uint16")
            else:
                assert isinstance(message, Doing)
        assert message == StackOver()
        ours.send(Leave())
        thread.join(10)
        ours.close()
    assert_same(got, {p.index: painted(p.z_um, p.index.channel, 1000.0, 1000.0) for p in slices})
    assert java["acquisition"] == {"show_display": False, "port": 4999}
    assert java["moves"] == [("z", 0.0), ("xy", 1000.0, 1000.0)]
    assert java["finished"]


def test_a_micro_manager_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: Any) -> None:
        raise Exception("Couldn't create Core")

    monkeypatch.setitem(sys.modules, "pycromanager", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mmpycorex", SimpleNamespace(Core=refuse))
    with pytest.raises(InstrumentError, match=r"port 4827: .*Couldn't create Core.*Run server on port"):
        load_core(settings(backend="java"))


def test_without_pycromanager_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycromanager", None)
    with pytest.raises(ConfigError, match=r"pip install 'spheroidd\[micromanager\]'"):
        load_core(settings())


def test_the_emulated_camera_is_dark_where_there_is_no_slice_of_a_well() -> None:
    class Core(FakeStage):
        preset = "488"

        def get_current_config(self, group: str) -> str:
            return self.preset

        def get_exposure(self) -> float:
            return 1.0

        def snap_image(self) -> None: ...

        def pop_next_tagged_image(self) -> None: ...

        def prepare_sequence_acquisition(self, camera: str) -> None: ...

    rig, wells = settings(n_z=2, z_tolerance_um=0.1), plate("A01")
    core: Any = Core()
    camera = EmulatedCamera()
    CameraOverPlate(rig, PhantomView(rig, emulated_plate(rig, camera, wells), camera), core).attach()
    for x, z, preset in (
        (0, 103.0, "488"),
        (0, 100.7, "488"),
        (500, 100.0, "488"),
        (1000, 100.0, "488"),
        (0, 100.0, ""),
    ):
        core.x, core.z, core.preset = x, z, preset
        core.snap_image()
        assert np.all(core.get_image() == 100)
    core.x, core.z, core.preset = 0, 100.0, "561"
    assert len(np.unique(core.get_image())) > 10


def test_frames_of_nothing_start_no_core() -> None:
    source = MicroManagerSource(settings(), plate(), "rig", SystemClock())
    assert list(source.frames(source.plans()[0], set())) == []
    assert source.pid is None
    source.close()


def test_painted_stacks_differ_by_place_and_channel() -> None:
    """The test's own camera must be able to show a mistake."""
    source = MicroManagerSource(settings(), plate(), "rig", SystemClock())
    stacks = [painted_stack(source, plan, settings()) for plan in source.plans()]
    planes = [pixels.tobytes() for stack in stacks for pixels in stack.values()]
    assert len(set(planes)) == len(planes)
    source.close()
