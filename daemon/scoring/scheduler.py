"""Decides what the workers score next, when a plate's limits are found or move, and what a new measurement changes.

A plate's limits follow from the light of its wells so far (`plate_limits`). Controls are measured first; a well that is
brighter than those before it moves the limits, and what was scored with others is scored again when nothing new is
left. When the plate is done every row was scored with the same limits. How wide its cells are (`CellWidth`) may be
asked of its rows then, which outdates those that were scored at another width in the same way.

Only `main` calls it. What is left to score follows from the catalog alone, so a restart goes on where a crash was.
Methods called `record_...` write rows inside main's transaction and may run again; the others follow the commit.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from heapq import heapify, heappop

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.found_widths import FoundWidth, found_width
from spheroidd.daemon.catalog.rows import Exclusion, ScoredWith, StackRow, StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.cell_width import CellWidth, Width
from spheroidd.daemon.scoring.limits_of_plate import CONTROLS, limits_of_lights
from spheroidd.daemon.scoring.messages import PatternsFound, Scored, ScoreJob
from spheroidd.daemon.scoring.plate_relations import Standing
from spheroidd.daemon.scoring.plate_stacks import OVER, PlateStacks
from spheroidd.daemon.scoring.pool import ScoringAbandoned, ScoringFailed, ScoringPool, WorkerLost, WorkerReady
from spheroidd.daemon.scoring.raw_retention import RawRetention
from spheroidd.daemon.scoring.run_patterns import RunPatterns
from spheroidd.daemon.scoring.sweeps import Sweeps
from spheroidd.inference.viability.related_viability import Regressor
from spheroidd.protocols.errors import NoRoomError, SpheroiddError, StackError, StorageError
from spheroidd.protocols.evidence import StackLight
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.plate import PlateMap, Treatment, WellRole
from spheroidd.protocols.results import Boundary, Limits, Normalisation
from spheroidd.protocols.sim_pattern import KeepRaw, PatternEstimate
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import Ending
from spheroidd.protocols.well import WellId

_RELATED = "related to the plate's controls"
RETRY_S = 5.0  # a stack whose masks found no disk space is tried again after this long


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """How this run scores: the model's digest, where limits come from, and how often a stack may kill a worker."""

    model_sha256: str
    normalisation: Normalisation
    limits: Mapping[str, Limits] | None
    tolerance: float
    max_attempts: int
    again: bool = False  # score what this model has scored before, too
    keep_raw: KeepRaw = KeepRaw.ALL
    objects: bool = False  # write each counted object down
    boundary: Boundary = Boundary.NETWORK
    cell_um: Width = None


class ScoringScheduler:
    """The plate's scoring: one job at a time for each worker that is ready."""

    def __init__(self, catalog: Catalog, plate_map: PlateMap, settings: ScoringSettings, regressor: Regressor) -> None:
        self._catalog, self._map, self._settings, self._regressor = catalog, plate_map, settings, regressor
        self._plate, self._model = plate_map.name, settings.model_sha256
        self._n_controls = sum(entry.treatment.role in CONTROLS for entry in plate_map)
        self._running: dict[StackKey, ScoreJob] = {}
        self._attempts: Counter[StackKey] = Counter()  # workers that died of a stack
        self._refusals: Counter[StackKey] = Counter()  # times the disk failed for it
        self._given_up: set[StackKey] = set()
        self._not_before_s: dict[StackKey, float] = {}
        self._again: set[StackKey] = (
            set(catalog.scored_with(plate_map.name, settings.model_sha256)) if settings.again else set()
        )
        self._done: set[StackKey] = set()  # of these, what is recorded and not yet committed
        self._mixed = False  # some rows are scored anew and came out otherwise, some are still as they were
        self._nothing_to_lock = not self._n_controls
        self._excluded: Mapping[str, Exclusion] = {}  # as they were when the plate was last related
        self._related_early = True  # an earlier run may have ended before a plate's limits were final
        self.source_finished = False
        self._workers: set[int] = set()  # those that can take work, or have some
        if settings.limits:
            catalog.lock_limits(self._plate, settings.limits)
        self._roles = {entry.well: entry.treatment.role for entry in plate_map}
        self._order = {entry.well: number for number, entry in enumerate(plate_map)}
        self._stacks = PlateStacks(catalog, self._plate)
        self._left_keys: set[StackKey] = set()  # what `_left` gives, but for what is named here
        self._left_unsure: set[StackKey] = set(self._stacks.rows)
        self._uncounted = self._stacks.uncounted  # asked again at every heartbeat
        self._sweeps = Sweeps(catalog, plate_map, self._stacks, regressor, self._standing)
        self._limits: dict[str, Limits] | None = None
        self.width = CellWidth(catalog, self._plate, self._model, settings.cell_um)
        self._used: dict[StackKey, ScoredWith] = {}
        self._lights: dict[StackKey, StackLight] = {}
        self._outdated: frozenset[StackKey] = frozenset()  # scored with other limits or another width than now
        self._rollbacks = catalog.rollbacks
        self._patterns = RunPatterns(catalog, self._plate, self._stacks, lambda: self.source_finished)
        self._raw = RawRetention(catalog, self._plate, self._model, settings.keep_raw)
        self._read()
        if self.width.is_open:
            self._want(self._model)  # what is asked of the rows is what they are doubted for, too

    def _read(self) -> None:
        """What of the catalog is remembered; only this scheduler changes it."""
        self._used = self._catalog.scored_with(self._plate, self._model)
        self._lights = self._catalog.stack_lights(self._plate)
        self._read_limits()

    def _read_limits(self) -> None:
        self._limits = self._catalog.locked_limits(self._plate)
        self._find_outdated()

    def _find_outdated(self) -> None:
        self._outdated = self._outdated_of(self._used)
        self._left_unsure |= self._stacks.rows.keys()

    def _look(self) -> None:
        """Bring what is remembered up to date: after what main wrote, and where that was taken back."""
        settled_before = len(self._stacks.unsettled)
        self._left_unsure |= self._stacks.look()
        if self._catalog.rollbacks != self._rollbacks:
            self._rollbacks = self._catalog.rollbacks
            self._left_keys.clear()
            self.width.forget()
            self._read()
            self._sweeps.forget()
        elif len(self._stacks.unsettled) < settled_before and self._used:
            self._want(self._model)  # a stack ended: what waits for it may be final

    # -- what to do next ------------------------------------------------------------------------------------------

    def dispatch(self, pool: ScoringPool) -> None:
        """Give idle workers their next jobs: stored stacks, then those that still grow, then those scored before.

        The pool gets as many more as it takes ahead.
        """
        room = len(self._workers) + pool.ahead if self._workers else 0
        if len(self._running) >= room:
            return
        self._look()
        for row in self._in_turn(self._left()):
            if len(self._running) >= room:
                return
            if row.key in self._running or (row.state is StackState.ACQUIRING and not pool.follows_growing):
                continue
            job = self._job(row)
            if job is not None and time.monotonic() >= self._not_before_s.get(row.key, 0.0):
                if row.state is StackState.STORED:
                    self._catalog.set_stack_state(row.key, StackState.SCORING)
                self._running[row.key] = job
                pool.submit(job)

    def idle(self) -> bool:
        """Nothing is being scored, and nothing stored can be: what waits for controls may wait for another run."""
        if self._running:
            return False
        self._look()
        if self._sweeps.pending or self._width_due():
            return False
        return not any(row.complete and self._job(row) for row in self._left())

    def score_again(self, wells: Set[WellId], who: str | None = None) -> int:
        """Have what is scored, or failed although it is whole, scored once more; of all wells where none are named.

        How many stacks that are. The audit trail says `who` wanted it.
        """
        keys = []
        with self._catalog.transaction():
            self._look()
            for row in list(self._stacks.rows.values()):
                if (wells and row.key.well not in wells) or not row.complete:
                    continue
                if row.state is StackState.FAILED:
                    self._catalog.set_stack_state(row.key, StackState.STORED)
                if row.state in (StackState.FAILED, StackState.SCORED):
                    self._given_up.discard(row.key)
                    keys.append(row.key)
            if keys:
                new = {"model_sha256": self._model, "stacks": [str(key) for key in keys]}
                self._catalog.append_event(Action.RESCORE_STARTED, plate=self._plate, new=new, who=who)
        self._again |= set(keys)
        self._left_unsure |= set(keys)
        return len(keys)

    def describe(self) -> str:
        """What the workers do, in a word or three."""
        if not self._workers:
            return "starting"
        if not self._running:
            return "idle"
        first, *others = self._running.values()
        at_work = f"measuring limits of {first.key}" if first.light_only else f"scoring {first.key}"
        return f"{at_work} and {len(others)} more" if others else at_work

    def _left(self) -> list[StackRow]:
        """What is to be scored, be it not stored yet; see `_turn` for the order."""
        for key in self._left_unsure:
            done = key in self._used and key not in self._again and key not in self._outdated
            left = key in self._stacks.to_score and not done and key not in self._given_up
            self._left_keys.add(key) if left else self._left_keys.discard(key)
        self._left_unsure.clear()
        return [self._stacks.rows[key] for key in self._left_keys]

    def _in_turn(self, rows: list[StackRow]) -> Iterator[StackRow]:
        """Stored stacks before the one that grows, those scored before last; in the map's order.

        With several workers the one that grows comes first: it can be followed while the others score what is stored.
        Only as much is put in order as is asked for: on a large plate most of it waits.
        """
        turns = [(self._turn(row), number) for number, row in enumerate(rows)]
        heapify(turns)
        while turns:
            yield rows[heappop(turns)[1]]

    def _turn(self, row: StackRow) -> tuple[bool, bool, int, int]:
        key, grows = row.key, row.state is StackState.ACQUIRING
        return key in self._used, grows == (len(self._workers) < 2), self._order.get(key.well, 0), key.stack

    def _job(self, row: StackRow) -> ScoreJob | None:
        kind, limits = self._settings.normalisation, self._limits
        patterns: Mapping[str, PatternEstimate | None] | None = None
        wells: tuple[tuple[WellId, Treatment], ...] = ()
        if row.plan.raw is not None:
            patterns = self._patterns.known(row.plan.channels)
            if patterns is None:
                may_be_asked = row.complete and self._patterns.may_ask(row.key)
                return ScoreJob(row.key, kind, None, self._settings.tolerance) if may_be_asked else None
            wells = tuple((entry.well, entry.treatment) for entry in self._map)
        if kind is Normalisation.PLATE and limits is None:
            if self._nothing_to_lock:
                kind = Normalisation.STACK  # said in the row's normalisation
            elif not self._is_control(row.key) or row.key in self._lights:
                return None
        known = limits if kind is Normalisation.PLATE else None
        settings = self._settings
        return ScoreJob(
            row.key,
            kind,
            known,
            settings.tolerance,
            patterns,
            wells,
            settings.objects,
            settings.boundary,
            self.width.um,
        )

    def _is_control(self, key: StackKey) -> bool:
        return self._role(key) in CONTROLS

    def _role(self, key: StackKey) -> WellRole:
        return self._roles[key.well]

    # -- what came of it -------------------------------------------------------------------------------------------

    def record_scored(self, answer: Scored) -> None:
        """Keep the stack's light, write the measurement down, move the limits where it does, relate the plate anew."""
        self._look()
        self._catalog.put_stack_light(answer.key, answer.light)
        self._lights[answer.key] = answer.light
        self._catalog.put_stack_profile(answer.key, answer.profile)
        if answer.slices:
            self._catalog.put_sim_slices(answer.key, answer.slices)
            self._make_again(self._patterns.record(self._catalog.plan(answer.key).channels))
            self._patterns.record_given(answer.key, answer.slices)
        row = self._catalog.stack(answer.key)
        if answer.measurement is None:
            if row.state is StackState.SCORING:
                self._catalog.set_stack_state(answer.key, StackState.STORED, "waits for the plate's limits")
            return
        latency_s = None if row.last_acked_s is None else time.time() - row.last_acked_s
        if latency_s is not None and latency_s < 0:  # the clock was set back meanwhile
            latency_s = None
        changed = self._catalog.record_measurement(answer.key, answer.measurement, latency_s)
        self._mixed = self._mixed or (changed and answer.key in self._again)
        if answer.origin is not None:
            self._catalog.put_origin(answer.key, answer.measurement.model_sha256, answer.origin)
        if answer.masks is not None:
            self._catalog.put_mask_evidence(answer.key, answer.measurement.model_sha256, answer.masks)
        for code in (FaultCode.STORAGE_MASKS, FaultCode.WORKER_DIED, FaultCode.RESCORE_FAILED):
            self._catalog.clear_fault(code, answer.key)
        by_plate = answer.measurement.normalisation is Normalisation.PLATE
        limits = answer.measurement.limits if by_plate else None
        self._used[answer.key] = ScoredWith(limits, answer.measurement.cell_diameter_um)
        self.width.measured()
        self._outdated = (self._outdated - {answer.key}) | self._outdated_of([answer.key])
        self._done.add(answer.key)
        self._left_unsure.add(answer.key)
        self._record_moved_limits(answer.key)
        self._look()
        # The model that is asked for may be another than that of the answer: then its row stands as it stood.
        own = answer if answer.measurement.model_sha256 == self._model else None
        self._sweeps.measured(self._model, answer.key, self._why(), own)
        self._related_early |= self._is_open()

    def record_patterns(self, answer: PatternsFound) -> None:
        """Keep what a stack says of its pattern; tell a person of a colour that goes on in widefield."""
        self._catalog.put_patterns(answer.key, answer.patterns)
        if self._catalog.stack(answer.key).state is StackState.SCORING:
            self._catalog.set_stack_state(answer.key, StackState.STORED, "waits for the plate's pattern")
        self._look()
        self._make_again(self._patterns.record(tuple(answer.patterns)))

    def _make_again(self, keys: Set[StackKey]) -> None:
        """Have stacks scored again that an earlier run made without a pattern which is known by now."""
        self._again |= keys
        self._left_unsure |= keys

    def record_failed(self, answer: ScoringFailed) -> None:
        """Disk trouble is tried again later; anything else is the stack's own failure."""
        if self._is_tried_again(answer):
            self._catalog.raise_fault(FaultCode.STORAGE_MASKS, answer.error, answer.key)
            return
        self._catalog.clear_fault(FaultCode.STORAGE_MASKS, answer.key)
        self._fail(answer.key, answer.error)

    def _is_tried_again(self, answer: ScoringFailed) -> bool:
        """A full disk is waited for; one that fails is given a few attempts: it may fail for this stack alone."""
        if isinstance(answer.error, NoRoomError):
            return True
        left = self._settings.max_attempts - self._refusals[answer.key]
        return isinstance(answer.error, StorageError) and left > 1

    def _fail(self, key: StackKey, error: SpheroiddError) -> None:
        """A stack cannot be scored. A row that stands was made of images that were sound then: it stays as it is."""
        if self._catalog.stack(key).state is StackState.SCORED and key not in self._outdated:
            self._catalog.raise_fault(FaultCode.RESCORE_FAILED, error, key)
        else:
            self._catalog.end_stack(key, Ending.of(error, key))
        self._give_up(key)
        self._want(self._model)

    def record_lost(self, event: WorkerLost) -> None:
        """A worker died: the stack it had is tried again, but not for ever. That its computer died counts for none."""
        if event.key is None or event.with_its_node:
            return
        attempt = self._attempts[event.key] + 1
        what = f"the inference worker {event.how} while scoring it, attempt {attempt}"
        do = "look for lack of memory; the raw stack is safe, and `spheroidd score` tries again"
        error = StackError(what, where=str(event.key), do=do)
        self._catalog.raise_fault(FaultCode.WORKER_DIED, error, event.key)
        if attempt >= self._settings.max_attempts:
            self._fail(event.key, error)

    def answered(self, answer: Scored | PatternsFound | ScoringFailed | ScoringAbandoned) -> None:
        """Its worker is free again."""
        self._running.pop(answer.key, None)
        self._left_unsure.add(answer.key)
        if isinstance(answer, Scored) and answer.measurement is not None:
            self._again.discard(answer.key)
        self._done.discard(answer.key)
        if isinstance(answer, ScoringFailed):
            self._not_before_s[answer.key] = time.monotonic() + RETRY_S
            self._refusals[answer.key] += not isinstance(answer.error, NoRoomError)

    def _give_up(self, key: StackKey) -> None:
        """Leave a stack alone for the rest of this run."""
        self._given_up.add(key)
        self._left_unsure.add(key)
        self._again.discard(key)

    def lost(self, event: WorkerLost) -> None:
        """Another worker is being started in its place."""
        self._workers.discard(event.worker)
        if event.key is not None:
            self._running.pop(event.key, None)
            self._attempts[event.key] += not event.with_its_node

    def joined(self, event: WorkerReady) -> None:
        """A worker can take work."""
        self._workers.add(event.worker)

    # -- the plate's controls --------------------------------------------------------------------------------------

    def lock_when_ready(self) -> None:
        """Lock the plate's limits once no control well can add to them any more."""
        if self._settings.normalisation is not Normalisation.PLATE or self._nothing_to_lock:
            return
        if self._limits is not None:
            return
        self._look()
        controls = [row for row in self._stacks.rows.values() if self._is_control(row.key)]
        if len(controls) < self._n_controls and not self.source_finished:
            return
        if any(row.key not in self._lights and row.state not in OVER for row in controls):
            return
        limits = self._limits_now()
        if limits:
            self._catalog.lock_limits(self._plate, limits)
            self._read_limits()
            return
        self._nothing_to_lock = True
        what = "no control well could be stored, so every stack is normalised by its own limits"
        self._catalog.raise_fault(
            FaultCode.NO_PLATE_LIMITS, StackError(what, where=self._plate, do="image a control again")
        )

    def _limits_now(self) -> dict[str, Limits]:
        return limits_of_lights(self._map, self._lights, self._stacks.current, self._stacks.left_out)

    def _record_moved_limits(self, key: StackKey) -> None:
        """Move the plate's limits where this stack is brighter than those before it.

        Not those that the settings give, and not those of an older catalog as long as a control's light is unknown.
        """
        old = self._limits
        if old is None or self._settings.limits or self._settings.normalisation is not Normalisation.PLATE:
            return
        self._look()
        measured = [row.key for row in self._stacks.rows.values() if row.state is StackState.SCORED]
        if any(one not in self._lights and self._is_control(one) for one in measured):
            return
        new = self._limits_now()
        if new.keys() >= old.keys() and new != old:
            self._catalog.move_limits(self._plate, new, f"the light of {key} moved them")
            self._read_limits()

    def _outdated_of(self, keys: Iterable[StackKey]) -> frozenset[StackKey]:
        """Which of these were scored with other plate limits than the plate has now, or for cells of another width."""
        return frozenset(key for key in keys if self._is_outdated(self._used[key], self.width.found))

    def _is_outdated(self, used: ScoredWith, found: FoundWidth) -> bool:
        return _differ(self._limits, used.limits) or found.outdates(used.cell_um)

    def _is_open(self) -> bool:
        """Whether every row may still change: limits may move, or nobody asked yet how wide the plate's cells are."""
        return self._limits_may_move() or self.width.is_open

    def _limits_may_move(self) -> bool:
        """Whether a well that is still to come may be brighter than all before: on a plate without killed wells.

        With killed wells the brightest has been seen; should another be brighter all the same, its rows, final or not,
        are provisional until they are scored again.
        """
        if self._settings.limits or self._settings.normalisation is not Normalisation.PLATE or self._nothing_to_lock:
            return False
        if any(entry.treatment.role is WellRole.POSITIVE_CONTROL for entry in self._map):
            return False
        return not self.source_finished or bool(self._stacks.unsettled)

    def _width_due(self) -> bool:
        """Whether the plate is to be asked how wide its cells are: nothing of it is to come, or to be scored once more,
        and its rows say what they are doubted for.
        """
        if not self.width.is_open or not self.source_finished or self._running or self._sweeps.pending:
            return False
        return not self._stacks.unsettled and not self._left()

    def drop_raw(self) -> None:
        """Delete the raw frames that are not to be kept, of stacks that nobody works on; call it after a commit."""
        self._raw.drop(self._running)

    # -- the plate's rows beside its controls ----------------------------------------------------------------------

    @property
    def relations_due(self) -> bool:
        """Whether it is time to go on relating rows, or to ask them."""
        return (self._sweeps.pending and self._sweeps.due(quiet=self._is_quiet())) or self._width_due()

    def record_relations(self, budget_s: float | None = None) -> None:
        """Bring v_control, v_score, the trust and the status of the plate's rows up to date; ask them how wide cells
        are, where that is to be found and nothing else is left.

        With a budget: of those of which it is known that they may have changed, for so many seconds. Without: of all.
        """
        self._look()
        if budget_s is None:
            self._want(self._model)
        if self._sweeps.pending:
            self._sweeps.run(budget_s, quiet=self._is_quiet())
        if self._width_due():
            self.width.ask()
            self._find_outdated()
            self._want(self._model)

    def relate_again(self, reason: str) -> None:
        """Relate every model's rows anew, after a person changed which stack counts or what a well holds."""
        self._look()
        self._want_all(reason)
        self._sweeps.run(None, quiet=True)

    def record_exclusions(self, budget_s: float | None = None) -> Mapping[str, Exclusion]:
        """Relate every model's rows anew where a person excluded a well or took one in again, or the limits are final.

        With a budget that is only begun; `record_relations` goes on. The exclusions as they are now: give them to
        `related_without` once this is committed.
        """
        self._look()
        excluded = self._stacks.excluded
        if excluded != self._excluded or (self._related_early and not self._is_open()):
            self._want_all(self._why())
        if self._stacks.uncounted != self._uncounted:
            others = sorted(map(str, self._stacks.uncounted ^ self._uncounted))
            self._want_all(f"{_RELATED}; which stack of a well counts has changed: {', '.join(others[:5])}")
            self._uncounted = self._stacks.uncounted
        if self._sweeps.pending:
            self._sweeps.run(budget_s, quiet=self._is_quiet())
        return excluded

    def related_without(self, excluded: Mapping[str, Exclusion]) -> None:
        """The plate's rows are related without these wells, or will be, and that is committed."""
        self._excluded = excluded
        self._related_early = self._is_open()

    def _is_quiet(self) -> bool:
        """Nothing else is to be done: no row that is still to come shares a sweep."""
        return not self._running and not self._left()

    def _want(self, model_sha256: str) -> None:
        self._related_early |= self._is_open()
        self._sweeps.want(model_sha256, self._why())

    def _want_all(self, reason: str) -> None:
        for model_sha256 in self._catalog.models(self._plate):
            self._sweeps.want(model_sha256, reason)

    def _standing(self, model_sha256: str) -> Standing:
        """How the plate stands for the rows of a model."""
        outdated = self._outdated
        if model_sha256 != self._model:
            used = self._catalog.scored_with(self._plate, model_sha256)
            found = found_width(self._catalog, self._plate, model_sha256)
            found = found if found.sought else FoundWidth()
            outdated = frozenset(key for key, one in used.items() if self._is_outdated(one, found))
        # What is scored once more stays as it stands for as long as everything comes out the same.
        again = self._again - self._done if self._mixed else set()
        return Standing(self._is_open(), outdated | again, self.source_finished)

    def _why(self) -> str:
        """Why the plate is related: its excluded controls, where they are others than before, else its controls."""
        excluded = self._stacks.excluded
        if excluded == self._excluded:
            return _RELATED
        controls = {str(entry.well) for entry in self._map if entry.treatment.role is WellRole.NEGATIVE_CONTROL}
        out = [found for well, found in excluded.items() if well in controls and self._excluded.get(well) != found]
        back = [well for well in self._excluded if well in controls and well not in excluded]
        words = [f"control {found.well} excluded: {found.reason}" for found in out]
        return "; ".join([*words, *(f"control {well} included again" for well in back)]) or _RELATED


def _differ(limits: Mapping[str, Limits] | None, used: Mapping[str, Limits] | None) -> bool:
    """Whether a stack was scored with other plate limits than the plate has."""
    if limits is None or used is None:
        return False
    return any(limits.get(name) != one for name, one in used.items())
