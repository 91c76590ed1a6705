"""What multiprocessing spawns, forked from a process that has the modules loaded; on Linux, see `tests/warm_start.py`.

A process with threads cannot be forked. One that begins warm therefore puts a spare of itself aside while it has none:
the spare forks for it and ends when it does. One that has threads already, as a worker of xdist, has a spare started
beside it. A spare forks twice, so that the new process becomes a child of who asked, to wait for and to look at, as one
that multiprocessing has spawned. What runs in it is what multiprocessing would have passed to a new interpreter.
"""

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any

import psutil

from tests import quick_end

NAME = "spawn_main"  # what `psutil` has as the name of a process that was spawned warm
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_FILES = 64
_STATUS = Path("/proc/self/status")
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36


def is_spawned(process: psutil.Process) -> bool:
    """Whether multiprocessing has spawned this process, cold or warm; its helper processes are others."""
    return process.name() == NAME or NAME in " ".join(process.cmdline())


def prepare() -> None:
    """From now on this process, which has a single thread, spawns warm. Returns in it, and in none that it spawns."""
    if not sys.platform.startswith("linux") or _control(_PR_SET_CHILD_SUBREAPER, 1) != 0:
        return
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE_BYTES)
    whom = os.getpid()
    if os.fork() == 0:
        ours.close()
        _fork_for(whom, its)
        sys.exit()
    its.close()
    util.spawnv_passfds = _warm(ours, util.spawnv_passfds)


_SPARE = (
    "import sys; from tests import quick_end; from tests.warm_spawn import _spare; "
    "_spare(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])"
)


@contextlib.contextmanager
def spawning_warm(*modules: str) -> Iterator[None]:
    """Within, this process, whatever threads it has, spawns warm: from a spare that is started and loads `modules`."""
    if not sys.platform.startswith("linux"):
        yield
        return
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE_BYTES)
    command = [sys.executable, "-c", _SPARE, str(os.getpid()), str(its.fileno()), *modules]
    environment = {**os.environ, "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # pyarrow's, which pandas imports
    with its:
        spare = subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment, pass_fds=[its.fileno()])
    cold = util.spawnv_passfds
    util.spawnv_passfds = _warm(ours, cold, adopts=True)
    try:
        yield
    finally:
        util.spawnv_passfds = cold
        ours.close()
        spare.wait(60)


def _spare(whom: int, orders: int, modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    if (n := psutil.Process().num_threads()) != 1:
        raise RuntimeError(f"the imports have started {n - 1} threads: this process cannot be forked")
    _fork_for(whom, socket.socket(fileno=orders))


def _warm(ours: socket.socket, cold: Callable[..., int], *, adopts: bool = False) -> Callable[..., int]:
    """What spawns by asking a spare. One that `adopts` takes on only what it has asked for, and no other orphan."""
    turn = threading.Lock()

    def spawn(path: Any, words: Sequence[Any], files: Sequence[int]) -> int:
        if "--multiprocessing-fork" not in words:
            return cold(path, words, files)
        order = {
            "code": words[words.index("-c") + 1],
            "files": list(files),
            "cwd": str(Path.cwd()),
            "environment": dict(os.environ),
            "umask": _STATUS.read_text().partition("Umask:")[2].split()[0],
        }
        with turn:
            if adopts:
                _control(_PR_SET_CHILD_SUBREAPER, 1)
            socket.send_fds(ours, [json.dumps(order).encode()], array.array("i", files))
            pid = ours.recv(64)
            if adopts:
                while pid and psutil.Process(int(pid)).ppid() != os.getpid():
                    time.sleep(0.0005)
                _control(_PR_SET_CHILD_SUBREAPER, 0)
        if not pid:
            raise RuntimeError("the spare process that spawns has died: what it wrote stands in this one's stderr")
        return int(pid)

    return spawn


def _control(option: int, value: Any) -> int:
    return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0))


def _fork_for(whom: int, orders: socket.socket) -> None:
    """Fork for each order, until nobody can give one; returns when a process that was forked for one has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    while True:
        message, files, _, _ = socket.recv_fds(orders, _MAX_MESSAGE_BYTES, _MAX_FILES)
        if not message:
            os._exit(0)
        between = os.fork()
        if between == 0:
            between = os.getpid()
            if (pid := os.fork()) != 0:
                orders.sendall(str(pid).encode())
                os._exit(0)
            orders.close()
            while os.getppid() == between:
                time.sleep(0.0005)
            if os.getppid() == whom:
                _become(json.loads(message), files)
            return
        os.waitpid(between, 0)
        for file in files:
            os.close(file)


def _become(order: dict[str, Any], files: Sequence[int]) -> None:
    """What exec would have changed, and what multiprocessing would have had executed."""
    import fcntl

    signal.signal(signal.SIGINT, signal.default_int_handler)
    _control(_PR_SET_NAME, NAME.encode())
    above = max([*files, *order["files"]]) + 1  # none is replaced before it has been moved
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(moved, order["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.umask(int(order["umask"], 8))
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["-c", "--multiprocessing-fork"]
    quick_end.run(order["code"], {})
