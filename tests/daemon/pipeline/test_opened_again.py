"""A stack that is opened once more, after a pause or a crash at its very end, keeps what it was scored."""

from pathlib import Path

import pytest

from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.events import SliceDurable, StackOpened, StackSealed
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.pipeline.test_catalog_outage import main_loop
from tests.daemon.report import plates

KEY = StackKey("P1", WellId(0, 0))


@pytest.mark.parametrize("scored", [False, True])
def test_a_whole_stack_that_is_opened_again_ends_as_far_as_it_had_come(tmp_path: Path, scored: bool) -> None:
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(plates.plate_map("P1", {KEY.well: plates.UNTREATED}), "{}")
        plan = plates.plan_of(KEY, n_z=2, side=8)
        catalog.expect(plan)
        run = main_loop(catalog)
        slices = [SliceDurable(KEY, index, number, 1.0) for number, index in enumerate(plan.indices())]
        run._commit([StackOpened(plan, {}), *slices])
        if scored:  # by a worker that followed it, before it is sealed
            catalog.record_measurement(KEY, plates.measurement(1000.0, n_z=2), None)
        run._commit([StackOpened(plan, {one.index: one.crc32c for one in slices}), StackSealed(KEY)])
        row = catalog.stack(KEY)
        assert row.state is (StackState.SCORED if scored else StackState.STORED)
        assert row.sealed_s is not None
