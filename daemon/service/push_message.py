"""Messages of a PushSlices call, read without copying their pixels, and written with one copy.

Protobuf's parser copies a message's bytes into its own memory, and once more when Python asks for a field. For slices
of a megabyte, hundreds a second, that is most of what the service costs, and the interpreter's lock is held meanwhile.
So the pixels are cut out of the message by its wire format, and only the rest is parsed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import grpc

from spheroidd.acquisition.store.growing_stack import pixels_of
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.daemon.service.client import PUSH
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.stack import Frame, RawIndex

SMALL = 1 << 14  # bytes of a message that is not worth it
_SLICE = wire.PushSlicesRequest.SLICE_FIELD_NUMBER << 3 | 2  # 2: a field of so many bytes
_PIXELS = wire.PushedSlice.PIXELS_FIELD_NUMBER << 3 | 2


@dataclass(frozen=True, slots=True)
class PushMessage:
    """A PushSlicesRequest: its plan or its slice, or neither; `slice.pixels` stands apart in `pixels`."""

    open: wire.PushPlan | None
    slice: wire.PushedSlice | None
    pixels: bytes | memoryview = b""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a serialized request; google.protobuf's DecodeError where it is none. `pixels` keeps `data` alive."""
        cut = None if len(data) < SMALL else _cut(data)
        if cut is None:
            return cls.of(wire.PushSlicesRequest.FromString(data))
        rest = data[cut.inner : cut.field] + data[cut.stop :]
        return cls(None, wire.PushedSlice.FromString(rest), memoryview(data)[cut.start : cut.stop])

    @classmethod
    def of(cls, request: wire.PushSlicesRequest) -> Self:
        """The same of a request that was parsed already."""
        match request.WhichOneof("message"):
            case "open":
                return cls(request.open, None)
            case "slice":
                return cls(None, request.slice, request.slice.pixels)
            case _:
                return cls(None, None)


def slice_message(frame: Frame) -> bytes:
    """A frame as a serialized PushSlicesRequest with the crc32c of its pixels."""
    pixels = pixels_of(frame)
    message = wire.PushedSlice(
        channel=frame.index.channel,
        z=frame.index.z,
        acquired_s=frame.acquired_s,
        crc32c=crc32c(pixels),
        metadata={name: str(value) for name, value in frame.metadata.items()},
    )
    if isinstance(frame.index, RawIndex):
        message.angle, message.phase = frame.index.angle, frame.index.phase
    rest = message.SerializeToString()
    field = bytes([_PIXELS]) + _to_varint(pixels.nbytes)
    length = _to_varint(len(rest) + len(field) + pixels.nbytes)
    return b"".join((bytes([_SLICE]), length, rest, field, pixels.data))


class PushShortcut(grpc.ServerInterceptor):
    """Has PushSlices calls served by a function that takes `PushMessage`s."""

    def __init__(self, serve: Callable[[Iterator[PushMessage], grpc.ServicerContext], Iterator[Any]]) -> None:
        self._serve = serve

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """See grpc.ServerInterceptor."""
        handler = continuation(details)
        if details.method != PUSH or handler is None:
            return handler
        return grpc.stream_stream_rpc_method_handler(self._serve, PushMessage.parse, handler.response_serializer)


class _Cut(NamedTuple):
    """Where in a serialized request the slice begins, its field of pixels begins, and its pixels begin and end."""

    inner: int
    field: int
    start: int
    stop: int


def _cut(data: bytes) -> _Cut | None:
    """None where the message is not simply one slice with its pixels in one piece: that is for protobuf's parser."""
    try:
        tag, at = _varint(data, 0)
        length, inner = _varint(data, at)
        if tag != _SLICE or inner + length != len(data):
            return None
        found, at = None, inner
        while at < len(data):
            field, (tag, at) = at, _varint(data, at)
            start, stop = _payload(data, tag, at)
            if tag == _PIXELS:
                if found is not None:
                    return None
                found = _Cut(inner, field, start, stop)
            at = stop
    except (IndexError, ValueError):
        return None
    return found if at == len(data) else None


def _payload(data: bytes, tag: int, at: int) -> tuple[int, int]:
    """Where a field's value begins and ends."""
    match tag & 7:
        case 0:
            return at, _varint(data, at)[1]
        case 1:
            return at, at + 8
        case 2:
            length, start = _varint(data, at)
            return start, start + length
        case 5:
            return at, at + 4
        case other:
            raise ValueError(f"wire type {other}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's variable length, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _to_varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    groups = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
