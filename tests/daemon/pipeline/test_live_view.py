"""The instrument between two plates: opened for whoever looks, let go for a run, and never waited for without end."""

import threading
from collections.abc import Iterator

import pytest

from spheroidd.acquisition.sources.push import PushSource
from spheroidd.daemon.pipeline.live_view import LiveView
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import BusyError, ConfigError, LateError, MissingError, RefusedError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.ports import Snapping, StackSource
from spheroidd.protocols.snapshot import SnapOrder
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

SETTINGS = EmulatorSettings(preset="unit", pace="fast", compounds=1, doses=1)
ORDER = SnapOrder("488")
PATIENCE_S = 20.0


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
def live(opened: Opened) -> Iterator[LiveView]:
    view = LiveView(opened)
    view.allow()
    yield view
    assert view.forbid("the test ends", PATIENCE_S)


def test_it_is_opened_once_for_many_images_and_anew_for_another_plate(live: LiveView, opened: Opened) -> None:
    for plate in ("P1", "P1", "P2"):
        assert live.look(plate, lambda source: source.snap(ORDER), PATIENCE_S).well == WellId(0, 0)
    assert (opened.plates, opened.closed) == (["P1", "P2"], ["P1"])


def test_a_run_gets_the_instrument_and_nobody_looks_meanwhile(live: LiveView, opened: Opened) -> None:
    live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S)
    assert live.forbid("plate P1 is run", PATIENCE_S)
    assert opened.closed == ["P1"]
    with pytest.raises(RefusedError, match="plate P1 is run; look before a plate is started"):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S)
    live.allow()
    live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S)


def test_nobody_looks_before_it_is_allowed(opened: Opened) -> None:
    with pytest.raises(RefusedError, match="no instrument is looked through here"):
        LiveView(opened).look("P1", lambda source: source.snap(ORDER), PATIENCE_S)


def test_a_view_that_nobody_uses_ends_by_itself(opened: Opened) -> None:
    live = LiveView(opened, idle_s=0.05)
    live.allow()
    for n in (1, 2):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S)
        assert opened.let_go.wait(PATIENCE_S)
        opened.let_go.clear()
        assert len(opened.closed) == n


def test_a_view_is_ended_at_once_and_may_begin_again(live: LiveView, opened: Opened) -> None:
    for n in (1, 2):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S)
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
        live.look(plate, lambda source: source.snap(ORDER), PATIENCE_S)


def test_an_instrument_that_hangs_holds_nobody_up(live: LiveView) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def hang(source: Snapping) -> None:
        under_way.set()
        go_on.wait(PATIENCE_S)

    with pytest.raises(LateError, match="did not answer within 0 s"):
        live.look("P1", hang, 0.3)
    assert under_way.wait(PATIENCE_S)
    with pytest.raises(BusyError, match="somebody takes an image"):
        live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S)
    assert not live.forbid("a plate is run", 0.05)
    go_on.set()
    assert live.forbid("a plate is run", PATIENCE_S)


def test_what_the_instrument_refuses_reaches_whoever_asked_and_the_next_image_comes(live: LiveView) -> None:
    with pytest.raises(ConfigError, match="no channel '405'"):
        live.look("P1", lambda source: source.snap(SnapOrder("405")), PATIENCE_S)
    assert live.look("P1", lambda source: source.snap(ORDER), PATIENCE_S).pixels.shape == (96, 96)
