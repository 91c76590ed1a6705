"""The network as a Segmenter: the only file of the room that loads torch."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.network.known_features import FeatureSums, KnownFeatures, known_features
from spheroidd.inference.network.layer_watch import LayerWatch
from spheroidd.inference.network.model_card import ModelCard
from spheroidd.inference.network.unet import DENSITY_UNIT_PER_UM3, UNet, fold_batchnorm
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.segmentation.precision import AUTO, CPU_WHOLE_WAY, choose_precision
from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.evidence import StackLooks
from spheroidd.protocols.ports import Prediction
from spheroidd.protocols.results import Normalisation, Precision


class UNetSegmenter:
    """The 3-D U-Net as a Segmenter: BatchNorm folded, channels last.

    `precision` is "fp32", "bf16" or "auto" (see `precision.choose_precision`).
    """

    def __init__(
        self,
        model: UNet,
        card: ModelCard,
        device: str = "auto",
        precision: str = AUTO,
        known: KnownFeatures | None = None,
    ) -> None:
        self._whole_way = device == CPU_WHOLE_WAY
        self._device = torch.device(_choose_device(device))
        if self._device.type == "cuda":  # the same stack gives the same masks, and fp32 is what its name says
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._precision = choose_precision(self._device, precision)
        self._dtype = choose_dtype(self._device, precision)
        folded = fold_batchnorm(model).to(self._device, self._dtype)
        self._model: UNet = folded.to(memory_format=model.memory_format)  # type: ignore[call-overload]
        self.card, self._known = card, known
        self._watch = LayerWatch(self._model)

    def take_features(self) -> FeatureSums:
        """What the layers held in all regions since the last call."""
        return self._watch.take()

    def looks(self, sums: FeatureSums, channels: tuple[str, ...], normalisation: Normalisation) -> StackLooks | None:
        """How a stack looks beside those that the network knows; None where nobody can say."""
        return None if self._known is None else self._known.looks(sums, channels, normalisation)

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
    def memory_bytes(self) -> int | None:
        """What its GPU has; None for the processor."""
        if self._device.type != "cuda":
            return None
        return int(torch.cuda.get_device_properties(self._device).total_memory)

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
        self._watch.count(probability)
        z, y, x = shape
        found[seen, :2] = probability[:, :, :z, :y, :x]
        found[seen, 2:] = density[:, :, :z, :y, :x] * DENSITY_UNIT_PER_UM3
        return found

    @torch.inference_mode()
    def _run(self, region: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        channels_last = np.array(np.moveaxis(region, 0, -1), order="C")  # a copy: the region may be read-only
        x = torch.from_numpy(channels_last).to(self._device, self._dtype)
        probability, density = self._model.infer(x.movedim(-1, 0).unsqueeze(0))
        self._watch.count(probability)
        return tuple(t[0].contiguous().cpu().numpy() for t in (probability, density))  # type: ignore[return-value]


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
    return UNetSegmenter(network, card, device, precision, known_features(model, card.sha256))


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
