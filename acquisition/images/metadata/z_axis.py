"""Whether a stack's slices stand at equal distances: said of the whole stack or not at all, never from one pair."""

import itertools
from collections.abc import Mapping

from spheroidd.acquisition.images.metadata.units import MAX_DISAGREEMENT
from spheroidd.protocols.errors import StackError

PLANNED, MEASURED, UNITLESS = "z_planned_um", "z_um", "stage_z"
_NOISE = {PLANNED: 0.05, MEASURED: 0.25, UNITLESS: 0.25}
"""How far a slice may stand from its place, as a share of the step: where the focus was sent is exact, where a drive
says that it stood is not, and a missing or doubled slice is off by a whole step."""
MIN_STEPS = 0.1  # a drive that moved by less than this share of the stack stood still: another one made the scan
MIN_SLICES = 4  # of which positions without a unit of length are believed: three drift one way by chance
MAX_NAMED = 5


def step_of(positions: Mapping[int, float], noise: float, where: str) -> float | None:
    """The distance of neighbouring slices, from (slice number -> position); None where there are no two of them.

    StackError where they do not stand at equal distances, which names the first slices that are off.
    """
    z = sorted(positions)
    if len(z) < 2 or positions[z[-1]] == positions[z[0]]:
        return None
    step = (positions[z[-1]] - positions[z[0]]) / (z[-1] - z[0])
    pairs = [(a, b, (positions[b] - positions[a]) / (b - a)) for a, b in itertools.pairwise(z)]
    off = [(a, b, found) for a, b, found in pairs if abs(found - step) > noise * abs(step)]
    if off:
        named = ", ".join(f"{found:g} from slice {a} to {b}" for a, b, found in off[:MAX_NAMED])
        what = f"its slices do not stand at equal distances: {named}, {step:g} on average"
        do = "record it with one z-step, or export a part of it that has one"
        raise StackError(what, where=where, do=do)
    return abs(step)


def measured_step_um(facts: Mapping[int, Mapping[str, float | str]], said_um: float | None, where: str) -> float | None:
    """The z-step (um) that the slices' own positions show, for one channel; None where they show none.

    `facts` are what is known of each slice by its number. Positions without a unit of length are looked at, and give
    no length. StackError where the slices stand unevenly.
    """
    for kind in (PLANNED, MEASURED, UNITLESS):
        positions = {z: float(known[kind]) for z, known in facts.items() if isinstance(known.get(kind), int | float)}
        if len(positions) < 2 or (kind == UNITLESS and len(positions) < MIN_SLICES):
            continue
        if kind != PLANNED and not _is_scan(positions, said_um if kind == MEASURED else None):
            continue
        step = step_of(positions, _NOISE[kind], where)
        return None if kind == UNITLESS else step
    return None


def _is_scan(positions: Mapping[int, float], said_um: float | None) -> bool:
    """Whether a drive went through the stack, one way, rather than standing still and trembling."""
    at = [positions[z] for z in sorted(positions)]
    steps = [b - a for a, b in itertools.pairwise(at)]
    if not (all(step > 0 for step in steps) or all(step < 0 for step in steps)):
        return False
    return said_um is None or abs(at[-1] - at[0]) >= MIN_STEPS * said_um * (len(at) - 1)


def step_conflict(said_um: float | None, shown_um: float | None) -> str:
    """Both numbers where a file's z-step and its slices' positions say differently; "" where they agree."""
    if said_um is None or shown_um is None or abs(said_um - shown_um) <= 5 * MAX_DISAGREEMENT * said_um:
        return ""
    return f"its z-step is {said_um:g} um, and its slices' positions are {shown_um:g} um apart"
