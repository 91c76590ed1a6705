"""For programs that push: a stack through one PushSlices call. Errors are those the daemon raised, of the same classes.

    with DaemonClient.of(data_dir) as daemon:
        for index in push_stack(daemon, plan, camera.frames):
            ...  # durable and in the ledger

A program in another language speaks protobuf; this one spares itself the copies that protobuf and the allocator make of
every slice, two thirds of its processor time.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Set

import grpc

from spheroidd.daemon.service.client import DaemonClient
from spheroidd.daemon.service.errors import from_call
from spheroidd.daemon.service.messages import push_plan, slice_index
from spheroidd.daemon.service.push_message import slice_message
from spheroidd.daemon.system.malloc import keep_freed_memory
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.stack import Frame, SliceIndex, StackPlan

Frames = Callable[[Set[SliceIndex]], Iterable[Frame]]
"""Gives the frames of the slices that are wanted, in any order; called once, from a thread of its own."""


def push_stack(
    daemon: DaemonClient, plan: StackPlan, frames: Frames, timeout_s: float | None = None
) -> Iterator[SliceIndex]:
    """Push what the daemon lacks of a stack: yields each slice of it once it is durable and in the ledger.

    What is durable already comes first, and `frames` is asked for the rest only: a program that was cut off calls it
    again. Raises what `frames` raised, when the slices it gave are durable, or what the daemon refused; RefusedError
    where the daemon is gone.
    """
    keep_freed_memory()
    program = _Program(plan, frames, daemon.lease)
    call = daemon.push(program.messages(), timeout_s)
    try:
        for answer in call:
            if answer.HasField("opened"):
                missing = {plan.index_at(of.channel, n) for of in answer.opened.channels for n in of.missing}
                yield from (index for index in plan.indices() if index not in missing)
                program.go_on(missing)
            for each in answer.acknowledged.slices:
                yield slice_index(each)
    except grpc.RpcError as error:
        raise from_call(error, daemon.address.address) from None
    finally:
        program.go_on(set())
        call.cancel()
    if program.failure is not None:
        raise program.failure


class _Program:
    """What is sent, on gRPC's own thread: the plan, and once the daemon has answered what it lacks."""

    def __init__(self, plan: StackPlan, frames: Frames, lease: str) -> None:
        self._plan, self._frames, self._lease = plan, frames, lease
        self._wanted: Set[SliceIndex] = frozenset()
        self._answered = threading.Event()
        self.failure: Exception | None = None

    def go_on(self, wanted: Set[SliceIndex]) -> None:
        """The daemon wants these; the first answer counts."""
        if not self._answered.is_set():
            self._wanted = wanted
            self._answered.set()

    def messages(self) -> Iterator[bytes]:
        """Serialized requests. An error ends them as if no more would come: gRPC would hide it."""
        yield wire.PushSlicesRequest(open=push_plan(self._plan, self._lease)).SerializeToString()
        self._answered.wait()
        if not self._wanted:
            return
        try:
            for frame in self._frames(self._wanted):
                frame.check(self._plan)
                yield slice_message(frame)
        except Exception as error:
            self.failure = error
