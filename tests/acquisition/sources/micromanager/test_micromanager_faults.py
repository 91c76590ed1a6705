"""What can go wrong between pycromanager, its core and the hardware: each ends in an error that names what is missing.

The core, the engine and the adapters are the real ones; one source serves most tests, which also shows that a fault
leaves nothing behind: the same source then delivers just the slices that were missing.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource, name_slices
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import InstrumentError
from spheroidd.protocols.stack import SliceIndex
from tests.acquisition.sources.micromanager.faults import SPOILT_EVENTS, arm, attach_lossy
from tests.acquisition.sources.micromanager.rig import (
    DEMO_CFG,
    FAST,
    SEQUENCED,
    assert_same,
    faulty_source,
    needs_core,
    painted_stack,
    plate,
    settings,
    until_error,
    warm_cores,
)
from tests.places import ROOT

pytestmark = [needs_core, warm_cores]
RIG = settings()
ORDER = [SliceIndex(channel, z) for z in range(4) for channel in ("488", "561")]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory):
    """The file that arms a fault, and the source whose core looks there."""
    path = tmp_path_factory.mktemp("faults") / "fault.json"
    arm(path)
    with closing(faulty_source(path)) as source:
        yield path, source


def fail_and_recover(path: Path, source: MicroManagerSource, kind: str, at: int, well: int = 0) -> tuple[int, str]:
    """Arm a fault and take a stack: it must fail with its missing slices named. Then take those. How many came; why."""
    plan = source.plans()[well]
    arm(path, kind, at)
    got, error = until_error(source.frames(plan, set(plan.indices())))
    assert isinstance(error, InstrumentError), error
    missing = set(plan.indices()) - set(got)
    if missing:
        assert f"{len(missing)} of 8 slices are missing: {name_slices(missing)}" in error.what
    assert error.where == str(plan.key)
    arm(path)
    rest, again = until_error(source.frames(plan, missing))
    assert again is None
    assert set(rest) == missing
    assert_same(got | rest, painted_stack(source, plan, RIG))
    return len(got), str(error)


def one_slice(source: MicroManagerSource, well: int = 0) -> None:
    """Stand over a well."""
    plan = source.plans()[well]
    assert len(list(source.frames(plan, {ORDER[0]}))) == 1


# fault, at which call from 0, how many slices come before it, what the error says
FAULTS = [
    ("camera raises", 3, 3, "channel 561 z 1 did not come within 2 s; it printed: .*the camera was set to fail"),
    ("camera raises", 7, 7, "561 z 3"),  # the last event: the engine ends as if all were well
    ("stage raises", 7, 7, "the stage was told to fail"),
    ("stage stays", 2, 2, "at 100 um and not at 101 um"),
    ("xy drifts", 6, None, "um and not at"),
    ("laser stays", 5, 5, "with the preset '488' and not '561'"),
    ("get_image raises", 2, 2, "did not come"),
    ("image of another size", 4, 4, r"uint16 \(48, 96\) arrived where the plan has uint16 \(96, 96\)"),
    ("image of another depth", 4, 4, "uint8"),
    ("hook raises", 0, 0, "a callback was told to fail"),
    ("hook returns nothing", 0, 0, "488 z 0 did not come"),
    ("images come twice", 0, 1, "488 z 0 arrived where channel 561 z 0 was due"),
    ("images of another place", 0, 0, "488 z 99 arrived"),
    ("events with tags", 0, 0, "AttributeError"),
    ("malformed events", 0, 0, "ValueError"),
    ("events beyond the limits", 0, 0, r"1e\+09 um lies outside the limits"),
    ("events for another place", 0, 0, "wanted to move the XY stage"),
    ("events without z", 0, None, r"at \d+ um and not at 10\d um|did not come"),
    ("events without a channel", 0, None, "with the preset"),
    ("camera hangs", 3, 3, "did not come within 2 s"),
]


@pytest.mark.parametrize(("kind", "at", "n_before", "why"), FAULTS, ids=lambda value: str(value).replace(" ", "-"))
def test_a_fault_names_what_is_missing_and_leaves_a_source_that_delivers_it(faults, kind, at, n_before, why):
    path, source = faults
    before, told = fail_and_recover(path, source, kind, at)
    assert n_before is None or before == n_before, told
    assert re.search(why, told), told


def test_the_list_of_spoilt_events_is_whole():
    assert set(SPOILT_EVENTS) <= {kind for kind, *_ in FAULTS}


@pytest.mark.parametrize(
    ("kind", "at", "why"),
    [
        ("adapter crashes", 7, "died .*while waiting for channel 561 z 3"),
        (
            "camera holds the interpreter",
            3,
            "did not answer for 2 s while waiting for channel 561 z 1, and was killed",
        ),
    ],
    ids=str,
)
def test_a_core_that_crashes_or_hangs_is_started_again(faults, kind, at, why):
    """A real segmentation fault of the demo camera; a driver that no thread of its process survives."""
    path, source = faults
    source.check()
    before_pid = source.pid
    before, told = fail_and_recover(path, source, kind, at)
    assert before == at
    assert re.search(why, told), told
    if kind == "adapter crashes" and sys.platform != "win32":
        assert "SIGSEGV" in told
    assert source.pid != before_pid
    assert not psutil.pid_exists(before_pid)


def test_a_core_that_somebody_kills_is_started_again(faults):
    path, source = faults
    arm(path)
    plan = source.plans()[0]
    frames = source.frames(plan, set(plan.indices()))
    first = next(frames)
    psutil.Process(source.pid).kill()
    got, error = until_error(frames)
    assert isinstance(error, InstrumentError)
    got[first.index] = first.pixels
    rest, error = until_error(source.frames(plan, set(plan.indices()) - set(got)))
    assert error is None
    assert_same(got | rest, painted_stack(source, plan, RIG))


def test_an_xy_stage_that_does_not_arrive_is_not_imaged_with(faults):
    path, source = faults
    arm(path)
    one_slice(source, well=0)
    before, told = fail_and_recover(path, source, "xy stage stays", 0, well=1)
    assert before == 0
    assert re.search(r"the XY stage was sent to .* and says it stands at", told), told


@pytest.mark.parametrize(
    ("kind", "n_before"),
    [
        pytest.param("", 1, id="just begun"),
        pytest.param("", 5, id="between slices"),
        pytest.param("get_image raises", 2, id="engine runs in circles"),
        pytest.param("camera holds the interpreter", 2, id="process hangs"),
    ],
)
def test_closing_the_iterator_aborts_from_any_state(faults, kind, n_before):
    """It returns though the instrument would hang for minutes, and the next stack is whole."""
    path, source = faults
    arm(path, kind, n_before)
    plan = source.plans()[0]
    frames = source.frames(plan, set(ORDER))
    for _ in range(n_before):
        next(frames)
    frames.close()
    arm(path)
    got, error = until_error(source.frames(plan, set(ORDER)))
    assert error is None
    assert_same(got, painted_stack(source, plan, RIG))


@pytest.mark.parametrize(
    ("kind", "doing"),
    [("stage is under way", "retracting z"), ("camera hangs", "waiting for channel 488 z 0")],
    ids=["while it moves", "while it hangs"],
)
def test_another_thread_may_close_the_source(faults, kind, doing):
    path, source = faults
    arm(path)
    one_slice(source, well=0)
    arm(path, kind)
    plan = source.plans()[1 if doing == "retracting z" else 0]
    told: list[Exception | None] = []
    thread = threading.Thread(target=lambda: told.append(until_error(source.frames(plan, set(ORDER)))[1]))
    thread.start()
    while doing not in source._process._now.doing:  # it lasts for seconds
        assert thread.is_alive(), told
        time.sleep(0.005)
    source.close()
    thread.join(20)
    assert isinstance(told[0], InstrumentError)
    assert "8 of 8 slices are missing" in str(told[0])
    assert source.pid is None


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a terminal")
def test_ctrl_c_in_the_terminal_leaves_the_core_to_its_parent(faults):
    path, source = faults
    arm(path)
    plan = source.plans()[0]
    frames = source.frames(plan, set(ORDER))
    first = next(frames)
    os.kill(source.pid, signal.SIGINT)
    got, error = until_error(frames)
    assert error is None
    assert len(got) == 7
    assert first.index not in got


def test_a_core_that_cannot_be_loaded_again_names_what_is_missing(tmp_path):
    """As after a crash whose cause is still there."""
    arm(tmp_path / "fault.json")
    with closing(faulty_source(tmp_path / "fault.json", micromanager_dir=tmp_path)) as source:
        plan = source.plans()[0]
        got, error = until_error(source.frames(plan, set(ORDER)))
    assert got == {}
    assert isinstance(error, InstrumentError)
    assert "the core cannot be started" in str(error)
    assert "8 of 8 slices are missing: 488 z 0-3; 561 z 0-3" in str(error)


ORPHAN = """
import os, sys
from pathlib import Path
from typing import Any
from tests.acquisition.sources.micromanager.rig import faulty_source
def main():
    source = faulty_source(Path(sys.argv[1]))
    source.check()
    frames = source.frames(source.plans()[0], set(source.plans()[0].indices()))
    next(frames)
    print(source.pid, flush=True)
    os.kill(os.getpid(), 9) if os.name == "posix" else os._exit(9)
if __name__ == "__main__":
    main()
"""


def test_a_killed_daemon_leaves_no_core_behind(tmp_path):
    arm(tmp_path / "fault.json")
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(tmp_path / "fault.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip(), done.stderr
    pid = int(done.stdout)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=15)
    assert not psutil.pid_exists(pid)


def sequenced_source(tmp_path: Path, attach, *, pixels: int = 96, **changed) -> MicroManagerSource:
    """A source whose focus stage steps by itself."""
    config = tmp_path / "sequenced.cfg"
    demo = DEMO_CFG.read_text(encoding="utf-8").replace("Size,96", f"Size,{pixels}")
    config.write_text(demo + SEQUENCED + FAST, encoding="utf-8")
    rig = settings(config=config, z_sequencing=True, height=pixels, width=pixels, **changed)
    return MicroManagerSource(rig, plate(), "rig", SystemClock(), attach=attach)


def test_an_image_that_the_camera_loses_in_a_hardware_sequence_is_noticed(tmp_path):
    """The images after it would all be one slice off."""
    with closing(sequenced_source(tmp_path, attach_lossy, n_z=6)) as source:
        plan = source.plans()[0]
        got, error = until_error(source.frames(plan, set(plan.indices())))
    assert isinstance(error, InstrumentError)
    assert "image 3 arrived where its image 2 was due" in str(error)
    assert "10 of 12 slices are missing: 488 z 2-5; 561 z 0-5" in str(error)
    assert_same(got, {index: pixels for index, pixels in painted_stack(source, plan, RIG).items() if index in got})
    assert set(got) == {SliceIndex("488", 0), SliceIndex("488", 1)}


def slowly(frames: Iterator[Any], pause_s: float) -> Iterator[Any]:
    """Slower than the camera, whatever else the machine has to do."""
    for frame in frames:
        time.sleep(pause_s)
        yield frame


def test_a_consumer_too_slow_for_a_hardware_sequence_is_told(tmp_path):
    """The ring, the engine's queue and the core's buffer fill up: the core says so, and nothing is lost in silence."""
    n_z, channels = 400, {"488": {"preset": "488", "exposure_ms": 1}}
    rig = {"n_z": n_z, "channels": channels, "buffer_mb": 16, "ring_mb": 1.0, "z_limits_um": (0, 1000)}
    with closing(sequenced_source(tmp_path, None, pixels=512, **rig)) as source:
        plan = source.plans()[0]
        got, error = until_error(slowly(source.frames(plan, set(plan.indices())), 0.05))
    assert isinstance(error, InstrumentError)
    assert "overflow" in str(error)
    assert 0 < len(got) < n_z
    assert f"{n_z - len(got)} of {n_z} slices are missing" in str(error)
