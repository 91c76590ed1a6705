"""The instrument between two plates: opened for whoever looks, let go for a run, and never waited for without end."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from spheroidd.acquisition.sources.push import PushSource
from spheroidd.daemon.catalog import audit_trail
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.pipeline.live_view import LiveView
from spheroidd.daemon.pipeline.view_trail import ViewTrail
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import BusyError, ConfigError, LateError, MissingError, RefusedError, StorageError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.ports import Snapping, StackSource
from spheroidd.protocols.snapshot import SnapOrder
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

SETTINGS = EmulatorSettings(preset="unit", pace="fast", compounds=1, doses=1)
ORDER = SnapOrder("488")
PATIENCE_S = 20.0
WHO = "Ada"


class Opened:
    """Opens emulators, and counts."""

    def __init__(self) -> None:
        self.plates: list[str] = []
        self.closed: list[str] = []
        self.let_go = threading.Event()

    def __call__(self, plate: str) -> StackSource:
        if plate == "none":
            raise MissingError("plate none was not submitted", do="submit it")
        if plate == "pushed":
            wells = PlateMap(plate, (PlateWell(WellId(0, 0), Treatment(WellRole.SAMPLE)),))
            return PushSource(PushSource.Settings(kind="push"), wells, plate, SystemClock())
        self.plates.append(plate)
        source = EmulatorSource(SETTINGS, None, plate, SystemClock())
        close = source.close

        def noted() -> None:
            close()
            self.closed.append(plate)
            self.let_go.set()

        source.close = noted  # type: ignore[method-assign]
        return source


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture
def trail(tmp_path: Path) -> ViewTrail:
    Catalog.create_or_open(tmp_path).close()
    return ViewTrail(tmp_path)


@pytest.fixture
def live(opened: Opened, trail: ViewTrail) -> Iterator[LiveView]:
    view = LiveView(opened, trail)
    view.allow()
    yield view
    assert view.forbid("the test ends", PATIENCE_S)


def test_it_is_opened_once_for_many_images_and_anew_for_another_plate(live: LiveView, opened: Opened) -> None:
    for plate in ("P1", "P1", "P2"):
        assert live.look(plate, lambda source: source.snap(ORDER), PATIENCE_S, WHO).well == WellId(0, 0)
    assert (opened.plates, opened.closed) == (["P1", "P2"], ["P1"])


def test_a_run_gets_the_instrument_and_nobody_looks_meanwhile(live: LiveView, opened: Opened) -> None:
    live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)
    assert live.forbid("plate P1 is run", PATIENCE_S)
    assert opened.closed == ["P1"]
    with pytest.raises(RefusedError, match="plate P1 is run; look before a plate is started"):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)
    live.allow()
    live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)


def test_nobody_looks_before_it_is_allowed(opened: Opened, trail: ViewTrail) -> None:
    with pytest.raises(RefusedError, match="no instrument is looked through here"):
        LiveView(opened, trail).look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)


def test_a_view_that_nobody_uses_ends_by_itself(opened: Opened, trail: ViewTrail) -> None:
    live = LiveView(opened, trail, idle_s=0.05)
    live.allow()
    for n in (1, 2):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)
        assert opened.let_go.wait(PATIENCE_S)
        opened.let_go.clear()
        assert len(opened.closed) == n


def test_a_view_is_ended_at_once_and_may_begin_again(live: LiveView, opened: Opened) -> None:
    for n in (1, 2):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)
        assert live.end(PATIENCE_S)
        assert len(opened.closed) == n


@pytest.mark.parametrize(
    ("plate", "error", "words"),
    [
        ("pushed", RefusedError, "the source of plate pushed takes no single images"),
        ("none", MissingError, "was not submitted"),
    ],
)
def test_what_cannot_be_looked_through_is_told(live: LiveView, plate: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        live.look(plate, lambda source: source.snap(ORDER), PATIENCE_S, WHO)


def test_an_instrument_that_hangs_holds_nobody_up(live: LiveView) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def hang(source: Snapping) -> None:
        under_way.set()
        go_on.wait(PATIENCE_S)

    with pytest.raises(LateError, match="did not answer within 0 s"):
        live.look("P1", hang, 0.3, WHO)
    assert under_way.wait(PATIENCE_S)
    with pytest.raises(BusyError, match="somebody takes an image"):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)
    assert not live.forbid("a plate is run", 0.05)
    go_on.set()
    assert live.forbid("a plate is run", PATIENCE_S)


def test_what_the_instrument_refuses_reaches_whoever_asked_and_the_next_image_comes(live: LiveView) -> None:
    with pytest.raises(ConfigError, match="no channel '405'"):
        live.look("P1", lambda source: source.snap(SnapOrder("405")), PATIENCE_S, WHO)
    assert live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO).pixels.shape == (96, 96)


def told(data_dir: Path) -> list[tuple[str, str, str | None, str | None]]:
    """What the audit trail has of live views, oldest first."""
    with Catalog.read_only(data_dir) as catalog:
        assert verify(catalog).intact
        return [(e.action, e.who, e.plate, e.new_json) for e in audit_trail.events(catalog) if "live view" in e.action]


def test_who_looked_and_the_light_on_each_well_stand_in_the_audit_trail(live: LiveView, tmp_path: Path) -> None:
    for who, order in (
        ("Ada", SnapOrder("488", 20.0)),
        ("Ada", SnapOrder("488", 30.0)),
        ("Ada", SnapOrder("561", 5.0, WellId(0, 1))),
        ("Ben", SnapOrder("561", 5.0, WellId(0, 1))),
    ):
        live.look("P1", lambda source, order=order: source.snap(order), PATIENCE_S, who)  # type: ignore[misc]
    assert told(tmp_path)[-1] == ("live view begun", "Ben", "P1", None)
    assert live.end(PATIENCE_S)
    begun, ada, _, ben = told(tmp_path)
    assert begun == ("live view begun", "Ada", "P1", None)
    assert ada[:3] == ("live view ended", "Ada", "P1")
    light = [
        {"channel": "488", "exposed_ms": 50.0, "images": 2, "well": "A01"},
        {"channel": "561", "exposed_ms": 5.0, "images": 1, "well": "A02"},
    ]
    assert json.loads(ada[3] or "") == {"images": 3, "light": light}
    assert json.loads(ben[3] or "")["images"] == 1


def test_no_image_is_taken_that_the_audit_trail_cannot_tell_of(live: LiveView, opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").rename(tmp_path / "gone")
    (tmp_path / "catalog.sqlite").mkdir()
    with pytest.raises(StorageError):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)


def test_a_run_that_is_ordered_while_the_instrument_loads_waits_for_that_and_no_image_is_taken(
    opened: Opened, trail: ViewTrail
) -> None:
    loads, go_on = threading.Event(), threading.Event()

    def slow(plate: str) -> StackSource:
        loads.set()
        assert go_on.wait(PATIENCE_S)
        return opened(plate)

    live = LiveView(slow, trail)
    live.allow()
    refused: list[Exception] = []

    def look() -> None:
        try:
            live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S, WHO)
        except RefusedError as error:
            refused.append(error)

    person = threading.Thread(target=look)
    person.start()
    assert loads.wait(PATIENCE_S)
    assert not live.forbid("plate P1 is run", 0.05)
    assert live.loading
    go_on.set()
    assert live.forbid("plate P1 is run", PATIENCE_S)
    person.join(PATIENCE_S)
    assert [error.what for error in refused if isinstance(error, RefusedError)] == ["plate P1 is run"]
    assert (live.loading, opened.closed) == (False, ["P1"])
