"""Where the wells' foci lie over the plate: what is known predicts what comes, and tells what does not fit.

A plate is nearly flat and lies nearly level, so a plane through the nearest wells whose focus was found says where the
next one's is. It is fitted by least absolute deviations: one well that was focused on a speck of dust must not lift it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from spheroidd.protocols.focus import FocusFound, FocusStatus
from spheroidd.protocols.stack import StackKey

NEAREST = 12  # wells: a plate is bent, too
ROUNDS = 30
SMALLEST_UM = 0.2  # deviations below count alike
FLATNESS = 1e-3  # how weakly a tilt is doubted that the wells known do not determine (a single row of them)
UM_PER_MM = 1000.0


@dataclass(slots=True)
class FocusMap:
    """The latest FocusFound of each stack."""

    found: dict[StackKey, FocusFound] = field(default_factory=dict)

    def add(self, found: FocusFound) -> None:
        """Take note; a later one of the same stack replaces it."""
        self.found[found.key] = found

    def restore(self, all_found: Iterable[FocusFound]) -> None:
        """Take note of what earlier runs of the plate found."""
        for found in all_found:
            self.add(found)

    def neighbours(self, key: StackKey, x_um: float, y_um: float) -> list[FocusFound]:
        """The nearest other stacks whose focus was found in their own images."""
        known = [
            found
            for found in self.found.values()
            if found.status is FocusStatus.FOUND and found.focus_z_um is not None and found.key != key
        ]
        return sorted(known, key=lambda found: (found.x_um - x_um) ** 2 + (found.y_um - y_um) ** 2)[:NEAREST]

    def predict_um(self, key: StackKey, x_um: float, y_um: float) -> float | None:
        """Where the wells around say that a stack's focus is; None where none is known."""
        known = self.neighbours(key, x_um, y_um)
        if not known:
            return None
        places = np.array([(found.x_um - x_um, found.y_um - y_um) for found in known]) / UM_PER_MM
        return _plane_at_origin(places, np.array([found.focus_z_um for found in known], np.float64))


def _plane_at_origin(places_mm: "np.typing.NDArray[np.float64]", z_um: "np.typing.NDArray[np.float64]") -> float:
    """The height at (0, 0) of the plane z = a + b x + c y with the least sum of absolute deviations.

    Iteratively reweighted least squares (Schlossmacher, J. Am. Stat. Assoc. 68:857, 1973), begun at the median.
    """
    design = np.column_stack([np.ones(len(z_um)), places_mm])
    doubt = np.diag([0.0, FLATNESS, FLATNESS])
    plane = np.array([np.median(z_um), 0.0, 0.0])
    for _ in range(ROUNDS):
        weights = 1 / np.maximum(np.abs(z_um - design @ plane), SMALLEST_UM)
        weighted = design.T * weights
        plane = np.linalg.solve(weighted @ design + doubt, weighted @ z_um)
    return float(plane[0])
