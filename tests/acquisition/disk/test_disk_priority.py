"""Slices go first: who waits for whom, who does not wait, and what is written in between."""

import errno
import os
import threading
from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest

from spheroidd.acquisition.disk import durable_file
from spheroidd.acquisition.disk.disk_priority import RightOfWay
from spheroidd.acquisition.disk.durable_file import PIECE_BYTES, write_durably
from spheroidd.acquisition.store import zarr_store as store_module
from spheroidd.acquisition.store.ring_file import Ring
from spheroidd.acquisition.store.stack_files import read_stack
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols.events import BlockStored, SliceDurable
from spheroidd.testing.store_contract import PLATE_MAP, append_all, frame_of, pixels_of, plan_of

LONG_S = 60.0  # a test that has to wait for this has failed
MOMENT_S = 0.1  # in which what may not happen had time to happen


class Piece(threading.Thread):
    """Takes one turn and stays in it until it is told to end."""

    def __init__(self, way):
        super().__init__(daemon=True)
        self.way, self.begun, self.end, self.gives_way = way, threading.Event(), threading.Event(), None
        self.start()

    def run(self):
        with self.way.turn() as self.gives_way:
            self.begun.set()
            self.end.wait(LONG_S)

    def finish(self):
        self.end.set()
        self.join(LONG_S)
        assert not self.is_alive()


@pytest.fixture
def way():
    return RightOfWay(patience_s=LONG_S)


def test_nobody_gives_way_before_the_first_slice(way):
    with way.turn() as first, way.turn() as second:
        assert (first, second) == (False, False)


def test_piece_waits_for_the_slices(way):
    way.signal(slices=True, hurry=False)
    piece = Piece(way)
    assert not piece.begun.wait(MOMENT_S)
    way.signal(slices=False, hurry=False)
    assert piece.begun.wait(LONG_S)
    assert piece.gives_way
    piece.finish()


def test_pieces_come_one_at_a_time(way):
    way.signal(slices=False, hurry=False)
    first = Piece(way)
    assert first.begun.wait(LONG_S)
    second = Piece(way)
    assert not second.begun.wait(MOMENT_S)
    first.finish()
    assert second.begun.wait(LONG_S)
    second.finish()


@pytest.mark.parametrize("slices", [True, False])
def test_hurry_lets_everyone_through_who_waits(way, slices):
    way.signal(slices=False, hurry=False)
    first = Piece(way)
    assert first.begun.wait(LONG_S)
    way.signal(slices=slices, hurry=False)
    others = [Piece(way) for _ in range(3)]
    way.signal(slices=slices, hurry=True)
    for piece in others:
        assert piece.begun.wait(LONG_S)
    for piece in (first, *others):
        piece.finish()


def test_patience_ends():
    way = RightOfWay(patience_s=0.01)
    way.signal(slices=True, hurry=False)
    with way.turn() as first, way.turn() as second:
        assert (first, second) == (True, True)


def test_piece_that_ran_out_of_patience_does_not_end_the_turn_of_another():
    way = RightOfWay(patience_s=0.01)
    way.signal(slices=False, hurry=False)
    with way.turn():
        with way.turn():
            pass
        assert not way._is_clear()
    assert way._is_clear()


def test_failed_piece_makes_room(way):
    way.signal(slices=False, hurry=False)
    with pytest.raises(OSError, match="full"), way.turn():
        raise OSError("the disk is full")
    with way.turn() as gives_way:
        assert gives_way


def test_many_pieces_between_many_slices_all_get_their_turn(way):
    pieces, most, lock = 0, 0, threading.Lock()

    def write():
        nonlocal pieces, most
        for _ in range(50):
            with way.turn():
                with lock:
                    pieces += 1
                    most = max(most, pieces)
                with lock:
                    pieces -= 1

    way.signal(slices=True, hurry=False)
    threads = [threading.Thread(target=write, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        way.signal(slices=number % 2 == 0, hurry=False)
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert most == 1


# -- files


@pytest.fixture
def synced(monkeypatch):
    """The size that a file had at each of its syncs."""
    sizes = []
    sync = durable_file.sync_data
    monkeypatch.setattr(
        durable_file, "sync_data", lambda fd: (sizes.append(durable_file.os.fstat(fd).st_size), sync(fd))
    )
    return sizes


PARTS = [bytes([number]) * (PIECE_BYTES // 2) for number in range(5)]


@pytest.mark.parametrize("sync", [True, False])
def test_file_that_gives_way_is_synced_piece_by_piece(tmp_path, way, synced, sync):
    way.signal(slices=False, hurry=False)
    write_durably(tmp_path / "shard", PARTS, sync=sync, right_of_way=way)
    assert synced == [PIECE_BYTES, 2 * PIECE_BYTES, 5 * PIECE_BYTES // 2]
    assert (tmp_path / "shard").read_bytes() == b"".join(PARTS)


@pytest.mark.parametrize("way", [None, RightOfWay()], ids=["none", "hurry"])
def test_file_in_a_hurry_is_synced_once(tmp_path, way, synced):
    write_durably(tmp_path / "shard", PARTS, right_of_way=way)
    assert synced == [5 * PIECE_BYTES // 2]
    assert (tmp_path / "shard").read_bytes() == b"".join(PARTS)


def test_hurry_that_begins_within_a_file_leaves_no_part_unsynced(tmp_path, way, synced):
    def parts():
        yield from PARTS[:3]
        way.signal(slices=True, hurry=True)
        yield from PARTS[3:]

    way.signal(slices=False, hurry=False)
    write_durably(tmp_path / "shard", parts(), right_of_way=way)
    assert synced == [PIECE_BYTES, 5 * PIECE_BYTES // 2]


def test_empty_file_is_durable_too(tmp_path, way, synced):
    way.signal(slices=False, hurry=False)
    write_durably(tmp_path / "empty", [], right_of_way=way)
    assert synced == [0]
    assert (tmp_path / "empty").read_bytes() == b""


# -- the store


class SlowRing:
    """A store that has shard 0 durable and may write it once slice 8, whose sync takes for ever, is there."""

    def __init__(self, monkeypatch, tmp_path):
        self.plan = plan_of(n_z=24, channels=("488",))
        self.slices = pixels_of(self.plan)
        self.root, self.durable, self.stored = tmp_path, threading.Semaphore(0), threading.Event()
        self.next_came, self.gate = threading.Event(), threading.Event()
        sync = Ring.sync
        monkeypatch.setattr(Ring, "sync", lambda ring: (self.next_came.is_set() and self.gate.wait(LONG_S), sync(ring)))
        monkeypatch.setattr(store_module, "RightOfWay", partial(RightOfWay, patience_s=LONG_S))
        self.store = ZarrStackStore(tmp_path, PLATE_MAP, self.emit)
        self.store.open(self.plan)

    def emit(self, event):
        if isinstance(event, SliceDurable):
            self.durable.release()
            if event.index.z == 7:
                assert self.next_came.wait(LONG_S)
        if isinstance(event, BlockStored):
            self.stored.set()

    def append(self, first, stop):
        for index in list(self.slices)[first:stop]:
            self.store.append(frame_of(self.plan, index, self.slices[index]))

    def fill_shard(self, n_more):
        """Append shard 0 at a camera's pace and then some more slices at once."""
        for z in range(8):
            self.append(z, z + 1)
            assert self.durable.acquire(timeout=LONG_S)
        self.append(8, 8 + n_more)
        self.next_came.set()


@pytest.fixture
def slow(monkeypatch, tmp_path):
    with ExitStack() as stack:
        slow = SlowRing(monkeypatch, tmp_path)
        stack.callback(slow.store.abandon)
        stack.callback(slow.gate.set)
        stack.callback(slow.next_came.set)
        yield slow


def test_shard_waits_while_a_slice_is_not_durable(slow):
    slow.fill_shard(n_more=1)
    assert not slow.stored.wait(MOMENT_S)
    slow.gate.set()
    assert slow.stored.wait(LONG_S)
    slow.append(9, 24)
    slow.store.seal(slow.plan.key)
    expected = np.stack([[slow.slices[index] for index in slow.plan.indices()]])
    np.testing.assert_array_equal(read_stack(slow.root, slow.plan.key), expected)


def test_shard_does_not_wait_once_frames_come_faster_than_they_become_durable(slow):
    slow.fill_shard(n_more=1 + store_module.MANY_PENDING)
    assert slow.stored.wait(LONG_S)


def test_shard_does_not_wait_when_the_ring_is_short_of_room(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "RightOfWay", partial(RightOfWay, patience_s=LONG_S))
    events = []
    store = ZarrStackStore(tmp_path, PLATE_MAP, events.append, ring_slots=16)
    plan = plan_of(n_z=33)
    slices = pixels_of(plan)
    store.open(plan)
    append_all(store, plan, slices)
    store.seal(plan.key)
    store.close()
    expected = np.stack([[p for i, p in slices.items() if i.channel == c] for c in plan.channels])
    np.testing.assert_array_equal(read_stack(tmp_path, plan.key), expected)


def test_shard_does_not_wait_for_a_store_that_is_left(slow):
    slow.fill_shard(n_more=1)
    assert not slow.stored.wait(MOMENT_S)
    leaving = threading.Thread(target=slow.store.abandon, daemon=True)
    leaving.start()
    assert slow.stored.wait(LONG_S)
    slow.gate.set()
    leaving.join(LONG_S)
    assert not leaving.is_alive()


def test_shard_does_not_wait_for_someone_who_seals(slow):
    slow.fill_shard(n_more=1)
    assert not slow.stored.wait(MOMENT_S)
    sealing = threading.Thread(target=slow.store.seal, args=(slow.plan.key,), daemon=True)
    sealing.start()
    assert slow.stored.wait(LONG_S)
    slow.gate.set()
    sealing.join(LONG_S)
    assert not sealing.is_alive()


@pytest.mark.skipif(not hasattr(os, "RWF_DSYNC"), reason="only Linux takes flags with a write")
@pytest.mark.parametrize("refused", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_what_goes_past_the_cache_is_written_all_the_same(tmp_path, monkeypatch, refused):
    asked, pwritev = [], os.pwritev

    def watched(fd, parts, offset, flags=0):
        asked.append(flags)
        if refused and flags:
            raise OSError(refused, "not here")
        return pwritev(fd, parts, offset, flags)

    monkeypatch.setattr(os, "pwritev", watched)
    parts = [bytes([n]) * (n * durable_file.UNCACHED_BYTES) for n in range(3)]
    durable_file.write_durably(tmp_path / "file", [b"head", *parts, b"tail"], right_of_way=RightOfWay())
    assert (tmp_path / "file").read_bytes() == b"head" + b"".join(parts) + b"tail"
    assert len(asked) == 2  # the large parts


@pytest.mark.skipif(not hasattr(os, "RWF_DSYNC"), reason="only Linux takes flags with a write")
def test_a_full_disk_is_told_of_where_the_cache_is_passed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OSError, match="full"):
        durable_file.write_durably(tmp_path / "file", [bytes(durable_file.UNCACHED_BYTES)], right_of_way=RightOfWay())
    assert not list(tmp_path.iterdir())
