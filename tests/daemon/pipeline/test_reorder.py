"""Orders that change which well is next: whatever is ordered, no well is lost and none is imaged unasked."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spheroidd.acquisition.channel import ChannelClosedError
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.pipeline.orders import (
    Abort,
    Inbox,
    Order,
    Pause,
    ReorderWells,
    RepeatWell,
    Resume,
    SkipWell,
    Ticket,
)
from spheroidd.daemon.pipeline.run_context import Inlet, NoInlet
from spheroidd.daemon.pipeline.stack_queue import PlanQueue
from spheroidd.daemon.pipeline.steering import Steering
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.daemon.service.client import DaemonClient
from spheroidd.daemon.system.address_files import ADDRESS_NAME
from spheroidd.protocols.errors import ConfigError, MissingError, RefusedError, SpheroiddError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.service.test_service_run import acquired, state, until
from tests.faults.plate_runs import N_Z, kill, ledger, run, spheroidd, start, write_config

NAMES = ("A01", "A02", "A03", "B01", "B02")
WELLS = tuple(WellId.parse(name) for name in NAMES)
PLATE = PlateMap("P1", tuple(PlateWell(well, Treatment(WellRole.SAMPLE, "C", 1.0)) for well in WELLS))


def plan(well: WellId, stack: int = 0) -> StackPlan:
    return StackPlan(StackKey("P1", well, stack), ("488",), 1, 4, 4, 0.5, 1.0)


PLANS = [plan(well) for well in WELLS]


class Bench:
    """A run without threads: the real orders, queue and catalog; a source that takes a stack when it is told to."""

    def __init__(self, folder: Path, queue: PlanQueue | None = None, inlet: Inlet | None = None) -> None:
        self.catalog = Catalog.create_or_open(folder)
        self.catalog.register_plate(PLATE, "{}")
        for one in PLANS:
            self.catalog.expect(one)
        self.queue = queue or PlanQueue(PLANS)
        self.taken: list[StackKey] = []
        self.under_way: StackPlan | None = None
        self._planned: StackPlan | None = None  # told to main, which has not decided yet
        scheduler = type("Desk", (), {"source_finished": False})()
        threads = cast(Any, self)
        self.steering = Steering(
            self.catalog,
            cast(Any, scheduler),
            Throughput(0, 0, plate="P1"),
            threads,
            stop=lambda: None,
            inlet=inlet or NoInlet(),
        )

    # What AcquisitionThreads does, one step at a time.

    @property
    def takes_any_order(self) -> bool:
        return self.queue.takes_any_order

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queue, name)  # repeat, to_come, bring_forward

    def hold(self) -> None: ...
    def release(self) -> None: ...
    def stop(self) -> None: ...

    def skip(self, key: StackKey) -> None:
        self.under_way = None
        ending = self.steering.why_short(key)
        assert ending is not None
        self.catalog.end_stack(key, ending)

    def decide(self, one: StackPlan, *, take: bool) -> None:
        assert one is self._planned, "each stack that is planned is decided over once"
        self._planned = None
        if self.queue.settle(one.key) and take:
            self.under_way = one
            self.taken.append(one.key)
            self.catalog.set_stack_state(one.key, StackState.ACQUIRING)

    def plan(self) -> bool:
        """The source looks at the next stack; False where nothing is left, or main has not decided yet."""
        if self.under_way is not None or self._planned is not None:
            return False
        self._planned = self.queue.head()
        if self._planned is not None:
            self.catalog.expect(self._planned)
        return self._planned is not None

    def decide_if_told(self) -> None:
        """Main comes to the stack that the source has told it of."""
        if self._planned is not None and self.steering.word == "running":
            self.steering.planned(self._planned)

    def end_stack(self) -> None:
        if self.under_way is None:
            return
        for index in self.under_way.indices():
            self.catalog.acknowledge(SliceDurable(self.under_way.key, index, 1, 0.0), 0.0)
        self.catalog.set_stack_state(self.under_way.key, StackState.STORED)
        self.under_way = None

    def order(self, order: Order) -> str:
        inbox, ticket = Inbox(), Ticket(order)
        assert ticket.settle()
        inbox.take = iter([ticket, None]).__next__  # type: ignore[method-assign]
        self.steering.handle_orders(inbox)
        return ticket.wait(1.0).what

    def to_the_end(self) -> None:
        for _ in range(100):
            self.end_stack()
            if not self.plan() and self.under_way is None and self._planned is None:
                return
            self.decide_if_told()
        pytest.fail("it does not come to an end")

    def wells(self) -> list[str]:
        return [str(key.well) for key in self.taken]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    rig = Bench(tmp_path)
    with closing(rig.catalog):
        yield rig


def begin(rig: Bench) -> None:
    """The first well is under way."""
    rig.plan()
    rig.decide_if_told()


def reorder(*names: str) -> ReorderWells:
    return ReorderWells(who="ann", wells=tuple(WellId.parse(name) for name in names))


def test_wells_are_taken_next_and_the_others_as_planned(bench: Bench) -> None:
    begin(bench)
    assert bench.order(reorder("B02", "A03")) == "B02, A03 will be imaged next"
    bench.to_the_end()
    assert bench.wells() == ["A01", "B02", "A03", "A02", "B01"]
    (event,) = bench.catalog.query("SELECT who, new_json FROM audit WHERE action = 'ordered'")
    assert event["who"] == "ann"
    assert json.loads(event["new_json"])["wells"] == ["B02", "A03"]


def test_the_latest_order_comes_first(bench: Bench) -> None:
    begin(bench)
    bench.order(reorder("B02", "A03"))
    bench.order(reorder("B01", "B02"))
    bench.to_the_end()
    assert bench.wells() == ["A01", "B01", "B02", "A03", "A02"]


def test_a_stack_that_the_source_had_announced_already_comes_later(bench: Bench) -> None:
    begin(bench)
    bench.end_stack()
    bench.plan()  # A02 is told to main, and before main comes to it somebody orders
    bench.order(reorder("B02"))
    bench.decide_if_told()
    bench.to_the_end()
    assert bench.wells() == ["A01", "B02", "A02", "A03", "B01"]


def test_what_is_ordered_in_a_pause_between_two_wells_is_taken_first(bench: Bench) -> None:
    begin(bench)
    bench.order(Pause(who="ann", after_well=True))
    bench.end_stack()
    bench.plan()
    bench.steering.planned(PLANS[1])  # main keeps the source waiting
    bench.order(reorder("B02"))
    bench.order(Resume(who="ann"))
    bench.to_the_end()
    assert bench.wells() == ["A01", "B02", "A02", "A03", "B01"]


def test_a_well_that_was_to_be_skipped_is_imaged_after_all(bench: Bench) -> None:
    begin(bench)
    bench.order(SkipWell(who="ann", well=WELLS[4], reason="fell off"))
    bench.order(reorder("B02"))
    assert bench.catalog.stack(PLANS[4].key).end is None
    bench.to_the_end()
    assert bench.wells() == ["A01", "B02", "A02", "A03", "B01"]


@pytest.mark.parametrize(
    ("order", "how"),
    [(SkipWell(who="ann", well=WELLS[4], reason="fell off"), StackEnd.SKIPPED), (Abort(who="ann"), StackEnd.ABORTED)],
    ids=["skip", "abort"],
)
def test_what_an_order_ends_is_kept_as_a_value_and_who_and_why_in_words(
    bench: Bench, order: Order, how: StackEnd
) -> None:
    bench.order(order)
    row = bench.catalog.stack(PLANS[4].key)
    assert (row.state, row.end) == (StackState.INCOMPLETE, how)
    assert "by ann" in str(row.reason)
    assert row.todo


def test_a_skipped_well_cannot_be_repeated_before_its_turn(bench: Bench) -> None:
    """It would be imaged twice."""
    begin(bench)
    bench.order(SkipWell(who="ann", well=WELLS[4]))
    with pytest.raises(RefusedError, match="still to be imaged"):
        bench.order(RepeatWell(who="ann", well=WELLS[4]))


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ((), RefusedError, "no well is named"),
        (("C11",), MissingError, "no well C11 to image"),
        (("A01",), RefusedError, "A01 is imaged already, or under way"),
        (("B02", "C11"), MissingError, "C11"),
    ],
)
def test_an_order_that_cannot_be_followed_changes_nothing(
    bench: Bench, names: tuple[str, ...], error: type[RefusedError], message: str
) -> None:
    begin(bench)
    with pytest.raises(error, match=message):
        bench.order(reorder(*names))
    bench.to_the_end()
    assert bench.wells() == list(NAMES)


def test_a_source_that_takes_wells_as_they_come_refuses(tmp_path: Path) -> None:
    rig = Bench(tmp_path, PlanQueue(iter(PLANS)))
    with closing(rig.catalog):
        begin(rig)
        with pytest.raises(RefusedError, match="their order is the instrument's"):
            rig.order(reorder("B02"))
        rig.to_the_end()
        assert rig.wells() == list(NAMES)


def test_after_an_abort_nothing_can_be_ordered(bench: Bench) -> None:
    begin(bench)
    bench.order(Abort(who="ann"))
    with pytest.raises(RefusedError, match="no slices"):
        bench.order(reorder("B02"))


STEPS = st.one_of(
    st.sampled_from(["plan", "decide", "end", "pause", "pause after well", "resume"]),
    st.tuples(st.sampled_from(["skip", "repeat"]), st.sampled_from(WELLS)),
    st.tuples(st.just("reorder"), st.lists(st.sampled_from(WELLS), min_size=1, max_size=3)),
)


class Owed:
    """The stacks that the orders given so far amount to, those that were left out by one, and those of them in whose
    place the well is imaged again: naming the well then means the new stack alone.
    """

    def __init__(self) -> None:
        self.keys = {one.key for one in PLANS}
        self.left_out: set[StackKey] = set()
        self.replaced: set[StackKey] = set()

    def skip(self, well: WellId, taken: Iterable[StackKey]) -> None:
        self.left_out |= {key for key in self.keys - set(taken) if key.well == well}
        self.keys -= self.left_out

    def repeat(self, well: WellId) -> None:
        known = {key for key in self.keys | self.left_out if key.well == well}
        self.replaced |= known & self.left_out
        self.keys.add(StackKey("P1", well, 1 + max(key.stack for key in known)))

    def reorder(self, wells: Iterable[WellId]) -> None:
        again = {key for key in self.left_out - self.replaced if key.well in wells}
        self.keys, self.left_out = self.keys | again, self.left_out - again


@example(
    steps=[
        "pause",
        ("reorder", [WELLS[2]]),
        "plan",
        "resume",
        ("skip", WELLS[2]),
        ("repeat", WELLS[2]),
        ("skip", WELLS[2]),
        ("reorder", [WELLS[2]]),
    ]
)
@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEPS, max_size=30))
def test_any_orders_image_each_well_as_ordered_and_lose_none(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig, owed = Bench(Path(folder)), Owed()
        with closing(rig.catalog):
            for step in steps:
                _do(rig, step, owed)
            _order(rig, Resume(who="ann"))
            rig.to_the_end()
            assert sorted(rig.taken) == sorted(owed.keys)
            states = {row.key: row.state for row in rig.catalog.stacks("P1")}
            assert states.keys() == owed.keys | owed.left_out
            assert not {StackState.QUEUED, StackState.ACQUIRING} & set(states.values())


def _do(rig: Bench, step: Any, owed: Owed) -> None:
    match step:
        case "plan":
            if rig.plan() and rig._planned is not None and rig.steering.word != "running":
                rig.steering.planned(rig._planned)
        case "decide":
            rig.decide_if_told()
        case "end":
            rig.end_stack()
        case "pause" | "pause after well":
            _order(rig, Pause(who="ann", after_well=step != "pause"))
        case "resume":
            _order(rig, Resume(who="ann"))
        case ("skip", well):
            if _order(rig, SkipWell(who="ann", well=well)):
                owed.skip(well, rig.taken)
        case ("repeat", well):
            if _order(rig, RepeatWell(who="ann", well=well)):
                owed.repeat(well)
        case ("reorder", wells):
            if _order(rig, ReorderWells(who="ann", wells=tuple(wells))):
                owed.reorder(wells)


def _order(rig: Bench, order: Order) -> bool:
    try:
        rig.order(order)
    except SpheroiddError:
        return False
    return True


# -- the queue itself


def test_a_run_may_begin_at_a_well_and_takes_those_before_it_last() -> None:
    queue = PlanQueue(PLANS, begin_at=WELLS[3])
    taken = []
    while one := queue.head():
        taken.append(str(one.key.well))
        assert queue.settle(one.key)
    assert taken == ["B01", "B02", "A01", "A02", "A03"]
    with pytest.raises(ChannelClosedError):
        queue.repeat(plan(WELLS[0], 1))


def test_a_repeat_that_an_earlier_run_did_not_finish_is_taken() -> None:
    leftover = plan(WELLS[0], 1)
    queue = PlanQueue(PLANS, besides=[PLANS[0], leftover])
    keys = []
    while one := queue.head():
        keys.append(one.key)
        queue.settle(one.key)
    assert keys == [*(one.key for one in PLANS), leftover.key]


@pytest.mark.parametrize("plans", [PLANS, iter(PLANS)], ids=["no such well", "wells as they come"])
def test_a_run_cannot_begin_everywhere(plans: Any) -> None:
    with pytest.raises(ConfigError, match="--from-well"):
        PlanQueue(plans, begin_at=WellId.parse("H12"))


def test_a_stack_that_is_no_longer_next_is_not_settled() -> None:
    queue = PlanQueue(PLANS)
    queue.bring_forward([WELLS[2]])
    assert not queue.settle(PLANS[0].key)
    assert queue.head() is PLANS[2]
    assert queue.to_come() == set(WELLS)


# -- a real daemon


def test_a_real_run_begins_at_a_well_and_is_reordered(tmp_path: Path) -> None:
    config = write_config(tmp_path, source={"pace": "real", "slice_period_s": 0.4})
    data = config.parent / "data"
    assert "no stack of well H12 is planned" in spheroidd("run", str(config), "--from-well", "H12").stderr
    process = start(config, "--from-well", "B01")
    try:
        until(lambda: (data / ADDRESS_NAME).exists() or process.poll() is not None, "it serves")
        until(lambda: acquired(config, "B01") > 2, "slices of the well it begins at arrive")
        done = spheroidd("next", "A03,A02", str(data))
        assert (done.returncode, "A03, A02 will be imaged next" in done.stdout) == (0, True), done.stderr
        assert "is imaged already, or under way" in spheroidd("next", "B01", str(data)).stderr
        with DaemonClient.of(data) as client:
            assert state(client) == "running"
        until(lambda: acquired(config, "A03") > 0, "the well that was ordered is next")
        assert [acquired(config, well) for well in ("A01", "B02")] == [0, 0]
    finally:
        kill(process)
    fast = write_config(tmp_path)
    assert run(fast) == 0
    assert {well: acquired(config, well) for well in ledger(config).states} == dict.fromkeys(
        ledger(config).states, 2 * N_Z
    )
