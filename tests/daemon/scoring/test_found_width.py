"""Where the settings leave it to the daemon how wide cells are: its rows are asked once, and what was taken stays.

A worker of these tests says of every stack how wide its cells look beside what it was told to take them for; main's
loop is a few lines, so that it can be killed after any of them.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.audit_verification import verify
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.cell_width import Width
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.daemon.scoring.messages import Scored, ScoreJob
from spheroidd.daemon.scoring.pool import ScoringPool, WorkerReady
from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.evidence import ChannelLight, MaskEvidence, MaskShape, StackLight, StackLooks
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import (
    USUAL_CELL_UM,
    ChannelProfile,
    Limits,
    Normalisation,
    StackProfile,
    WellStatus,
)
from spheroidd.protocols.stack import CHANNELS, StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

LIMITS = {channel: Limits(110.0, 900.0, 300.0, 200.0) for channel in CHANNELS}
REGRESSOR = ViabilityRegressor.load()
TREATMENTS = (plates.UNTREATED, plates.UNTREATED, plates.KILLED, plates.sample("C1", 1.0), plates.sample("C1", 9.0))
KEYS = [StackKey("P1", WellId(0, column)) for column in range(len(TREATMENTS))]
MAP = plates.plate_map("P1", {key.well: treatment for key, treatment in zip(KEYS, TREATMENTS, strict=True)})
SMALL: dict[StackKey, float | None] = dict(zip(KEYS, (8.6, 8.7, 8.8, 8.9, 9.0), strict=True))
FOUND = 8.8
ACTIONS = (Action.CELL_WIDTH_FOUND, Action.CELL_WIDTH_KEPT)


def image(catalog: Catalog, keys: list[StackKey]) -> None:
    for key in keys:
        plan = plates.plan_of(key, n_z=2, side=8)
        catalog.expect(plan)
        for number, index in enumerate(plan.indices()):
            catalog.acknowledge(SliceDurable(key, index, number, 1.0), 1.0)
        catalog.set_stack_state(key, StackState.STORED)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A plate of which everything is stored."""
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(MAP, '{"inference":{}}')
        image(catalog, KEYS)
        yield catalog


@dataclass
class Pool:
    """A worker that takes what it is given; `run` answers."""

    follows_growing = True
    ahead = 0

    def __post_init__(self) -> None:
        self.jobs: list[ScoreJob] = []
        self.seen: list[tuple[StackKey, float | None]] = []

    def submit(self, job: ScoreJob) -> None:
        self.jobs.append(job)
        self.seen.append((job.key, job.cell_um))


def answer(job: ScoreJob, true_um: Mapping[StackKey, float | None]) -> Scored:
    """What a network says: fewer cells, and smaller ones, where they are not as wide as they were taken to be."""
    taken, true = job.cell_um or USUAL_CELL_UM, true_um[job.key]
    share = 1.0 if true is None else min(1.0, true / taken)
    alive = {WellRole.NEGATIVE_CONTROL: 1.0, WellRole.POSITIVE_CONTROL: 0.1}.get(MAP[job.key.well].treatment.role, 0.5)
    measured = plates.measurement(3e5 * alive * share, n_z=2)
    size = ((true or taken) / USUAL_CELL_UM) ** 3
    live_um3, dead_um3 = ((um3 or 0.0) * size for um3 in (measured.live_um3, measured.dead_um3))
    of_cells = {"live_um3": live_um3, "dead_um3": dead_um3, "cell_diameter_um": job.cell_um}
    measured = replace(measured, limits=LIMITS, **of_cells)
    bleed = 0.1 + job.key.well.column / 1000 + job.key.stack / 100  # no two wells have the same images
    light = StackLight({c: ChannelLight(110.0, 890.0, 950.0, 0.0, 12.0) for c in CHANNELS}, bleed, bleed, 1.0)
    seen = ChannelProfile((300.0, 300.0), 100.0, 200.0, 0.5, 0.0, 0.0)
    shapes = {c: MaskShape(9.0, 9.0, dict.fromkeys(CHANNELS, 500.0)) for c in CHANNELS}
    width = None if true is None else true / taken
    looks = None if width is None else StackLooks(0.5, width, abs(width - 1) / 0.2)
    masks = MaskEvidence(shapes, dict.fromkeys(CHANNELS, 120.0), looks)
    return Scored(job.key, light, StackProfile(dict.fromkeys(CHANNELS, seen), 0.1, 0.1, 1), measured, masks)


class Daemon:
    """A run over what is stored, one step of main's loop at a time."""

    def __init__(
        self,
        catalog: Catalog,
        true_um: Mapping[StackKey, float | None] = SMALL,
        width: Width = "auto",
        *,
        again: bool = False,
        model: str = plates.MODEL,
    ) -> None:
        self.catalog, self.true_um, self.pool = catalog, true_um, Pool()
        settings = ScoringSettings(
            model, Normalisation.PLATE, LIMITS, tolerance=0.0, max_attempts=1, again=again, cell_um=width
        )
        self.scheduler = ScoringScheduler(catalog, MAP, settings, REGRESSOR)
        action = Action.RESCORE_STARTED if again else Action.RUN_STARTED  # as `launch.run` says it
        catalog.append_event(action, plate="P1", new={"model_sha256": model, "cell_diameter_um": width})
        self.scheduler.source_finished = True
        self.scheduler.joined(WorkerReady(1, model, 1))

    def step(self) -> None:
        answers = [answer(job, self.true_um) for job in self.pool.jobs]
        self.pool.jobs.clear()
        with self.catalog.transaction():
            for one in answers:
                self.scheduler.record_scored(one)
            excluded = self.scheduler.record_exclusions(budget_s=0.0)
            self.scheduler.record_relations(10.0)
        for one in answers:
            self.scheduler.answered(one)
        self.scheduler.related_without(excluded)
        self.scheduler.dispatch(cast(ScoringPool, cast(Any, self.pool)))

    def run(self, steps: int = 100) -> int:
        """Until nothing is left or it is killed; how many steps that were."""
        for n in range(steps):
            self.step()
            if self.scheduler.idle():
                return n + 1
        return steps


def rows(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """The rows, without when they were made."""
    found = catalog.query("SELECT * FROM results ORDER BY well")
    return {row["well"]: {k: v for k, v in row.items() if k not in ("measured_s", "latency_s")} for row in found}


def standing(catalog: Catalog) -> set[tuple[float | None, str]]:
    return {(row["cell_diameter_um"], row["status"]) for row in rows(catalog).values()}


def told(catalog: Catalog) -> list[tuple[str, Any, str | None]]:
    """What the trail says of the width, in its order."""
    found = [event for event in events(catalog, plate="P1") if event.action in ACTIONS]
    return [(event.action, json.loads(event.new_json or "")["cell_diameter_um"], event.reason) for event in found]


def test_a_width_that_does_not_fit_is_taken_and_every_stack_is_scored_once_more(catalog: Catalog) -> None:
    daemon = Daemon(catalog)
    daemon.run()
    assert standing(catalog) == {(FOUND, "final")}
    assert sorted(daemon.pool.seen, key=str) == sorted([(k, um) for k in KEYS for um in (None, FOUND)], key=str)
    assert daemon.pool.seen[:5] == [(key, None) for key in KEYS], "first all of them at the usual width"
    why = "cells look 8.8 um wide, by 5 stacks (8.6 to 9.0), so every stack is scored with that width"
    assert told(catalog) == [(Action.CELL_WIDTH_FOUND, FOUND, why)]
    (event,) = (one for one in events(catalog) if one.action == Action.CELL_WIDTH_FOUND)
    new = {"cell_diameter_um": 8.8, "low_um": 8.6, "high_um": 9.0, "stacks": 5, "model_sha256": plates.MODEL}
    assert json.loads(event.new_json or "") == new
    assert daemon.scheduler.width.told == why
    assert verify(catalog).problems == ()


@pytest.mark.parametrize(
    ("true_um", "why"),
    [
        (dict.fromkeys(KEYS, 12.0), "cells look 12.0 um wide, by 5 stacks (12.0 to 12.0): about as wide as was taken"),
        (
            dict(zip(KEYS, (9.0, 9.0, 9.0, 14.0, 14.0), strict=True)),
            "how wide the cells are cannot be told: its stacks disagree: 9.0 to 14.0 um",
        ),
        (
            dict.fromkeys(KEYS, None),
            "how wide the cells are cannot be told: what scored it does not say how wide cells look",
        ),
    ],
    ids=["fits", "disagree", "unknown"],
)
def test_where_it_fits_or_cannot_be_told_rows_stay_and_the_trail_says_why(
    catalog: Catalog, true_um: Mapping[StackKey, float | None], why: str
) -> None:
    daemon = Daemon(catalog, true_um)
    daemon.run()
    assert daemon.pool.seen == [(key, None) for key in KEYS]
    assert standing(catalog) == {(None, "final")}
    assert told(catalog) == [(Action.CELL_WIDTH_KEPT, None, why)]
    second = Daemon(catalog, true_um)
    assert (second.run(), second.pool.seen, len(told(catalog))) == (1, [], 1), "nothing new is there to be asked"


def test_no_row_is_final_before_the_plate_was_asked(catalog: Catalog) -> None:
    Daemon(catalog, dict.fromkeys(KEYS, 12.0)).run()
    (asked,) = (event.seq for event in events(catalog) if event.action == Action.CELL_WIDTH_KEPT)
    changes = {change.id: change.new["status"] for change in changes_by_event(catalog)}
    assert {status for seq, status in changes.items() if seq < asked} == {WellStatus.PROVISIONAL}
    assert {status for seq, status in changes.items() if seq > asked} == {WellStatus.FINAL}


@dataclass
class Change:
    id: int
    new: Mapping[str, Any]


def changes_by_event(catalog: Catalog) -> list[Change]:
    """What became of rows, by the number of the event that tells of it."""
    sql = """SELECT audit.seq, change.new_json FROM audit JOIN result_changes AS change
             ON change.id = json_extract(audit.new_json, '$.result_change')"""
    return [Change(row["seq"], json.loads(row["new_json"])) for row in catalog.query(sql)]


def test_a_run_that_is_killed_after_any_step_ends_with_the_same_rows(tmp_path: Path, catalog: Catalog) -> None:
    n_steps, expected = Daemon(catalog).run(), rows(catalog)
    assert n_steps > 2 * len(KEYS)
    for killed_after in range(1, n_steps):
        with Catalog.create_or_open(tmp_path / f"killed-{killed_after}") as other:
            other.register_plate(MAP, '{"inference":{}}')
            image(other, KEYS)
            Daemon(other).run(killed_after)
            for row in other.stacks("P1"):  # as `open_catalog` finds it after a crash
                if row.state is StackState.SCORING:
                    other.set_stack_state(row.key, StackState.STORED)
            Daemon(other).run()
            assert rows(other) == expected, f"killed after step {killed_after}"
            assert [one[0] for one in told(other)] == [Action.CELL_WIDTH_FOUND]
            assert verify(other).problems == ()


def test_what_a_full_disk_took_back_is_decided_once_more(catalog: Catalog) -> None:
    daemon = Daemon(catalog)
    while not told(catalog):
        with suppress(ZeroDivisionError), catalog.transaction():
            daemon.scheduler.record_relations(10.0)
            raise ZeroDivisionError
        assert not told(catalog)
        daemon.step()
    daemon.run()
    assert standing(catalog) == {(FOUND, "final")}
    assert len(told(catalog)) == 1


def test_a_width_that_was_taken_stays_for_later_runs_scores_and_stacks(catalog: Catalog) -> None:
    Daemon(catalog).run()
    later = Daemon(catalog)
    later.run()
    assert later.pool.seen == []
    again = Daemon(catalog, again=True)
    again.run()
    assert {um for _, um in again.pool.seen} == {FOUND}
    image(catalog, [StackKey("P1", KEYS[3].well, 1)])
    repeated = Daemon(catalog, {**SMALL, StackKey("P1", KEYS[3].well, 1): 8.9})
    repeated.run()
    assert repeated.pool.seen == [(StackKey("P1", KEYS[3].well, 1), FOUND)]
    other = Daemon(catalog, model="7e" * 32)
    assert other.scheduler.width.um == FOUND, "it is the plate's, whichever network asks"
    assert len(told(catalog)) == 1


def test_a_number_that_is_stated_later_wins_until_the_plate_is_scored_with_auto_again(catalog: Catalog) -> None:
    Daemon(catalog).run()
    Daemon(catalog, width=9.5, again=True).run()
    assert standing(catalog) == {(9.5, "final")}
    restarted = Daemon(catalog)
    restarted.run()
    assert (restarted.pool.seen, standing(catalog)) == ([], {(9.5, "final")})
    Daemon(catalog, again=True).run()
    assert standing(catalog) == {(FOUND, "final")}


def test_a_number_that_was_stated_before_gives_way_to_a_width_that_is_found(catalog: Catalog) -> None:
    Daemon(catalog, width=16.0).run()
    daemon = Daemon(catalog)
    daemon.run()
    assert told(catalog)[0][:2] == (Action.CELL_WIDTH_FOUND, FOUND)
    assert standing(catalog) == {(FOUND, "final")}


@pytest.mark.parametrize("width", [None, 9.5])
def test_without_auto_nobody_asks(catalog: Catalog, width: float | None) -> None:
    daemon = Daemon(catalog, width=width)
    daemon.run()
    assert daemon.pool.seen == [(key, width) for key in KEYS]
    assert (standing(catalog), told(catalog)) == ({(width, "final")}, [])


def test_a_plate_of_which_stacks_are_still_to_come_is_not_asked(catalog: Catalog) -> None:
    to_come = StackKey("P1", KEYS[4].well, 1)
    catalog.expect(plates.plan_of(to_come, n_z=2, side=8))
    Daemon(catalog).run()
    assert (standing(catalog), told(catalog)) == ({(None, "provisional")}, [])
    image(catalog, [to_come])
    Daemon(catalog, {**SMALL, to_come: 9.0}).run()
    assert standing(catalog) == {(FOUND, "final")}


def test_a_person_who_leaves_a_well_out_makes_no_row_final_that_is_to_be_scored_again(
    tmp_path: Path, catalog: Catalog
) -> None:
    daemon = Daemon(catalog)
    while not told(catalog):
        daemon.step()
    daemon.step()  # one of them is scored with the found width already
    catalog.close()
    exclude_well(tmp_path, str(KEYS[4].well), "a bubble")
    with Catalog.create_or_open(tmp_path) as later:
        assert {um for um, _ in standing(later)} == {None, FOUND}
        assert {status for _, status in standing(later)} == {"provisional"}
        Daemon(later).run()
        assert standing(later) == {(FOUND, "final")}


def test_an_excluded_well_has_no_say_and_is_scored_again_with_the_others(tmp_path: Path, catalog: Catalog) -> None:
    wide = {**dict.fromkeys(KEYS, 8.8), KEYS[4]: 17.0}
    Daemon(catalog, wide).run(1)
    exclude_well(tmp_path, str(KEYS[4].well), "cells of another kind")
    Daemon(catalog, wide).run()
    assert "by 4 stacks" in (told(catalog)[0][2] or "")
    assert standing(catalog) == {(FOUND, "final")}
