"""A fake LAS X: a CAM server that scans an emulated plate into a Matrix Screener tree. It can misbehave.

It shares no code with the client that it is there to test. Wells, fields count from 1 in commands and from 0 in names.
"""

import contextlib
import random
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from spheroidd.protocols.errors import ConfigError, SpheroiddError
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.leica.faults import LeicaFault
from spheroidd.sim_emulator.leica.scanner import LeicaScanner, Place
from spheroidd.sim_emulator.source import EmulatorSource

TICK_S = 0.05
BURST = 20  # messages kept back, so that they come all at once
_LINE_ENDS = {"crlf": b"\r\n", "lf": b"\n", "nul": b"\x00", "all": b"\x00\r\n"}


class LeicaServerSettings(BaseModel):
    """How the fake LAS X behaves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8895, ge=0, le=65535)
    """0 takes a free one."""
    pace: Literal["real", "fast"] = "real"
    packets: Literal["whole", "split", "burst"] = "whole"
    """"split": a few bytes at a time; "burst": many messages at once."""
    line_end: Literal["crlf", "lf", "nul", "all"] = "crlf"
    faults: tuple[LeicaFault, ...] = ()


class LeicaServer:
    """Listens from `start` to `close`, in threads of its own. `out` is LAS X's folder of experiments."""

    def __init__(self, settings: LeicaServerSettings, plate: EmulatorSource, out: Path) -> None:
        self._settings, self._plate = settings, plate
        self._scanner = LeicaScanner(plate, out, settings.faults, self._announce, real=settings.pace == "real")
        self._scanner.hang_up = self._hang_up
        self._listener: socket.socket | None = None
        self._lock = threading.RLock()
        self._clients: list[socket.socket] = []
        self._kept: list[bytes] = []
        self._noise = random.Random(0)
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._enabled: set[Place] = set()
        self._camlist: list[Place] = []
        self.template: str | None = None
        self.commands: deque[str] = deque(maxlen=1000)  # what came, for those who look back

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        if self._listener is None:
            return self._settings.host, self._settings.port
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def scanning(self) -> bool:
        """Whether a scan goes on."""
        return self._scanner.scanning

    @property
    def failure(self) -> SpheroiddError | None:
        """Why a scan broke off that no fault ended: a recording whose planes cannot be read."""
        return self._scanner.failure

    def start(self) -> None:
        """Begin to listen; ConfigError where the port is taken."""
        try:
            self._listener = socket.create_server((self._settings.host, self._settings.port))
        except OSError as error:
            where = f"{self._settings.host}:{self._settings.port}"
            do = "choose another with --port, or end what listens there (LAS X itself?)"
            raise ConfigError(f"cannot listen: {error.strerror}", where=where, do=do) from error
        self._listener.settimeout(TICK_S)
        self._spawn(self._accept)

    def close(self) -> None:
        """Stop the scan, hang up, and let the port go."""
        self._ending.set()
        self._scanner.close()
        self._hang_up()
        for thread in self._threads:
            thread.join()
        if self._listener is not None:
            self._listener.close()

    def _spawn(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="fake-las-x", daemon=True)  # type: ignore[arg-type]
        self._threads = [thread, *(t for t in self._threads if t.is_alive())]
        thread.start()

    # -- the wire --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.settimeout(TICK_S)
                with self._lock:
                    self._clients.append(client)
                self._announce(f"Welcome client : {len(self._clients)}", at_once=True)
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Commands have no end of their own: each begins with /cli."""
        while not self._ending.is_set():
            try:
                data = client.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not data:
                break
            for text in data.decode("ascii", "replace").split("/cli:")[1:]:
                self._obey(f"/cli:{text.strip()}")
        with self._lock:
            if client in self._clients:
                self._clients.remove(client)
        client.close()

    def _announce(self, text: str, *, at_once: bool = False) -> None:
        """Tell every client."""
        line = text.encode() + _LINE_ENDS[self._settings.line_end]
        with self._lock:
            self._kept.append(line)
            if self._settings.packets == "burst" and not at_once and len(self._kept) < BURST:
                return
            data, self._kept = b"".join(self._kept), []
            for client in self._clients:
                with contextlib.suppress(OSError):
                    self._send(client, data)

    def _send(self, client: socket.socket, data: bytes) -> None:
        while data and self._settings.packets == "split":
            n_bytes = self._noise.randint(1, 12)
            client.sendall(data[:n_bytes])
            data = data[n_bytes:]
            time.sleep(0.0005)
        client.sendall(data)

    def _hang_up(self) -> None:
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            self._clients.clear()

    # -- the commands ----------------------------------------------------------------------------------------------

    def _obey(self, line: str) -> None:
        self.commands.append(line)
        said = dict(token.partition(":")[::2] for token in line[1:].split(" /"))
        command = said.get("cmd", "")
        fault = self._scanner.fault_at_command(command)
        if fault == "hang-up":
            self._hang_up()
        elif fault == "refuse":
            self._announce(f"/app:matrix /sys:0 /cmd:{command} /err:not possible now", at_once=True)
        elif fault is None:
            answer = self._stage(said) if command == "getinfo" else line
            self._announce(answer, at_once=True)
            self._do(command, said)

    def _do(self, command: str, said: dict[str, str]) -> None:
        match command:
            case "load":
                self.template = said.get("fil", "").removeprefix("{ScanningTemplate}")
            case "enableall":
                on = said.get("value") == "true"
                self._enabled = {Place(entry.well, 0, 0) for entry in self._plate.plate_map} if on else set()
            case "enable":
                change = self._enabled.add if said.get("value") == "true" else self._enabled.discard
                change(_place(said))
            case "startscan":
                self._scanner.begin(sorted(self._enabled), cam=False)
            case "startcamscan":
                self._scanner.begin(list(dict.fromkeys(self._camlist)), cam=True)
            case "stopscan" | "stopcamscan":
                self._scanner.stop()
            case "pausescan":
                self._scanner.pause()
            case "autofocusscan":
                for word in ("scanstart", "scanfinished"):
                    self._announce(f"/app:matrix /sys:0 /inf:{word}", at_once=True)
            case "deletelist":
                self._camlist = []
            case "add":
                self._camlist.append(_place(said))
            case _:
                pass  # LAS X has many more; what is not known is echoed, and changes nothing here

    def _stage(self, said: dict[str, str]) -> str:
        x_um, y_um = self._scanner.stage_um
        place = f"/unit:meter /xpos:{x_um / 1e6:.6f} /ypos:{y_um / 1e6:.6f} /zpos:0.000000"
        return f"/app:matrix /sys:0 /dev:stage /info_for:{said.get('cli', '')} {place}"


def _place(said: dict[str, str]) -> Place:
    """A field as names count it."""
    x, y, column, row = (int(said.get(key, "1")) - 1 for key in ("fieldx", "fieldy", "wellx", "welly"))
    return Place(WellId(row, column), x, y)
