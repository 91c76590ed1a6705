"""The rows of one plate by one model beside its controls, kept up to date as wells come in: a new row costs itself.

What relating needs of a row is read once and remembered. A row is related at once beside the plate as it was last
swept. A sweep relates every row whose own facts, or whose plate's, changed since; it goes on in small steps, so that
main can do other things between them. A sweep's end is what `relate_judged` says of the whole plate, however it came
about.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.messages import Scored
from spheroidd.daemon.scoring.plate_stacks import SETTLED, PlateStacks
from spheroidd.inference.quality.trust.beside_plate import PlateLevels, RowFigures, beside_plate
from spheroidd.inference.quality.trust.evidence import RowEvidence, Seen
from spheroidd.inference.quality.trust.row_trust import with_flags
from spheroidd.inference.quality.trust.rules import own_flags
from spheroidd.inference.viability.related_viability import PlateControls, PlateStack, Regressor
from spheroidd.protocols.plate import PlateMap, PlateWell, WellRole
from spheroidd.protocols.results import Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import TrustFlag, in_order

T = TypeVar("T")
_STEP = 64  # rows of those parts of a sweep that take microseconds a row
_TOGETHER = 16  # rows whose score is found together: a millisecond, which takes four apart


@dataclass(frozen=True, slots=True)
class Standing:
    """How a plate stands, besides what was measured: `is_open` that its limits, or how wide its cells are taken to be,
    may still change, `again` the stacks that are to be scored once more.
    """

    is_open: bool
    again: frozenset[StackKey]
    source_finished: bool


@dataclass(frozen=True, slots=True)
class _Row:
    """What is remembered of a measured stack."""

    measurement: StackMeasurement
    seen: Seen
    own: frozenset[TrustFlag]
    figures: RowFigures


class PlateRelations:
    """See the module. `stacks` is shared with whoever else looks at the plate, who keeps it up to date."""

    def __init__(
        self, catalog: Catalog, plate_map: PlateMap, stacks: PlateStacks, model_sha256: str, regressor: Regressor
    ) -> None:
        self._catalog, self._map, self._stacks = catalog, plate_map, stacks
        self._roles = {entry.well: entry.treatment.role for entry in plate_map}
        self._model, self._regressor = model_sha256, regressor
        self._rows: dict[StackKey, _Row] = {}
        self._answers: dict[StackKey, Scored] = {}  # those of which the catalog need not be asked
        self._written: dict[StackKey, tuple[PlateStack, Related]] = {}  # what was given, what the catalog then had
        self._levels: PlateLevels | None = None
        self._controls: PlateControls | None = None
        self._swept_beside: PlateControls | None = None  # every row is related to these
        self._newest_control = self._swept_control = 0  # how many were measured, and that `_controls` know of
        self._unread = dict.fromkeys(catalog.measured(plate_map.name, model_sha256))

    def forget(self) -> None:
        """Something that was written was taken back: read everything anew."""
        self._rows.clear()
        self._written.clear()
        self._answers.clear()
        self._levels = self._controls = self._swept_beside = None
        self._unread = dict.fromkeys(self._catalog.measured(self._map.name, self._model))

    def measured(self, key: StackKey, answer: Scored | None = None) -> None:
        """A stack has a new measurement: that of a worker's `answer`, which was written down just now, or another."""
        self._unread[key] = None
        self._answers.pop(key, None)
        if answer is not None and answer.measurement is not None and answer.masks is not None:
            self._answers[key] = answer
        self._written.pop(key, None)
        self._newest_control += self._role(key) is WellRole.NEGATIVE_CONTROL

    def relate_alone(self, key: StackKey, standing: Standing, reason: str) -> None:
        """Relate one row beside the plate as it was last swept; nothing where it never was.

        The next sweep may change it; as long as a control is newer than the last one, it is provisional.
        """
        if self._levels is None or self._controls is None:
            return
        row = self._row(key)
        if row is None:
            return
        given = self._judged(self._given(key, standing), row, self._levels)
        (related,) = self._related([(given, row)], self._controls)
        if self._newest_control != self._swept_control:
            related = replace(related, status=WellStatus.PROVISIONAL)
        self._write(key, None, related, reason)

    def sweep(self, standing: Standing, reason: str) -> Iterator[None]:
        """Relate what has to be; go through it to the end. What changes meanwhile is the next sweep's.

        No step takes long on a large plate: slices wait for it.
        """
        newest_control = self._newest_control
        for key in list(self._unread):
            self._row(key)
            yield
        given: dict[StackKey, PlateStack] = {}
        rows: dict[StackKey, _Row] = {}
        for keys in _batched(dict(self._stacks.rows), _STEP):
            for key in keys:
                given[key] = self._given(key, standing)
                if (row := self._rows.get(key)) is not None:
                    rows[key] = row
            yield
        counted = [row for key, row in rows.items() if not given[key].excluded]
        figures, sound = [row.figures for row in counted], [row.figures for row in counted if not row.own]
        yield
        levels = PlateLevels.of(sound, figures)
        yield
        for some in _batched(rows.items(), _STEP):
            for key, row in some:
                given[key] = self._judged(given[key], row, levels)
            yield
        unplanned: list[PlateStack] = []
        for entries in _batched(() if standing.source_finished else self._map.imaged(), _STEP):
            unplanned += self._unplanned(entries)
            yield
        controls = PlateControls([*given.values(), *unplanned])
        as_before = self._swept_beside is not None and controls.same_as(self._swept_beside)
        if as_before and self._swept_beside is not None:
            controls = self._swept_beside
        self._levels, self._controls, self._swept_beside = levels, controls, None
        self._swept_control = newest_control
        yield
        for some in _batched(rows.items(), _STEP):
            may_be_others = [(key, row) for key, row in some if self._may_be_other(key, given[key], as_before)]
            yield
            for part in _batched(may_be_others, _TOGETHER):
                related = self._related([(given[key], row) for key, row in part], controls)
                for (key, row), one in zip(part, related, strict=True):
                    # One that was measured anew meanwhile is the next sweep's.
                    if self._rows.get(key) is row and key not in self._unread:
                        self._write(key, given[key], one, reason)
                        yield
        self._swept_beside = controls

    def _may_be_other(self, key: StackKey, given: PlateStack, as_before: bool) -> bool:
        before = self._written.get(key)
        return before is None or not as_before or before[0] != given

    def _row(self, key: StackKey) -> _Row | None:
        if key in self._unread:
            del self._unread[key]
            answer = self._answers.pop(key, None)
            measurement = answer.measurement if answer else self._catalog.measurement(key, self._model)
            plan = self._stacks.rows[key].plan if key in self._stacks.rows else self._catalog.plan(key)
            if measurement is None:
                self._rows.pop(key, None)
                return None
            seen = Seen.of(
                plan,
                light=answer.light if answer else self._catalog.stack_light(key),
                profile=answer.profile if answer else self._catalog.stack_profile(key),
                masks=answer.masks if answer else self._catalog.masks_of(key, self._model),
                widefield=plan.raw is not None and self._catalog.is_widefield(key),
            )
            evidence = RowEvidence(key, self._role(key), measurement, seen)
            self._rows[key] = _Row(measurement, seen, own_flags(evidence), RowFigures.of(evidence))
        return self._rows.get(key)

    def _role(self, key: StackKey) -> WellRole:
        return self._roles[key.well]

    def _given(self, key: StackKey, standing: Standing) -> PlateStack:
        stack, row = self._stacks.rows[key], self._rows.get(key)
        settled = stack.state in SETTLED
        return PlateStack(
            key,
            self._role(key),
            stack.plan.z_step_um,
            settled and not standing.is_open and key not in standing.again,
            row.measurement if row is not None else None,
            # A repeat that is still to come may count: as long as it does not, the rows are provisional.
            excluded=str(key.well) in self._stacks.excluded
            or (key not in self._stacks.counting and (row is not None or settled)),
        )

    def _unplanned(self, entries: Iterable[PlateWell]) -> Iterator[PlateStack]:
        """A control that is not even planned yet may still come."""
        for entry in entries:
            key = StackKey(self._map.name, entry.well)
            if key not in self._stacks.rows:
                out = str(entry.well) in self._stacks.excluded
                yield PlateStack(key, entry.treatment.role, 1.0, settled=False, excluded=out)

    def _judged(self, given: PlateStack, row: _Row, levels: PlateLevels) -> PlateStack:
        beside = () if given.excluded else beside_plate(row.figures, row.own, levels)
        return replace(given, flags=in_order(row.own.union(beside)))

    def _related(self, rows: Sequence[tuple[PlateStack, _Row]], controls: PlateControls) -> list[Related]:
        found = controls.relate_many([(given, row.measurement) for given, row in rows], self._regressor)
        return [with_flags(one, given.flags or ()) for one, (given, _) in zip(found, rows, strict=True)]

    def _write(self, key: StackKey, given: PlateStack | None, related: Related, reason: str) -> None:
        before = self._written.get(key)
        if before is None or before[1] != related:
            self._catalog.update_related(key, self._model, related, reason)
        if given is not None:
            self._written[key] = given, related


def _batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """So many at a time; itertools has that from Python 3.12 on."""
    left = iter(items)
    while part := list(islice(left, n)):
        yield part
