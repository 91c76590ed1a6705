"""Workers of xdist that begin with the tests imported: that was most of what each did before its first test.

One process imports all modules of the tests, as pytest rewrites them, and forks a worker for each that xdist starts.
What xdist starts instead is a door-keeper: it passes on its pipes, and ends when the worker does. Where there is nobody
behind the door it becomes an ordinary worker; so does every one where there is no fork (Windows) or it is not safe
(macOS), and where a part of the suite is run or lines are counted.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.places import ROOT

_MAX_MESSAGE_BYTES = 1 << 20
FORKING = (
    "import sys; from tests import quick_end; from tests.warm_workers import forked, import_tests; {first}; "
    "quick_end.run(forked(int(sys.argv[1])), {{'__name__': '__main__'}})"
)
_DOOR_KEEPER = """#!{python} -SEs
import json, os, signal, socket, sys
signals = (signal.SIGINT, signal.SIGTERM)
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
order = json.dumps([sys.argv[-1], os.getcwd(), dict(os.environ)]).encode()
link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, {bytes})
try:
    link.connect({address!r})
    socket.send_fds(link, [order], [0, 1, 2])
    worker = int(link.recv(64))
except (OSError, ValueError):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    os.execv({python!r}, [{python!r}] + sys.argv[1:])
for number in signals:
    signal.signal(number, lambda number, _: os.kill(worker, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
for file in (0, 1):
    os.close(file)
link.recv(64)
"""


@contextmanager
def door_keeper(program: str = FORKING.format(first="import_tests()")) -> Iterator[str]:
    """A command that takes the place of `python` for a worker of xdist; `program` stands behind the door."""
    with tempfile.TemporaryDirectory(prefix="spheroidd-workers-") as folder:
        address, command = str(Path(folder) / "door"), Path(folder) / "python"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(address)
            door.listen()
            importing = subprocess.Popen(
                [sys.executable, "-c", program, str(door.fileno())],
                cwd=ROOT,
                env={
                    **os.environ,
                    "JE_ARROW_MALLOC_CONF": "background_thread:false",
                },  # pyarrow's, which pandas imports
                pass_fds=[door.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the door-keepers
            )
        text = _DOOR_KEEPER.format(python=sys.executable, address=address, bytes=_MAX_MESSAGE_BYTES)
        command.write_text(text, encoding="utf-8")
        command.chmod(0o700)
        try:
            yield str(command)
        finally:
            importing.terminate()
            importing.wait()


class _Imports:
    """In place of collecting: the modules are imported, and nothing more."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool:
        for path in sorted((ROOT / "tests").rglob("test_*.py")):
            # What cannot be imported says why when a worker collects it.
            with suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        return True


def import_tests() -> None:
    """As pytest would when it collects all of them."""
    pytest.main(["-n", "0", "-p", "no:cacheprovider"], plugins=[_Imports()])


def forked(fd: int) -> str:
    """Wait for orders at a socket that listens, while who began this lives; its code, in each forked for one."""
    if (n := psutil.Process().num_threads()) != 1:
        raise RuntimeError(f"what was imported has started {n - 1} threads: this process cannot be forked")
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    whom, door = os.getppid(), socket.socket(fileno=fd)
    while True:
        while not select.select([door], [], [], 1)[0]:
            if os.getppid() != whom:  # it was killed
                sys.exit()
        link, _ = door.accept()
        message, files, _, _ = socket.recv_fds(link, _MAX_MESSAGE_BYTES, 3)
        if os.fork() == 0:
            door.close()
            return _become(link, message, files)
        for file in files:
            os.close(file)
        link.close()


def _become(link: socket.socket, message: bytes, files: list[int]) -> str:
    """What exec would have changed; the link stays open as long as this process lives."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    program, cwd, environment = json.loads(message)
    link.sendall(str(os.getpid()).encode())
    link.detach()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c"]
    return str(program)
