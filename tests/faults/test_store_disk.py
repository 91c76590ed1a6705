"""A disk that is full or refuses for a while: nothing is reported that is not durable, and nothing needs a restart."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pytest

from spheroidd.acquisition.disk import durable_file
from spheroidd.acquisition.store import ring_file as ring
from spheroidd.acquisition.store.labels import LabelWriter, read_label
from spheroidd.acquisition.store.stack_files import read_stack
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols import durable
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.events import BlockStored, SliceDurable
from spheroidd.protocols.stack import SliceIndex
from spheroidd.testing.store_contract import PLATE_MAP, crc_of, frame_of, of_kind, pixels_of, plan_of
from tests.faults.disks import NoDiskError, small_disk

PLAN = plan_of(n_z=20, height=300, width=64)
SLICES = pixels_of(PLAN)


def patiently(action):
    """Do it until the disk lets us; how often it refused first."""
    for refused in range(200):
        try:
            action()
        except StorageError:
            continue
        return refused
    raise AssertionError("the disk never recovered")


def write_retry_storage(store):
    refused = patiently(lambda: store.open(PLAN))
    for index, pixels in SLICES.items():
        refused += patiently(lambda index=index, pixels=pixels: store.append(frame_of(PLAN, index, pixels)))
    refused += patiently(lambda: store.seal(PLAN.key))
    return refused + patiently(store.close)


def assert_all_there(root, events):
    reported = [(event.index, event.crc32c) for event in of_kind(events, SliceDurable)]
    assert reported == [(index, crc_of(pixels)) for index, pixels in SLICES.items()]
    assert sum(e.block.z_stop - e.block.z_start for e in of_kind(events, BlockStored)) == PLAN.n_slices
    expected = np.stack([[SLICES[SliceIndex(c, z)] for z in range(PLAN.n_z)] for c in PLAN.channels])
    np.testing.assert_array_equal(read_stack(root, PLAN.key), expected)
    assert list(root.rglob("*.partial")) == []


class Refusing:
    """Wraps a call of the operating system so that it fails from the n-th time on, for some times."""

    def __init__(self, call, first, times, number):
        self.call, self.first, self.last, self.number = call, first, first + times, number
        self.count = self.refused = 0

    def __call__(self, *args, **kwargs):
        self.count += 1
        if self.first <= self.count < self.last:
            self.refused += 1
            raise OSError(self.number, os.strerror(self.number))
        return self.call(*args, **kwargs)


CALLS = {
    "write": [(durable_file, "write_some")],
    "sync": [(durable_file, "sync_data"), (durable, "sync_data"), (ring, "sync_data")],
    "ring-write": [(os, "pwritev")],
    "rename": [(durable_file, "replace_path")],
    "directory-sync": [(durable_file, "sync_directory")],
    "ring-read": [(os, "preadv")],
}
STEP = {
    "write": 12,
    "sync": 4,
    "ring-write": 9,
    "rename": 4,
    "directory-sync": 14,
    "ring-read": 20,
}


@pytest.mark.skipif(not hasattr(os, "pwritev"), reason="this system has no pwritev to refuse")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("step", range(4))
def test_any_refused_call_is_told_and_made_good(tmp_path, monkeypatch, call, step):
    targets = CALLS[call]
    first = STEP[call] * step + 1 + step
    refusing = Refusing(getattr(*targets[0]), first, 3, errno.ENOSPC if step % 2 else errno.EIO)
    for module, name in targets:
        monkeypatch.setattr(module, name, refusing)
    events = []
    store = ZarrStackStore(tmp_path, PLATE_MAP, events.append, ring_slots=24)
    refused = write_retry_storage(store)
    monkeypatch.undo()
    assert refusing.refused == 3, f"only {refusing.count} calls were made: refuse an earlier one"
    assert refused > 0
    assert_all_there(tmp_path, events)


def test_nothing_is_reported_while_the_sync_fails(tmp_path, monkeypatch):
    events = []
    store = ZarrStackStore(tmp_path, PLATE_MAP, events.append)
    store.open(PLAN)
    monkeypatch.setattr(ring, "sync_data", Refusing(os.fsync, 1, 10**9, errno.EIO))
    indices = list(SLICES)
    store.append(frame_of(PLAN, indices[0], SLICES[indices[0]]))
    with pytest.raises(StorageError, match="Input/output"):
        store.seal(PLAN.key)
    assert of_kind(events, SliceDurable) == []
    monkeypatch.undo()
    patiently(lambda: write_retry_storage(store))
    assert_all_there(tmp_path, events)


@pytest.fixture
def disk(tmp_path):
    """A file system of 12 MB."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(small_disk(tmp_path, 12))
        except NoDiskError as reason:
            pytest.skip(str(reason))
        yield folder


def fill(folder: Path, leave: int) -> Path:
    ballast = folder / "ballast"
    status = os.statvfs(folder)
    ballast.write_bytes(bytes(status.f_bavail * status.f_frsize - leave))
    return ballast


def test_full_disk_stops_the_store_until_there_is_space(disk):
    events = []
    store = ZarrStackStore(disk, PLATE_MAP, events.append)
    store.open(PLAN)
    ballast = fill(disk, leave=100_000)
    left = list(SLICES)

    def go_on():
        while left:
            store.append(frame_of(PLAN, left[0], SLICES[left[0]]))
            left.pop(0)
        store.seal(PLAN.key)

    with pytest.raises(StorageError, match="the disk is full; free some space"):
        go_on()
    for _ in range(3):  # still full: still refused, every time
        with pytest.raises(StorageError, match="disk is full"):
            store.seal(PLAN.key)
    reported = {event.index: event.crc32c for event in of_kind(events, SliceDurable)}
    ballast.unlink()

    patiently(lambda: store.seal(PLAN.key))
    assert reported.items() <= store.open(PLAN).items()
    for index in left:
        patiently(lambda index=index: store.append(frame_of(PLAN, index, SLICES[index])))
    patiently(lambda: store.seal(PLAN.key))
    store.close()
    expected = np.stack([[SLICES[SliceIndex(c, z)] for z in range(PLAN.n_z)] for c in PLAN.channels])
    np.testing.assert_array_equal(read_stack(disk, PLAN.key), expected)


def test_disk_too_small_for_the_ring_is_told_at_open(disk):
    events = []
    store = ZarrStackStore(disk, PLATE_MAP, events.append)
    ballast = fill(disk, leave=1_500_000)
    with pytest.raises(StorageError, match="disk is full"):
        store.open(PLAN)
    ballast.unlink()
    write_retry_storage(store)
    assert_all_there(disk, events)


def test_full_disk_leaves_the_older_label(disk):
    store = ZarrStackStore(disk, PLATE_MAP, lambda event: None)
    store.open(PLAN)
    store.close()
    rng = np.random.default_rng(0)
    masks = [rng.random((PLAN.n_z, PLAN.height, PLAN.width)) > 0.5 for _ in range(2)]
    with LabelWriter(disk, PLAN.key, PLAN, "live") as label:
        label.append(0, masks[0])
        label.commit()
    fill(disk, leave=60_000)
    with pytest.raises(StorageError, match="disk is full"), LabelWriter(disk, PLAN.key, PLAN, "live") as label:
        label.append(0, masks[1])
    np.testing.assert_array_equal(read_label(disk, PLAN.key, "live"), masks[0])
