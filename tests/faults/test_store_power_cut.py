"""The power fails: a file system is stopped dead, its caches dropped, and mounted again."""

import numpy as np
import pytest

from spheroidd.acquisition.disk import durable_file
from spheroidd.acquisition.store import ring_file as ring
from spheroidd.acquisition.store.labels import LabelWriter, read_label
from spheroidd.acquisition.store.stack_files import read_block, read_stack
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols import durable
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.events import BlockStored, SliceDurable
from spheroidd.protocols.stack import SliceIndex
from spheroidd.testing.store_contract import PLATE_MAP, append_all, frame_of, of_kind, pixels_of, plan_of
from tests.faults.disks import Disk, NoDiskError

PLAN = plan_of(n_z=40, height=300, width=64)


@pytest.fixture
def disk(tmp_path):
    try:
        disk = Disk(tmp_path)
    except NoDiskError as reason:
        pytest.skip(str(reason))
    yield disk
    disk.discard()


def write_until_the_power_fails(disk, after):
    """Append until `after` slices were reported, cut the power, and say what was reported before."""
    events, slices = [], pixels_of(PLAN)
    store = ZarrStackStore(disk.mount, PLATE_MAP, events.append, ring_slots=24)
    store.open(PLAN)
    for index, pixels in slices.items():
        store.append(frame_of(PLAN, index, pixels))
        if len(of_kind(events, SliceDurable)) >= after:
            break
    told = list(events)
    disk.cut_power()
    with pytest.raises(StorageError):
        store.seal(PLAN.key)
    store.abandon()
    disk.unplug()
    disk.plug_in()
    return slices, told


@pytest.mark.parametrize("after", [1, 9, 37])
def test_every_reported_slice_survives(disk, after):
    slices, told = write_until_the_power_fails(disk, after)
    reported = {event.index: event.crc32c for event in of_kind(told, SliceDurable)}
    assert len(reported) >= after
    for event in of_kind(told, BlockStored):
        block = event.block
        expected = [slices[SliceIndex(block.channel, z)] for z in range(block.z_start, block.z_stop)]
        np.testing.assert_array_equal(read_block(disk.mount, block), expected)

    store = ZarrStackStore(disk.mount, PLATE_MAP, lambda event: None, ring_slots=24)
    assert reported.items() <= store.open(PLAN).items()
    append_all(store, PLAN, slices)
    store.seal(PLAN.key)
    store.close()
    expected = [[slices[SliceIndex(channel, z)] for z in range(PLAN.n_z)] for channel in PLAN.channels]
    np.testing.assert_array_equal(read_stack(disk.mount, PLAN.key), expected)


def test_committed_label_survives(disk):
    mask = np.random.default_rng(0).random((PLAN.n_z, PLAN.height, PLAN.width)) > 0.5
    store = ZarrStackStore(disk.mount, PLATE_MAP, lambda event: None)
    store.open(PLAN)
    store.close()
    with LabelWriter(disk.mount, PLAN.key, PLAN, "live") as label:
        label.append(0, mask)
        label.commit()
    disk.cut_power()
    disk.unplug()
    disk.plug_in()
    np.testing.assert_array_equal(read_label(disk.mount, PLAN.key, "live"), mask)


def test_without_the_syncs_it_would_be_lost(disk, monkeypatch):
    """The test itself can fail: a store that only says it syncs loses what it reported."""
    for module in (durable_file, durable, ring):
        monkeypatch.setattr(module, "sync_data", lambda fd: None)
    monkeypatch.setattr(durable_file, "sync_directory", lambda path: None)
    _, told = write_until_the_power_fails(disk, 9)
    monkeypatch.undo()
    store = ZarrStackStore(disk.mount, PLATE_MAP, lambda event: None, ring_slots=24)
    found = store.open(PLAN)
    assert not {event.index: event.crc32c for event in of_kind(told, SliceDurable)}.items() <= found.items()
    store.close()
