"""How hard a plate is to look into: what tissue, cells, stains and instruments do beyond the easy plate.

Each is drawn once a plate, from ranges that were measured on real spheroids or read of (see docs/network-figures.md);
`easy` is the plate on which nothing of it happens. Lengths are micrometres, shares 0 to 1.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from spheroidd.sim_emulator.draws import Draws

TYPICAL_CELL_UM = 12.6  # the diameter of a cell on the easy plate
KNOWN_CONTRAST = 0.05  # where less of a cell's light stays in focus, nobody can know what is there


class Realism(StrEnum):
    """How far a plate is from the easy one."""

    EASY = "easy"
    REAL = "real"
    HOSTILE = "hostile"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for all wells of a plate. The defaults are the easy plate.

    Scattering: of the light of a cell below `depth` of tissue, (1 - `hazy`) exp(-depth / `ballistic_um`) stays in
    focus; the rest is kept, in two blurs `(along z, sideways)`, the wider one for the deeper cell, and `halo` of it far
    around. `widening_um`: after so much tissue what is in focus is twice as wide. Stain: `brightness` multiplies both
    dyes, `pi_share` propidium iodide alone; `cell_spread` is the standard deviation of the logarithm
    between cells, `reach` multiplies how deep calcein, propidium iodide and the light go.
    """

    ballistic_um: float = math.inf
    hazy: float = 0.0
    blurs_um: tuple[tuple[float, float], tuple[float, float]] = ((6.0, 5.0), (15.0, 13.0))
    halo: float = 0.0
    widening_um: float = math.inf
    cell_um: float = TYPICAL_CELL_UM
    size_spread: float | None = None  # standard deviation of the logarithm of the radius; None is 7 %, cut off
    nucleus_share: tuple[float, float] = (0.35, 0.10)  # of the body's volume: least, and how much more at most
    filled: float = 1.0
    fragmented: float = 0.0  # of the dead cells: their nucleus is in pieces
    ghosts: float = 0.0  # of the dead cells: hardly any DNA is left
    crumbs_inside: float = 0.0  # debris for each dead cell, calcein-positive too
    brightness: float = 1.0
    pi_share: float = 1.0
    cell_spread: tuple[float, float] = (0.35, 0.3)  # calcein, propidium iodide
    reach: tuple[float, float, float] = (1.0, 1.0, 1.0)
    autofluorescence: float = 0.0  # beside the tissue's own
    bleed_calcein: float = 0.0  # beside the filter's own
    red_drug: float = 0.0  # a compound's own red light in nuclei, live ones too, relative to propidium iodide
    uneven: float = 0.0  # of the light, from one side of the field to the other
    stripes: float = 0.0  # of the light, in the shadows that a light sheet throws
    creep: float = 1.0  # times the stage's drift

    @property
    def scatters(self) -> bool:
        """Whether light leaves focus on its way."""
        return self.hazy > 0 or math.isfinite(self.ballistic_um)

    @property
    def known_um(self) -> float:
        """Down to which depth of tissue cells can be told apart at all."""
        if not self.scatters:
            return math.inf
        return max(0.0, self.ballistic_um * math.log((1 - self.hazy) / KNOWN_CONTRAST))


EASY = Conditions()


def conditions(realism: Realism, seed: int, plate: str) -> Conditions:
    """What is drawn for a plate of that name."""
    if realism is Realism.EASY:
        return EASY
    draws, hostile = Draws.of(seed, "conditions", plate), realism is Realism.HOSTILE
    narrow_um = draws.uniform("narrow z", 4.0, 10.0), draws.uniform("narrow xy", 3.0, 6.0)
    wide_um = draws.uniform("wide z", 10.0, 20.0), draws.uniform("wide xy", 6.0, 12.0)
    nucleus, between = draws.uniform("nucleus", 0.15, 0.5), draws.uniform("between cells", 0.2, 0.7 if hostile else 0.5)
    return Conditions(
        ballistic_um=draws.log_uniform("ballistic", *((12.0, 60.0) if hostile else (25.0, 300.0))),
        hazy=draws.uniform("hazy", *((0.2, 0.5) if hostile else (0.0, 0.3))),
        blurs_um=(narrow_um, wide_um),
        halo=draws.log_uniform("halo", 0.005, 0.05),
        widening_um=1 / draws.uniform("widening", 0.0, 1 / (30.0 if hostile else 60.0)),
        cell_um=draws.uniform("cell", *((8.0, 20.0) if hostile else (10.0, 16.0))),
        size_spread=draws.uniform("sizes", 0.08, 0.25 if hostile else 0.18),
        nucleus_share=(nucleus, 0.1),
        filled=draws.log_uniform("filled", 0.05, 1.0) if draws.uniform("sparse") < (0.5 if hostile else 0.3) else 1.0,
        fragmented=draws.uniform("fragmented", 0.1, 0.3),
        ghosts=draws.uniform("ghosts", 0.0, 0.2 if hostile else 0.1),
        crumbs_inside=draws.uniform("crumbs", 0.0, 0.6 if hostile else 0.2),
        brightness=draws.log_uniform("brightness", *((0.02, 1.5) if hostile else (0.15, 1.5))),
        pi_share=draws.log_uniform("pi share", *((0.05, 3.0) if hostile else (0.3, 2.0))),
        cell_spread=(between, between),
        reach=(
            draws.log_uniform("calcein reach", 0.4, 2.0),
            draws.log_uniform("pi reach", 0.5, 5.0),
            draws.log_uniform("light reach", 0.6, 1.5),
        ),
        autofluorescence=draws.uniform("autofluorescence", 0.0, 0.35 if hostile else 0.1),
        bleed_calcein=draws.uniform("bleed", 0.0, 0.2 if hostile else 0.05),
        red_drug=draws.uniform("red drug", 0.0, 6.0 if hostile else 0.5) if draws.uniform("red") < 0.25 else 0.0,
        uneven=draws.uniform("uneven", 0.0, 0.3 if hostile else 0.15),
        stripes=draws.uniform("stripes", 0.0, 0.3) if hostile else 0.0,
        creep=draws.uniform("creep", 1.0, 3.0),
    )
