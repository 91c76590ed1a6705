"""A pyramid that is put off while frames come too fast: it is whole before the stack is sealed, whatever happens."""

import errno
import threading

import numpy as np
import pytest

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.growing_stack import LatePyramid
from spheroidd.acquisition.store.shard import decode_shard, halve
from spheroidd.acquisition.store.stack_files import StackFiles
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.events import StackSealed
from spheroidd.testing.store_contract import PLATE_MAP, append_all, of_kind, pixels_of, plan_of

LONG_S = 60.0
PLAN = plan_of(n_z=45, height=600, width=520)
SLICES = pixels_of(PLAN)


@pytest.fixture
def made(monkeypatch):
    """The places of the pyramids that came late, as often as each was made."""
    places, make = [], LatePyramid.make
    monkeypatch.setattr(LatePyramid, "make", lambda late, room: (places.append(late.place), make(late, room))[1])
    return places


@pytest.fixture
def store(tmp_path):
    """Short of room from the first shards on, because they are kept from Zarr until all frames are there."""
    events = []
    store = ZarrStackStore(tmp_path, PLATE_MAP, events.append, ring_slots=96)
    store.events = events
    yield store
    store.abandon()


@pytest.fixture
def short(store, monkeypatch):
    """The store with every slice of the plan appended while no shard could be written, and the disk free again."""
    gate, write_shard = threading.Event(), StackFiles.write_shard
    monkeypatch.setattr(StackFiles, "write_shard", lambda *a: (gate.wait(LONG_S), write_shard(*a)))
    store.open(PLAN)
    append_all(store, PLAN, SLICES)
    gate.set()
    return store


def assert_whole_pyramid(root):
    files = StackFiles.existing(ngff.image_path(root, PLAN.key), PLAN.key, None)
    assert len(files.grids) > 2
    for number, channel in enumerate(PLAN.channels):
        expected = np.stack([SLICES[index] for index in PLAN.indices() if index.channel == channel])
        for level in range(1, len(files.grids)):
            expected = halve(expected)
            shards = [
                decode_shard(files.shard(level, number, shard), files.grids[level]) for shard in range(files.n_shards)
            ]
            found = np.concatenate([planes for _, planes in shards])[: PLAN.n_z]
            np.testing.assert_array_equal(found, expected, f"level {level} of {channel}")


def test_it_is_there_when_the_stack_is_sealed(short, made, tmp_path):
    short.seal(PLAN.key)
    assert made
    assert len(made) == len(set(made))
    assert_whole_pyramid(tmp_path)


def test_close_does_not_leave_it_out(short, made, tmp_path):
    short.close()
    assert made
    assert short._tasks.are_done()


def test_full_disk_is_told_once_a_call_and_then_it_is_made(short, made, tmp_path, monkeypatch):
    full, write = True, StackFiles.write_pyramid

    def refusing(files, *args):
        if full:
            raise OSError(errno.ENOSPC, "full")
        write(files, *args)

    monkeypatch.setattr(StackFiles, "write_pyramid", refusing)
    for _ in range(3):
        with pytest.raises(StorageError, match="the disk is full"):
            short.seal(PLAN.key)
        assert len(made) <= 12 * 3  # it does not go round and round meanwhile
    full = False
    short.seal(PLAN.key)
    assert of_kind(short.events, StackSealed)
    assert_whole_pyramid(tmp_path)


def test_shard_that_was_completed_meanwhile_has_its_pyramid_made_again(short, made, tmp_path, monkeypatch):
    write, changed = StackFiles.write_pyramid, []

    def completing(files, channel, shard, crcs, room):
        write(files, channel, shard, crcs, room)
        if not changed and (channel, shard) in made:
            changed.append((channel, shard))
            short._stacks[PLAN.key].stored[channel, shard] = dict(crcs)  # as a shard thread does

    monkeypatch.setattr(StackFiles, "write_pyramid", completing)
    short.seal(PLAN.key)
    assert changed
    assert made.count(changed[0]) == 2
    assert_whole_pyramid(tmp_path)
