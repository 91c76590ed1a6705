"""Pushed messages read without copying their pixels: they say what protobuf's own parser says."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import google_crc32c
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.acquisition.store.shard import crc32c
from spheroidd.daemon.service import push_message
from spheroidd.daemon.service.messages import acknowledgement, progress_message, push_plan, slice_index, stack_plan
from spheroidd.daemon.service.push_message import SMALL, PushMessage, slice_message
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import Beams, ChannelOptics, OtfKind, SimPattern
from spheroidd.protocols.stack import LARGEST, Frame, RawIndex, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId

BIG = SMALL + 7


def serialized(n_bytes: int = BIG, **fields: object) -> bytes:
    given_slice = wire.PushedSlice(pixels=bytes(n % 251 for n in range(n_bytes)), **fields)  # type: ignore[arg-type]
    return wire.PushSlicesRequest(slice=given_slice).SerializeToString()


def assert_same(data: bytes) -> None:
    found, expected = PushMessage.parse(data), PushMessage.of(wire.PushSlicesRequest.FromString(data))
    assert (found.open is None, found.slice is None) == (expected.open is None, expected.slice is None)
    assert bytes(found.pixels) == expected.pixels
    if found.slice is not None and expected.slice is not None:
        for name in ("channel", "z", "acquired_s", "crc32c"):
            assert getattr(found.slice, name) == getattr(expected.slice, name), name
        for name in ("z", "acquired_s", "crc32c"):
            assert found.slice.HasField(name) == expected.slice.HasField(name)
        assert found.slice.metadata == expected.slice.metadata


@given(
    n_bytes=st.sampled_from([0, 1, SMALL - 40, SMALL, BIG, 200_000]),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "channel": st.text(max_size=200),
            "z": st.integers(-(2**31), 2**31 - 1),
            "acquired_s": st.floats(allow_nan=False),
            "crc32c": st.integers(0, 2**32 - 1),
            "metadata": st.dictionaries(st.text(max_size=5), st.text(max_size=40), max_size=4),
        },
    ),
)
@settings(deadline=None, max_examples=60)
def test_it_says_what_protobuf_says(n_bytes, fields):
    assert_same(serialized(n_bytes, **fields))


@given(
    dtype=st.sampled_from(["uint8", "uint16"]),
    side=st.integers(1, 130),
    z=st.integers(0, 300),
    transposed=st.booleans(),
    metadata=st.dictionaries(
        st.text(max_size=5), st.one_of(st.text(max_size=9), st.floats(-LARGEST, LARGEST)), max_size=3
    ),
)
@settings(deadline=None, max_examples=60)
def test_what_a_program_writes_is_what_protobuf_reads(dtype, side, z, transposed, metadata):
    image = np.random.default_rng(z).integers(0, 256, (side, side + 3)).astype(dtype)
    image = image.T if transposed else image
    frame = Frame(StackKey("P", WellId.parse("A01")), SliceIndex("561", z), image, 12.5, metadata)
    data = push_message.slice_message(frame)
    found = wire.PushSlicesRequest.FromString(data).slice
    assert (found.channel, found.z, found.acquired_s) == ("561", z, 12.5)
    assert found.pixels == image.astype(image.dtype.newbyteorder("<")).tobytes()
    assert found.crc32c == crc32c(np.ascontiguousarray(image))
    assert dict(found.metadata) == {name: str(value) for name, value in metadata.items()}
    assert_same(data)


def test_pixels_of_a_large_slice_are_not_copied():
    data = serialized(z=3)
    pixels = PushMessage.parse(data).pixels
    assert isinstance(pixels, memoryview)
    assert pixels.obj is data
    assert pixels.readonly


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


CHANNEL, PIXELS, Z = field(1, b"488"), field(3, bytes(BIG)), bytes([2 << 3, 5])


@pytest.mark.parametrize("parts", list(itertools.permutations([CHANNEL, PIXELS, Z])))
def test_fields_come_in_any_order(parts):
    assert_same(field(2, b"".join(parts)))


@pytest.mark.parametrize(
    "data",
    [
        field(2, PIXELS + field(3, b"x" * BIG) + Z),  # the last one counts
        field(2, CHANNEL + PIXELS) + field(2, Z),  # merged
        field(1, field(1, b"P1")) + field(2, CHANNEL + PIXELS),
        field(2, PIXELS) + field(1, field(1, b"P1")),
        field(2, PIXELS + field(15, bytes(20)) + bytes([14 << 3 | 5, 1, 2, 3, 4]) + bytes([13 << 3 | 1, *range(8)])),
        field(2, CHANNEL + field(9, bytes(BIG))),
        field(7, bytes(BIG)),
        wire.PushSlicesRequest(open=wire.PushPlan(plate="P" * BIG)).SerializeToString(),
        b"",
    ],
)
def test_unusual_messages_are_left_to_protobuf(data):
    assert_same(data)


@pytest.mark.parametrize(
    "data",
    [
        serialized()[:-1],
        serialized() + b"\x12",
        field(2, CHANNEL + bytes([3 << 3 | 2]) + varint(BIG + 1) + bytes(BIG)),
        field(2, PIXELS + b"\xff" * 12),
        field(2, PIXELS + bytes([2 << 3])),
        field(2, PIXELS + bytes([4 << 3 | 1, 0])),
        field(2, PIXELS + bytes([5 << 3 | 7])),
        field(2, field(1, b"\xff\xfe") + PIXELS),
        b"\xff" * BIG,
    ],
)
def test_damaged_messages_are_refused_as_protobuf_refuses_them(data):
    with pytest.raises(DecodeError):
        wire.PushSlicesRequest.FromString(data)
    with pytest.raises(DecodeError):
        PushMessage.parse(data)


def test_the_method_is_the_contracts():
    service = wire.DESCRIPTOR.services_by_name["Spheroidd"]
    assert f"/{service.full_name}/{service.methods_by_name['PushSlices'].name}" == push_message.PUSH


def test_odd_addresses_do_no_harm():
    data = serialized(4 * SMALL, channel="488", z=1)
    pixels = PushMessage.parse(data).pixels
    assert isinstance(pixels, memoryview)
    array = np.frombuffer(pixels, "<u2")
    assert crc32c(array) == google_crc32c.value(bytes(pixels))
    assert array.sum() == array.copy().sum()


RAW = SimPattern(
    3,
    5,
    ("angle", "z", "phase"),
    Beams.THREE,
    -1,
    True,
    100.0,
    (12.0, 72.0, -48.0),
    (("488", 0.3),),
    (ChannelOptics("488", 515.0, 1.4), ChannelOptics("561", 617.0, 1.4, OtfKind.GAUSSIAN, 0.2)),
)
RAW_PLAN = StackPlan(StackKey("P1", WellId(0, 0)), ("488", "561"), 2, 32, 40, 0.125, 0.5, raw=RAW)


@pytest.mark.parametrize("raw", [None, RAW, SimPattern(2, 3)])
def test_a_plan_of_raw_frames_comes_back_as_it_was_promised(raw):
    plan = replace(RAW_PLAN, raw=raw)
    sent = wire.PushPlan.FromString(push_plan(plan).SerializeToString())
    assert stack_plan(sent) == plan


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"n_phases": None}, "raw.n_phases is missing"),
        ({"n_phases": 2}, "n_phases is 2"),
        ({"beams": "four"}, "beams"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(change, what):
    message = push_plan(RAW_PLAN)
    for name, value in change.items():
        message.raw.ClearField(name) if value is None else setattr(message.raw, name, value)
    with pytest.raises(ConfigError, match=what):
        stack_plan(message)


def test_a_raw_frame_is_named_by_its_angle_and_phase():
    index = RawIndex("561", 1, 2, 4)
    frame = Frame(RAW_PLAN.key, index, np.ones((16, 20), np.uint16), 1.0)
    sent = PushMessage.parse(slice_message(frame)).slice
    assert sent is not None
    assert slice_index(sent) == index
    (told,) = acknowledgement([(index, 7)]).acknowledged.slices
    assert slice_index(told) == index
    sent.ClearField("phase")
    with pytest.raises(ConfigError, match="an angle and a phase"):
        slice_index(sent)


def test_what_is_missing_of_raw_frames_is_named_by_number():
    held = {index: 1 for index in RAW_PLAN.indices() if index != RawIndex("488", 1, 0, 2)}
    row = SimpleNamespace(state=SimpleNamespace(value="acquiring"), plan=RAW_PLAN)
    first, second = progress_message(row, held).channels
    assert (first.n_acknowledged, first.next_z, list(first.missing)) == (29, 17, [17])
    assert RAW_PLAN.index_at("488", 17) == RawIndex("488", 1, 0, 2)
    assert (second.n_acknowledged, list(second.missing)) == (30, [])
