"""The wire to Leica's LAS X: one TCP connection to its CAM server, commands that are acknowledged, scans that end.

Nothing is queued here: what was not read yet waits with TCP, what was read changes the counts of scans begun and ended
or is a hint at an image. A command counts once LAS X has echoed it. One thread uses a connection.
"""

import contextlib
import errno
import math
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from spheroidd.acquisition.sources.leica.cam_messages import (
    SCAN_FINISHED,
    SCAN_STARTED,
    CamCommand,
    CamMessage,
    CamReader,
)
from spheroidd.protocols.errors import InstrumentError, SpheroiddError
from spheroidd.protocols.well import WellId

MAX_HINTS = 10_000  # images told of and not taken up; the folder is the truth, so the oldest may go
NOTICE_S = 0.05  # how soon an order to give up is noticed
TAIL_S = 0.3  # a line without an end is believed, where it says all that was waited for, once nothing followed so long
RECEIVE_BYTES = 2**16
MAX_READS = 64  # at one time: who talks without end is interrupted too
_UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, getattr(errno, "WSAEWOULDBLOCK", 0)}
METRES_UM = {"meter": 1e6, "meters": 1e6, "m": 1e6, "millimeter": 1e3, "micron": 1.0, "microns": 1.0, "um": 1.0}


class _Patience(NamedTuple):
    """How long to wait, and when that is over (monotonic)."""

    limit_s: float
    end_s: float


class CamInterruptedError(SpheroiddError):
    """Whoever waited for LAS X has given up waiting; no fault of anyone."""


class LeicaCam:
    """A client of LAS X's CAM server. `give_up` is asked often while it waits; once true, CamInterruptedError follows.

    `n_started` and `n_finished` count the scans that LAS X said to have begun and ended since `connect`; `hints` are
    the images it told of. Every failure is an InstrumentError, after which the connection is closed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str = "spheroidd",
        timeout_s: float = 10.0,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._host, self._port, self._name = host, port, name
        self._timeout_s: Final = timeout_s
        self._give_up = give_up
        self._socket: socket.socket | None = None
        self._reader = CamReader()
        self._heard_s = time.monotonic()
        self.n_started = self.n_finished = 0
        self.hints: deque[str] = deque(maxlen=MAX_HINTS)
        self.welcome = ""

    @property
    def where(self) -> str:
        """The address, as messages name it."""
        return f"LAS X at {self._host}:{self._port}"

    @property
    def connected(self) -> bool:
        """Whether the connection stood when it was last used."""
        return self._socket is not None

    # -- the connection --------------------------------------------------------------------------------------------

    def connect(self, limit_s: float | None = None) -> None:
        """Connect, unless connected, and hear the greeting, so that no other program's port is taken for LAS X's."""
        if self._socket is not None:
            return
        patience = self._patience(limit_s)
        self._reader = CamReader()
        self.n_started = self.n_finished = 0
        self._socket = self._open(patience)
        self.welcome = ""
        while not self.welcome:
            self._wait(patience, "it did not greet")
            self.poll(NOTICE_S)
            if not self.welcome and (tail := self._tail()) is not None:
                self._hear(tail)
                self._reader.end_line()

    def close(self) -> None:
        """Hang up; may be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, patience: _Patience) -> socket.socket:
        """A connected socket that never blocks."""
        do = "start LAS X, open Matrix Screener and switch on its CAM server; check source.host, source.port, firewall"
        try:
            address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            what = f"the computer {self._host!r} is not known: {error}"
            raise InstrumentError(what, where="source.host", do="write LAS X's host name or address") from error
        opened = socket.socket(*address[:3])
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = opened.connect_ex(address[4])
            if code not in _UNDER_WAY:
                raise OSError(code, errno.errorcode.get(code, f"error {code}"))
            while not any(select.select([], [opened], [opened], NOTICE_S)):
                self._wait(patience, "it did not answer", do)
            if code := opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, errno.errorcode.get(code, f"error {code}"))
        except OSError as error:
            opened.close()
            raise InstrumentError(f"no connection ({error.strerror})", where=self.where, do=do) from error
        except BaseException:
            opened.close()
            raise
        return opened

    def _patience(self, limit_s: float | None) -> _Patience:
        limit_s = limit_s or self._timeout_s
        return _Patience(limit_s, time.monotonic() + limit_s)

    def _wait(self, patience: _Patience, what: str, do: str = "") -> None:
        """Raise where the wait is to end: because nobody waits any more, or because it has lasted too long."""
        if self._give_up():
            raise CamInterruptedError("given up while waiting", where=self.where)
        if time.monotonic() > patience.end_s:
            self.close()
            do = do or "see whether a dialogue waits in LAS X; else restart its CAM server, or raise source.timeout_s"
            raise InstrumentError(f"{what} within {patience.limit_s:g} s", where=self.where, do=do)

    # -- what LAS X says -------------------------------------------------------------------------------------------

    def poll(self, wait_s: float = 0.0) -> list[CamMessage]:
        """All that has come, waiting at most so long for the first of it. InstrumentError where LAS X hung up."""
        if self._socket is None:
            raise self._lost("not connected")
        messages: list[CamMessage] = []
        try:
            for _ in range(MAX_READS):
                if not select.select([self._socket], [], [], wait_s)[0]:
                    break
                data = self._socket.recv(RECEIVE_BYTES)
                if not data and messages:
                    break  # what it said before it hung up comes first
                if not data:
                    raise self._lost("LAS X hung up")
                self._heard_s, wait_s = time.monotonic(), 0.0
                for message in self._reader.feed(data):
                    self._hear(message)
                    messages.append(message)
        except OSError as error:
            raise self._lost(f"the connection broke ({error.strerror or error})") from error
        except ValueError as error:  # a socket that `close` took away
            raise self._lost("the connection was closed") from error
        return messages

    def _hear(self, message: CamMessage) -> None:
        self.welcome = self.welcome or message.text
        if message.relpath is not None:
            self.hints.append(message.relpath)
        elif message.scan == SCAN_STARTED:
            self.n_started += 1
        elif message.scan == SCAN_FINISHED:
            self.n_finished += 1

    def _tail(self) -> CamMessage | None:
        """A line that has rested without an end."""
        return self._reader.unended() if time.monotonic() - self._heard_s >= TAIL_S else None

    def settle_tail(self) -> None:
        """Take a scan's end for said even where its line never ends."""
        tail = self._tail()
        if tail is not None and tail.scan is not None:
            self._hear(tail)
            self._reader.end_line()

    def _lost(self, what: str) -> InstrumentError:
        self.close()
        do = "see that LAS X runs and its CAM server is on; check the network"
        return InstrumentError(what, where=self.where, do=do)

    # -- commands --------------------------------------------------------------------------------------------------

    def tell(self, command: CamCommand, limit_s: float | None = None) -> CamMessage:
        """Send a command and wait for its echo; InstrumentError where LAS X refuses it or does not answer."""
        return self._ask(command, lambda message: message.echoes(command), limit_s)

    def _ask(
        self, command: CamCommand, answers: Callable[[CamMessage], bool], limit_s: float | None = None
    ) -> CamMessage:
        self.poll()  # an echo that came twice must not pass for the next one
        patience = self._patience(limit_s)
        self._send(command.line(self._name), patience)
        while True:
            for message in self.poll(NOTICE_S):
                self._refused(command, message)
                if answers(message):
                    return message
            tail = self._tail()
            if tail is not None and answers(tail) and command.fields[-1][0] in tail.fields:
                self._reader.end_line()
                return tail
            self._wait(patience, f"it did not acknowledge {command.name!r}")

    def _send(self, line: bytes, patience: _Patience) -> None:
        left = memoryview(line)
        while left:
            if self._socket is None:
                raise self._lost("not connected")
            try:
                if select.select([], [self._socket], [], NOTICE_S)[1]:
                    left = left[self._socket.send(left) :]
            except OSError as error:
                raise self._lost(f"the connection broke ({error.strerror or error})") from error
            self._wait(patience, "it took no command")

    def _refused(self, command: CamCommand, message: CamMessage) -> None:
        if message.complaint is not None and message.command in (None, command.name):
            do = "correct what the settings say of the template, the job, the wells and the fields"
            raise InstrumentError(f"it refused {command.name!r}: {message.text}", where=self.where, do=do)

    def load_template(self, name: str, *, system: int = 0) -> None:
        """Load a scanning template of LAS X by its name, without folder and ".xml"."""
        self.tell(CamCommand.of("load", sys=system, fil=f"{{ScanningTemplate}}{name}"))

    def enable_all(self, value: bool = True) -> None:
        """Switch every field of every well on, or off."""
        self.tell(CamCommand.of("enableall", value=value))

    def enable(self, well: WellId, x: int, y: int, *, slide: int = 0, value: bool = True) -> None:
        """Switch one field of a well on, or off; `x` and `y` count from 0, as in file names."""
        self.tell(CamCommand.of("enable", **_place(well, x, y, slide), value=value))

    def start_scan(self) -> None:
        """Scan what is enabled."""
        self.tell(CamCommand.of("startscan"))

    def stop_scan(self, limit_s: float | None = None) -> None:
        """End the scan."""
        self.tell(CamCommand.of("stopscan"), limit_s)

    def delete_list(self) -> None:
        """Empty the CAM list."""
        self.tell(CamCommand.of("deletelist"))

    def add_to_list(self, job: str, well: WellId, x: int, y: int, *, slide: int = 0) -> None:
        """Put one field of a well on the CAM list, to be imaged with a job, at its place."""
        place = _place(well, x, y, slide)
        self.tell(CamCommand.of("add", tar="camlist", exp=job, ext="none", **place, dxpos=0, dypos=0))

    def start_cam_scan(self, runtime_s: int, repeat_s: int) -> None:
        """Scan what the CAM list holds."""
        self.tell(CamCommand.of("startcamscan", runtime=runtime_s, repeattime=repeat_s))

    def stop_cam_scan(self, limit_s: float | None = None) -> None:
        """End the scan of the CAM list."""
        self.tell(CamCommand.of("stopcamscan"), limit_s)

    def stage_um(self) -> tuple[float, float, float]:
        """Where the stage stands (x, y, z) in micrometres; the answer also shows that more than a port is open."""
        asked = CamCommand.of("getinfo", dev="stage")
        said = self._ask(asked, lambda message: {"xpos", "ypos"} <= message.fields.keys()).fields
        with contextlib.suppress(ValueError):
            scale = METRES_UM.get(said.get("unit", "meter").lower(), math.nan)
            x, y, z = (scale * float(said.get(axis, "0").replace(",", ".")) for axis in ("xpos", "ypos", "zpos"))
            if math.isfinite(x + y + z):
                return x, y, z
        what = f"it gives no position of the stage: {dict(said)}"
        raise InstrumentError(what, where=self.where, do="initialise the stage in LAS X")


def _place(well: WellId, x: int, y: int, slide: int) -> dict[str, int]:
    """A field as CAM counts it: wells and fields from 1, slides from 0."""
    return {"slide": slide, "wellx": well.column + 1, "welly": well.row + 1, "fieldx": x + 1, "fieldy": y + 1}
