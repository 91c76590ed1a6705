"""Relating as wells come in gives what relating the whole plate at once gives: on random plates, with repeats, wells
and stacks that persons take out, corrected maps, stacks that fail, transactions that are taken back, and kills.
"""

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring import sweeps
from spheroidd.daemon.scoring.exclusions import record_decision
from spheroidd.daemon.scoring.messages import Scored
from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings
from spheroidd.inference.quality.trust.evidence import Seen
from spheroidd.inference.quality.trust.row_trust import relate_judged
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.inference.viability.related_viability import PlateStack
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.evidence import ChannelLight, MaskEvidence, MaskShape, StackLight
from spheroidd.protocols.plate import PlateMap, PlateWell, WellRole
from spheroidd.protocols.results import ChannelProfile, Limits, Normalisation, Related, StackProfile, WellStatus
from spheroidd.protocols.stack import CHANNELS, StackKey
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

LIMITS = {channel: Limits(110.0, 900.0, 300.0, 200.0) for channel in CHANNELS}
REGRESSOR = ViabilityRegressor.load()
OVER = (StackState.FAILED, StackState.INCOMPLETE)


def a_map(rng: random.Random) -> PlateMap:
    treatments = [plates.UNTREATED] * 3 + [plates.KILLED] * rng.choice([0, 2])
    treatments += [plates.sample(f"C{n % 2}", 1.0 + n) for n in range(7)]
    rng.shuffle(treatments)
    return plates.plate_map("P1", {WellId(n // 4, n % 4): one for n, one in enumerate(treatments)})


def answer(rng: random.Random, key: StackKey, role: WellRole) -> Scored:
    """What a worker would say: mostly sound, at times dim, blurred, empty, or alive where it should be dead."""
    alive = {WellRole.NEGATIVE_CONTROL: 1.0, WellRole.POSITIVE_CONTROL: 0.1}.get(role, rng.random())
    odd = rng.random()
    measured = plates.measurement(3e5 * (alive if odd > 0.1 else 1 - alive) * rng.uniform(0.7, 1.3), n_z=2)
    measured = replace(measured, limits=LIMITS, live_um3_by_z=tuple(rng.uniform(0, 1e5) for _ in range(2)))
    if odd < 0.05:
        measured = replace(measured, n_live=0, n_dead=0)
    high = 890.0 if odd > 0.2 else 200.0
    light = StackLight({c: ChannelLight(110.0, high, 950.0, 0.0, 12.0) for c in CHANNELS}, 0.1, rng.random(), 1.0)
    sharp = rng.uniform(0.2, 0.9)
    seen = ChannelProfile((300.0, 300.0), 100.0, rng.uniform(5, 500), sharp, 0.0, 0.0)
    shapes = {c: MaskShape(9.0, 9.0, dict.fromkeys(CHANNELS, 500.0)) for c in CHANNELS}
    masks = MaskEvidence(shapes, dict.fromkeys(CHANNELS, 120.0))
    return Scored(key, light, StackProfile(dict.fromkeys(CHANNELS, seen), 0.1, 0.1, 1), measured, masks)


def plainly(catalog: Catalog, *, source_finished: bool) -> dict[StackKey, Related]:
    """The rows of a whole plate related at once, by nothing but what the catalog holds."""
    plate_map, excluded = catalog.plate_map("P1"), catalog.excluded_wells("P1")
    counts = catalog.current_stacks("P1") - catalog.excluded_stacks("P1").keys()
    stacks = {row.key: row for row in catalog.stacks("P1")}
    measured = {row.key: row.measurement for row in catalog.measurements("P1", plates.MODEL, all_stacks=True)}
    settled = {key for key, row in stacks.items() if row.state in (*OVER, StackState.SCORED)}
    given = [
        PlateStack(
            key,
            plate_map[key.well].treatment.role,
            row.plan.z_step_um,
            key in settled,
            measured.get(key),
            excluded=str(key.well) in excluded or (key not in counts and (key in measured or key in settled)),
        )
        for key, row in stacks.items()
    ]
    for entry in plate_map.imaged():
        key = StackKey("P1", entry.well)
        if key not in stacks and not source_finished:
            out = str(entry.well) in excluded
            given.append(PlateStack(key, entry.treatment.role, 1.0, settled=False, excluded=out))
    lights, profiles = catalog.stack_lights("P1"), catalog.stack_profiles("P1")
    masks = catalog.mask_evidence("P1", plates.MODEL)
    seen = {
        key: Seen.of(row.plan, light=lights.get(key), profile=profiles.get(key), masks=masks.get(key))
        for key, row in stacks.items()
    }
    return relate_judged(given, REGRESSOR, seen)


def stored(catalog: Catalog) -> Mapping[StackKey, Related]:
    return {row.key: row.related for row in catalog.measurements("P1", plates.MODEL, all_stacks=True)}


class Plate:
    """A plate under way, and what can happen to it."""

    def __init__(self, rng: random.Random, catalog: Catalog) -> None:
        self.rng, self.catalog, self.map = rng, catalog, a_map(rng)
        catalog.register_plate(self.map, '{"inference":{}}')
        self.scheduler = self.begin()
        self.events: list[Callable[[], None]] = [
            *[self.score] * 12,
            *[self.fail, self.repeat, self.exclude_well, self.exclude_stack, self.choose, self.score_again, self.undo],
        ]

    def begin(self) -> ScoringScheduler:
        """What a run has that knows nothing but the catalog."""
        settings = ScoringSettings(plates.MODEL, Normalisation.PLATE, LIMITS, tolerance=0.0, max_attempts=1)
        return ScoringScheduler(self.catalog, self.map, settings, REGRESSOR)

    def well(self) -> PlateWell:
        return self.rng.choice(list(self.map))

    def image(self, key: StackKey) -> None:
        plan = plates.plan_of(key, n_z=2, side=8)
        self.catalog.expect(plan)
        for number, index in enumerate(plan.indices()):
            self.catalog.acknowledge(SliceDurable(key, index, number, 1.0), 1.0)
        self.catalog.set_stack_state(key, StackState.STORED)

    def keys(self, *states: StackState) -> list[StackKey]:
        return [row.key for row in self.catalog.stacks("P1") if row.state in states]

    def score(self) -> None:
        missing = [
            StackKey("P1", one.well) for one in self.map if StackKey("P1", one.well) not in self.keys(*StackState)
        ]
        if missing:
            self.image(self.rng.choice(missing))
        for key in self.keys(StackState.STORED)[:1]:
            found = answer(self.rng, key, self.map[key.well].treatment.role)
            self.scheduler.record_scored(found)
            self.scheduler.answered(found)

    def fail(self) -> None:
        for key in self.keys(StackState.STORED, StackState.SCORED)[-1:]:
            self.catalog.end_stack(key, Ending(StackEnd.FAILED, "no light"))

    def repeat(self) -> None:
        key = StackKey("P1", self.well().well, 1)
        if key not in self.keys(*StackState) and replace(key, stack=0) in self.keys(*StackState):
            self.image(key)

    def exclude_well(self) -> None:
        name = str(self.well().well)
        out = name in self.catalog.excluded_wells("P1")
        action = Action.WELL_INCLUDED if out else Action.WELL_EXCLUDED
        record_decision(self.catalog, action, plate="P1", well=name, reason="as it looks")

    def _decide(self, action: Action, key: StackKey) -> None:
        new = {"stack": key.stack, "newest": max(k.stack for k in self.keys(*StackState) if k.well == key.well)}
        self.catalog.append_event(action, plate="P1", well=str(key.well), new=new, reason="as it looks")

    def exclude_stack(self) -> None:
        for key in self.rng.sample(self.keys(StackState.SCORED), k=min(1, len(self.keys(StackState.SCORED)))):
            out = key in self.catalog.excluded_stacks("P1")
            self._decide(Action.STACK_INCLUDED if out else Action.STACK_EXCLUDED, key)

    def choose(self) -> None:
        for key in [key for key in self.keys(StackState.SCORED) if key.stack == 0][:1]:
            self._decide(Action.STACK_CHOSEN, key)

    def score_again(self) -> None:
        for key in self.rng.sample(self.keys(StackState.SCORED), k=min(1, len(self.keys(StackState.SCORED)))):
            found = answer(self.rng, key, self.map[key.well].treatment.role)
            self.scheduler.record_scored(found)
            self.scheduler.answered(found)

    def undo(self) -> None:
        """A full disk takes back what main just wrote, in whatever portion of a sweep."""
        with suppress(ZeroDivisionError), self.catalog.transaction():
            self.score()
            self.scheduler.record_relations(0.002)
            raise ZeroDivisionError

    def turn(self, budget_s: float) -> None:
        """One of main's turns with a heartbeat; at times the daemon was killed after the one before it."""
        if self.rng.random() < 0.1:
            self.scheduler = self.begin()
        with self.catalog.transaction():
            self.rng.choice(self.events)()
            excluded = self.scheduler.record_exclusions(budget_s=0.0)
            self.scheduler.record_relations(budget_s)
        self.scheduler.related_without(excluded)


@pytest.mark.parametrize("rest", [0.0, 1e9], ids=["without rest", "resting"])
@pytest.mark.parametrize("seed", range(4))
def test_rows_that_were_related_as_wells_came_are_those_of_the_whole_plate_related_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, rest: float
) -> None:
    monkeypatch.setattr(sweeps, "REST", rest)
    rng = random.Random(seed)
    with Catalog.create_or_open(tmp_path) as catalog:
        plate = Plate(rng, catalog)
        for _ in range(40):
            plate.turn(rng.choice([0.0, 0.0, 0.001, 1.0]))
        plate.scheduler.source_finished = True
        for _ in range(2000):  # what main does until it may end
            if plate.scheduler.idle():
                break
            for key in plate.keys(StackState.STORED)[:1]:
                found = answer(rng, key, plate.map[key.well].treatment.role)
                plate.scheduler.record_scored(found)
                plate.scheduler.answered(found)
            plate.scheduler.related_without(plate.scheduler.record_exclusions(budget_s=0.0))
            plate.scheduler.record_relations(0.001)
        assert plate.scheduler.idle()
        expected = plainly(catalog, source_finished=True)
        assert len(expected) > 5
        assert stored(catalog) == expected
        assert verify(catalog).problems == ()


def test_a_corrected_map_relates_the_whole_plate_anew(tmp_path: Path) -> None:
    rng = random.Random(7)
    with Catalog.create_or_open(tmp_path) as catalog:
        plate = Plate(rng, catalog)
        for _ in range(14):
            with catalog.transaction():
                plate.score()
                plate.scheduler.record_relations()
        shuffled = [one.treatment for one in plate.map]
        rng.shuffle(shuffled)
        corrected = PlateMap("P1", tuple(replace(a, treatment=b) for a, b in zip(plate.map, shuffled, strict=True)))
        catalog.relabel_wells(corrected, "turned round")
        settings = ScoringSettings(plates.MODEL, Normalisation.PLATE, LIMITS, tolerance=0.0, max_attempts=1)
        ScoringScheduler(catalog, corrected, settings, REGRESSOR).relate_again("turned round")
        assert stored(catalog) == plainly(catalog, source_finished=False)


def test_a_row_is_related_at_once_though_the_plate_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "REST", 1e9)
    with Catalog.create_or_open(tmp_path) as catalog:
        plate = Plate(random.Random(3), catalog)
        for _ in range(8):
            with catalog.transaction():
                plate.score()
                plate.scheduler.record_relations()
        before = set(stored(catalog))
        with catalog.transaction():
            plate.score()
        (new,) = stored(catalog).keys() - before
        assert stored(catalog)[new].trust is not None


def test_a_row_is_provisional_as_long_as_a_control_is_newer_than_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "REST", 0.0)
    rng = random.Random(5)
    with Catalog.create_or_open(tmp_path) as catalog:
        plate = Plate(rng, catalog)
        of_role = {
            role: [StackKey("P1", one.well) for one in plate.map if one.treatment.role is role] for role in WellRole
        }
        controls, samples = of_role[WellRole.NEGATIVE_CONTROL], of_role[WellRole.SAMPLE]

        def score(key: StackKey) -> None:
            found = answer(rng, key, plate.map[key.well].treatment.role)
            plate.scheduler.record_scored(found)
            plate.scheduler.answered(found)

        for key in (*controls, *samples[:3]):
            plate.image(key)
        for key in controls:
            score(key)
        plate.scheduler.record_relations()
        score(samples[0])
        plate.scheduler.record_relations(0.0)
        score(controls[0])  # the sweep that is under way does not know of it
        monkeypatch.setattr(sweeps, "REST", 1e9)
        while plate.scheduler.relations_due:
            plate.scheduler.record_relations(0.0)
        assert stored(catalog)[samples[0]].status is WellStatus.FINAL
        score(samples[1])
        assert stored(catalog)[samples[1]].trust is not None, "it is related"
        assert stored(catalog)[samples[1]].status is WellStatus.PROVISIONAL


def test_the_slices_of_a_stack_are_counted_whoever_writes_them(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as catalog:
        plate = Plate(random.Random(0), catalog)
        key = StackKey("P1", next(iter(plate.map)).well)
        plate.image(key)
        assert (catalog.stack(key).n_slices_acked, catalog.slices_of("P1")) == (4, (4, 4))
        catalog.connection.execute("DELETE FROM slices WHERE z = 0")
        assert catalog.stack(key).n_slices_acked == 2
        catalog.connection.execute("UPDATE stacks SET n_acked = 4")
        assert "4 slices are counted where the ledger has 2" in " ".join(catalog.verify())
