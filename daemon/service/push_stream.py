"""One PushSlices call: messages to frames on one side, commits to acknowledgements on the other.

The call's own thread tells acknowledgements; a thread beside it reads slices, and stops reading while the run has no
room for them, so that the network holds the instrument's program back.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np

from spheroidd.acquisition.sources.push import PushInlet, PushSession
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.service.messages import acknowledgement, progress_message, slice_index, stack_plan
from spheroidd.daemon.service.push_message import PushMessage
from spheroidd.daemon.system.malloc import keep_freed_memory
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, LateError, RefusedError, SpheroiddError, StackError
from spheroidd.protocols.stack import Frame, StackPlan

OPEN_S = 30.0  # how long a program without a deadline waits for the run to take its stack up
MAX_METADATA = 1 << 16  # letters with one slice; they stand in the ledger for good
Messages = Iterator[PushMessage]


class PushDoor:
    """Where the service finds the inlet of the plate being run: main opens and closes it."""

    def __init__(self) -> None:
        self._open: tuple[str, PushInlet] | None = None

    def open(self, plate: str, inlet: PushInlet) -> None:
        """A run of this plate takes pushes from now on."""
        keep_freed_memory()
        self._open = plate, inlet

    def close(self) -> None:
        """It takes none any more."""
        self._open = None

    def enter(self, plan: StackPlan) -> PushInlet:
        """The inlet for a plan; RefusedError where no run takes it."""
        found = self._open
        if found is None:
            do = "start a plate whose configuration says [source] kind = 'push'"
            raise RefusedError("no run takes pushed slices now", where=str(plan.key), do=do)
        plate, inlet = found
        if plan.key.plate != plate:
            raise RefusedError(f"the plate being run is {plate}", where=str(plan.key), do=f"push into plate {plate}")
        return inlet


def push(
    messages: Messages,
    context: grpc.ServicerContext,
    data_dir: Path,
    enter: Callable[[StackPlan, wire.PushPlan], PushInlet],
    check_token: Callable[[], None],
) -> Iterator[wire.PushSlicesResponse]:
    """Serve one call; raises SpheroiddError for what the program did wrong, and what `check_token` raises."""
    first = next(messages, None)
    if first is None or first.open is None:
        raise ConfigError("the first message is not `open`", do="send the stack's plan first")
    plan = stack_plan(first.open)
    inlet = enter(plan, first.open)
    session = _open(inlet, plan, context)
    try:
        with Catalog.read_only(data_dir) as catalog:
            ledger = catalog.acknowledged(plan.key)
            session.known(ledger)
            yield wire.PushSlicesResponse(opened=progress_message(catalog.stack(plan.key), ledger))
            reader = threading.Thread(
                target=_read, args=(messages, session, context), name="service-push-reader", daemon=True
            )
            reader.start()
            yield from _acknowledge(session, reader, context, check_token)
            row = catalog.stack(plan.key)
            # A worker may have begun with it already: what its program asks is whether every slice is durable.
            state = StackState.STORED if row.state in (StackState.SCORING, StackState.SCORED) else row.state
            end = wire.PushEnd(status=state.value, n_acknowledged=row.n_slices_acked)
            yield wire.PushSlicesResponse(end=end)
    finally:
        inlet.leave(session)


def _open(inlet: PushInlet, plan: StackPlan, context: grpc.ServicerContext) -> PushSession:
    left_s = context.time_remaining()
    timeout_s = OPEN_S if left_s is None else min(OPEN_S, left_s)
    try:
        return inlet.open(plan, timeout_s)
    except TimeoutError as error:
        raise LateError(str(error), where=str(plan.key), do="look whether the plate is paused, and try again") from None


def _acknowledge(
    session: PushSession, reader: threading.Thread, context: grpc.ServicerContext, check_token: Callable[[], None]
) -> Iterator[wire.PushSlicesResponse]:
    """Tell what became durable until the stack is sealed, or its program has no more and all of it is told."""
    while context.is_active():
        check_token()
        news = session.acknowledgements()
        if news:
            yield acknowledgement(news)
        elif session.sealed or (not reader.is_alive() and session.settled and not session.complete):
            return


def _read(messages: Messages, session: PushSession, context: grpc.ServicerContext) -> None:
    """The reader's thread: it ends with the program's last slice, or with the stack."""
    try:
        for message in messages:
            if message.slice is None:
                raise ConfigError(
                    "another `open` arrived", where=str(session.plan.key), do="use one call for one stack"
                )
            frame = _frame(message.slice, message.pixels, session.plan)
            while not session.put(frame):
                if session.over or not context.is_active():
                    return
    except grpc.RpcError:
        return  # the program is gone; what it sent is on its way to the disk
    except SpheroiddError as error:
        session.fail(error)
    except Exception as error:
        if context.is_active():  # grpc's iterator raises a bare Exception when the call is cancelled
            what = f"reading the slices stopped: {error!r}"
            session.fail(StackError(what, where=str(session.plan.key), do="report this; open the stack again"))


def _frame(given: wire.PushedSlice, pixels: bytes | memoryview, plan: StackPlan) -> Frame:
    """A slice as a frame over the message's own bytes; ConfigError where it is not what the plan promised."""
    where = f"{plan.key} channel {given.channel!r} z {given.z if given.HasField('z') else '?'}"
    if not given.HasField("z"):
        raise ConfigError("z is missing", where=where, do="give each slice its z, the first one too")
    height, width = plan.frame_shape
    expected = height * width * np.dtype(plan.dtype).itemsize
    if len(pixels) != expected:
        do = f"send {height} x {width} values of {plan.dtype}, row by row, little-endian"
        raise ConfigError(f"{len(pixels)} bytes arrived, and the plan promised {expected}", where=where, do=do)
    image = np.frombuffer(pixels, np.dtype(plan.dtype).newbyteorder("<")).reshape(height, width)
    image = image.astype(plan.dtype, copy=False)
    if given.HasField("crc32c") and crc32c(image) != given.crc32c:
        raise ConfigError("the pixels do not match their crc32c", where=where, do="send the slice again")
    if sum(len(name) + len(value) for name, value in given.metadata.items()) > MAX_METADATA:
        do = "send what belongs to one image, and keep the rest beside the plate"
        raise ConfigError(f"its metadata are longer than {MAX_METADATA} letters", where=where, do=do)
    acquired_s = given.acquired_s if given.HasField("acquired_s") else time.time()
    return Frame(plan.key, slice_index(given), image, acquired_s, dict(given.metadata))
