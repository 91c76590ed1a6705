"""The instrument between two plates: opened for whoever looks through it, and let go before a run needs it.

One thread owns the source and takes one image after another; whoever asks waits no longer than their own deadline. A
view that nobody uses ends by itself, so that no lamp, stage or driver is held for a page that was left open.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from spheroidd.daemon.pipeline.view_trail import ViewTrail, Watched
from spheroidd.protocols.errors import BusyError, LateError, RefusedError, SpheroiddError
from spheroidd.protocols.ports import Snapping, StackSource

T = TypeVar("T")
IDLE_S = 30.0
NO_INSTRUMENT = "no instrument is looked through here"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    who: str
    plate: str
    work: Callable[[Snapping], Any]
    answer: "Future[Any]" = field(default_factory=Future)


class LiveView:
    """Looks through the source of a submitted plate. Forbidden until `allow`; safe for many threads.

    `open_source` opens the source of a plate by its name; `trail` writes down who looked.
    """

    def __init__(self, open_source: Callable[[str], StackSource], trail: ViewTrail, *, idle_s: float = IDLE_S) -> None:
        self._open_source, self._trail, self._idle_s = open_source, trail, idle_s
        self._changed = threading.Condition()
        self._forbidden: str | None = NO_INSTRUMENT
        self._look: _Look | None = None
        self._thread: threading.Thread | None = None
        self._leaving = False
        self._loading = False

    def allow(self) -> None:
        """No plate is run: whoever wants may look."""
        with self._changed:
            self._forbidden = None

    def forbid(self, why: str, patience_s: float) -> bool:
        """Nobody looks any more; whether the instrument is let go by then. Ask again until it is."""
        with self._changed:
            self._forbidden = why
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._thread is None, patience_s)

    def end(self, patience_s: float) -> bool:
        """Let the instrument go now, though it may be looked through again; whether that is done by then."""
        with self._changed:
            self._leaving = self._thread is not None
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._leaving, patience_s)

    @property
    def forbidden(self) -> bool:
        """Whether what takes long is to end now."""
        return self._forbidden is not None

    @property
    def loading(self) -> bool:
        """Whether the instrument's drivers are being loaded, which cannot be broken off: it ends in its own time."""
        return self._loading

    def look(self, plate: str, work: Callable[[Snapping], T], timeout_s: float, who: str) -> T:
        """Do something with the opened source of a plate, for `who`. Raises what it raises.

        RefusedError while a run has the instrument, or where the source takes no single images; BusyError where
        somebody else looks; LateError where it was not begun in that time, or did not end.
        """
        until_s = time.monotonic() + timeout_s
        with self._changed:
            self._check()
            if not self._changed.wait_for(lambda: not self._leaving, timeout_s):
                raise LateError("the instrument is still let go", do="try again in a moment")
            self._check()
            if self._look is not None:
                raise BusyError("somebody takes an image", do="wait for it, and ask again")
            look = self._look = _Look(who, plate, work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="live-view", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        try:
            found: T = look.answer.result(max(0.0, until_s - time.monotonic()))
        except TimeoutError:
            if look.answer.done():
                raise  # it is the instrument's own
            if look.answer.cancel():
                raise LateError("the image was not begun in time, and is not taken", do="ask again") from None
            what = f"the instrument did not answer within {timeout_s:.0f} s"
            raise LateError(what, do="it may still be loading: ask again in a moment") from None
        return found

    def _check(self) -> None:
        if self._forbidden is not None:
            raise RefusedError(self._forbidden, do="look before a plate is started, or once it has ended")

    def _run(self) -> None:
        """The thread's whole life: one view, from the first image until nobody wants another."""
        plate, source = "", None
        try:
            while (look := self._next()) is not None:
                try:
                    if look.answer.set_running_or_notify_cancel():
                        if source is None or plate != look.plate:
                            self._let_go(plate, source)
                            plate, source = look.plate, None
                            source = self._opened(plate)
                            self._check()  # a run may have been ordered while it was loaded
                        self._trail.begin(look.who, plate)
                        look.answer.set_result(look.work(Watched(source, self._trail)))  # type: ignore[arg-type]
                except BaseException as error:
                    look.answer.set_exception(error)
                finally:
                    with self._changed:
                        self._look = None
        finally:
            self._let_go(plate, source)
            with self._changed:
                self._thread, self._leaving = None, False
                self._changed.notify_all()

    def _next(self) -> _Look | None:
        with self._changed:
            wanted = lambda: self._look is not None or self._forbidden is not None or self._leaving  # noqa: E731
            self._changed.wait_for(wanted, self._idle_s)
            look, self._leaving = self._look, self._leaving or self._forbidden is not None or self._look is None
            if look is not None and self._leaving and not look.answer.done():
                look.answer.set_exception(RefusedError(self._forbidden or "the view ended", do="ask again"))
            if self._leaving:
                self._look = None
            return None if self._leaving else look

    def _opened(self, plate: str) -> StackSource:
        self._loading = True
        try:
            return self._loaded(plate)
        finally:
            self._loading = False

    def _loaded(self, plate: str) -> StackSource:
        source = self._open_source(plate)
        try:
            if not isinstance(source, Snapping):
                do = "look through the instrument's own program"
                raise RefusedError(f"the source of plate {plate} takes no single images", where="live view", do=do)
            source.check()
        except BaseException:
            source.close()
            raise
        _log.info("live view: the instrument of plate %s is looked through", plate)
        return source

    def _let_go(self, plate: str, source: StackSource | None) -> None:
        if source is None:
            return
        try:
            if isinstance(source, Snapping):
                source.put_back()
        except SpheroiddError as error:
            _log.warning("live view: the stages of plate %s are not back where they were: %s", plate, error)
        finally:
            source.close()
            self._trail.end()
            _log.info("live view: the instrument of plate %s is let go", plate)
