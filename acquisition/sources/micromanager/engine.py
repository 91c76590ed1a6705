"""pycromanager's acquisition engine, held at arm's length.

It swallows hardware errors, hangs on errors in callbacks and merges events as it sees fit. So it gets one well per
acquisition, x, y, z and channel in every event, and nothing but callbacks that only enqueue; what it delivered is
counted by whoever asked for it, and waiting for it always ends.
"""

import gc
import importlib
import queue
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from spheroidd.acquisition.sources.micromanager.messages import PlannedSlice, StackOrder
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.protocols.stack import RawIndex, SliceIndex

ARRIVALS = 32  # images between the engine and the ring; the core's own buffer is behind them
END_S = 2.0


class EngineFailedError(Exception):
    """The engine said that an acquisition went wrong, or did not end it."""


class Engine:
    """One acquisition: `take` events, fetch their images with `next_image`, `end` it."""

    def __init__(self, settings: MicroManagerSettings) -> None:
        self._arrived: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue(maxsize=ARRIVALS)
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        # By attribute at the time of the call, so that a test can put a faulty engine in its place.
        acquisition = importlib.import_module("pycromanager").Acquisition
        if settings.backend == "java":
            _collect_here_alone()
        self._remote: Any = None
        backend = {} if settings.backend == "python" else {"show_display": False, "port": settings.port}
        self._acquisition = acquisition(image_process_fn=self._enqueue, **backend)
        if settings.backend == "java":
            self._remote = getattr(self._acquisition, "_acq", None)

    def take(self, events: Sequence[dict[str, Any]]) -> None:
        """Submit events: one alone is a snapshot, several are one hardware sequence."""
        self._acquisition.acquire(list(events))

    def next_image(self, timeout_s: float) -> tuple[Any, dict[str, Any]]:
        """The next image with its tags; TimeoutError where none came."""
        try:
            return self._arrived.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None

    def end(self, reason: Exception | None = None) -> bool:
        """End the acquisition, before its events are through if there is a reason; False where it will not end.

        Without a reason, EngineFailedError where the engine has something to complain of.
        """
        self._ended.set()
        closing = threading.Thread(target=self._close, args=(reason,), name="engine-end", daemon=True)
        closing.start()
        closing.join(END_S)
        if closing.is_alive():
            return False
        if reason is None and self._failure is not None:
            raise EngineFailedError(f"the engine reported {self._failure}") from self._failure
        return True

    def _enqueue(self, pixels: Any, tags: dict[str, Any]) -> None:
        """Called by the engine for every image. An exception here would be lost, and the engine with it."""
        while not self._ended.is_set():
            try:
                self._arrived.put((pixels, tags), timeout=0.1)
            except queue.Full:
                continue
            break

    def _close(self, reason: Exception | None) -> None:
        try:
            if reason is not None:
                self._acquisition.abort(reason)
            self._acquisition.mark_finished()
            self._acquisition.await_completion()
        except BaseException as error:
            self._failure = error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Tell Java of the acquisition's objects one after another, while all of them are there.

        They have a bridge of their own, which closes with the last. Collected together, the first would close it, and
        the second would wait for ever for an answer.
        """
        bridge = getattr(self._remote, "_bridge", None)
        for one in list(getattr(bridge, "_java_objects", ())):
            one._close()


def _collect_here_alone() -> None:
    """Let go of what earlier acquisitions left, and of nothing in between, in this process of the instrument's alone.

    The bridge to Java tells it of each object that is collected, under locks that it may hold itself at that moment: a
    collection while it makes another one waits for ever. Here no call is under way.
    """
    gc.disable()
    gc.collect()


def event(order: StackOrder, planned: PlannedSlice, settings: MicroManagerSettings) -> dict[str, Any]:
    """The engine's event for one slice. Every event names every device: what is left out is silently not moved."""
    channel = settings.channels[planned.index.channel]  # type: ignore[index]
    axes: dict[str, int | str] = {"z": planned.index.z, "channel": planned.index.channel}
    if isinstance(planned.index, RawIndex):
        axes |= {"angle": planned.index.angle, "phase": planned.index.phase}
    return {
        "axes": axes,
        "x": order.x_um,
        "y": order.y_um,
        "z": planned.z_um,
        "config_group": [settings.channel_group, channel.preset],
        "exposure": order.exposure_ms[planned.index.channel],
    }


def slice_of(tags: dict[str, Any]) -> SliceIndex | None:
    """Which slice an image claims to be; None where it does not say."""
    axes = tags.get("Axes")
    if not isinstance(axes, dict) or "channel" not in axes or "z" not in axes:
        return None
    if "angle" in axes and "phase" in axes:
        return RawIndex(str(axes["channel"]), int(axes["z"]), int(axes["angle"]), int(axes["phase"]))
    return SliceIndex(str(axes["channel"]), int(axes["z"]))


def image_fault(pixels: Any, settings: MicroManagerSettings) -> str | None:
    """What is wrong with an image's form; None where it is as the plan has it."""
    shape = settings.frame_shape
    if isinstance(pixels, np.ndarray) and pixels.shape == shape and pixels.dtype.name == settings.dtype:
        return None
    found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
    return f"an image of {found} arrived where the plan has {settings.dtype} {shape}"
