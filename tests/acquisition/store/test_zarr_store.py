"""The Zarr store: its contract, what other libraries read of it, and what it makes of what it finds on disk."""

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.acquisition.store.ring_file import Ring
from spheroidd.acquisition.store.shard import ShardCodec
from spheroidd.acquisition.store.stack_files import open_image, read_block, read_plan, read_stack
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.events import BlockStored, FaultRaised, SliceDurable, StackSealed
from spheroidd.protocols.stack import Block, SliceIndex
from spheroidd.testing.store_contract import (
    PLATE_MAP,
    StoreContract,
    append_all,
    crc_of,
    frame_of,
    of_kind,
    pixels_of,
    plan_of,
)


class TestZarrStackStore(StoreContract):
    def new_store(self, tmp_path, emit):
        return ZarrStackStore(tmp_path, PLATE_MAP, emit)


class TestSmallestRing(StoreContract):
    """Room for two shards only: everything still works, by waiting and by writing parts of shards."""

    def new_store(self, tmp_path, emit):
        return ZarrStackStore(tmp_path, PLATE_MAP, emit, ring_slots=16)


class TestThinShards(StoreContract):
    def new_store(self, tmp_path, emit):
        return ZarrStackStore(tmp_path, PLATE_MAP, emit, slab_z=3, ring_slots=9, shard_threads=1)


@pytest.fixture
def events():
    return []


@pytest.fixture
def make(tmp_path, events):
    """Makes stores on the same folder, one after the other; what is left open is closed."""
    stores = []

    def make(**settings):
        stores.append(ZarrStackStore(tmp_path, PLATE_MAP, events.append, **settings))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def as_array(plan, slices):
    return np.stack([[slices[SliceIndex(c, z)] for z in range(plan.n_z)] for c in plan.channels])


def by_tensorstore(path):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return tensorstore.open(spec, read=True).result().read().result()


def write_stack(store, plan, slices):
    store.open(plan)
    append_all(store, plan, slices)
    store.seal(plan.key)


plans = st.builds(
    plan_of,
    channels=st.sampled_from([("488",), ("561",), ("488", "561"), ("561", "488")]),
    n_z=st.integers(1, 26),
    height=st.integers(1, 330),
    width=st.integers(1, 620),
    dtype=st.sampled_from(["uint8", "uint16"]),
)
codecs = st.sampled_from([ShardCodec(), ShardCodec("zstd", 1, "shuffle"), ShardCodec("lz4", 5, "bitshuffle")])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans, codec=codecs)
def test_any_geometry_reads_back_through_us_zarr_and_tensorstore(tmp_path_factory, plan, codec):
    root = tmp_path_factory.mktemp("data")
    store = ZarrStackStore(root, PLATE_MAP, lambda event: None, codec=codec)
    slices = pixels_of(plan)
    write_stack(store, plan, slices)
    store.close()
    expected = as_array(plan, slices)
    image = ngff.image_path(root, plan.key)
    np.testing.assert_array_equal(read_stack(root, plan.key), expected)
    np.testing.assert_array_equal(open_image(root, plan.key)[:], expected)
    np.testing.assert_array_equal(by_tensorstore(image / "0"), expected)
    for level in range(1, len(ngff.level_shapes(plan.height, plan.width))):
        even = np.pad(expected, [(0, 0), (0, 0), *[(0, side % 2) for side in expected.shape[2:]]], mode="edge")
        quads = even.reshape(*even.shape[:2], even.shape[2] // 2, 2, even.shape[3] // 2, 2).astype(np.uint32)
        expected = ((quads.sum((3, 5)) + 2) // 4).astype(plan.dtype)
        np.testing.assert_array_equal(by_tensorstore(image / str(level)), expected)
    assert read_plan(root, plan.key) == plan


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_part_of_a_stack_reads_back(stored, data):
    root, plan, expected = stored
    start = data.draw(st.integers(0, plan.n_z - 1))
    stop = data.draw(st.integers(start + 1, plan.n_z))
    channel = data.draw(st.integers(0, 1))
    read = read_block(root, Block(plan.key, plan.channels[channel], start, stop))
    np.testing.assert_array_equal(read, expected[channel, start:stop])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp("stored")
    plan = plan_of(n_z=27, height=33, width=29)
    slices = pixels_of(plan)
    store = ZarrStackStore(root, PLATE_MAP, lambda event: None)
    write_stack(store, plan, slices)
    store.close()
    return root, plan, as_array(plan, slices)


def test_next_start_adopts_slices_from_zarr_and_from_the_ring(make, events, tmp_path):
    plan, more = plan_of(), 7
    slices = pixels_of(plan)
    first = dict(list(slices.items())[: 2 * 8 + more])
    store = make()
    store.open(plan)
    append_all(store, plan, first)
    store.close()  # as a kill after the last sync: nothing is sealed
    assert len(of_kind(events, SliceDurable)) == len(first)

    events.clear()
    store = make()
    assert store.open(plan) == {index: crc_of(pixels) for index, pixels in first.items()}
    assert [(e.block.channel, e.block.z_stop) for e in of_kind(events, BlockStored)] == [("488", 8), ("561", 8)]
    append_all(store, plan, slices)
    store.seal(plan.key)
    assert [e.index for e in of_kind(events, SliceDurable)] == list(slices)[len(first) :]
    np.testing.assert_array_equal(read_stack(tmp_path, plan.key), as_array(plan, slices))


def test_shard_whose_last_slice_lies_in_the_ring_is_written_at_the_next_start(make, events, tmp_path, monkeypatch):
    plan = plan_of(n_z=8, channels=("488",))
    slices = pixels_of(plan)
    store = make()
    store.open(plan)
    monkeypatch.setattr(
        ZarrStackStore, "_store", lambda *args: threading.Event().wait(0.01)
    )  # the shard is never written
    append_all(store, plan, slices)
    store.close()
    monkeypatch.undo()
    assert not of_kind(events, BlockStored)

    store = make()
    assert len(store.open(plan)) == 8
    store.seal(plan.key)
    assert [e.block.z_stop for e in of_kind(events, BlockStored)] == [8]
    np.testing.assert_array_equal(read_stack(tmp_path, plan.key), as_array(plan, slices))


def test_torn_slice_in_the_ring_is_not_adopted(make, tmp_path):
    plan = plan_of(channels=("488",))
    slices = pixels_of(plan)
    store = make()
    store.open(plan)
    append_all(store, plan, dict(list(slices.items())[:4]))
    store.close()
    (ring,) = (tmp_path / "plate-7.ring").iterdir()
    with ring.open("r+b") as file:
        content = file.read()
        file.seek(content.index(slices[SliceIndex("488", 1)].tobytes()) + 100)
        file.write(b"torn")
    assert [index.z for index in make().open(plan)] == [0, 2, 3]


def test_ring_of_a_deleted_stack_is_not_adopted(make, tmp_path):
    plan = plan_of()
    store = make()
    store.open(plan)
    append_all(store, plan, dict(list(pixels_of(plan).items())[:4]))
    store.close()
    ngff.image_path(tmp_path, plan.key).rename(tmp_path / "put-aside")
    assert make().open(plan) == {}


def test_what_an_interrupted_write_left_is_removed(make, tmp_path):
    plan = plan_of()
    store = make()
    store.open(plan)
    store.close()
    torn = ngff.shard_path(ngff.image_path(tmp_path, plan.key) / "0", 0, 1)
    torn.with_name("0.partial").write_bytes(b"half a shard")
    assert make().open(plan) == {}
    assert not torn.with_name("0.partial").exists()
    assert not torn.exists()


@pytest.mark.parametrize("place", [3, 60, 0.5, -10, -2], ids=["magic", "crcs", "tile", "index", "index-crc"])
def test_damaged_shard_is_set_aside_and_its_slices_taken_again(make, events, tmp_path, place):
    plan = plan_of(channels=("488",))
    slices = pixels_of(plan)
    store = make()
    write_stack(store, plan, slices)
    store.close()
    path = ngff.shard_path(ngff.image_path(tmp_path, plan.key) / "0", 0, 1)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place) if isinstance(place, float) else place] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(StorageError):
        read_block(tmp_path, Block(plan.key, "488", 8, 16))

    events.clear()
    store = make()
    found = store.open(plan)
    assert [index.z for index in found] == [*range(8), *range(16, 19)]
    (fault,) = of_kind(events, FaultRaised)
    assert fault.code == "damaged-shard"
    assert len(list(path.parent.glob("0.damaged-*"))) == 1
    append_all(store, plan, slices)
    store.seal(plan.key)
    np.testing.assert_array_equal(read_stack(tmp_path, plan.key), as_array(plan, slices))


def test_slices_that_wait_in_the_ring_survive_another_stack_taken_first(make, tmp_path):
    """The next run need not begin where the last one stopped: nothing that waits in the ring may be overwritten."""
    stopped, other = plan_of(), plan_of(well="B03", n_z=60)
    slices = pixels_of(stopped)
    store = make(ring_slots=16)
    store.open(stopped)
    append_all(store, stopped, dict(list(slices.items())[:11]))
    store.close()
    store = make(ring_slots=16)
    write_stack(store, other, pixels_of(other))  # goes round the ring several times
    assert store.open(stopped) == {index: crc_of(slices[index]) for index in list(slices)[:11]}
    append_all(store, stopped, slices)
    store.seal(stopped.key)
    np.testing.assert_array_equal(read_stack(tmp_path, stopped.key), as_array(stopped, slices))


def test_ring_is_gone_once_nothing_waits_in_it(make, tmp_path):
    plan = plan_of()
    store = make()
    store.open(plan)
    append_all(store, plan, dict(list(pixels_of(plan).items())[:11]))
    store.close()
    assert (tmp_path / "plate-7.ring").is_dir()
    store = make()
    write_stack(store, plan, pixels_of(plan))
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plate-7.ome.zarr"]


def test_works_where_the_system_cannot_write_at_an_offset(make, tmp_path, monkeypatch):
    for name in ("pwritev", "preadv", "posix_fadvise"):
        monkeypatch.delattr(os, name, raising=False)
    plan = plan_of(n_z=27)
    slices = pixels_of(plan)
    write_stack(make(ring_slots=16), plan, slices)
    np.testing.assert_array_equal(read_stack(tmp_path, plan.key), as_array(plan, slices))


def test_pyramid_that_was_never_made_durable_is_made_anew(make, tmp_path):
    plan = plan_of(n_z=8, height=300, width=301, channels=("488",))
    slices = pixels_of(plan)
    store = make()
    store.open(plan)
    append_all(store, plan, slices)
    store.close()
    level = ngff.image_path(tmp_path, plan.key) / "1"
    whole = by_tensorstore(level)
    ngff.shard_path(level, 0, 0).write_bytes(b"")
    store = make()
    store.open(plan)
    store.seal(plan.key)
    np.testing.assert_array_equal(by_tensorstore(level), whole)


def test_attributes_tell_how_far_a_stack_has_come(make, tmp_path, events):
    plan = plan_of(n_z=20)
    slices = pixels_of(plan)
    store = make()

    def own():
        return json.loads((ngff.image_path(tmp_path, plan.key) / "zarr.json").read_text())["attributes"]["spheroidd"]

    store.open(plan)
    assert (own()["committed"], own()["complete"]) == ({"488": 0, "561": 0}, False)
    append_all(store, plan, dict(list(slices.items())[:20]))  # z 0 to 9 of both
    store.close()
    store = make()
    store.open(plan)
    store.seal(plan.key)
    assert (own()["committed"], own()["complete"]) == ({"488": 10, "561": 10}, False)
    store.open(plan)
    append_all(store, plan, slices)
    store.seal(plan.key)
    assert (own()["committed"], own()["complete"]) == ({"488": 20, "561": 20}, True)
    assert own()["n_z"] == 20


def test_growing_stack_is_read_by_zarr_python(make, tmp_path, events):
    plan = plan_of(n_z=24)
    slices = pixels_of(plan)
    stored = threading.Event()
    store = ZarrStackStore(tmp_path, PLATE_MAP, lambda e: stored.set() if isinstance(e, BlockStored) else None)
    store.open(plan)
    append_all(store, plan, {i: p for i, p in slices.items() if i.z < 9 and i.channel == "561"})
    assert stored.wait(20)
    array = zarr.open_array(ngff.image_path(tmp_path, plan.key) / "0", mode="r")
    np.testing.assert_array_equal(array[1, :8], as_array(plan, slices)[1, :8])
    store.close()


@pytest.mark.parametrize("change", [{"n_z": 20}, {"height": 31}, {"dtype": "uint8"}, {"channels": ("488",)}])
def test_another_geometry_on_disk_is_refused_by_name(make, change):
    store = make()
    store.open(plan_of())
    store.close()
    with pytest.raises(StorageError, match=next(iter(change))):
        make().open(plan_of(**change))


def test_another_shard_depth_on_disk_is_refused(make):
    store = make()
    store.open(plan_of())
    store.close()
    with pytest.raises(StorageError, match="8 planes, not 4"):
        make(slab_z=4).open(plan_of())


def test_stack_of_another_plate_or_an_unknown_well_is_refused(make):
    store = make()
    with pytest.raises(ConfigError, match="no well C05"):
        store.open(plan_of(well="C05"))


def test_full_ring_holds_append_until_a_shard_is_written(make, events, monkeypatch):
    plan = plan_of(n_z=40, channels=("488",))
    slices = pixels_of(plan)
    gate = threading.Event()
    write = ZarrStackStore._store
    monkeypatch.setattr(ZarrStackStore, "_store", lambda *args: (gate.wait(20), write(*args))[1])
    store = make(ring_slots=16)
    store.open(plan)
    writer = threading.Thread(target=append_all, args=(store, plan, slices))
    writer.start()
    writer.join(0.5)
    assert writer.is_alive()
    assert len(of_kind(events, SliceDurable)) <= 16
    gate.set()
    writer.join(20)
    assert not writer.is_alive()
    store.seal(plan.key)
    assert len(of_kind(events, SliceDurable)) == 40


def test_one_sync_covers_many_slices_when_they_come_fast(make, events, monkeypatch):
    plan = plan_of(n_z=16, channels=("488",))
    gate, synced = threading.Event(), []
    sync = Ring.sync
    monkeypatch.setattr(Ring, "sync", lambda ring: (synced.append(ring), gate.wait(20), sync(ring))[2])
    store = make()
    store.open(plan)
    append_all(store, plan, pixels_of(plan))
    assert not of_kind(events, SliceDurable)  # nothing is reported before its sync
    gate.set()
    store.seal(plan.key)
    assert len(of_kind(events, SliceDurable)) == 16
    assert len(synced) <= 2  # what had come when the first began, then all that came meanwhile


def test_append_after_seal_asks_for_open(make, events):
    plan = plan_of(n_z=1)
    store = make()
    write_stack(store, plan, pixels_of(plan))
    with pytest.raises(Exception, match="open it first"):
        store.append(frame_of(plan, SliceIndex("488", 0), np.zeros((30, 41), np.uint16)))
    assert len(of_kind(events, StackSealed)) == 1


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EMFILE, StorageError), (errno.EIO, StorageError), (errno.EACCES, ConfigError)]
)
def test_a_folder_of_images_that_cannot_be_asked_for_now_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refused(*_: object, **__: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(kind):
        images_root(tmp_path)
