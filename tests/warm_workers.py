"""Workers of xdist that begin with the tests collected: that was most of what each did before its first test.

One process collects all tests as pytest does, and forks a worker for each that xdist starts, which takes them over.
What xdist starts instead is a door-keeper: it passes on its pipes, and ends when the worker does; a test that needs a
second process with torch in it starts one too. Where there is nobody
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.places import ROOT

_MAX_MESSAGE_BYTES = 1 << 20
# What optimisers and the loss load at their first use, 4 seconds of a processor in each worker that trains: most do.
_LOADED_LATE = ("torch._dynamo", "monai.losses.dice")
FORKING = (
    "import sys; from tests import quick_end; from tests.warm_workers import collect, forked; {first}; "
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
def door_keeper(*arguments: str, program: str = FORKING.format(first="collect(sys.argv[2:])")) -> Iterator[str]:
    """A command that takes the place of `python -c` for a worker of xdist; `program` stands behind the door.

    Its `arguments` are those of pytest, which choose tests. The command ends with 0 however the worker ends.
    """
    with tempfile.TemporaryDirectory(prefix="spheroidd-workers-") as folder:
        address, command = str(Path(folder) / "door"), Path(folder) / "python"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(address)
            door.listen()
            importing = subprocess.Popen(
                [sys.executable, "-c", program, str(door.fileno()), *arguments],
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


class Collected:
    """The tests that this process collected, and those that forked it before; nothing is run."""

    session: pytest.Session | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed:  # what cannot be collected says why when a worker collects it
            Collected.session = session
        return True


def collect(arguments: Sequence[str]) -> None:
    """As a worker would that is given these arguments."""
    from tests.warm_start import run_kernels

    alone = ("-n", "0", "-p", "no:cacheprovider")
    pytest.main([*arguments, *alone], plugins=[Collected()])
    for name in _LOADED_LATE:
        importlib.import_module(name)
    run_kernels()


def taken_over(session: pytest.Session) -> bool:
    """Whether a worker's session has now the tests that were collected before it was forked, as if it had itself.

    They stay in the tree of the session that collected them; the configuration and the open fixtures are the worker's.
    """
    tree = Collected.session
    if tree is None:
        return False
    tree._setupstate, session._fixturemanager = session._setupstate, tree._fixturemanager
    tree._fixturemanager.config = session.config
    for node in {node for item in tree.items for node in item.listchain()}:
        node.config = session.config
    session.items, session.testscollected = tree.items, len(tree.items)
    session.config.hook.pytest_collection_finish(session=session)
    return True


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
