"""How long a plate will take: what past runs needed for a slice and between two stacks, and a guess where none is.

Read from the ledger of an earlier data directory: when each slice was acknowledged. Medians, so that a plate that was
paused overnight, or taken up the next morning, does not count.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import load_plan, stack_key
from spheroidd.protocols.stack import StackKey, StackPlan

GUESSED_OVERHEAD_S = 3.0  # retract, move, come back, start the engine: what a stage of middling speed needs
_ALIKE = ("channels", "height", "width", "dtype", "frames_per_slice")
MAX_PERIOD_CHANGE = 0.01  # a plan whose slices are to take another time is another kind of stack


@dataclass(frozen=True, slots=True)
class Figure:
    """A time in seconds, from how many measurements it is the median, and in words where it is from."""

    seconds: float
    n_measured: int
    source: str


@dataclass(frozen=True, slots=True)
class LearntTimes:
    """Medians of past stacks that are like the planned ones; None where there were none.

    `slice_s` is for one image; the gaps are from a stack's last image to the next one's first, less one image's time.
    """

    slice_s: Figure | None = None
    next_well_s: Figure | None = None
    next_field_s: Figure | None = None


@dataclass(frozen=True, slots=True)
class PlateTime:
    """The reckoning for a whole plate; `total_s` is None where nobody knows how long a slice takes."""

    total_s: float | None
    slice_s: Figure | None
    next_well_s: Figure
    next_field_s: Figure
    n_slices: int
    n_moves_to_wells: int
    n_moves_to_fields: int


def reckon(plans: Sequence[StackPlan], learnt: LearntTimes, n_focus_images: int = 0) -> PlateTime:
    """The time for these stacks, in this order; a guess at the way to each has so many images for the autofocus."""
    first = plans[0] if plans else None
    slice_s = learnt.slice_s
    if slice_s is None and first is not None and first.slice_period_s is not None:
        per_image_s = first.slice_period_s / (len(first.channels) * first.frames_per_slice)
        slice_s = Figure(per_image_s, 0, "the settings (slice_period_s, or exposures and a guess for readout)")
    looked_s = n_focus_images * slice_s.seconds if slice_s else 0.0
    next_well_s = learnt.next_well_s or Figure(GUESSED_OVERHEAD_S + looked_s, 0, "a guess")
    next_field_s = learnt.next_field_s or next_well_s
    n_slices = sum(plan.n_slices for plan in plans)
    to_fields = sum(one.key.well == other.key.well for one, other in pairwise(plans))
    to_wells = len(plans) - to_fields  # to the first one too
    total_s = None
    if slice_s is not None:
        total_s = n_slices * slice_s.seconds + to_wells * next_well_s.seconds + to_fields * next_field_s.seconds
    return PlateTime(total_s, slice_s, next_well_s, next_field_s, n_slices, to_wells, to_fields)


def learn(catalog: CatalogReader, plan: StackPlan) -> LearntTimes:
    """What the plates of a catalog say of stacks like `plan`."""
    rows = catalog.query(_TAKEN)
    past = [_Taken(load_plan(stack_key(row), row["plan_json"]), row["first_s"], row["last_s"]) for row in rows]
    taken = [one for one in past if one.resembles(plan)]
    spans = [(one.last_s - one.first_s) / (one.plan.n_slices - 1) for one in taken if one.plan.n_slices > 1]
    if not spans:
        return LearntTimes()
    where = str(catalog.path.parent)
    slice_s = statistics.median(spans)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for before, after in pairwise(past):
        if before.key.plate == after.key.plate and before.resembles(plan) and after.resembles(plan):
            gap_s = max(after.first_s - before.last_s - slice_s, 0.0)
            gaps[before.key.well == after.key.well].append(gap_s)
    to_well, to_field = (_figure(gaps[same_well], "moves", where) for same_well in (False, True))
    return LearntTimes(_figure(spans, "stacks", where), to_well, to_field)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A past stack: when its first and its last slice were acknowledged."""

    plan: StackPlan
    first_s: float
    last_s: float

    @property
    def key(self) -> StackKey:
        return self.plan.key

    def resembles(self, plan: StackPlan) -> bool:
        """Whether it had the channels and images of the planned one, and was to take as long for a slice."""
        if any(getattr(self.plan, name) != getattr(plan, name) for name in _ALIKE):
            return False
        then_s, now_s = self.plan.slice_period_s, plan.slice_period_s
        if then_s is None or now_s is None:
            return then_s == now_s
        return abs(then_s - now_s) <= MAX_PERIOD_CHANGE * now_s


def _figure(values_s: Iterable[float], what: str, where: str) -> Figure | None:
    values_s = list(values_s)
    if not values_s:
        return None
    return Figure(statistics.median(values_s), len(values_s), f"measured: {len(values_s)} {what} in {where}")


# Only whole stacks: one that was interrupted has its pause in it.
_TAKEN = """
SELECT plate, well, stack, plan_json, min(acked_s) AS first_s, max(acked_s) AS last_s
FROM slices JOIN stacks USING (plate, well, stack)
GROUP BY plate, well, stack HAVING count(*) = stacks.n_slices
ORDER BY plate, first_s
"""
