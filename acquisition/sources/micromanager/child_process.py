"""The process that an instrument's drivers live in, so that a driver that crashes or hangs takes nothing with it.

The parent's side: start it, talk to it, notice when it is gone or has gone quiet, kill it and start it again. What
runs inside is a function `main(link, writer)`, given by whoever knows the instrument; it says what it is `Doing`, and
for how long that may take, before anything that could hang.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from spheroidd.acquisition.sources.micromanager.frame_ring import FrameRing, RingWriter
from spheroidd.acquisition.sources.micromanager.messages import (
    Abort,
    CoreReady,
    CoreRefused,
    Doing,
    FrameTaken,
    FromInstrument,
    Leave,
    StackOver,
    ToInstrument,
)
from spheroidd.protocols.errors import InstrumentError
from spheroidd.protocols.pixels import Pixels

GRACE_S = 1.0  # the process's own timers come first: they know more about what went wrong
ABORT_S = 0.7
LEAVE_S = 5.0
KILL_S = 3.0
NOTICE_S = 0.1
LOG_NAME = "output.log"
_TELLING = re.compile(r"\w[\w.]*(Error|Exception)\b.*|Fatal Python error.*|terminate called.*|what\(\):.*")


@dataclass(slots=True)
class _Running:
    """One life of the process, with the ends that the parent holds."""

    process: BaseProcess
    link: Connection
    ring: FrameRing
    ready: CoreReady | None
    limit_s: float
    doing: str


class InstrumentProcess:
    """Owns at most one process at a time. `main` and what it holds must be importable by name (spawn pickles it)."""

    def __init__(
        self,
        main: Callable[[Connection, RingWriter, Path], None],
        *,
        frame_bytes: int,
        ring_mb: float,
        start_timeout_s: float,
    ) -> None:
        self._main, self._frame_bytes, self._ring_mb = main, frame_bytes, ring_mb
        self._start_timeout_s = start_timeout_s
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # of the log
        self._now: _Running | None = None
        # One thread uses it; another may `stop` it, which waits no longer than `receive` takes to notice.
        self._lock = threading.RLock()
        self._stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        """The process's number; None while there is none."""
        return self._now.process.pid if self._now is not None else None

    def start(self) -> CoreReady:
        """Start the process unless it runs, and wait until the instrument is loaded; InstrumentError or ConfigError."""
        with self._lock:
            if self._now is None:
                self._spawn()
            while (ready := self._running().ready) is None:
                message = self.receive()
                if isinstance(message, CoreRefused):
                    self.kill()
                    raise message.error
                if isinstance(message, CoreReady):
                    self._running().ready = message
            return ready

    def send(self, message: ToInstrument) -> None:
        """Tell it something; InstrumentError where it is gone."""
        with self._lock:
            try:
                self._running().link.send(message)
            except OSError as error:
                raise self._died() from error

    def receive(self) -> FromInstrument:
        """The next thing it says, but for what it is doing; InstrumentError where it died, or hung and was killed."""
        with self._lock:
            now = self._running()
            while True:
                try:
                    if not self._poll(now):
                        raise self._hung(now)
                    message: FromInstrument = now.link.recv()
                except (EOFError, OSError) as error:
                    raise self._died() from error
                if not isinstance(message, Doing):
                    return message
                now.doing, now.limit_s = message.what, message.limit_s

    def take(self, frame: FrameTaken, shape: tuple[int, int], dtype: str) -> Pixels:
        """The pixels of a frame that it announced, copied out of the ring."""
        return self._running().ring.take(frame.number, shape, dtype)

    def abort(self) -> None:
        """End the stack that it is taking, within a second: in good order, or by starting the process anew."""
        with self._lock:
            if self._now is not None and not self._aborts_itself(self._now):
                self.restart()

    def restart(self) -> None:
        """Kill it and start it again at once, without waiting: loading the instrument also closes its shutter."""
        self.kill()
        self._spawn()

    def kill(self) -> None:
        """End the process now, whatever it is doing."""
        if self._now is None:
            return
        now, self._now = self._now, None
        now.process.kill()
        now.process.join(timeout=KILL_S)
        now.link.close()
        now.ring.close()

    def stop(self) -> None:
        """Let it make the instrument safe and end, or end it; may be called twice, and from another thread."""
        self._stopping.set()
        with self._lock:
            self._stopping.clear()
            if self._now is not None:
                now = self._now
                deadline = time.monotonic() + (LEAVE_S if now.ready else self._start_timeout_s)
                with contextlib.suppress(EOFError, OSError):
                    now.link.send(Leave())
                    while now.link.poll(max(0.0, deadline - time.monotonic())):
                        now.link.recv()  # until it closes its end
                now.process.join(timeout=max(0.1, deadline - time.monotonic()))
                self.kill()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _poll(self, now: _Running) -> bool:
        """Wait for a message as long as what it is doing may take; InstrumentError where the wait is to end."""
        deadline = time.monotonic() + now.limit_s + GRACE_S
        while not now.link.poll(NOTICE_S):
            if self._stopping.is_set():
                raise InstrumentError(f"the instrument was let go while {now.doing}", do="start the run again")
            if time.monotonic() > deadline:
                return False
        return True

    def _aborts_itself(self, now: _Running) -> bool:
        """Ask it to end its stack; whether it said in time that it has, and can go on."""
        deadline = time.monotonic() + ABORT_S
        with contextlib.suppress(EOFError, OSError):
            now.link.send(Abort())
            while now.link.poll(max(0.0, deadline - time.monotonic())):
                message = now.link.recv()
                if isinstance(message, FrameTaken):
                    now.ring.discard(message.number)
                elif isinstance(message, StackOver):
                    return message.healthy
        return False

    def _running(self) -> _Running:
        if self._now is None:
            raise InstrumentError("the instrument's process is not running", do="start the run again")
        return self._now

    def _spawn(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="spheroidd-instrument-", ignore_cleanup_errors=True)
        log = Path(self._folder.name) / LOG_NAME
        log.write_bytes(b"")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        ring = FrameRing.of_size(self._ring_mb, self._frame_bytes)
        process = context.Process(
            target=self._main, args=(theirs, ring.writer(), log), name="spheroidd-instrument", daemon=True
        )
        try:
            process.start()
        except BaseException:
            ring.close()
            raise
        theirs.close()  # so that its death is the end of the pipe
        self._now = _Running(process, ours, ring, None, self._start_timeout_s, "starting")

    def _hung(self, now: _Running) -> InstrumentError:
        what = f"the instrument's process did not answer for {now.limit_s:g} s while {now.doing}, and was killed"
        printed = self.last_words()
        if now.ready is None:
            self.kill()  # what hangs while it is loaded would hang again
        else:
            self.restart()
        return InstrumentError(what + printed, do="check the device, its cables, and that the shutter is closed")

    def _died(self) -> InstrumentError:
        now = self._running()
        now.process.join(timeout=KILL_S)
        code, doing = now.process.exitcode, now.doing
        printed = self.last_words()
        self.kill()
        what = f"the instrument's process died ({_reason(code)}) while {doing}{printed}"
        return InstrumentError(what, do="it is started again; update the device adapter if this comes back")

    def last_words(self) -> str:
        """The first of what it printed lately that looks like a reason; the others follow from it."""
        if self._folder is None:
            return ""
        try:
            with (Path(self._folder.name) / LOG_NAME).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""  # the reason is a courtesy; what failed is known without it
        telling = [line.strip() for line in lines if _TELLING.match(line.strip())]
        return f"; it printed: {telling[0][:300]}" if telling else ""


def _reason(code: int | None) -> str:
    """An exit code in words: "SIGSEGV", "access violation" or its number."""
    if code is None:
        return "still ending"
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    if code == 0xC0000005 and sys.platform == "win32":
        return "access violation"
    return f"exit code {code}"
