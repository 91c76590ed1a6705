"""Plates to begin with: dose-response designs for 96 and 384 wells, as a plate map that is written and then edited.

A design is its content (each patient's dose series and controls) and a placement: controls in the first and the last
column, untreated and killed wells in turn from the top and, on the other side, from the bottom; or everything drawn at
random over the whole plate, so that position and treatment have nothing to do with each other, with as many controls of
each kind in every quarter of the plate.
"""

import random
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, cycle, islice

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole, check_plate_name
from spheroidd.protocols.well import WellId

EMPTY = Treatment(WellRole.EMPTY)


class Placement(StrEnum):
    """Where the wells of a design go."""

    EDGES = "edges"  # controls in the outermost columns, each dose series along a row
    RANDOMISED = "randomised"  # every well anywhere


@dataclass(frozen=True, slots=True)
class Template:
    """A plate's size, its placement, and how many compounds, doses, replicates and controls it has unless others are
    given."""

    rows: int
    columns: int
    placement: Placement
    compounds: int
    doses: int
    replicates: int
    untreated: int
    killed: int

    @property
    def words(self) -> str:
        """What it is, in a line."""
        where = "controls in the first and last column" if self.placement is Placement.EDGES else "all wells at random"
        return (
            f"{self.compounds} compounds x {self.doses} doses x {self.replicates}, "
            f"{self.untreated} untreated and {self.killed} killed wells, {where}"
        )


TEMPLATES = {
    "dose-response-96": Template(8, 12, Placement.EDGES, 4, 10, 2, 8, 8),
    "dose-response-384": Template(16, 24, Placement.EDGES, 16, 11, 2, 16, 16),
    "dose-response-96-randomised": Template(8, 12, Placement.RANDOMISED, 4, 10, 2, 8, 8),
    "dose-response-384-randomised": Template(16, 24, Placement.RANDOMISED, 16, 11, 2, 16, 16),
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a person has to put on the plate. None is the template's own number.

    Doses fall from `top_um` by `dilution` each. Every patient gets every series, and controls of their own in turn.
    """

    compounds: tuple[str, ...] | None = None
    patients: tuple[str | None, ...] = (None,)
    doses: int | None = None
    replicates: int | None = None
    untreated: int | None = None
    killed: int | None = None
    top_um: float = 50.0
    dilution: float = 10**0.5
    seed: int | None = None


def new_plate(name: str, template: str, content: Content) -> tuple[PlateMap, int | None]:
    """The plate, and the seed of its random places; None where nothing is random.

    Without a seed it follows from the plate's name: two plates of a screen differ, and each can be made again.
    ConfigError where there is no such template, or the content does not fit on the plate.
    """
    check_plate_name(name)
    if template not in TEMPLATES:
        raise ConfigError(f"there is no template {template!r}", do=f"use one of {', '.join(TEMPLATES)}")
    chosen = TEMPLATES[template]
    series, controls = _series(chosen, content), _controls(chosen, content)
    wells = [WellId(row, column) for row in range(chosen.rows) for column in range(chosen.columns)]
    if chosen.placement is Placement.EDGES:
        return _plate(name, wells, {**_on_edges(chosen, controls), **_in_rows(chosen, series)}), None
    seed = zlib.crc32(name.encode()) if content.seed is None else content.seed
    every = [*chain.from_iterable(series), *controls]
    if len(every) > len(wells):
        raise _too_many(len(every), len(wells), "wells", "wells on the plate")
    draw = random.Random(seed)
    shuffled = sorted(wells, key=lambda _: draw.random())  # random() is the same in every version of Python
    filled = _in_quarters(chosen, controls, shuffled)
    left = (well for well in shuffled if well not in filled)
    return _plate(name, wells, {**filled, **dict(zip(left, chain.from_iterable(series), strict=False))}), seed


def _series(chosen: Template, content: Content) -> list[list[Treatment]]:
    """Each dose series, by rising dose: replicates of a compound beside each other."""
    n_doses = chosen.doses if content.doses is None else content.doses
    replicates = chosen.replicates if content.replicates is None else content.replicates
    for what, n in (("doses", n_doses), ("replicates", replicates)):
        if n < 1:
            raise ConfigError(f"{n} {what}", where="plate new", do="give 1 or more")
    if not content.top_um > 0 or not content.dilution > 1:
        what = f"doses from {content.top_um} uM, diluted {content.dilution} times"
        raise ConfigError(what, where="plate new", do="give a dose above 0 and a dilution above 1")
    doses_um = [float(f"{content.top_um / content.dilution**k:.4g}") for k in reversed(range(n_doses))]
    names = content.compounds or tuple(f"C{n:02d}" for n in range(1, chosen.compounds + 1))
    for what, given in (("compound", names), ("patient", content.patients)):
        twice = next((one for one in given if given.count(one) > 1), None)
        if twice is not None:
            raise ConfigError(f"{what} {twice!r} is given twice", where="plate new", do="name each once")
    return [
        [Treatment(WellRole.SAMPLE, compound, dose_um, patient) for dose_um in doses_um]
        for patient in content.patients
        for compound in names
        for _ in range(replicates)
    ]


def _controls(chosen: Template, content: Content) -> list[Treatment]:
    """Untreated and killed wells, spread evenly among each other; those of the patients in turn."""
    untreated = chosen.untreated if content.untreated is None else content.untreated
    killed = chosen.killed if content.killed is None else content.killed
    if min(untreated, killed) < 0:
        raise ConfigError(f"{min(untreated, killed)} controls", where="plate new", do="give 0 or more")
    kinds = [
        (WellRole.NEGATIVE_CONTROL, 0.0, islice(cycle(content.patients), untreated), untreated),
        (WellRole.POSITIVE_CONTROL, None, islice(cycle(content.patients), killed), killed),
    ]
    placed = [
        ((n + 0.5) / total, place, Treatment(role, None, dose_um, patient))
        for place, (role, dose_um, patients, total) in enumerate(kinds)
        for n, patient in enumerate(patients)
    ]
    return [treatment for _, _, treatment in sorted(placed, key=lambda one: one[:2])]


def _on_edges(chosen: Template, controls: Sequence[Treatment]) -> dict[WellId, Treatment]:
    """Down the first column and up the last one, so that neither kind has a side or a half of the plate."""
    down = [WellId(row, 0) for row in range(chosen.rows)]
    up = [WellId(row, chosen.columns - 1) for row in reversed(range(chosen.rows))]
    edge = [*down, *up]
    if len(controls) > len(edge):
        raise _too_many(len(controls), len(edge), "controls", "wells in the two columns of controls")
    return dict(zip((edge[n * len(edge) // len(controls)] for n in range(len(controls))), controls, strict=True))


def _in_quarters(
    chosen: Template, controls: Sequence[Treatment], shuffled: Sequence[WellId]
) -> dict[WellId, Treatment]:
    """Each kind of control in the quarters of the plate in turn, wherever there the draw has it."""
    quarters: list[list[WellId]] = [[], [], [], []]
    for well in shuffled:
        quarters[2 * (2 * well.row >= chosen.rows) + (2 * well.column >= chosen.columns)].append(well)
    dealt: Counter[WellRole] = Counter()
    filled = {}
    for treatment in controls:
        first = dealt[treatment.role]
        dealt[treatment.role] += 1
        room = next(quarters[(first + n) % 4] for n in range(4) if quarters[(first + n) % 4])
        filled[room.pop()] = treatment
    return filled


def _in_rows(chosen: Template, series: Sequence[Sequence[Treatment]]) -> dict[WellId, Treatment]:
    """Each series along a row of the inner columns, as many in a row as fit."""
    inner, length = chosen.columns - 2, len(series[0])
    in_a_row = inner // length
    if length > inner:
        raise _too_many(length, inner, "doses", "columns between the controls")
    if len(series) > in_a_row * chosen.rows:
        raise _too_many(len(series), in_a_row * chosen.rows, f"series of {length} doses", "places for them")
    return {
        WellId(n // in_a_row, 1 + n % in_a_row * length + place): treatment
        for n, one in enumerate(series)
        for place, treatment in enumerate(one)
    }


def _plate(name: str, wells: Sequence[WellId], filled: dict[WellId, Treatment]) -> PlateMap:
    return PlateMap(name, tuple(PlateWell(well, filled.get(well, EMPTY)) for well in wells))


def _too_many(n: int, room: int, what: str, where: str) -> ConfigError:
    do = "give fewer compounds, doses, replicates, patients or controls, or take a larger template"
    return ConfigError(f"{n} {what}, and {room} {where}", where="plate new", do=do)


def described() -> Iterator[str]:
    """A line for each template."""
    for name, template in TEMPLATES.items():
        yield f"{name}: {template.words}"
