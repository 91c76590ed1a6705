"""Processes of spheroidd that begin with their modules loaded: two thirds of a short run's processor time was imports.

A nursery, one for all workers of a run of pytest, has imported what `spheroidd` needs, has run its kernels once, and
forks a process for every start: a process like any other, with its own pid, that may be killed, stopped and looked at,
and does all that it has to do at its end (`tests/quick_end.py`). What such a process spawns is forked too
(`tests/warm_spawn.py`). Where there is no fork (Windows) or it is not safe (macOS), a start is an ordinary one.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
import typer.main
from filelock import FileLock

from spheroidd.daemon.catalog import statements
from tests import built_commands, warm_spawn
from tests.places import NURSERY_VARIABLE

_PROGRAM = "from spheroidd.daemon.cli import main; main()"
COMMAND = (sys.executable, "-c", _PROGRAM)
# A child of nobody's: whoever started it need not wait for it.
_NURSERY = (
    "import os, sys; os.fork() and os._exit(0); from tests import quick_end; from tests.warm_start import born; "
    "quick_end.run(born(int(sys.argv[1]), sys.argv[2]), {'__name__': '__main__'})"
)
_ROOT = Path(__file__).parents[1]
_SPAWNING = ("crossval", "demo", "doctor", "replay", "run", "score", "serve", "train", "tune")  # these commands do
# A network takes torch, a second and a half of a processor in each process that scores with one.
_LOADED = (
    "grpc._server",
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.sharedctypes",
    "multiprocessing.synchronize",
    "rich._emoji_codes",
    "spheroidd.daemon.analysis.plate_quality",
    "spheroidd.daemon.analysis.results_table",
    "spheroidd.daemon.cli.console",
    "spheroidd.daemon.config.model",
    "spheroidd.daemon.emulation.emulated_plate",
    "spheroidd.daemon.export.writer",
    "spheroidd.daemon.launch.run",
    "spheroidd.daemon.launch.serve",
    "spheroidd.daemon.monitoring.status",
    "spheroidd.daemon.report.writer",
    "spheroidd.daemon.service.client",
    "spheroidd.daemon.service.server",
    "spheroidd.daemon.system.last_data",
    "spheroidd.daemon.system.lasting_output",
    "spheroidd.daemon.verification.verifier",
    "spheroidd.daemon.web.connection_limits",
    "spheroidd.daemon.web.page",
    "spheroidd.inference.segmentation.segmenter",
    "uvicorn.protocols.http.h11_impl",
    "zarr",
)
_MAX_MESSAGE_BYTES = 1 << 20


class WarmProcess:
    """What `subprocess.Popen` says of a child, of a process that the nursery forked."""

    def __init__(self, args: Sequence[str], connection: socket.socket, pid: int) -> None:
        self.args, self.pid = args, pid
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        """The exit code, negative for a signal's; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As `poll`, when it has ended; subprocess.TimeoutExpired where it has not within so many seconds."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = _number(self._connection)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since, and the nursery has not said so yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def _number(connection: socket.socket) -> int:
    told = connection.recv(64)
    if not told:
        raise RuntimeError("the nursery has died: what it wrote stands in pytest's captured stderr")
    return int(told)


Process = subprocess.Popen[str] | WarmProcess


def start(
    arguments: Sequence[str],
    *,
    stdout: IO[Any],
    stderr: IO[Any],
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    start_new_session: bool = False,
    program: str = _PROGRAM,
) -> Process:
    """`spheroidd ARGUMENTS`, or another `program` for `python -c`, in a process of its own; output into open files."""
    command = [sys.executable, "-c", program, *arguments]
    if not sys.platform.startswith("linux"):
        return subprocess.Popen(
            command,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            text=True,
            start_new_session=start_new_session,
        )
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    order = {
        "arguments": list(arguments),
        "cwd": str(cwd or Path.cwd()),
        "environment": dict(os.environ if env is None else env),
        "new_session": start_new_session,
        "program": program,
    }
    with its:
        files = [its.fileno(), stdout.fileno(), stderr.fileno()]
        socket.send_fds(_nursery(), [json.dumps(order).encode()], files)
    pid = _number(ours)
    return WarmProcess(command, ours, pid)


def begin() -> None:
    """Have the nursery begin to load now, and not when the first process is asked for."""
    if sys.platform.startswith("linux"):
        _nursery()


@contextlib.contextmanager
def talking(program: str, *arguments: str) -> Iterator[tuple[Process, IO[str]]]:
    """A program for `python -c`, and what it prints; it is killed at the end, where it has not ended."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as said:
        with os.fdopen(writing, "wb") as out, os.fdopen(os.dup(2), "wb") as errors:
            process = start(arguments, stdout=out, stderr=errors, program=program)
        try:
            yield process, said
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


_CLIENT = """#!{python} -SEs
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.connect({address!r})
socket.send_fds(link, [json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()], [1, 2])
sys.exit(int(link.recv(64)))
"""


@contextlib.contextmanager
def on_the_path() -> Iterator[Path]:
    """A folder with a `spheroidd` for shells, which begins warm; the installed one where nothing does."""
    if not sys.platform.startswith("linux"):
        yield Path(sys.executable).parent
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        address, command = str(Path(folder) / "door"), Path(folder) / "spheroidd"
        door.bind(address)
        door.listen()
        command.write_text(_CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
        command.chmod(0o700)
        serving = threading.Thread(target=_serve_shells, args=(door,))
        serving.start()
        try:
            yield Path(folder)
        finally:
            door.shutdown(socket.SHUT_RDWR)
            serving.join()


def _serve_shells(door: socket.socket) -> None:
    """One command after the other, until the door is shut."""
    while True:
        try:
            link, _ = door.accept()
        except OSError:
            return
        with link:
            message, files, _, _ = socket.recv_fds(link, _MAX_MESSAGE_BYTES, 2)
            arguments, cwd, environment = json.loads(message)
            with os.fdopen(files[0], "wb") as out, os.fdopen(files[1], "wb") as errors:
                code = start(arguments, stdout=out, stderr=errors, cwd=Path(cwd), env=environment).wait()
            link.sendall(str(code if code >= 0 else 128 - code).encode())


_lock = threading.Lock()
_started: list[tuple[int, socket.socket]] = []


def _nursery() -> socket.socket:
    """This process's way to the nursery, which the first who asks starts and which ends with the last who has one."""
    with _lock:
        if not _started or _started[0][0] != os.getpid():
            _started[:] = [(os.getpid(), _connected())]
            atexit.register(_started[0][1].close)
        return _started[0][1]


def _connected() -> socket.socket:
    folder = Path(os.environ.get(NURSERY_VARIABLE) or _own_folder())
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE_BYTES)
    with FileLock(folder / "lock"):
        try:
            link.connect(str(folder / "door"))
        except (FileNotFoundError, ConnectionRefusedError):  # none yet, or it was killed
            (folder / "door").unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
                door.bind(str(folder / "door"))
                door.listen()
                subprocess.run(
                    [sys.executable, "-c", _NURSERY, str(door.fileno()), str(folder)],
                    cwd=_ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},  # a process with threads cannot be forked
                    pass_fds=[door.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for pytest
                    check=True,
                )
            link.connect(str(folder / "door"))
    return link


def _own_folder() -> str:
    """For who is no worker of pytest."""
    folder = tempfile.mkdtemp(prefix="spheroidd-nursery-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def born(fd: int, folder: str) -> str:
    """Wait for orders until nobody is left to give any; in each process that is forked for one, the program to run."""
    for name in _LOADED:
        importlib.import_module(name)
    statements.database_class()
    built_commands.keep()
    typer.main.get_command(sys.modules["spheroidd.daemon.cli.console"].app)
    run_kernels()
    gc.freeze()  # no process that is forked searches for garbage here, and copies the pages for it
    if (n := psutil.Process().num_threads()) != 1:
        raise RuntimeError(f"the imports have started {n - 1} threads: this process cannot be forked")
    door = socket.socket(fileno=fd)
    waking, woken = socket.socketpair()
    for end in (waking, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(waking.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    links: list[socket.socket] = []
    while True:
        ready, _, _ = select.select([door, woken, *links], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                woken.recv(4096)
            _report(running)
        for link in (one for one in links if one in ready):
            message, files, _, _ = socket.recv_fds(link, _MAX_MESSAGE_BYTES, 3)
            if not message:
                links.remove(link)
                link.close()
                if not links:
                    _end_unless_wanted(door, Path(folder))
                break
            pid = os.fork()
            if pid == 0:
                for other in (door, waking, woken, *links, *running.values()):
                    other.close()
                order = json.loads(message)
                _become(order, files)
                return str(order["program"])
            running[pid] = socket.socket(fileno=files[0])
            for file in files[1:]:
                os.close(file)
        if door in ready:
            links.append(door.accept()[0])


def _end_unless_wanted(door: socket.socket, folder: Path) -> None:
    """End, but for somebody who has connected and was not accepted yet."""
    if not (folder / "door").exists():  # the run is over
        sys.exit(0)
    with FileLock(folder / "lock"):
        if not select.select([door], [], [], 0)[0]:
            (folder / "door").unlink(missing_ok=True)
            sys.exit(0)


def run_kernels() -> None:
    """Loading a compiled kernel takes as long as computing a small stack with it."""
    from spheroidd.daemon.scoring.score_stack import warm_up
    from spheroidd.daemon.system.clock import SystemClock
    from spheroidd.inference.segmentation.choice import open_segmenter
    from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

    warm_up(open_segmenter("threshold", "cpu", 1))
    settings = EmulatorSettings(preset="unit", pace="fast", compounds=1, doses=1)
    source = EmulatorSource(settings, None, "P1", SystemClock())
    plan = source.plans()[0]
    next(source.frames(plan, {next(plan.indices())}))


def _report(running: dict[int, socket.socket]) -> None:
    """Tell who waits for them of processes that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as teller, contextlib.suppress(OSError):  # nobody may wait any more
            teller.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(order: dict[str, Any], files: list[int]) -> None:
    """What exec would have changed."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if order["new_session"]:
        os.setsid()
    for file, number in zip(files[1:], (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["-c", *order["arguments"]]
    with socket.socket(fileno=files[0]) as teller:  # only now: who knows the pid may take all of this for done
        teller.sendall(str(os.getpid()).encode())
    if order["program"] != _PROGRAM or order["arguments"][:1] in ([name] for name in _SPAWNING):
        warm_spawn.prepare()  # a fork of its own, and a quarter of what a short command takes
