"""Raw frames of structured illumination are kept by the same rules as slices, in either store."""

import json

import numpy as np
import pytest

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.memory_store import MemoryStackStore
from spheroidd.acquisition.store.stack_files import StackFiles, read_plan, read_raw
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols.errors import ConfigError, StackError, StorageError
from spheroidd.protocols.events import BlockStored, FaultRaised, SliceDurable
from spheroidd.protocols.sim_pattern import SimPattern
from spheroidd.protocols.stack import Block, Frame, RawIndex, SliceIndex
from spheroidd.testing.store_contract import PLATE_MAP, append_all, crc_of, of_kind, plan_of

RAW = SimPattern(n_angles=2, n_phases=3, angles_deg=(10.0, 100.0))
PLAN = plan_of(n_z=4, height=32, width=48, raw=RAW)


def frames(seed: int = 0) -> dict[SliceIndex, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {index: rng.integers(0, 65536, PLAN.frame_shape).astype(np.uint16) for index in PLAN.indices()}


def slice_of(content: dict[SliceIndex, np.ndarray], channel: str, z: int) -> np.ndarray:
    return np.stack([[content[RawIndex(channel, z, a, p)] for p in range(3)] for a in range(2)])


@pytest.fixture(params=["zarr", "memory"])
def open_store(request, tmp_path):
    opened = []

    def new(emit, **more):
        if request.param == "memory":
            opened.append(MemoryStackStore(emit))
        else:
            opened.append(ZarrStackStore(tmp_path, PLATE_MAP, emit, ring_slots=16, **more))
        return opened[-1]

    yield new
    for store in opened:
        store.close()


def test_a_plan_counts_raw_frames_as_camera_images():
    assert (PLAN.n_slices, PLAN.n_planes, PLAN.frame_shape) == (4 * 2 * 6, 4 * 6, (16, 24))
    assert PLAN.n_bytes == 48 * 16 * 24 * 2
    assert [PLAN.plane_of(index) for index in PLAN.indices() if index.channel == "488"] == list(range(24))
    assert all(PLAN.index_at(i.channel, PLAN.plane_of(i)) == i for i in PLAN.indices())
    assert RawIndex("488", 1, 0, 0) != SliceIndex("488", 1)
    assert str(RawIndex("488", 1, 0, 2)) == "channel 488 z 1 angle 0 phase 2"


@pytest.mark.parametrize("side", ["height", "width"])
def test_a_slice_that_no_camera_image_can_be_half_of_is_refused(side):
    with pytest.raises(ConfigError, match="even"):
        plan_of(raw=RAW, **{"height": 32, "width": 32, side: 31})


def test_a_slice_with_more_frames_than_a_file_holds_is_refused():
    with pytest.raises(ConfigError, match="81 raw frames"):
        plan_of(height=32, width=32, raw=SimPattern(n_angles=9, n_phases=9))


@pytest.mark.parametrize("shuffled", [False, True], ids=["in-order", "any-order"])
def test_frames_are_reported_each_and_blocks_by_whole_slices(open_store, shuffled):
    events, content = [], frames()
    store = open_store(events.append)
    assert store.open(PLAN) == {}
    order = list(content)
    if shuffled:
        np.random.default_rng(1).shuffle(order)
    append_all(store, PLAN, {index: content[index] for index in order})
    store.seal(PLAN.key)
    durable = of_kind(events, SliceDurable)
    assert {e.index: e.crc32c for e in durable} == {index: crc_of(pixels) for index, pixels in content.items()}
    assert [e.index for e in durable] == order
    for channel in PLAN.channels:
        blocks = [e.block for e in of_kind(events, BlockStored) if e.block.channel == channel]
        assert [(b.z_start, b.z_stop) for b in blocks] == [(z, z + 1) for z in range(4)]
        read = store.read(blocks[2]).reshape(2, 3, 16, 24)
        np.testing.assert_array_equal(read, slice_of(content, channel, 2))


def test_a_lost_frame_leaves_its_slice_unannounced_and_is_taken_later(open_store):
    events, content, lost = [], frames(), RawIndex("488", 1, 1, 0)
    store = open_store(events.append)
    store.open(PLAN)
    append_all(store, PLAN, {index: pixels for index, pixels in content.items() if index != lost})
    store.seal(PLAN.key)
    blocks = [e.block for e in of_kind(events, BlockStored)]
    assert max(b.z_stop for b in blocks if b.channel == "488") == 1
    assert set(PLAN.indices()) - set(store.open(PLAN)) == {lost}
    append_all(store, PLAN, {lost: content[lost]})
    store.seal(PLAN.key)
    read = store.read(Block(PLAN.key, "488", 0, 4)).reshape(4, 2, 3, 16, 24)
    np.testing.assert_array_equal(read, np.stack([slice_of(content, "488", z) for z in range(4)]))


def test_a_doubled_frame_is_silent_and_another_one_never_replaces_it(open_store):
    events, content, index = [], frames(), RawIndex("561", 3, 0, 2)
    store = open_store(events.append)
    store.open(PLAN)
    append_all(store, PLAN, content)
    append_all(store, PLAN, content)
    assert not of_kind(events, FaultRaised)
    append_all(store, PLAN, {index: content[index] ^ 1})
    (fault,) = of_kind(events, FaultRaised)
    assert fault.code == "duplicate-slice"
    assert "angle 0 phase 2" in fault.error.what
    store.seal(PLAN.key)
    read = store.read(Block(PLAN.key, "561", 3, 4)).reshape(2, 3, 16, 24)
    np.testing.assert_array_equal(read, slice_of(content, "561", 3))


@pytest.mark.parametrize("index", [RawIndex("488", 0, 2, 0), RawIndex("488", 0, 0, 3), SliceIndex("488", 0)], ids=str)
def test_a_frame_that_the_pattern_has_not_is_refused(open_store, index):
    store = open_store([].append)
    store.open(PLAN)
    with pytest.raises(StackError, match="not in the plan"):
        store.append(Frame(PLAN.key, index, np.ones((16, 24), np.uint16), 0.0))


def test_a_killed_store_finds_its_frames_again(tmp_path):
    events, content = [], frames()
    store = ZarrStackStore(tmp_path, PLATE_MAP, events.append, ring_slots=16)
    store.open(PLAN)
    append_all(store, PLAN, dict(list(content.items())[:31]))
    store.abandon()
    told = {e.index: e.crc32c for e in of_kind(events, SliceDurable)}
    again = ZarrStackStore(tmp_path, PLATE_MAP, events.append, ring_slots=16)
    found = again.open(PLAN)
    assert found.items() >= told.items()
    append_all(again, PLAN, {index: pixels for index, pixels in content.items() if index not in found})
    again.seal(PLAN.key)
    again.close()
    ledger = {PLAN.plane_of(i): crc_of(p) for i, p in content.items() if i.channel == "561"}
    read = read_raw(tmp_path, Block(PLAN.key, "561", 0, 4), ledger)
    np.testing.assert_array_equal(read, np.stack([slice_of(content, "561", z) for z in range(4)]))


def test_raw_frames_lie_beside_the_plate_and_say_what_they_are(tmp_path):
    store = ZarrStackStore(tmp_path, PLATE_MAP, [].append, ring_slots=16)
    store.open(PLAN)
    append_all(store, PLAN, frames())
    store.seal(PLAN.key)
    store.close()
    group = ngff.raw_path(tmp_path, PLAN.key)
    assert not ngff.plate_path(tmp_path, PLAN.key.plate).exists()
    node = json.loads((group / "zarr.json").read_text())["attributes"]
    assert set(node) == {"spheroidd"}
    own = node["spheroidd"]
    assert "raw frames" in own["holds"]
    assert own["frame"] == "(z * 2 + angle) * 3 + phase"
    assert (own["complete"], own["committed"]) == (True, {"488": 4, "561": 4})
    assert StackFiles.existing(group, PLAN.key, None).plan == PLAN
    with pytest.raises(StorageError):
        read_plan(tmp_path, PLAN.key)


def test_zarr_reads_the_raw_frames(tmp_path):
    import zarr

    store, content = ZarrStackStore(tmp_path, PLATE_MAP, [].append, ring_slots=16), frames()
    store.open(PLAN)
    append_all(store, PLAN, content)
    store.seal(PLAN.key)
    store.close()
    array = zarr.open_array(ngff.raw_path(tmp_path, PLAN.key) / "0", mode="r")
    assert array.metadata.dimension_names == ("c", "frame", "y", "x")
    np.testing.assert_array_equal(array[1, 6:12], slice_of(content, "561", 1).reshape(6, 16, 24))


def test_another_pattern_for_the_same_stack_is_refused(open_store):
    store = open_store([].append)
    store.open(PLAN)
    with pytest.raises(StorageError, match=r"raw|geometry"):
        store.open(plan_of(n_z=4, height=32, width=48, raw=SimPattern(n_angles=2, n_phases=3)))
