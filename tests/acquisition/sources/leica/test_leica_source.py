"""A plate scanned by LAS X: whole stacks, to the bit, or an error that names what is missing; never a hang."""

import contextlib
import itertools
import threading

import pytest
from pydantic import ValidationError

from spheroidd.acquisition.sources.leica.experiments import EarlierExperiments
from spheroidd.acquisition.sources.leica.settings import LeicaCamSettings
from spheroidd.acquisition.sources.leica.source import LeicaCamSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import StackKey
from spheroidd.sim_emulator.leica.faults import LeicaFault
from spheroidd.testing.source_contract import SourceContract, take
from tests.acquisition.sources.leica.rig import (
    PLATE,
    STACK,
    assert_true_to_the_plate,
    brief_las_x,
    fake_las_x,
    leica_settings,
    leica_source,
)

ALL = ("A01", "A02", "A03")
MODES = pytest.mark.parametrize("scan", ["well", "plate"])


def every(plan):
    return set(plan.indices())


def everything(source):
    """The whole plate's planes by well, channel and z."""
    got = {}
    for plan in source.plans():
        got |= {(str(plan.key.well), *index): pixels for index, pixels in take(source, plan, every(plan)).items()}
    return got


def said(server, command):
    return [line for line in server.commands if f"/cmd:{command}" in line]


class OverTheWire(SourceContract):
    """The instrument keeps its own time: these sources have the system's clock."""

    scan = "well"

    @pytest.fixture(autouse=True)
    def _las_x(self, tmp_path):
        (tmp_path / "images").mkdir()
        with fake_las_x(tmp_path / "images") as self.server:
            yield

    def make_source(self, folder, clock):
        return leica_source(self.server, folder / "images", scan=self.scan)


class TestLeicaWellByWell(OverTheWire):
    pass


class TestLeicaPlate(OverTheWire):
    scan = "plate"


del OverTheWire  # a base class is no test


# -- misbehaviour, as data: what goes wrong, how the source is set, how many scans it takes ----------------------------


@MODES
@pytest.mark.parametrize(
    ("faults", "settings", "server_settings"),
    [
        ((), {}, {}),
        ((), {}, {"packets": "split", "line_end": "nul"}),
        ((), {}, {"packets": "burst", "line_end": "all"}),
        (("late:A02:1",), {"retries": 0, "settle_s": 1.0}, {}),
        (("duplicate:A01:0", "duplicate:A02:2:561"), {}, {}),
        (("missing:A02:1",), {}, {}),
        (("missing:A02:1",), {"cam_job": "Job 8"}, {}),
        (("cut:A01:2:561",), {}, {}),
        (("end:A01:2",), {}, {}),
        (("end:A02:1:561",), {"cam_job": "Job 8"}, {}),
        (("hang-up:A01:1", "hang-up:A03:0"), {}, {}),
    ],
    ids=[
        "in order", "split packets", "bursts", "a late file", "duplicates", "a plane missing",
        "a plane missing, by list", "half a file", "ends early", "ends early, by list", "hangs up",
    ],
)  # fmt: skip
def test_what_can_be_mended_is_mended(tmp_path, scan, faults, settings, server_settings):
    with fake_las_x(tmp_path, *faults, **server_settings) as server:
        with contextlib.closing(leica_source(server, tmp_path, scan=scan, **settings)) as source:
            source.check()
            assert_true_to_the_plate(everything(source), *ALL)
        started = said(server, "startscan") + said(server, "startcamscan")
        mended = any(fault.startswith(("missing", "cut", "end")) for fault in faults)
        assert len(started) == (3 if scan == "well" else 1) + mended
        if mended and "cam_job" in settings:
            assert started[-1].endswith("/cmd:startcamscan /runtime:5 /repeattime:5")
            assert "/exp:Job 8 " in said(server, "add")[0]


@pytest.mark.parametrize(
    ("faults", "settings", "error", "message"),
    [
        (["missing:A01:1"], {"retries": 0}, StackError,
         r"plate/A01/0: LAS X's scan ended without all.*1 of 6 slices are missing: 488 z 1\); see the messages"),
        (["cut:A01:2:561"], {"retries": 0}, StackError, r"Z02--C01.*1 of 6 slices are missing: 561 z 2\)"),
        (["end:A01:1"], {"retries": 0}, StackError, r"4 of 6 slices are missing: 488 z 1-2; 561 z 1-2\)"),
        (["end:A01:0"], {"retries": 0}, InstrumentError, r"brought no file of it.*6 of 6.*missing: 488 z 0-2"),
        (["halt:A01:1"], {"end_after_s": 0.5}, InstrumentError,
         r"nothing arrived from LAS X's scan for .* of 6 slices are missing: 488 z .*raise source\.end_after_s"),
        (["mute:startscan"], {"timeout_s": 0.3}, InstrumentError,
         r"plate/A01/0, LAS X at .*did not acknowledge 'startscan' within 0\.3 s \(6 of 6 slices are missing"),
        (["refuse:load"], {}, InstrumentError, r"refused 'load'.*6 of 6.*correct what the settings say"),
        (["hang-up:startscan"], {}, InstrumentError, r"LAS X hung up \(6 of 6 slices are missing"),
        ([], {"job": 9, "retries": 0}, InstrumentError, r"brought no file.*job J08 is not source\.job = 9.*6 of 6"),
        ([], {"fields": [(1, 0)], "retries": 0, "channels": {"488": 5, "561": 6}}, InstrumentError, r"channel C00"),
        ([], {"n_z": 4, "retries": 0}, StackError, r"2 of 8 slices are missing: 488 z 3; 561 z 3"),
        ([], {"n_z": 2}, ConfigError, r"source\.n_z: it is 2, and LAS X wrote slice Z02 of well A01; write 3"),
        ([], {"pixel_um": 0.25}, ConfigError, r"source\.pixel_um: it is 0\.25, and LAS X's files of well A01 say 0\.5"),
        ([], {"z_step_um": 2.0}, ConfigError, r"source\.z_step_um"),
        ([], {"height": 8, "retries": 0}, StackError, r"\(16, 16, 'uint16'\).*6 of 6 slices are missing"),
    ],
    ids=["missing", "cut", "ends early", "nothing at all", "halts", "mute", "refused", "hangs up at once", "other job",
         "other channels", "fewer slices", "more slices", "other pixels", "other z step", "other size"],
)  # fmt: skip
def test_what_cannot_be_mended_names_what_is_missing(tmp_path, faults, settings, error, message):
    with fake_las_x(tmp_path, *faults) as server:
        with contextlib.closing(leica_source(server, tmp_path, **settings)) as source:
            plan = next(iter(source.plans()))
            with pytest.raises(error, match=message):
                take(source, plan, every(plan))
        assert not scans_on(server)


def scans_on(server):
    """Whether light still falls on the plate once LAS X has had its time to stop."""
    for _ in range(100):
        if not server.scanning:
            return False
        threading.Event().wait(0.02)
    return True


@pytest.mark.parametrize("fault", ["mute:startscan", "hang-up:load", "refuse:enable", "halt:A01:1"])
def test_a_failed_stack_can_be_taken_at_the_next_try(tmp_path, fault):
    settings = {"timeout_s": 1.0, "end_after_s": 2.0}
    with (
        fake_las_x(tmp_path, fault) as server,
        contextlib.closing(leica_source(server, tmp_path, **settings)) as source,
    ):
        plan, came = next(iter(source.plans())), []
        with pytest.raises(InstrumentError):
            came.extend(source.frames(plan, every(plan)))
        got = {frame.index: frame.pixels for frame in came} | taken_at_last(source, plan)
        assert_true_to_the_plate({("A01", *index): pixels for index, pixels in got.items()}, "A01")


def taken_at_last(source, plan):
    """The stack by as many tries as it needs: on a busy computer times that provoke a fault are short for others."""
    got = {}
    for _ in range(10):
        with contextlib.suppress(InstrumentError):
            for frame in source.frames(plan, every(plan) - set(got)):
                got[frame.index] = frame.pixels
            if set(got) == every(plan):
                break
    return got


def test_las_x_that_goes_away_in_the_middle_is_an_error_that_names_the_rest(tmp_path):
    with fake_las_x(tmp_path, "halt:A01:2") as server, contextlib.closing(leica_source(server, tmp_path)) as source:
        plan = next(iter(source.plans()))
        frames = source.frames(plan, every(plan))
        for _ in range(4):
            next(frames)
        server.close()
        with pytest.raises(InstrumentError, match=r"no connection.*2 of 6 slices are missing: 488 z 2; 561 z 2"):
            list(frames)


def test_a_scan_that_cannot_be_stopped_any_more_is_told_of(tmp_path):
    """Light goes on falling on the plate: a person must know."""
    faults = []
    with brief_las_x(5) as (port, gone):
        settings = leica_settings(port, tmp_path, end_after_s=3.0)
        source = LeicaCamSource(settings, PLATE.plate_map, "plate", SystemClock())
        source.set_event_sink(faults.append)
        plan = next(iter(source.plans()))
        with pytest.raises(
            InstrumentError, match=r"nothing arrived.*the connection is lost \(.*6 of 6 slices are missing"
        ):
            take(source, plan, every(plan))
        assert gone.is_set()
        with fake_las_x(tmp_path, port=port), contextlib.closing(source):
            taken_at_last(source, plan)
    told = [(fault.code, fault.cleared) for fault in faults if fault.code.startswith("leica")]
    assert told[:2] == [("leica-cam", False), ("leica-scan", False)]
    assert dict(told) == {"leica-cam": True, "leica-scan": True}
    assert "press Stop in LAS X" in str(faults[1].error)


# -- giving up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["mute:load", "mute:startscan", "halt:A01:0", "halt:A01:1", "late:A01:1"])
def test_whoever_gives_up_is_let_go_and_the_scan_is_stopped(tmp_path, fault):
    """Every wait would last for an hour: only the order ends it."""
    hour = {"timeout_s": 3600.0, "settle_s": 3000.0, "end_after_s": 3600.0}
    with fake_las_x(tmp_path, fault) as server, contextlib.closing(leica_source(server, tmp_path, **hour)) as source:
        plan, asked = next(iter(source.plans())), itertools.count()
        source.set_interrupt(lambda: next(asked) > 30)
        assert set(take(source, plan, every(plan))) < every(plan)
        assert not scans_on(server)
        assert len(said(server, "stopscan")) >= (2 if fault.startswith(("mute:startscan", "halt")) else 1)


@MODES
def test_closing_the_frames_stops_the_scan_and_a_later_call_completes_the_stack(tmp_path, scan):
    with fake_las_x(tmp_path, "halt:A01:1") as server:
        with contextlib.closing(leica_source(server, tmp_path, scan=scan)) as source:
            plans = iter(source.plans())
            plan = next(plans)
            frames = source.frames(plan, every(plan))
            got = {(frame := next(frames)).index: frame.pixels for _ in range(2)}
            frames.close()
            assert not scans_on(server)
            got |= take(source, plan, every(plan) - set(got))
            assert_true_to_the_plate({("A01", *index): pixels for index, pixels in got.items()}, "A01")
            rest = everything_of(source, plans)
        assert_true_to_the_plate(rest, "A02", "A03")


def everything_of(source, plans):
    return {
        (str(plan.key.well), *index): pixels
        for plan in plans
        for index, pixels in take(source, plan, every(plan)).items()
    }


def test_closing_a_source_stops_the_scan_of_the_plate(tmp_path):
    with fake_las_x(tmp_path, "halt:A02:0") as server:
        source = leica_source(server, tmp_path, scan="plate")
        plan = next(iter(source.plans()))
        take(source, plan, every(plan))
        assert server.scanning
        source.close()
        source.close()
        assert not scans_on(server)


# -- which wells, which files ------------------------------------------------------------------------------------------


def test_exactly_the_wells_that_are_asked_for_are_enabled(tmp_path):
    with fake_las_x(tmp_path) as server, contextlib.closing(leica_source(server, tmp_path, scan="plate")) as source:
        plans = iter(source.plans())
        skipped, second = next(plans), next(plans)  # the store has the first
        take(source, second, every(second))
        assert said(server, "enableall") == ["/cli:spheroidd /app:matrix /cmd:enableall /value:false"]
        wells = [line.split("/wellx:")[1][0] for line in said(server, "enable ")]
        assert str(skipped.key.well) == "A01"
        assert wells == ["2", "3"]


def test_in_a_scan_of_the_plate_all_wells_that_did_not_come_are_on_one_list(tmp_path):
    settings = {"scan": "plate", "cam_job": "Job 8"}
    with fake_las_x(tmp_path, "end:A02:0") as server:
        with contextlib.closing(leica_source(server, tmp_path, **settings)) as source:
            assert_true_to_the_plate(everything(source), *ALL)
        assert [line.split("/wellx:")[1][0] for line in said(server, "add")] == ["2", "3"]
        assert len(said(server, "startscan")) == len(said(server, "startcamscan")) == 1


def test_experiments_that_were_there_before_are_not_taken_for_this_plate(tmp_path):
    with fake_las_x(tmp_path) as server:
        with contextlib.closing(leica_source(server, tmp_path)) as source:
            everything(source)
        n_scans = len(said(server, "startscan"))
        with contextlib.closing(leica_source(server, tmp_path)) as source:
            assert_true_to_the_plate(everything(source), *ALL)
        assert len(said(server, "startscan")) == 2 * n_scans


def test_wells_may_be_taken_in_any_order_and_once_more(tmp_path):
    with fake_las_x(tmp_path) as server, contextlib.closing(leica_source(server, tmp_path)) as source:
        first, _, third = source.plans()
        take(source, third, every(third))
        take(source, first, every(first))
        again = source.plan(StackKey("plate", first.key.well, 1))
        files = {frame.metadata["file"] for frame in source.frames(again, every(again))}
        assert {name.split("/")[0] for name in files} == {"experiment--plate_003"}


@MODES
def test_each_field_of_a_well_is_a_stack(tmp_path, scan):
    fields = {"fields": [(0, 0), (1, 0)], "scan": scan}
    with fake_las_x(tmp_path) as server, contextlib.closing(leica_source(server, tmp_path, **fields)) as source:
        got = {plan.key: take(source, plan, every(plan)) for plan in source.plans()}
        assert len(said(server, "enable ")) == 6
    assert [key.stack for key in sorted(got)] == [0, 1] * 3
    for key, stack in got.items():
        scene = PLATE.scene(key.well, key.stack)
        assert all((pixels == scene.image(*index)).all() for index, pixels in stack.items())


# -- settings and preflight ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "spheroids.xml"}, "without folder and ending"),
        ({"template": "{ScanningTemplate}spheroids"}, "without folder and ending"),
        ({"template": "Sphäroide"}, "cannot be sent to LAS X"),
        ({"template": "a /cmd:stopscan"}, "cannot be sent to LAS X"),
        ({"cam_job": "Job\n8"}, "cannot be sent to LAS X"),
        ({"client": "my lab"}, "client"),
        ({"port": 0}, "port"),
        ({"n_z": 0}, "n_z"),
        ({"n_z": None}, "n_z"),
        ({"slice_period_s": 2.0}, r"end_after_s = 5 is not above a stack's 6 s"),
        ({"settle_s": 60.0}, "end_after_s = 5 is below settle_s = 60"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(tmp_path, settings, message):
    given = {"folder": tmp_path, "template": "spheroids", "end_after_s": 5.0, "settle_s": 1.0, **STACK, **settings}
    with pytest.raises(ValidationError, match=message):
        LeicaCamSettings.model_validate(given)


def test_a_check_scans_nothing(tmp_path):
    with fake_las_x(tmp_path) as server, contextlib.closing(leica_source(server, tmp_path)) as source:
        source.check()
        source.close()
        assert list(server.commands) == ["/cli:spheroidd /app:matrix /cmd:getinfo /dev:stage"]
        assert not any(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    told = pytest.raises(ConfigError, match=r"source\.folder = .*typo: there is no such folder; .*LAS X exports")
    with fake_las_x(tmp_path) as server, contextlib.closing(leica_source(server, tmp_path / "typo")) as source, told:
        source.check()


def test_a_las_x_that_does_not_run_is_refused(tmp_path):
    with fake_las_x(tmp_path) as server:
        settings = leica_settings(server.address[1], tmp_path)
    source = LeicaCamSource(settings, PLATE.plate_map, "plate", SystemClock())
    with contextlib.closing(source), pytest.raises(InstrumentError, match=r"no connection.*start LAS X"):
        source.check()


def test_a_plate_map_is_needed(tmp_path):
    with fake_las_x(tmp_path) as server:
        settings = leica_settings(server.address[1], tmp_path)
    with pytest.raises(ConfigError, match=r"plate\.map is missing"):
        LeicaCamSource(settings, None, "plate", SystemClock())


@pytest.mark.parametrize("text", ["", "vanish:A01:1", "missing:Z99:1", "missing:A01:x", "missing:A01:1:405"])
def test_a_fault_that_cannot_be_says_how_to_write_one(text):
    with pytest.raises(ConfigError, match=r"--fault is .*write KIND:WELL:Z"):
        LeicaFault.parse(text)


def test_a_well_that_is_not_on_the_emulated_plate_is_dark(tmp_path):
    (well,) = PLATE.plate_map.imaged()[:1]
    with fake_las_x(tmp_path) as server:
        elsewhere = PlateMap("plate", (type(well)(type(well.well)(3, 5), well.treatment),))
        source = LeicaCamSource(leica_settings(server.address[1], tmp_path), elsewhere, "plate", SystemClock())
        with contextlib.closing(source):
            (plan,) = source.plans()
            assert all((pixels == 100).all() for pixels in take(source, plan, every(plan)).values())


def test_a_thousand_earlier_experiments_are_not_looked_into(tmp_path):
    earlier = EarlierExperiments()
    for name in ("experiment--a", "of last year/experiment--b"):
        (tmp_path / name / "slide--S00" / "chamber--U00--V00").mkdir(parents=True)
    (tmp_path / "experiment--made, not begun").mkdir()
    earlier.note(tmp_path)
    assert len(earlier) == 2
    assert not earlier.enters("experiment--a/slide--S00")
    assert not earlier.enters("of last year/experiment--b/slide--S00")
    assert earlier.enters("of last year")
    assert earlier.enters("experiment--a/CAM1")
    assert earlier.enters("experiment--made, not begun/slide--S00")


def test_a_folder_that_cannot_be_read_is_no_folder_without_experiments(tmp_path):
    with pytest.raises(InstrumentError, match=r"gone: the folder cannot be read"):
        EarlierExperiments().note(tmp_path / "gone")
