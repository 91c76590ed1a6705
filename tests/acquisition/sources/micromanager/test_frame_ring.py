"""The ring of shared memory: what goes in comes out, in order, and never more than it holds."""

import multiprocessing
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spheroidd.acquisition.sources.micromanager.frame_ring import FrameRing, RingWriter
from spheroidd.protocols.errors import ConfigError, InstrumentError


def plane(number: int, shape: tuple[int, int] = (3, 5)) -> np.ndarray:
    return np.full(shape, number, np.uint16)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_frames_come_out_in_order_and_never_more_than_there_are_slots(writes, slots):
    """True writes where there is room, False takes where there is something."""
    with closing(FrameRing(slots, 30)) as ring:
        writer, written, taken = ring.writer(), 0, 0
        for write in writes:
            if write and writer.reserve(0):
                assert written - taken < slots
                assert writer.write(plane(written)) == written
                written += 1
            elif write:
                assert written - taken == slots
            elif taken < written:
                np.testing.assert_array_equal(ring.take(taken, (3, 5), "uint16"), plane(taken))
                taken += 1
        writer.close()


def test_what_was_taken_outlives_the_ring_and_later_frames():
    with closing(FrameRing(1, 30)) as ring, closing(ring.writer()) as writer:
        assert writer.reserve(0)
        writer.write(plane(7))
        first = ring.take(0, (3, 5), "uint16")
        assert writer.reserve(0)
        writer.write(plane(8))
    np.testing.assert_array_equal(first, plane(7))


@pytest.mark.parametrize(
    ("number", "shape", "dtype"), [(1, (3, 5), "uint16"), (0, (4, 5), "uint16"), (0, (0, 5), "uint8")]
)
def test_a_frame_out_of_turn_or_too_large_is_an_instrument_error(number, shape, dtype):
    with closing(FrameRing(2, 30)) as ring, closing(ring.writer()) as writer:
        writer.reserve(0)
        writer.write(plane(1))
        with pytest.raises(InstrumentError, match="frame ring"):
            ring.take(number, shape, dtype)


def test_a_frame_larger_than_a_slot_is_refused_by_the_writer():
    with closing(FrameRing(2, 30)) as ring, pytest.raises(ValueError, match="does not fit"):
        ring.writer().write(plane(1, (4, 5)))


@pytest.mark.parametrize(("slots", "n_bytes"), [(0, 30), (2, 0)])
def test_a_ring_of_nothing_is_refused(slots, n_bytes):
    with pytest.raises(ValueError, match="at least one slot"):
        FrameRing(slots, n_bytes)


@pytest.mark.parametrize(("megabytes", "slots"), [(64, 50), (0.001, 2), (4096, 64)])
def test_its_size_is_bounded_by_memory_and_by_number(megabytes, slots):
    with closing(FrameRing.of_size(megabytes, 1_280_000)) as ring:
        assert ring.slots == slots


def test_memory_that_cannot_be_had_is_a_message():
    with pytest.raises(ConfigError, match="ring_mb"):
        FrameRing(64, 2**56)


def test_closing_twice_gives_the_memory_back_once():
    ring = FrameRing(2, 30)
    name = ring.writer().name
    ring.close()
    ring.close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name=name)


def _send(writer: RingWriter, link: Connection) -> None:
    for number in range(40):
        while not writer.reserve(0.05):
            pass
        link.send(writer.write(plane(number, (50, 40))))
    link.close()


def test_frames_cross_from_a_spawned_process():
    context = multiprocessing.get_context("spawn")
    with closing(FrameRing(3, 4000)) as ring:
        ours, theirs = context.Pipe()
        process = context.Process(target=_send, args=(ring.writer(), theirs), daemon=True)
        process.start()
        theirs.close()
        for number in range(40):
            assert ours.poll(20)
            np.testing.assert_array_equal(ring.take(ours.recv(), (50, 40), "uint16"), plane(number, (50, 40)))
        process.join(20)
        assert process.exitcode == 0
