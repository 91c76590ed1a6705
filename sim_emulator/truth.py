"""What is true of an emulated well: masks, cell numbers, the cells' table, and the well's row."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CELL_COLUMNS = np.dtype(
    [
        ("id", np.uint32),
        ("z_um", np.float64),
        ("y_um", np.float64),
        ("x_um", np.float64),
        ("body_radius_um", np.float64),
        ("nucleus_radius_um", np.float64),
        ("depth_um", np.float64),
        ("state", np.uint8),  # phantom.CellState
        ("in_fov", np.bool_),
        ("visible_488", np.bool_),
        ("visible_561", np.bool_),
    ]
)


class PlaneTruth(NamedTuple):
    """One slice (y, x): bodies of live cells, nuclei of dead cells, and each pixel's cell number (0 for none)."""

    live: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    cell_ids: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class WellTruth:
    """One well's row. Viabilities are live/(live+dead) cells, 0 to 1 (NaN without cells): in the field and in the whole
    spheroid. A double-positive cell counts as dead, a double-negative one as neither. Volumes are those of the masks.
    `known_um`: below so much tissue nobody could tell cells apart; None where light does not scatter.
    """

    well: str
    role: str
    compound: str | None
    dose_um: float | None
    patient: str | None
    mode: str
    ic50_um: float | None
    v_true_fov: float
    v_true_whole: float
    live_um3_true: float
    dead_um3_true: float
    n_live: int
    n_dead: int
    diameter_um: float
    seed: int
    known_um: float | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything true of one stack, at its own sampling, drift included.

    live, dead: bool (z, y, x); cell_ids: uint16, or uint32 where numbers pass 65535; cells: rows of CELL_COLUMNS with
    positions from the centre of the first voxel; known: bool (z, y, x), False where nobody could tell (None: nowhere).
    """

    live: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    cell_ids: NDArray[np.uint16] | NDArray[np.uint32]
    cells: NDArray[np.void]
    well: WellTruth
    known: NDArray[np.bool_] | None = None

    def points_um(self, *states: int) -> NDArray[np.float64]:
        """Centres (n, 3) of the cells in these states (phantom.CellState): points for a density map."""
        rows = self.cells[np.isin(self.cells["state"], states)]
        return np.stack([rows["z_um"], rows["y_um"], rows["x_um"]], 1)
