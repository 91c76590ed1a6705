"""A process that the nursery forks ends, writes and is killed as one that is started cold."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from tests.faults.plate_runs import spheroidd
from tests.places import WARM_PYTHON_VARIABLE
from tests.warm_spawn import spawning_warm
from tests.warm_start import COMMAND, on_the_path, start
from tests.warm_workers import FORKING, Collected, door_keeper


@pytest.mark.parametrize(
    "arguments",
    [("--version",), ("config", "check", "nowhere.toml"), ("results", "--fast")],
    ids=lambda words: words[0],
)
def test_it_ends_as_a_cold_one(arguments: tuple[str, ...], tmp_path: Path) -> None:
    cold = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
    warm = spheroidd(*arguments, cwd=tmp_path)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)


LEFT_TO_DO = """
import atexit, threading, time, weakref
atexit.register(print, "at exit")
weakref.finalize(threading, print, "a finalizer")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
print("the program", end="")
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "sys.exit('in words')", "raise KeyError('what')", "os._exit(4)"])
def test_what_is_left_to_do_at_its_end_is_done(end: str, tmp_path: Path) -> None:
    program = f"import os, sys\n{LEFT_TO_DO}\n{end}"
    cold = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    with (tmp_path / "out").open("w") as out, (tmp_path / "errors").open("w") as errors:
        code = start((), program=program, stdout=out, stderr=errors).wait(60)
    found = sorted((tmp_path / "out").read_text().splitlines())
    assert (code, found) == (cold.returncode, sorted(cold.stdout.splitlines()))
    assert (tmp_path / "errors").read_text().splitlines()[-1:] == cold.stderr.splitlines()[-1:]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forked on Linux")
def test_a_worker_begins_with_what_is_loaded_talks_through_its_pipes_and_is_interrupted(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; print('tests.warm_workers' in sys.modules, sys.stdin.readline(), os.getcwd(), "
        "os.environ['SPHEROIDD_DATA'], flush=True); time.sleep(60)"
    )
    with door_keeper(program=FORKING.format(first="None")) as python:
        worker = subprocess.Popen(
            [python, "-u", "-c", program],
            cwd=tmp_path,
            env={**os.environ, "SPHEROIDD_DATA": "here"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("a word\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "True a word\n"
        assert worker.stdout.readline() == f" {tmp_path} here\n"
        worker.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in worker.communicate(timeout=60)[1]


def test_the_whole_suite_is_collected_once(request: pytest.FixtureRequest) -> None:
    if WARM_PYTHON_VARIABLE not in os.environ:
        pytest.skip("who runs a part of the suite collects it")
    assert request.session is Collected.session
    assert request.config.workerinput  # type: ignore[attr-defined]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forked on Linux")
def test_a_worker_is_an_ordinary_one_where_nothing_can_be_forked() -> None:
    with door_keeper(program="raise SystemExit") as python:
        command = [python, "-u", "-c", "import sys; print('tests.warm_workers' in sys.modules)"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.skipif(os.name != "posix", reason="a session is POSIX's")
def test_it_is_a_process_of_its_own_that_can_be_killed(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        process = start(("serve", "data"), stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    try:
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
    finally:
        process.kill()
    assert process.wait(20) == -signal.SIGKILL
    assert process.poll() == process.returncode == -signal.SIGKILL


def test_the_environment_is_that_of_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPHEROIDD_DATA", str(tmp_path / "from the environment"))
    assert "from the environment" in spheroidd("results").stderr


def test_the_catalog_is_written_without_pandas(tmp_path: Path) -> None:
    """It is installed here, and half a second of every process that writes."""
    code = (
        "import sys; from pathlib import Path; from spheroidd.daemon.catalog.statements import database_class; "
        "database_class(); assert 'sqlite_utils.db' in sys.modules; assert 'pandas' not in sys.modules; import pandas"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="spawned warm on Linux")
def test_what_it_spawns_is_its_own_child_with_its_environment_and_its_rights(tmp_path: Path) -> None:
    code = """
import multiprocessing, os, signal
from tests import warm_spawn
from tests.test_warm_start import what_it_is
warm_spawn.prepare()
os.umask(0o027)
os.environ["SPHEROIDD_DATA"] = "here"
context = multiprocessing.get_context("spawn")
ours, its = context.Pipe()
child = context.Process(target=what_it_is, args=(its,))
child.start()
its.close()
assert ours.recv() == (child.pid, os.getpid(), "spawn_main", 0o027, "here", signal.default_int_handler.__name__)
os.kill(child.pid, signal.SIGKILL)
child.join()
assert child.exitcode == -signal.SIGKILL
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="spawned warm on Linux")
def test_what_a_spare_spawns_is_the_child_of_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPHEROIDD_DATA", "here")
    context = multiprocessing.get_context("spawn")
    with spawning_warm("tests.test_warm_start"):
        ours, its = context.Pipe()
        child = context.Process(target=what_it_is, args=(its,))
        child.start()
        its.close()
        pid, parent, name, _, data, _ = ours.recv()
        child.kill()
        child.join()
    ours.close()
    assert (pid, parent, name, data) == (child.pid, os.getpid(), "spawn_main", "here")
    assert child.exitcode == -signal.SIGKILL


def what_it_is(link: Connection) -> None:
    """In the child: report, and wait to be killed."""
    handler = signal.getsignal(signal.SIGINT)
    umask = os.umask(0)
    link.send(
        (os.getpid(), os.getppid(), psutil.Process().name(), umask, os.environ["SPHEROIDD_DATA"], handler.__name__)
    )
    signal.pause()


@pytest.mark.skipif(os.name != "posix", reason="the pages' shell is POSIX's")
def test_a_shell_has_it_on_its_path(tmp_path: Path) -> None:
    with on_the_path() as folder:
        environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        script = "spheroidd --version | cat && spheroidd config check nowhere.toml"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    assert done.stdout.startswith("spheroidd ")
    assert done.returncode == 2
    assert "nowhere.toml" in done.stderr
