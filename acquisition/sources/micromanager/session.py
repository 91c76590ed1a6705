"""What runs inside the instrument's process: takes orders, drives the core through the engine, checks every slice.

A slice leaves for the ring only when its number, its form, its channel, its exposure and its stages' positions are
what the order asked for. In a hardware sequence the stages cannot be asked between two slices: there the order of the
camera's own image numbers is what is checked.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from spheroidd.acquisition.channel import Channel, ChannelClosedError
from spheroidd.acquisition.sources.micromanager.core import AbortedError, Core, Stages, describe, load_core, recorded
from spheroidd.acquisition.sources.micromanager.engine import (
    END_S,
    Engine,
    EngineFailedError,
    event,
    image_fault,
    slice_of,
)
from spheroidd.acquisition.sources.micromanager.frame_ring import RingWriter
from spheroidd.acquisition.sources.micromanager.messages import (
    Abort,
    CoreRefused,
    Doing,
    FrameTaken,
    FromInstrument,
    Leave,
    LookOrder,
    PlannedSlice,
    StackOrder,
    StackOver,
    Work,
)
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.acquisition.sources.micromanager.view import View
from spheroidd.protocols.errors import InstrumentError, SpheroiddError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import RawIndex, SliceIndex

Attach = Callable[[Any], None]
WAIT_S = 0.05  # how soon an abort is noticed
SAFE_S = 2.0
ORPHAN_S = 5.0
EXPOSURE_TOLERANCE = 0.01


def run_core(
    settings: MicroManagerSettings, attach: Attach | None, link: Connection, writer: RingWriter, log: Path
) -> None:
    """The process: load the core, then take stacks until told to leave or until the parent is gone.

    `attach` is called with the loaded core, to replace what should not be real: a function importable by name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides when we end
    _print_to(log)
    try:
        core = load_core(settings)
        ready = describe(core, settings)
        if attach is not None:
            attach(core)
        link.send(ready)
    except SpheroiddError as error:
        link.send(CoreRefused(error))
        os._exit(1)
    session = CoreSession(settings, core, link, writer, forget=lambda: os.ftruncate(1, 0))
    try:
        healthy = session.serve()
    except OSError:
        healthy = True  # the parent is gone, and nobody is left to tell; the instrument is still made safe
    closing = threading.Thread(target=session.make_safe, args=(healthy,), name="make-safe", daemon=True)
    closing.start()
    closing.join(SAFE_S)
    os._exit(0)  # an engine's threads may be stuck, and would keep the interpreter from ending


class CoreSession:
    """One life of a loaded core: the orders that reach it and what it answers."""

    def __init__(
        self,
        settings: MicroManagerSettings,
        core: Core,
        link: Connection,
        writer: RingWriter,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._core, self._link, self._writer = settings, core, link, writer
        self._forget = forget  # what was printed before a stack has nothing to do with it
        self._aborted = threading.Event()
        self._orders: Channel[Work] = Channel(capacity=1)  # the parent sends one and waits for its end
        self._stages = Stages(core, settings, self._say, self._aborted)
        self._view = View(core, settings, self._stages, self._say)
        if settings.backend == "python":
            self._stages.guard()

    def serve(self) -> bool:
        """Take stacks until there are no more orders; False where the engine is stuck and the process must go."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        for order in self._orders:
            over = self._take(order)
            self._send(over)
            if not over.healthy:
                return False
        return True

    def make_safe(self, healthy: bool) -> None:
        """Close the shutter and, where nothing hangs, let the drivers go."""
        with contextlib.suppress(Exception):  # the process ends now; a driver's complaint can reach nobody
            if self._core.get_shutter_device():
                self._core.set_shutter_open(False)
            if healthy and self._settings.backend == "python":
                self._core.unload_all_devices()

    def _listen(self) -> None:
        """The parent's words, at once: an abort must not wait for the instrument."""
        try:
            while not isinstance(message := self._link.recv(), Leave):
                if isinstance(message, Work):
                    self._aborted.clear()
                    self._orders.put(message)
                elif isinstance(message, Abort):
                    self._aborted.set()
        except (EOFError, OSError, ChannelClosedError):
            threading.Timer(ORPHAN_S, os._exit, (1,)).start()  # no parent: end, even if the instrument hangs
        self._aborted.set()
        self._orders.close()

    def _send(self, message: FromInstrument) -> None:
        self._link.send(message)

    def _say(self, what: str, limit_s: float) -> None:
        if self._aborted.is_set():
            raise AbortedError
        self._send(Doing(what, limit_s))

    def _take(self, order: Work) -> StackOver:
        """One well, one acquisition, or one image; whatever goes wrong is the answer."""
        self._forget()
        self._stages.complaint = None
        try:
            if isinstance(order, StackOrder):
                self._stages.check_z(planned.z_um for planned in order.slices)
                self._stages.go_to(order.x_um, order.y_um, order.name)
                return self._acquire(order)
            if isinstance(order, LookOrder):
                return self._look(order)
            self._view.put_back()
            return StackOver()
        except AbortedError:
            return StackOver()
        except SpheroiddError as error:
            return StackOver(error)
        except Exception as error:  # the core and the engine raise plain RuntimeErrors
            return StackOver(InstrumentError(f"{type(error).__name__}: {error}", do="check the device it names"))

    def _look(self, order: LookOrder) -> StackOver:
        """One image outside a run."""
        self._reserve()
        pixels, found = self._view.take(order)
        self._send(FrameTaken(self._writer.write(pixels), SliceIndex(order.channel, 0), time.time(), found))
        return StackOver()

    def _acquire(self, order: StackOrder) -> StackOver:
        settings = self._settings
        self._say("starting the engine", settings.first_frame_s)
        engine = Engine(settings)
        error: Exception | None = None
        try:
            limit_s = settings.first_frame_s
            for batch in self._batches(order):
                if len(batch) > 1:
                    limit_s = settings.first_frame_s
                    self._stages.move_z(batch[0].z_um, "going to the first slice of a sequence")
                self._take_batch(engine, order, batch, limit_s)
                limit_s = order.stall_s
            self._say("ending the acquisition", settings.first_frame_s)
            if engine.end():
                return StackOver()
            error = InstrumentError("the engine did not end its acquisition")
            return StackOver(error, healthy=False)
        except Exception as caught:
            error = caught
            if isinstance(caught, EngineFailedError):
                return StackOver(InstrumentError(str(caught), do="see what it printed; start the run again"))
            self._send(Doing(f"stopping the engine ({caught})" if str(caught) else "stopping the engine", END_S))
            healthy = engine.end(caught)
            if isinstance(caught, AbortedError):
                return StackOver(healthy=healthy)
            if isinstance(caught, SpheroiddError):
                return StackOver(caught, healthy)
            return StackOver(InstrumentError(f"{type(caught).__name__}: {caught}"), healthy)

    def _batches(self, order: StackOrder) -> Iterator[tuple[PlannedSlice, ...]]:
        """What is submitted in one go: single slices, a raw slice's images, or a channel's run of slices for the
        hardware to step through.
        """
        images = self._settings.frames_per_slice if any(isinstance(one.index, RawIndex) for one in order.slices) else 1
        longest = images
        if self._settings.z_sequencing:
            steps = int(self._core.get_stage_sequence_max_length(self._core.get_focus_device()))
            longest = max(steps // images, 1) * images
        batch: list[PlannedSlice] = []
        for planned in order.slices:
            if batch and (planned.index.channel != batch[0].index.channel or len(batch) == longest):
                yield tuple(batch)
                batch = []
            batch.append(planned)
        if batch:
            yield tuple(batch)

    def _take_batch(self, engine: Engine, order: StackOrder, batch: tuple[PlannedSlice, ...], limit_s: float) -> None:
        """Expose only what the ring has room for; send each slice on once it is what was asked for.

        Where the hardware steps through z the stages are asked before; else once a slice, behind its first image.
        """
        settings = self._settings
        self._reserve()
        standing = self._standing(order) if batch[0].z_um != batch[-1].z_um else {}
        self._say(f"waiting for {batch[0].index}", limit_s)
        engine.take([event(order, planned, settings) for planned in batch])
        for number, planned in enumerate(batch):
            if number:
                self._reserve()
                limit_s = order.stall_s
                if number == 1:
                    self._say("waiting for the next image of a sequence", limit_s)
            pixels, tags = self._next_image(engine, planned, limit_s)
            acquired_s = time.time()
            self._check(pixels, tags, planned, number if len(batch) > 1 else None)
            standing = standing or self._read_back(order, planned)
            metadata = self._metadata(order, planned, tags) | standing
            self._send(FrameTaken(self._writer.write(pixels), planned.index, acquired_s, metadata))

    def _reserve(self) -> None:
        while not self._writer.reserve(WAIT_S):
            if self._aborted.is_set():
                raise AbortedError

    def _next_image(self, engine: Engine, planned: PlannedSlice, limit_s: float) -> tuple[Pixels, dict[str, Any]]:
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            if self._aborted.is_set():
                raise AbortedError
            if isinstance(self._stages.complaint, SpheroiddError):
                raise self._stages.complaint
            try:
                return engine.next_image(min(left, WAIT_S))
            except TimeoutError:
                continue
        what = f"{planned.index} did not come within {limit_s:g} s"
        if self._stages.complaint is not None:
            what += f"; a stage said: {self._stages.complaint}"
        raise InstrumentError(what, do="check the camera, its trigger and the stages")

    def _check(self, pixels: Any, tags: dict[str, Any], planned: PlannedSlice, number: int | None) -> None:
        """InstrumentError where an image is not the one that was due."""
        index = planned.index
        if (came := slice_of(tags)) != index:
            what = f"{came or 'an image without a place'} arrived where {index} was due"
            raise InstrumentError(what, do="start the run again; report it if it happens twice")
        if fault := image_fault(pixels, self._settings):
            do = "correct source.height, width and dtype, or the camera's region, binning and bit depth"
            raise InstrumentError(f"{index}: {fault}", do=do)
        if number is not None and str(tags.get("ImageNumber", number)) != str(number):
            what = f"the camera's image {tags['ImageNumber']} arrived where its image {number} was due (z {index.z})"
            raise InstrumentError(what, do="the camera dropped an image: raise its exposure or source.buffer_mb")

    def _read_back(self, order: StackOrder, planned: PlannedSlice) -> dict[str, float | str]:
        """Where everything really stood; InstrumentError where that is not where it was sent."""
        s, core = self._settings, self._core
        channel = s.channels[planned.index.channel]  # type: ignore[index]
        x, y, z = self._stages.read()
        where = f"{planned.index} was taken"
        if not abs(z - planned.z_um) <= s.z_tolerance_um:
            do = "check the focus stage and source.z_tolerance_um"
            raise InstrumentError(f"{where} at {z:g} um and not at {planned.z_um:g} um", do=do)
        self._check_xy(order, x, y, where)
        if (preset := core.get_current_config(s.channel_group)) != channel.preset:
            do = f"check the devices of the group {s.channel_group!r}"
            raise InstrumentError(f"{where} with the preset {preset!r} and not {channel.preset!r}", do=do)
        exposure_ms, ordered_ms = float(core.get_exposure()), order.exposure_ms[planned.index.channel]
        if not abs(exposure_ms - ordered_ms) <= EXPOSURE_TOLERANCE * ordered_ms:
            do = "give an exposure that the camera can make"
            raise InstrumentError(f"{where} for {exposure_ms:g} ms and not for {ordered_ms:g} ms", do=do)
        return {"x_um": x, "y_um": y, "z_um": z, "exposure_ms": exposure_ms, **recorded(core, s)}

    def _standing(self, order: StackOrder) -> dict[str, float | str]:
        """What stays while the hardware steps through z, and cannot be asked then; InstrumentError as `_read_back`."""
        x, y, _ = self._stages.read()
        self._check_xy(order, x, y, "a hardware sequence was to be taken")
        return {"x_um": x, "y_um": y, **recorded(self._core, self._settings)}

    def _check_xy(self, order: StackOrder, x: float, y: float, where: str) -> None:
        if not max(abs(x - order.x_um), abs(y - order.y_um)) <= self._settings.xy_tolerance_um:
            what = f"{where} at ({x:g}, {y:g}) um and not at ({order.x_um:g}, {order.y_um:g}) um"
            raise InstrumentError(what, do="check the XY stage and source.xy_tolerance_um")

    def _metadata(self, order: StackOrder, planned: PlannedSlice, tags: dict[str, Any]) -> dict[str, float | str]:
        channel = self._settings.channels[planned.index.channel]  # type: ignore[index]
        found: dict[str, float | str] = {
            "z_planned_um": planned.z_um,
            "exposure_ms": order.exposure_ms[planned.index.channel],
            "preset": channel.preset,
            "camera": str(tags.get("Camera", "")),
        }
        if (elapsed_ms := tags.get("ElapsedTime-ms")) is not None:
            found["instrument_elapsed_s"] = float(elapsed_ms) / 1000
        if (received := tags.get("TimeReceivedByCore") or tags.get("Time")) is not None:
            found["instrument_time"] = str(received).strip(" -")
        return found


def _print_to(log: Path) -> None:
    """Send what drivers and the engine print to the log: on the daemon's screen it is noise, here it is a clue."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)
    faulthandler.enable(file=sys.stderr)
