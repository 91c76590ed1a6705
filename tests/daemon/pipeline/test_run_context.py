"""What stands around a run: the parts that do nothing answer as those that do."""

from pathlib import Path

import pytest

from spheroidd.acquisition.sources.push import PushInlet
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.pipeline.orders import FinishPush, Inbox, Order, RepeatWell
from spheroidd.daemon.pipeline.run_context import NoInlet, NoMonitor, RunContext
from spheroidd.protocols.errors import RefusedError
from tests.daemon.pipeline.test_reorder import PLANS, Bench


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_a_run_by_itself_has_nobody_around_it() -> None:
    context = RunContext()
    context.inlet.told(object())
    context.monitor.after_heartbeat("running")
    context.on_stop()
    assert context.orders.take() is None
    assert context.orders is not RunContext().orders


@pytest.mark.parametrize(("silent", "real"), [(NoInlet, PushInlet), (NoMonitor, RunMonitor)])
def test_what_does_nothing_has_only_what_the_real_one_has(silent: type, real: type) -> None:
    assert public(silent) <= public(real)


@pytest.mark.parametrize(
    ("inlet", "order", "words"),
    [
        (NoInlet(), FinishPush(who="ann"), "this plate's slices are not pushed"),
        (PushInlet(), RepeatWell(who="ann", well=PLANS[0].key.well), "the program that pushes decides"),
        (NoInlet(), RepeatWell(who="ann", well=PLANS[0].key.well), "is still to be imaged"),
    ],
)
def test_an_order_is_refused_by_who_decides_what_is_imaged(
    tmp_path: Path, inlet: NoInlet | PushInlet, order: Order, words: str
) -> None:
    bench = Bench(tmp_path, inlet=inlet)
    with bench.catalog, pytest.raises(RefusedError, match=words):
        bench.steering._carry_out(order)


def test_pushed_slices_end_when_the_order_to_finish_is_carried_out(tmp_path: Path) -> None:
    inlet = PushInlet()
    bench = Bench(tmp_path, inlet=inlet)
    with bench.catalog:
        assert "no more stacks" in bench.steering._carry_out(FinishPush(who="ann"))
    assert inlet.next_plan(lambda: False) is None


def test_to_finish_a_plate_whose_last_well_has_come_is_no_fault(tmp_path: Path) -> None:
    bench = Bench(tmp_path, inlet=PushInlet())
    bench.steering._scheduler.source_finished = True
    with bench.catalog:
        assert "no more stacks" in bench.steering._carry_out(FinishPush(who="ann"))


def test_an_inbox_that_is_empty_is_still_the_one_that_was_given() -> None:
    orders = Inbox()
    assert RunContext(orders).orders is orders
