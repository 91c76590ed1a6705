"""The streams that are being watched: a bounded number, and none that has stopped reading for long."""

import contextlib
import threading
import time
from collections.abc import Iterator

import grpc

from spheroidd.protocols.errors import BusyError

MAX_VIEWERS = 64  # a thread each, asleep
PATIENCE_S = 60.0


class Viewer:
    """One stream. It costs one message and one thread, however slow it is."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context
        self.sending_s: float | None = None  # since when it has not taken the message that it was sent

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Around the hand-over of one message, which waits until the viewer has room for it."""
        self.sending_s = time.monotonic()
        try:
            yield
        finally:
            self.sending_s = None


class Viewers:
    """Lets viewers in, up to a number, and cuts those that do not read."""

    def __init__(self, most: int = MAX_VIEWERS, patience_s: float = PATIENCE_S) -> None:
        self._most, self._patience_s = most, patience_s
        self._lock = threading.Lock()
        self._viewers: set[Viewer] = set()

    def __len__(self) -> int:
        return len(self._viewers)

    @contextlib.contextmanager
    def admit(self, context: grpc.ServicerContext) -> Iterator[Viewer]:
        """A viewer for as long as its stream lasts; BusyError where there are too many."""
        viewer = Viewer(context)
        with self._lock:
            if len(self._viewers) >= self._most:
                raise BusyError(f"{self._most} of these calls are open", do="close one, or ask without a stream")
            self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            with self._lock:
                self._viewers.discard(viewer)

    def cut_stuck(self) -> None:
        """End the streams whose viewer has not taken a message for too long."""
        with self._lock:
            viewers = list(self._viewers)
        for viewer in viewers:
            since_s = viewer.sending_s
            if since_s is not None and time.monotonic() - since_s > self._patience_s:
                viewer.context.cancel()
