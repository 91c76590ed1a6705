"""Normalised volumes to probabilities, tile by tile, while later slices still arrive.

`StreamingSegmentation` decides when a region can be inferred; a `Segmenter` infers it. Neither knows masks or counts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.network.model_card import ModelCard
from spheroidd.inference.network.unet import DENSITY_UNIT_PER_UM3, UNet, fold_batchnorm
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.preprocessing.intensity import moved
from spheroidd.inference.segmentation.precision import AUTO, CPU_WHOLE_WAY, choose_precision
from spheroidd.inference.segmentation.tiles import Tile, tile_axis
from spheroidd.protocols.errors import ConfigError, ModelError
from spheroidd.protocols.ports import Prediction, Preprocessor, Segmenter
from spheroidd.protocols.results import Limits, Precision

LONGEST_TILE_Z = 88  # two rows for a screen stack at 1 um, so that half is done before its last slice; 1.9 x in halo
LONGEST_TILE_YX = 128  # larger tiles are no faster and take more memory, smaller ones see more halo
KEPT_BYTES_MAX = 512 << 20  # of predictions made with provisional limits; planes beyond wait for the end of the stack


class SegmentedSlab(NamedTuple):
    """Planes z_start <= z < z_stop of the volume at the model's spacing, final; `prediction` arrays are (z, y, x)."""

    z_start: int
    z_stop: int
    prediction: Prediction


class UNetSegmenter:
    """The 3-D U-Net as a Segmenter: BatchNorm folded, channels last.

    `precision` is "fp32", "bf16" or "auto" (see `precision.choose_precision`).
    """

    def __init__(self, model: UNet, card: ModelCard, device: str = "auto", precision: str = AUTO) -> None:
        self._whole_way = device == CPU_WHOLE_WAY
        self._device = torch.device(_choose_device(device))
        if self._device.type == "cuda":  # the same stack gives the same masks, and fp32 is what its name says
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._precision = choose_precision(self._device, precision)
        self._dtype = choose_dtype(self._device, precision)
        folded = fold_batchnorm(model).to(self._device, self._dtype)
        self._model: UNet = folded.to(memory_format=model.memory_format)  # type: ignore[call-overload]
        self.card = card

    @property
    def spacing_um(self) -> tuple[float, float, float]:
        """The voxel size (z, y, x) of its training."""
        return self.card.settings.spacing_um

    @property
    def halo(self) -> int:
        """Voxels of context on each side."""
        return self.card.halo

    @property
    def sha256(self) -> str:
        """The digest of the weights' file."""
        return self.card.sha256

    @property
    def precision(self) -> Precision:
        """What it computes in on this device."""
        return self._precision

    def predict(self, region: NDArray[np.float32]) -> Prediction:
        """Segment a region (2, z, y, x) of any size.

        A region in which no channel varies by the card's `background` is answered with zeros, unseen.
        """
        if region.ndim != 4 or region.shape[0] != self.card.settings.in_channels:
            do = f"give ({self.card.settings.in_channels}, z, y, x)"
            raise ModelError(f"a region of shape {region.shape} cannot be segmented", where=self.card.name, do=do)
        shape = region.shape[1:]
        bound = self.card.background
        if bound is not None and max(float(np.ptp(channel)) for channel in region) < bound:
            return Prediction(*(np.zeros(shape, np.float32) for _ in range(4)))
        multiple = self.card.settings.multiple
        pad = [(0, 0), *((0, -n % multiple) for n in shape)]
        padded = np.pad(region, pad, mode="edge") if any(p for _, p in pad) else region
        probability, density = self._run(padded)
        z, y, x = shape
        live, dead = probability[:, :z, :y, :x]
        live_density, dead_density = density[:, :z, :y, :x] * np.float32(DENSITY_UNIT_PER_UM3)
        return Prediction(live, dead, live_density, dead_density)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    @property
    def keeps_stacks_on_device(self) -> bool:
        """Whether a stack's whole way should be on the device: on a GPU, and where a test asks for it on the CPU."""
        return self._device.type != "cpu" or self._whole_way

    @torch.inference_mode()
    def predict_many(self, regions: torch.Tensor) -> torch.Tensor:
        """Regions (n, 2, z, y, x), float32 on the device: (n, 4, z, y, x), the parts of a `Prediction` in its order.

        A region in which no channel varies by the card's `background` is answered with zeros, unseen.
        """
        n, _, *shape = regions.shape
        found = torch.zeros((n, 4, *shape), device=regions.device)
        bound = self.card.background
        flat = regions.flatten(2)
        seen = list(range(n))
        if bound is not None:
            seen = torch.nonzero((flat.amax(2) - flat.amin(2)).amax(1) >= bound).flatten().tolist()
        if not seen:
            return found
        pad = [-size % self.card.settings.multiple for size in shape]
        given = regions[seen]
        if any(pad):
            given = torch.nn.functional.pad(given, (0, pad[2], 0, pad[1], 0, pad[0]), mode="replicate")
        given = given.to(self._dtype).contiguous(memory_format=torch.channels_last_3d)
        probability, density = self._model.infer(given)
        z, y, x = shape
        found[seen, :2] = probability[:, :, :z, :y, :x]
        found[seen, 2:] = density[:, :, :z, :y, :x] * DENSITY_UNIT_PER_UM3
        return found

    @torch.inference_mode()
    def _run(self, region: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        channels_last = np.array(np.moveaxis(region, 0, -1), order="C")  # a copy: the region may be read-only
        x = torch.from_numpy(channels_last).to(self._device, self._dtype)
        probability, density = self._model.infer(x.movedim(-1, 0).unsqueeze(0))
        return tuple(t[0].contiguous().cpu().numpy() for t in (probability, density))  # type: ignore[return-value]


class ThresholdSegmenter:
    """Bright is a cell: the simplest Segmenter, for tests and as a floor for every network. Its density is zero."""

    def __init__(self, threshold: float = 1.0, spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
        self._threshold, self._spacing_um = threshold, spacing_um

    @property
    def spacing_um(self) -> tuple[float, float, float]:
        """As given."""
        return self._spacing_um

    @property
    def halo(self) -> int:
        """None: a voxel is judged alone."""
        return 0

    @property
    def sha256(self) -> str:
        """A threshold has no weights; this says which one it was."""
        return f"threshold-{self._threshold:g}"

    @property
    def precision(self) -> Precision:
        """Single, as its input."""
        return Precision.FP32

    def predict(self, region: NDArray[np.float32]) -> Prediction:
        """Probability 0.5 at the threshold, rising by the logistic function; region (2, z, y, x)."""
        live, dead = (1 / (1 + np.exp((self._threshold - channel).clip(-50, 50) * 8)) for channel in region)
        empty = np.zeros(region.shape[1:], np.float32)
        return Prediction(live.astype(np.float32), dead.astype(np.float32), empty, empty.copy())


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
                self._keep(limits, self._infer(row, limits))
                self._next += 1
            else:
                self._next += 1
                slab = self._slab(row, self._infer(row, self._limits or {}))
                self._discard_before(self._next)
                yield slab

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
                yield self._slab(row, self._infer(row, limits))
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


def load_segmenter(
    model: str | Path | None = None, device: str = "auto", threads: int | None = None, precision: str = AUTO
) -> UNetSegmenter:
    """The segmenter of a model's name or path (None: the default); ModelError where it cannot run here.

    `threads` is torch's thread count, for the whole process; None leaves it as it is. ConfigError where there is no
    such precision.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    network, card = load_model(model)
    return UNetSegmenter(network, card, device, precision)


def cut_tile(volume: NDArray[np.float32], tiles: tuple[Tile, Tile, Tile]) -> NDArray[np.float32]:
    """The voxels of a tile (channel, z, y, x); beyond the volume's end its last plane, row or column is repeated."""
    part = volume[:, *(slice(tile.start, tile.stop) for tile in tiles)]
    missing = [(0, 0), *((0, tile.stop - tile.start - n) for tile, n in zip(tiles, part.shape[1:], strict=True))]
    return np.pad(part, missing, mode="edge") if any(n for _, n in missing) else part


def inside(tile: Tile) -> slice:
    """Where a tile's core lies within it."""
    return slice(tile.core_start - tile.start, tile.core_stop - tile.start)


def _choose_device(device: str) -> str:
    if device == CPU_WHOLE_WAY:
        return "cpu"
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device is {device}, but torch sees no GPU", do='set device = "auto" or "cpu"')
    return device


def choose_dtype(device: torch.device, precision: str = AUTO) -> torch.dtype:
    """The type of the network's numbers in a precision; ConfigError where there is no such precision."""
    return torch.bfloat16 if choose_precision(device, precision) is Precision.BF16 else torch.float32
