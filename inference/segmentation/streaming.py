"""Normalised volumes to probabilities, tile by tile, while later slices still arrive.

`StreamingSegmentation` decides when a region can be inferred; a `Segmenter` infers it. Neither knows masks or counts.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.network.known_features import FeatureSums
from spheroidd.inference.preprocessing.intensity import moved
from spheroidd.inference.segmentation.tiles import Tile, tile_axis
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.ports import Prediction, Preprocessor, Segmenter
from spheroidd.protocols.results import Limits

LONGEST_TILE_Z = 88  # two rows for a screen stack at 1 um, so that half is done before its last slice; 1.9 x in halo
LONGEST_TILE_YX = 128  # larger tiles are no faster and take more memory, smaller ones see more halo
KEPT_BYTES_MAX = 512 << 20  # of predictions made with provisional limits; planes beyond wait for the end of the stack


@runtime_checkable
class SaysFeatures(Protocol):
    """A segmenter that says what its layers held."""

    def take_features(self) -> FeatureSums:
        """Since the last call."""
        ...


class SegmentedSlab(NamedTuple):
    """Planes z_start <= z < z_stop of the volume at the model's spacing, final; `prediction` arrays are (z, y, x)."""

    z_start: int
    z_stop: int
    prediction: Prediction


class StreamingSegmentation:
    """Segments one stack's volume slab by slab, each slab as soon as it is final; the result never depends on pace.

    With `limits` (plate normalisation) slabs come out while slices arrive. Without (stack normalisation) they come out
    of `finish`: with `tolerance` 0 nothing is inferred before; with more, slabs are inferred early with `guess`, or
    else the limits of what has been fed, and inferred again at the end only if some limit moved by more than
    `tolerance` (as `normalise.moved` has it). What was kept was rounded to float16.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        segmenter: Segmenter,
        *,
        limits: Mapping[str, Limits] | None = None,
        guess: Mapping[str, Limits] | None = None,
        tolerance: float = 0.0,
        slab_z: int = LONGEST_TILE_Z,
        tile_yx: int = LONGEST_TILE_YX,
    ) -> None:
        if not tolerance >= 0:
            raise ConfigError(f"tolerance is {tolerance}", do="give 0 or more")
        self._preprocessor, self._segmenter = preprocessor, segmenter
        self._limits, self._guess, self._tolerance = limits, guess, tolerance
        n_z, height, width = preprocessor.shape
        halo = segmenter.halo
        self._rows = tile_axis(n_z, slab_z, halo)
        self._tiles_y = tile_axis(height, tile_yx, halo)
        self._tiles_x = tile_axis(width, tile_yx, halo)
        self._next = 0  # the first row not inferred yet
        self._kept: list[tuple[Mapping[str, Limits], Prediction]] = []
        self._kept_bytes = 0
        self._features: dict[int, FeatureSums] = {}  # by row

    @property
    def features(self) -> FeatureSums | None:
        """What the network's layers held in all that was segmented; None of a segmenter that does not say."""
        if not isinstance(self._segmenter, SaysFeatures):
            return None
        whole = FeatureSums.none()
        for _, sums in sorted(self._features.items()):
            whole.merge(sums)
        return whole

    def advance(self) -> Iterator[SegmentedSlab]:
        """The slabs that became final since the last call; call it whenever slices were fed."""
        early = self._limits is None
        if early and self._tolerance == 0:
            return
        while self._next < len(self._rows) and self._stop(self._rows[self._next]) <= self._preprocessor.ready_z:
            row = self._rows[self._next]
            if early:
                if self._kept_bytes > KEPT_BYTES_MAX:
                    return
                limits = self._guess or self._preprocessor.limits()
                self._keep(limits, self._inferred(row, limits))
                self._next += 1
            else:
                self._next += 1
                yield self._slab(row, self._inferred(row, self._limits or {}))
                self._discard_before(self._next)  # whoever makes masks of the slab may ask for its volume again

    def finish(self) -> Iterator[SegmentedSlab]:
        """Every slab that has not come out yet; call it once the preprocessor is finished."""
        if self._limits is not None:
            yield from self.advance()
            return
        limits = self._preprocessor.limits()
        for number, row in enumerate(self._rows):
            if number < len(self._kept) and self._holds(self._kept[number][0], limits):
                kept = Prediction(*(part.astype(np.float32) for part in self._kept[number][1]))
                yield self._slab(row, kept)
            else:
                yield self._slab(row, self._inferred(row, limits))
            self._discard_before(number + 1)
        self._kept.clear()

    def _holds(self, old: Mapping[str, Limits], new: Mapping[str, Limits]) -> bool:
        return all(moved(old[channel], new[channel]) <= self._tolerance for channel in new)

    def _keep(self, limits: Mapping[str, Limits], prediction: Prediction) -> None:
        rounded = Prediction(*(part.astype(np.float16) for part in prediction))  # type: ignore[arg-type]
        self._kept.append((limits, rounded))
        self._kept_bytes += sum(part.nbytes for part in rounded)

    def _discard_before(self, row: int) -> None:
        """Let the preprocessor forget what no later row sees."""
        if row < len(self._rows):
            self._preprocessor.discard(self._rows[row].start)

    def _stop(self, tile: Tile) -> int:
        """The last tile may pass the volume's end; what is missing is the last plane, repeated."""
        return min(tile.stop, self._preprocessor.shape[0])

    def _slab(self, row: Tile, prediction: Prediction) -> SegmentedSlab:
        return SegmentedSlab(row.core_start, row.core_stop, prediction)

    def _inferred(self, row: Tile, limits: Mapping[str, Limits]) -> Prediction:
        """`_infer`, with the features noted; a row that is inferred again counts once."""
        if not isinstance(self._segmenter, SaysFeatures):
            return self._infer(row, limits)
        self._segmenter.take_features()
        found = self._infer(row, limits)
        self._features[row.core_start] = self._segmenter.take_features()
        return found

    def _infer(self, row: Tile, limits: Mapping[str, Limits]) -> Prediction:
        """One row of tiles across the whole field, trimmed to its core."""
        volume = self._preprocessor.volume(row.start, self._stop(row), limits)
        depth, height, width = row.core_stop - row.core_start, *self._preprocessor.shape[1:]
        whole = Prediction(*(np.empty((depth, height, width), np.float32) for _ in range(4)))
        for y in self._tiles_y:
            for x in self._tiles_x:
                region = cut_tile(volume, (Tile(0, row.stop - row.start, 0, 0), y, x))
                for part, tile in zip(whole, self._segmenter.predict(region), strict=True):
                    core = tile[inside(row), inside(y), inside(x)]
                    part[:, y.core_start : y.core_stop, x.core_start : x.core_stop] = core
        return whole


def cut_tile(volume: NDArray[np.float32], tiles: tuple[Tile, Tile, Tile]) -> NDArray[np.float32]:
    """The voxels of a tile (channel, z, y, x); beyond the volume's end its last plane, row or column is repeated."""
    part = volume[:, *(slice(tile.start, tile.stop) for tile in tiles)]
    missing = [(0, 0), *((0, tile.stop - tile.start - n) for tile, n in zip(tiles, part.shape[1:], strict=True))]
    return np.pad(part, missing, mode="edge") if any(n for _, n in missing) else part


def inside(tile: Tile) -> slice:
    """Where a tile's core lies within it."""
    return slice(tile.core_start - tile.start, tile.core_stop - tile.start)
