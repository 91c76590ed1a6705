"""A whole spheroid on a coarse raster: how much live and dead volume any field would show in each slice.

For what only needs depth profiles of many fields: the spheroid is sampled once and looked at from any number of places,
and no slice is rendered.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from spheroidd.sim_emulator.draws import Floats
from spheroidd.sim_emulator.phantom import Phantom
from spheroidd.sim_emulator.presets import Preset
from spheroidd.sim_emulator.raster import Canvas, Table

_SAMPLES = 110  # along each side
_ROOM = 1.12  # the box beside the spheroid's diameter: bumps, and some of what it shed
_BELOW_UM = 6.0


class DepthVolumes(NamedTuple):
    """Bodies of live cells and nuclei of dead ones in each slice (n_z,), um3."""

    live_um3: Floats
    dead_um3: Floats


@dataclass(frozen=True, slots=True)
class CoarseSpheroid:
    """Live and dead masks (z, y, x) of a cube around the spheroid that begins at `low_um` (z, y, x)."""

    live: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    low_um: Floats
    pitch_um: float

    @classmethod
    def of(cls, phantom: Phantom) -> Self:
        """Sample the masks' own labels at the middles of voxels."""
        side_um = 2 * _ROOM * phantom.shape.radius_um
        pitch_um = side_um / _SAMPLES
        low_um = np.array([-_BELOW_UM, -side_um / 2, -side_um / 2])
        table = Table.of(phantom.cells, phantom.bend, np.zeros((len(phantom.cells), 4)))
        canvas = Canvas.blank(table, phantom.bend, np.empty((0, 0, 0), np.float32), _SAMPLES, _SAMPLES, pitch_um)
        live, dead = np.empty((2, _SAMPLES, _SAMPLES, _SAMPLES), bool)
        ids = np.empty((_SAMPLES, _SAMPLES), np.uint32)
        first = low_um + pitch_um / 2
        for z in range(_SAMPLES):
            canvas.aim(first[0] + z * pitch_um, first[1], first[2])
            canvas.label(live[z], dead[z], ids)
        return cls(live, dead, low_um, pitch_um)

    def depth_volumes(self, preset: Preset) -> DepthVolumes:
        """What the field of `preset` shows, its sides rounded to whole samples; no drift."""
        half_um = np.array(preset.extent_um[1:]) / 2
        centre_um = np.array([preset.field_y_um, preset.field_x_um]) - self.low_um[1:]
        start, stop = (
            np.clip(np.rint((centre_um + side * half_um) / self.pitch_um), 0, _SAMPLES).astype(int) for side in (-1, 1)
        )
        window = (slice(None), slice(start[0], stop[0]), slice(start[1], stop[1]))
        edges_um = preset.field_z_um + preset.z_step_um * (np.arange(preset.n_z + 1) - 0.5)
        edges = (edges_um - self.low_um[0]) / self.pitch_um
        return DepthVolumes(*(self._between(mask[window], edges) for mask in (self.live, self.dead)))

    def _between(self, mask: NDArray[np.bool_], edges: Floats) -> Floats:
        below = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=(1, 2)))])
        volumes: Floats = np.diff(np.interp(edges, np.arange(len(below)), below)) * self.pitch_um**3
        return volumes
