"""A service over a catalog with known rows, and a main that answers orders: what tests of the service share."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from spheroidd.daemon.catalog.writer import Catalog, RunState, StackState
from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.pipeline.orders import Done, Inbox, Order
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.system.lock import acquire_lock, is_locked
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Normalisation, StackMeasurement
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId

KEY = StackKey("P1", WellId(0, 0))
PLAN = StackPlan(KEY, ("488", "561"), 3, 16, 16, 0.1, 0.5)
MODEL = "ab" * 32


def fill(data_dir: Path) -> None:
    """A plate with one scored well, in which every cell is dead, and one that waits."""
    wells = (
        PlateWell(KEY.well, Treatment(WellRole.NEGATIVE_CONTROL)),
        PlateWell(WellId(0, 1), Treatment(WellRole.SAMPLE, "drug", 0.0)),
    )
    with Catalog.create_or_open(data_dir) as catalog:
        catalog.register_plate(PlateMap("P1", wells), "{}")
        catalog.expect(PLAN)
        for index in PLAN.indices():
            catalog.acknowledge(SliceDurable(KEY, index, 1, 0.0), 1.0)
        catalog.set_stack_state(KEY, StackState.STORED)
        for n_dead in (4, 5):
            measured = StackMeasurement(0.0, 10.0, 0, n_dead, (0.0,), {}, Normalisation.STACK, MODEL, 1.0, {})
            catalog.record_measurement(KEY, measured, 0.0)
        beat(catalog, 0)


def beat(catalog: Catalog, slices_done: int) -> None:
    """What main writes down once a second."""
    now_s = time.time()
    catalog.set_run_state(RunState("1", 1, "running", now_s, now_s, plate="P1", slices_done=slices_done))


def many_changes(data_dir: Path, n: int, n_words: int = 1) -> None:
    """A long history of one result, with long reasons."""
    with sqlite3.connect(data_dir / "catalog.sqlite") as connection:
        columns = "changed_s, plate, well, stack, model_sha256, old_json, new_json, reason"
        sql = f"INSERT INTO result_changes ({columns}) SELECT {columns} FROM result_changes WHERE id = 1"
        sql = sql.replace("new_json, reason FROM", "new_json, :reason FROM")
        for _ in range(n):
            connection.execute(sql, {"reason": "because " * n_words})
    connection.close()


class Main(threading.Thread):
    """Stands for main: keeps every order it gets, and answers it or refuses it."""

    def __init__(self, inbox: Inbox, refusal: SpheroiddError | None = None) -> None:
        super().__init__(daemon=True)
        self._inbox, self.refusal = inbox, refusal
        self.orders: list[Order] = []
        self._busy, self._resting, self._over = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            if self._busy.is_set():
                self._resting.set()
                time.sleep(0.01)
                continue
            ticket = self._inbox.take(0.02)
            if ticket is not None:
                self.orders.append(ticket.order)
                ticket.answer(self.refusal or Done("it is done", "paused"))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """It looks at no order meanwhile."""
        self._busy.set()
        assert self._resting.wait(20), "main is stuck"
        try:
            yield
        finally:
            self._busy.clear()
            self._resting.clear()

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def running(data_dir: Path, **settings: object) -> Iterator[tuple[Service, Main]]:
    """A service with its main."""
    served = Service(data_dir, ServiceConfig.model_validate(settings))
    lock = contextlib.nullcontext() if is_locked(data_dir) else acquire_lock(data_dir)
    with lock, served as service:
        main = Main(service.inbox)
        main.start()
        try:
            yield service, main
        finally:
            main.stop()


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    """The code of a refused call, and its ErrorInfo."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None, error
    assert status.details[0].Unpack(info)
    return error.code(), info
