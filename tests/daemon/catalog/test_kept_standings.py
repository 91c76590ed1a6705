"""What is kept between two looks says what a look at everything says, whatever happened between them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Normalisation, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.trust import Trust
from spheroidd.protocols.well import WellId

MODELS = ("ab" * 32, "cd" * 32)
WELLS = tuple(WellId(0, column) for column in range(4))
FIELDS = {"P1": 1, "P2": 2}


def plate_map(plate: str, chance: Random) -> PlateMap:
    roles = (WellRole.NEGATIVE_CONTROL, WellRole.SAMPLE, WellRole.EMPTY)
    return PlateMap(
        plate,
        tuple(
            PlateWell(well, Treatment(role, *(("drug", 1.0) if role is WellRole.SAMPLE else ())))
            for well in WELLS
            for role in [chance.choice(roles)]
        ),
    )


def some_act(catalog: Catalog, chance: Random) -> Callable[[], object]:
    """What can happen to a plate that is imaged, scored and looked through by a person, in any order."""
    plate, well = chance.choice(list(FIELDS)), chance.choice(WELLS)
    known = sorted(row.key for row in catalog.stacks(plate))
    new = StackKey(plate, well, sum(key.well == well for key in known))
    key = chance.choice(known) if known else new
    at: dict[str, Any]
    at, model = {"plate": plate, "well": str(key.well)}, chance.choice(MODELS)
    measured = StackMeasurement(chance.random(), None, 3, None, (1.0,), {}, Normalisation.STACK, model, 1.0, {})
    related = Related(
        chance.choice((WellStatus.FINAL, WellStatus.PROVISIONAL)),
        None,
        chance.random(),
        trust=chance.choice([*Trust]),
    )
    stack = {"stack": key.stack, "newest": len(known) - 1}
    always: list[Callable[[], object]] = [
        lambda: catalog.expect(StackPlan(new, ("488",), 2, 8, 8, 0.1, 0.5)),
        lambda: catalog.relabel_wells(plate_map(plate, chance), "another map"),
        lambda: catalog.append_event(Action.WELL_EXCLUDED, **at, new={"excluded": True}, reason="dust"),
        lambda: catalog.append_event(Action.WELL_INCLUDED, **at, new={"excluded": False}, reason="no dust"),
    ]
    of_a_stack: list[Callable[[], object]] = [
        lambda: catalog.acknowledge(SliceDurable(key, chance.choice([*catalog.plan(key).indices()]), 1, 0.0), 1.0),
        lambda: catalog.set_stack_state(key, chance.choice((StackState.ACQUIRING, StackState.STORED))),
        lambda: catalog.end_stack(key, Ending(chance.choice([*StackEnd]), "it ended", "look at it")),
        lambda: catalog.record_measurement(key, measured, 2.0),
        lambda: catalog.update_related(key, model, related, "controls"),
        lambda: catalog.append_event(Action.STACK_EXCLUDED, **at, new=stack, reason="dust"),
        lambda: catalog.append_event(Action.STACK_CHOSEN, **at, new=stack, reason="sharper"),
    ]
    return chance.choice(always[:1] * 6 + always + of_a_stack * 4) if known else always[0]


def acts_of_chance(catalog: Catalog, chance: Random, count: int) -> Iterator[None]:
    """Plates and what happens to them, so many acts; what is done between two of them is the caller's."""
    for plate, n_fields in FIELDS.items():
        catalog.register_plate(plate_map(plate, chance), "{}", n_fields=n_fields)
    while count > 0:
        try:
            some_act(catalog, chance)()
        except SpheroiddError:
            continue  # not every act fits the state that chance has made
        count -= 1
        yield


@pytest.mark.parametrize("seed", range(4))
def test_a_kept_look_is_a_look_at_everything(tmp_path: Path, seed: int) -> None:
    chance, kept = Random(seed), KeptStandings()
    with Catalog.create_or_open(tmp_path) as catalog, Catalog.read_only(tmp_path) as reader:
        for _ in acts_of_chance(catalog, chance, 250):
            if chance.random() < 0.6:
                assert kept.look(reader) == reader.standings()
                keys = {one.key for one in reader.standings() if chance.random() < 0.7}
                assert kept.rows_of(reader, keys) == reader.rows_of(keys)
                told = [one for one in reader.standings() if chance.random() < 0.7]
                assert kept.rows_told(reader, told) == reader.rows_of([one.key for one in told])


def test_what_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    keys = [StackKey("P1", well) for well in WELLS]
    with Catalog.create_or_open(tmp_path) as catalog, Catalog.read_only(tmp_path) as reader:
        control = Treatment(WellRole.NEGATIVE_CONTROL)
        catalog.register_plate(PlateMap("P1", tuple(PlateWell(well, control) for well in WELLS)), "{}")
        for key in keys:
            catalog.expect(StackPlan(key, ("488",), 2, 8, 8, 0.1, 0.5))
        kept = KeptStandings()
        before = {one.key: one for one in kept.look(reader)}
        catalog.acknowledge(SliceDurable(keys[1], next(iter(catalog.plan(keys[1]).indices())), 1, 0.0), 1.0)
        after = {one.key: one for one in kept.look(reader)}
    assert after[keys[1]].n_slices_acked == 1
    assert [key for key in keys if after[key] is before[key]] == [keys[0], keys[2], keys[3]]
