"""A daemon that waits for plates, in this process: what a person hears of a start that cannot happen at once."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from spheroidd.daemon.catalog import audit_trail
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.daemon.launch import serve
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.pipeline.live_view import LiveView
from spheroidd.daemon.pipeline.orders import StartPlate
from spheroidd.daemon.pipeline.view_trail import ViewTrail
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.inference.network.model_card import find_weights
from spheroidd.protocols.errors import RefusedError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.ports import StackSource
from spheroidd.protocols.snapshot import SnapOrder
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from tests.daemon.service.test_service_run import EMULATED

PATIENCE_S = 30.0
WEIGHTS = (find_weights(), find_weights().with_suffix(".json"))


def until(found: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


class Load:
    """An instrument that is loaded for as long as the test wants."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self, plate: str) -> StackSource:
        self.begun.set()
        assert self.over.wait(PATIENCE_S)
        return EmulatorSource(EmulatorSettings(preset="unit", pace="fast"), None, plate, SystemClock())


def test_a_start_is_answered_while_a_live_view_loads_and_what_fails_later_is_an_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "PROMPT_S", 0.0)
    load, heard = Load(), []
    with (
        Catalog.create_or_open(tmp_path) as catalog,
        RunMonitor(tmp_path, catalog, AlarmsConfig(), VerificationConfig()) as monitor,
    ):
        service = Service(tmp_path, ServiceConfig())
        service.live = LiveView(load, ViewTrail(tmp_path))
        removed = [tmp_path / f"removed{weights.suffix}" for weights in WEIGHTS]  # after the plate was handed in
        for weights, copy in zip(WEIGHTS, removed, strict=True):
            shutil.copy(weights, copy)
        SubmittedPlates(tmp_path).submit(EMULATED.replace('"threshold"', f"'{removed[0]}'"), "")
        for copy in removed:
            copy.unlink()
        waiting = serve.Waiting(tmp_path, catalog, service, Console(quiet=True), monitor)

        def look() -> None:
            try:
                service.live.look("P1", lambda source: source.snap(SnapOrder("488")), PATIENCE_S, "Ada")
            except RefusedError as error:
                heard.append(error.what)

        def work() -> None:
            try:
                until(lambda: not service.live.forbidden)
                viewer = threading.Thread(target=look)
                viewer.start()
                assert load.begun.wait(PATIENCE_S)
                heard.append(service.inbox.submit(StartPlate(who="Ben", plate="P1"), PATIENCE_S).what)
                load.over.set()
                viewer.join(PATIENCE_S)
                until(lambda: any(fault.code == FaultCode.PLATE_ENDED for fault in faults()))
            finally:
                waiting.stop()

        def faults() -> list[object]:
            with Catalog.read_only(tmp_path) as reader:
                return list(reader.faults())

        person = threading.Thread(target=work)
        person.start()
        waiting.run()
        person.join(PATIENCE_S)
        (ordered,) = [
            e for e in audit_trail.events(catalog) if e.action == "ordered" and "StartPlate" in str(e.new_json)
        ]
    assert heard == [
        "plate P1 starts once the live view lets the instrument go",
        "the instrument belongs to the run of a plate",
    ]
    assert ordered.who == "Ben"
    assert "removed.safetensors: there are no such weights" in str(faults()[0])
