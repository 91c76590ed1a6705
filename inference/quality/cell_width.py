"""How wide the cells of a plate are, by how they look to its network, and where that cannot be told.

A network that was shown stacks in larger and in smaller voxels says of each how wide its cells look. One stack may be
off by a tenth; a plate's wells together say it better, killed ones among them, whose nuclei stand apart. Blur and noise
change how wide cells look, too: images in which anything but a size is doubtful are not asked, and where they are
unlike what the network knows by more than a width explains, or their cells look wider or narrower than any that it was
shown, nothing is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from spheroidd.protocols.evidence import StackLooks
from spheroidd.protocols.results import USUAL_CELL_UM
from spheroidd.protocols.trust import TrustFlag

LEAST_CELLS = 10  # counted in a stack, of both kinds: what fewer look like is chance
SHOWN = (0.5, 2.0)  # of the usual width: what lies beyond was never tried
FITS = 1.15  # times the width as taken, or its inverse: plates of usual cells are told .94 to 1.14
DISAGREE = 1.5  # the widest stack over the narrowest, without the tenths at either end

_OF_SIZE = frozenset((TrustFlag.CELLS_SMALL, TrustFlag.CELLS_LARGE, TrustFlag.OBJECT_SIZE, TrustFlag.FOREIGN))
"""Doubts that cells of another size give rise to."""


@dataclass(frozen=True, slots=True)
class StackWidth:
    """One stack: what was counted in it, how wide its cells were stated or found to be (None: neither), its looks, and
    what its row is doubted for.
    """

    name: str
    n_cells: int
    stated_um: float | None
    looks: StackLooks | None
    flags: tuple[str, ...] = ()

    @property
    def um(self) -> float | None:
        """How wide its cells look; None where hardly any was found, or more than a size is doubtful."""
        if self.looks is None or self.n_cells < LEAST_CELLS or not _OF_SIZE.issuperset(self.flags):
            return None
        return (self.stated_um or USUAL_CELL_UM) * self.looks.width


@dataclass(frozen=True, slots=True)
class PlateWidth:
    """How wide a plate's cells are: `um` by `stacks` of its stacks, which say `low` to `high`; or None, and why.

    `fits` says that the network was shown them about as wide as those that it knows: nothing need be stated anew.
    """

    um: float | None = None
    low: float | None = None
    high: float | None = None
    stacks: int = 0
    fits: bool = False
    why: str | None = None


def plate_width(found: Sequence[StackWidth]) -> PlateWidth:
    """What a plate's stacks say together."""
    told = [(one.um, one.looks) for one in found if one.um is not None and one.looks is not None]
    if not told:
        if found and all(one.looks is None for one in found):
            return PlateWidth(why="what scored it does not say how wide cells look")
        return PlateWidth(why=f"no stack has {LEAST_CELLS} cells in images without another doubt")
    widths = sorted(um for um, _ in told)
    tenth = len(widths) // 10
    low, high = widths[tenth], widths[-1 - tenth]
    unlike, off = median(looks.unlike for _, looks in told), median(looks.width_off for _, looks in told)
    if unlike > max(1.0, off):
        return PlateWidth(
            stacks=len(told),
            why="the images are unlike those that the model knows by more than a width explains: blur, noise, a stain",
        )
    width = median(looks.width for _, looks in told)
    if not SHOWN[0] <= width <= SHOWN[1]:
        why = (
            f"cells look {width:.1f} times as wide as taken, and nothing beyond {SHOWN[0]:g} to {SHOWN[1]:g} was tried"
        )
        return PlateWidth(stacks=len(told), why=f"{why}; check the voxel size")
    if high > DISAGREE * low:
        why = f"its stacks disagree: {low:.1f} to {high:.1f} um"
        return PlateWidth(low=low, high=high, stacks=len(told), why=why)
    um = math.exp(sum(math.log(width) for width in widths[tenth : len(widths) - tenth]) / (len(widths) - 2 * tenth))
    return PlateWidth(um, low, high, len(told), fits=abs(math.log(width)) <= _most(width, off, len(told)))


def _most(width: float, off: float, n: int) -> float:
    """By what logarithm a width may be off that still fits: what one stack may be, of several together less."""
    alone = abs(math.log(width)) / off if off > 0 else math.inf
    return max(math.log(FITS), alone / math.sqrt(n))
