"""What a network's layers hold while it infers: sums over the voxels in which it sees cells."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from spheroidd.inference.network.known_features import FOREGROUND, FeatureSums
from spheroidd.inference.network.unet import ResidualUNet, UNet

_FINE, _COARSE = 1, 2  # levels of the encoder: where a voxel sees an edge, and where it sees a cell and its neighbours


class LayerWatch:
    """Watches two layers of the encoder and the last one of the decoder of a residual U-Net; of others none."""

    def __init__(self, model: UNet) -> None:
        self._held: dict[str, Tensor] = {}
        self._sums = FeatureSums.none()
        if isinstance(model, ResidualUNet) and len(model.encoder) > _COARSE:
            watched = {"fine": model.encoder[_FINE], "coarse": model.encoder[_COARSE], "last": model.decoder[0]}
            for name, layer in watched.items():
                layer.register_forward_hook(partial(self._hold, name))

    def count(self, probability: Tensor) -> None:
        """Add what the layers held in the last inference, where its `probability` (batch, 2, z, y, x) shows cells."""
        seen = (probability.amax(1, keepdim=True) > FOREGROUND).float()
        for name, features in self._held.items():
            weight = F.adaptive_max_pool3d(seen, features.shape[2:]).flatten()
            n = float(weight.sum())
            if n:
                rows = features.movedim(1, -1).reshape(-1, features.shape[1]).float()
                total, squares = weight @ rows, weight @ rows.square()
                self._sums.add(name, n, total.double().cpu().numpy(), squares.double().cpu().numpy())
        self._held.clear()

    def take(self) -> FeatureSums:
        """The sums since the last call."""
        found, self._sums = self._sums, FeatureSums.none()
        return found

    def _hold(self, name: str, _layer: nn.Module, _given: Any, features: Tensor) -> None:
        self._held[name] = features
