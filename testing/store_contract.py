"""What every stack store owes, whatever it stores in. Inherit it and give `new_store`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numpy as np
import pytest

from spheroidd.protocols.errors import StackError, StorageError
from spheroidd.protocols.events import BlockStored, Event, FaultRaised, SliceDurable, StackSealed
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.ports import StackStore
from spheroidd.protocols.stack import Block, Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId

Plane = np.ndarray[Any, np.dtype[Any]]
Kind = TypeVar("Kind")

WELLS = ("A01", "B03", "H12")
PLATE_MAP = PlateMap(
    "plate-7",
    tuple(PlateWell(WellId.parse(well), Treatment(WellRole.NEGATIVE_CONTROL, patient="P1")) for well in WELLS),
)


def plan_of(
    *,
    well: str = "A01",
    stack: int = 0,
    channels: tuple[str, ...] = ("488", "561"),
    n_z: int = 19,
    height: int = 30,
    width: int = 41,
    dtype: str = "uint16",
    **more: Any,
) -> StackPlan:
    """A small stack of the contract's plate; `more` are further fields of the plan."""
    key = StackKey(PLATE_MAP.name, WellId.parse(well), stack)
    return StackPlan(key, channels, n_z, height, width, 0.125, 0.5, dtype, **more)


def pixels_of(plan: StackPlan, seed: int = 0) -> dict[SliceIndex, Plane]:
    """Every slice of a plan, no two alike, some black."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(plan.dtype).max
    shape = (plan.height, plan.width)
    return {
        index: rng.integers(0, top + 1, shape).astype(plan.dtype) if index.z != 2 else np.zeros(shape, plan.dtype)
        for index in plan.indices()
    }


def frame_of(plan: StackPlan, index: SliceIndex, pixels: Plane) -> Frame:
    """A frame of the plan, with a time and metadata of its own."""
    return Frame(plan.key, index, pixels, 1000.0 + index.z, {"exposure_ms": 20.0})


def append_all(store: StackStore, plan: StackPlan, slices: dict[SliceIndex, Plane]) -> None:
    """Append every slice in its order."""
    for index, pixels in slices.items():
        store.append(frame_of(plan, index, pixels))


def crc_of(pixels: Plane) -> int:
    """What the ledger has to hold for a plane."""
    return int(google_crc32c.value(pixels.tobytes()))


def of_kind(events: list[Event], kind: type[Kind]) -> list[Kind]:
    """The events of one kind, in their order."""
    return [event for event in events if isinstance(event, kind)]


def store_whole(store: StackStore) -> tuple[StackPlan, dict[SliceIndex, Plane]]:
    """A stack from its first slice to its seal; its plan and its pixels."""
    plan = plan_of()
    slices = pixels_of(plan)
    store.open(plan)
    append_all(store, plan, slices)
    store.seal(plan.key)
    return plan, slices


class StoreContract:
    """What is announced is durable, whole and readable; what is there stays; what no plan promised is refused."""

    def new_store(self, tmp_path: Path, emit: Callable[[Event], None]) -> StackStore:
        """A store in `tmp_path`, which tells its events to `emit`; the same content each time in one test."""
        raise NotImplementedError

    @pytest.fixture
    def events(self) -> list[Event]:
        """What the store told."""
        return []

    @pytest.fixture
    def store(self, tmp_path: Path, events: list[Event]) -> Iterator[StackStore]:
        """The store under test."""
        store = self.new_store(tmp_path, events.append)
        yield store
        store.close()

    def test_new_stack_is_empty_and_tells_nothing(self, store: StackStore, events: list[Event]) -> None:
        assert store.open(plan_of()) == {}
        assert events == []  # StackOpened is for the caller to tell, with what `open` returned

    def test_every_slice_is_reported_once_in_order_with_its_checksum(
        self, store: StackStore, events: list[Event]
    ) -> None:
        plan, slices = store_whole(store)
        durable = of_kind(events, SliceDurable)
        assert [(e.index, e.crc32c) for e in durable] == [(i, crc_of(p)) for i, p in slices.items()]
        assert {e.key for e in durable} == {plan.key}
        assert durable[-1].acquired_s == 1000.0 + plan.n_z - 1
        assert durable[-1].metadata == {"exposure_ms": 20.0}

    def test_blocks_follow_without_gap_after_their_slices_and_read_back(
        self, store: StackStore, events: list[Event]
    ) -> None:
        plan, slices = store_whole(store)
        reported, next_z = set(), dict.fromkeys(plan.channels, 0)
        for event in events:
            if isinstance(event, SliceDurable):
                reported.add(event.index)
            if isinstance(event, BlockStored):
                block = event.block
                assert block.z_start == next_z[block.channel]
                assert {SliceIndex(block.channel, z) for z in range(block.z_start, block.z_stop)} <= reported
                next_z[block.channel] = block.z_stop
                read = store.read(block)
                assert read.dtype == plan.dtype
                for z, plane in zip(range(block.z_start, block.z_stop), read, strict=True):
                    np.testing.assert_array_equal(plane, slices[SliceIndex(block.channel, z)])
        assert next_z == dict.fromkeys(plan.channels, plan.n_z)

    def test_sealed_comes_last_and_once(self, store: StackStore, events: list[Event]) -> None:
        plan = plan_of(n_z=3)
        store.open(plan)
        append_all(store, plan, pixels_of(plan))
        store.seal(plan.key)
        store.seal(plan.key)
        assert events[-1] == StackSealed(plan.key)
        assert len(of_kind(events, StackSealed)) == 1

    def test_opening_again_returns_what_is_held_and_announces_it_again(
        self, store: StackStore, events: list[Event]
    ) -> None:
        plan, slices = store_whole(store)
        events.clear()
        assert store.open(plan) == {index: crc_of(pixels) for index, pixels in slices.items()}
        blocks = [event.block for event in of_kind(events, BlockStored)]
        for channel in plan.channels:
            assert sum(b.z_stop - b.z_start for b in blocks if b.channel == channel) == plan.n_z

    def test_same_slice_twice_is_silent(self, store: StackStore, events: list[Event]) -> None:
        plan = plan_of(n_z=4)
        slices = pixels_of(plan)
        store.open(plan)
        append_all(store, plan, slices)
        append_all(store, plan, slices)
        store.seal(plan.key)
        assert len(of_kind(events, SliceDurable)) == plan.n_slices
        assert not of_kind(events, FaultRaised)

    def test_other_pixels_for_a_slice_never_replace_the_first(self, store: StackStore, events: list[Event]) -> None:
        plan = plan_of(n_z=4)
        slices = pixels_of(plan)
        index = SliceIndex("561", 1)
        store.open(plan)
        append_all(store, plan, slices)
        store.append(frame_of(plan, index, slices[index] ^ 1))
        store.seal(plan.key)
        (fault,) = of_kind(events, FaultRaised)
        assert (fault.code, fault.key) == ("duplicate-slice", plan.key)
        assert isinstance(fault.error, StackError)
        assert "channel 561 z 1" in str(fault.error)
        np.testing.assert_array_equal(store.read(Block(plan.key, "561", 1, 2))[0], slices[index])

    def test_incomplete_stack_is_sealed_read_up_to_its_gap_and_completed_later(
        self, store: StackStore, events: list[Event]
    ) -> None:
        plan = plan_of()
        slices = pixels_of(plan)
        lost = SliceIndex("488", 10)
        store.open(plan)
        append_all(store, plan, {index: pixels for index, pixels in slices.items() if index != lost})
        store.seal(plan.key)
        blocks = [event.block for event in of_kind(events, BlockStored)]
        assert max(b.z_stop for b in blocks if b.channel == "488") == 10
        assert max(b.z_stop for b in blocks if b.channel == "561") == plan.n_z
        with pytest.raises(StorageError, match="10"):
            store.read(Block(plan.key, "488", 8, 12))

        events.clear()
        assert lost not in store.open(plan)
        store.append(frame_of(plan, lost, slices[lost]))
        store.seal(plan.key)
        assert [e.index for e in of_kind(events, SliceDurable)] == [lost]
        for channel in plan.channels:
            expected = np.stack([slices[SliceIndex(channel, z)] for z in range(plan.n_z)])
            np.testing.assert_array_equal(store.read(Block(plan.key, channel, 0, plan.n_z)), expected)

    def test_frames_may_come_in_any_order(self, store: StackStore, events: list[Event]) -> None:
        plan = plan_of(n_z=33)
        slices = pixels_of(plan)
        store.open(plan)
        order = np.random.default_rng(1).permutation(plan.n_slices)
        indices = list(slices)
        append_all(store, plan, {indices[n]: slices[indices[n]] for n in order})
        store.seal(plan.key)
        assert len(of_kind(events, SliceDurable)) == plan.n_slices
        for channel in plan.channels:
            expected = np.stack([slices[SliceIndex(channel, z)] for z in range(plan.n_z)])
            np.testing.assert_array_equal(store.read(Block(plan.key, channel, 0, plan.n_z)), expected)

    def test_two_stacks_at_a_time_do_not_mix(self, store: StackStore) -> None:
        plans = [plan_of(), plan_of(well="B03", channels=("488",)), plan_of(stack=1, height=9, dtype="uint8")]
        content = [pixels_of(plan, seed) for seed, plan in enumerate(plans)]
        for plan in plans:
            store.open(plan)
        for n in range(max(map(len, content))):
            for plan, slices in zip(plans, content, strict=True):
                for index in list(slices)[n : n + 1]:
                    store.append(frame_of(plan, index, slices[index]))
        for plan, slices in zip(plans, content, strict=True):
            store.seal(plan.key)
            for index, pixels in slices.items():
                block = Block(plan.key, index.channel, index.z, index.z + 1)
                np.testing.assert_array_equal(store.read(block)[0], pixels)

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda plan, p: Frame(plan.key, SliceIndex("488", plan.n_z), p, 0.0),
            lambda plan, p: Frame(plan.key, SliceIndex("488", -1), p, 0.0),
            lambda plan, p: Frame(plan.key, SliceIndex("405", 0), p, 0.0),
            lambda plan, p: Frame(plan.key, SliceIndex("488", 0), p[1:].copy(), 0.0),
            lambda plan, p: Frame(plan.key, SliceIndex("488", 0), p.astype(np.uint8), 0.0),
            lambda plan, p: Frame(StackKey("plate-7", WellId(7, 11)), SliceIndex("488", 0), p, 0.0),
        ],
        ids=["z-too-high", "z-negative", "channel", "shape", "dtype", "stack-not-open"],
    )
    def test_frames_that_no_plan_promised_are_refused(
        self, store: StackStore, events: list[Event], wrong: Callable[[StackPlan, Plane], Frame]
    ) -> None:
        plan = plan_of()
        store.open(plan)
        with pytest.raises(StackError):
            store.append(wrong(plan, np.ones((plan.height, plan.width), np.uint16)))
        assert not of_kind(events, SliceDurable)

    def test_another_geometry_for_the_same_stack_is_refused(self, store: StackStore) -> None:
        store.open(plan_of())
        with pytest.raises(StorageError, match=r"n_z|geometry"):
            store.open(plan_of(n_z=20))

    def test_reading_what_was_never_stored_is_an_error_not_zeros(self, store: StackStore) -> None:
        plan = plan_of()
        store.open(plan)
        with pytest.raises(StorageError, match="not stored"):
            store.read(Block(plan.key, "488", 0, 8))

    def test_non_contiguous_pixels_are_taken(self, store: StackStore) -> None:
        plan = plan_of(n_z=2, channels=("488",))
        store.open(plan)
        wide = np.arange(plan.height * plan.width * 2, dtype=np.uint16).reshape(plan.height, -1)
        for z, pixels in enumerate((wide[:, ::2], np.asfortranarray(wide[:, 1::2]))):
            store.append(frame_of(plan, SliceIndex("488", z), pixels))
        store.seal(plan.key)
        np.testing.assert_array_equal(store.read(Block(plan.key, "488", 1, 2))[0], wide[:, 1::2])

    def test_big_endian_pixels_are_taken_by_value(self, store: StackStore) -> None:
        plan = plan_of(n_z=1, channels=("488",))
        store.open(plan)
        native = np.arange(plan.height * plan.width, dtype=np.uint16).reshape(plan.height, -1)
        for pixels in (native.astype(">u2"), native):  # the second is the same slice, not another
            store.append(frame_of(plan, SliceIndex("488", 0), pixels))
        store.seal(plan.key)
        np.testing.assert_array_equal(store.read(Block(plan.key, "488", 0, 1))[0], native)

    def test_stack_without_a_slice_can_be_sealed(self, store: StackStore, events: list[Event]) -> None:
        plan = plan_of()
        store.open(plan)
        store.seal(plan.key)
        assert events == [StackSealed(plan.key)]
        assert store.open(plan) == {}

    def test_close_twice(self, store: StackStore) -> None:
        store.close()
        store.close()
