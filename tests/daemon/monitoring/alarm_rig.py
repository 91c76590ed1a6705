"""A catalog with a plate under way, and receivers of alarms that refuse at first: what tests of alarms share."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog.writer import Catalog, RunState
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId

NOW_S = 1000.0
A01, A02, A03 = (StackKey("P1", WellId(0, column)) for column in range(3))
RAW_BYTES = 2 * 4 * 1000 * 1000 * 2  # of one stack


def plan(key: StackKey) -> StackPlan:
    return StackPlan(key, ("488", "561"), 4, 1000, 1000, 0.1, 0.5)


def plate(data_dir: Path, *, now: Callable[[], float] = lambda: NOW_S, min_free_gb: float = 0.0) -> Catalog:
    """Three wells are planned, the first is being imaged, and main says so. To be closed."""
    catalog = Catalog.create_or_open(data_dir, now=now)
    wells = tuple(PlateWell(key.well, Treatment(WellRole.SAMPLE, "drug", 1.0, "Smith")) for key in (A01, A02, A03))
    catalog.register_plate(PlateMap("P1", wells), json.dumps({"store": {"min_free_gb": min_free_gb}}))
    for key in (A01, A02, A03):
        catalog.expect(plan(key))
    says(catalog, "running", now())
    return catalog


def says(catalog: Catalog, state: str, now_s: float = NOW_S, **fields: Any) -> None:
    """What main says of itself."""
    place = {"plate": "P1", "well": "A01", "stack": 0} if state != "idle" else {}
    catalog.set_run_state(RunState("1", 7, state, now_s - 500.0, now_s, **{**place, **fields}))


def acknowledge(catalog: Catalog, key: StackKey, n: int, at_s: float = NOW_S) -> None:
    for index in list(plan(key).indices())[:n]:
        catalog.acknowledge(SliceDurable(key, index, 1, at_s), at_s)


def raise_alarm(catalog: Catalog, code: str, what: str = "it broke") -> None:
    catalog.raise_fault(code, StackError(what, where="P1", do="mend it"))


class Hook(ThreadingHTTPServer):
    """A webhook's receiver. `answer` gives the status for each request; 0 hangs until the server is closed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[int, dict[str, Any], dict[str, str], bytes]] = []
        self.answer: Callable[[], int] = lambda: 204
        self.over = threading.Event()
        self.came = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    def taken(self) -> list[tuple[str, str]]:
        """What was accepted: (event, code)."""
        return [(body["event"], body["code"]) for status, body, _, _ in self.seen if status == 204]

    def wait_for(self, n: int, *, accepted: bool = True) -> None:
        """Until so many requests were accepted, or came at all."""

        def enough() -> bool:
            return (len(self.taken()) if accepted else len(self.seen)) >= n

        with self.came:
            assert self.came.wait_for(enough, 30.0), self.seen


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answer()
        with self.server.came:
            self.server.seen.append((status, json.loads(raw), dict(self.headers), raw))
            self.server.came.notify_all()
        if status == 0:
            self.server.over.wait(30.0)
            self.close_connection = True
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
