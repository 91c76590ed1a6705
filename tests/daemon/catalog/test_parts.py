"""Many acts in one transaction: each whole or not at all, and one audit trail whoever else writes in between."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.row_digests import other_rows
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.errors import RowRefusedError, StackError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.results import Related, WellStatus
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

KEY, OTHER = StackKey("P1", WellId(0, 0)), StackKey("P1", WellId(0, 1))
NO_HISTORY = "CREATE TEMP TRIGGER no BEFORE INSERT ON main.result_changes BEGIN SELECT RAISE(ABORT, 'no'); END"


def imaged(folder: Path) -> Catalog:
    catalog = Catalog.create_or_open(folder)
    catalog.register_plate(plates.plate_map("P1", dict.fromkeys((KEY.well, OTHER.well), plates.UNTREATED)), "{}")
    for key in (KEY, OTHER):
        catalog.expect(StackPlan(key, ("488",), 2, 8, 8, 0.1, 0.5))
        for index in catalog.plan(key).indices():
            catalog.acknowledge(SliceDurable(key, index, 1, 0.0), 1.0)
    return catalog


def go_on(catalog: Catalog) -> None:
    with catalog.transaction():
        with suppress(RowRefusedError):
            catalog.record_measurement(KEY, plates.measurement(1.0, n_z=2), 1.0)
        catalog.set_stack_state(OTHER, StackState.STORED)


def test_an_act_that_failed_half_way_leaves_nothing_in_a_transaction_that_goes_on(tmp_path: Path) -> None:
    with imaged(tmp_path) as catalog:
        catalog.connection.execute(NO_HISTORY)
        with pytest.raises(RowRefusedError):
            go_on(catalog)
        assert catalog.models() == []
        assert catalog.state(OTHER) is StackState.QUEUED
        with catalog.transaction():
            with suppress(RowRefusedError):  # as main records events apart from each other
                go_on(catalog)
            catalog.set_stack_state(OTHER, StackState.ACQUIRING)
        assert catalog.models() == []
        assert catalog.state(OTHER) is StackState.ACQUIRING


def test_an_act_that_was_refused_before_it_wrote_spoils_nothing(tmp_path: Path) -> None:
    with imaged(tmp_path) as catalog, catalog.transaction():
        with pytest.raises(StackError):
            catalog.set_stack_state(KEY, StackState.SCORED)
        catalog.set_stack_state(KEY, StackState.STORED)
    with Catalog.read_only(tmp_path) as reader:
        assert reader.state(KEY) is StackState.STORED


@pytest.mark.parametrize("seed", range(3))
def test_acts_and_undone_acts_of_two_writers_make_one_sound_trail(tmp_path: Path, seed: int) -> None:
    chance, written = Random(seed), 0
    with imaged(tmp_path) as one, Catalog.create_or_open(tmp_path) as other:
        while written < 60:
            with suppress(ZeroDivisionError), chance.choice((one, other)).transaction():
                catalog = one if one.connection.in_transaction else other
                for _ in range(chance.randint(1, 4)):
                    with suppress(ZeroDivisionError), catalog.transaction():
                        key, model = chance.choice((KEY, OTHER)), "ab" * 32
                        measured = replace(plates.measurement(chance.random(), n_z=2), model_sha256=model)
                        catalog.record_measurement(key, measured, chance.choice((None, 1.0, 2)))
                        catalog.update_related(key, model, Related(WellStatus.FINAL, None, chance.random()), "why")
                        catalog.append_event(Action.ORDERED, plate="P1", reason="pause")
                        written += 1
                        if chance.random() < 0.3:
                            raise ZeroDivisionError
                if chance.random() < 0.2:
                    raise ZeroDivisionError
        numbers = [event.seq for event in events(one)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert verify(one).intact
        assert other_rows(one.connection) == []


def test_a_decision_is_seen_whoever_took_it_and_not_where_it_was_taken_back(tmp_path: Path) -> None:
    excluded = {"plate": "P1", "well": "A01", "new": {"excluded": True}, "reason": "dust"}
    with imaged(tmp_path) as one, Catalog.create_or_open(tmp_path) as other:
        seen = [one.last_decision()]
        other.append_event(Action.WELL_EXCLUDED, **excluded)  # type: ignore[arg-type]
        seen.append(one.last_decision())
        one.append_event(Action.WELL_EXCLUDED, **excluded)  # type: ignore[arg-type]
        seen.append(one.last_decision())
        with suppress(ZeroDivisionError), one.transaction():
            one.append_event(Action.WELL_EXCLUDED, **excluded)  # type: ignore[arg-type]
            seen.append(one.last_decision())
            raise ZeroDivisionError
        assert [*seen, one.last_decision()] == [0, 3, 4, 5, 4]
        assert one.last_decision(after=4) == 4
