"""The residual 3-D U-Net of the study: one encoder, a segmentation decoder and a density decoder. Needs only torch.

Input (batch, 2, z, y, x): normalised 488 and 561. Every side must be a multiple of `UNetSettings.multiple`. The
residual skips, deep supervision and the density branch can each be switched off, to measure what they are worth.
"""

import copy
from abc import abstractmethod
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spheroidd.inference.network.model_card import UNetSettings

DENSITY_UNIT_PER_UM3 = 8e-3
"""One unit of the density outputs, in cells per um3: about the peak of one cell drawn as a Gaussian of 2 um."""


class UNetOutput(NamedTuple):
    """What the network says: logits of the merged map, of every decoder stage, and the density.

    `merged` (batch, 2, z, y, x): live and dead logits. `stages`: the same per decoder stage, finest first, each at its
    own resolution (none without deep supervision). `density` (batch, 2, ...) at 1 / 2**density_level, in
    DENSITY_UNIT_PER_UM3, never negative (None without that branch).
    """

    merged: Tensor
    stages: tuple[Tensor, ...]
    density: Tensor | None


class UNet(nn.Module):
    """What a network must do to be trained and to stand behind a segmenter."""

    memory_format = torch.channels_last_3d  # of the weights: what its convolutions are fastest with

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def forward(self, x: Tensor) -> UNetOutput:
        """(batch, in_channels, z, y, x), each side a multiple of `settings.multiple`."""

    @property
    @abstractmethod
    def logit_biases(self) -> list[Tensor]:
        """Parameters (2,): what is added to all of them is added to the merged live and dead logits."""

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Live and dead probabilities, and densities in DENSITY_UNIT_PER_UM3, both (batch, 2, z, y, x) float32.

        The density is zero for a network without that branch: it counts no cells.
        """
        out: UNetOutput = self(x)
        probability = torch.sigmoid(out.merged.float())
        if out.density is None:
            return probability, torch.zeros_like(probability)
        density = out.density.float()
        if density.shape != probability.shape:
            density = F.interpolate(density, size=probability.shape[2:], mode="trilinear", align_corners=False)
        return probability, density


class Pointwise(nn.Linear):
    """A 1x1x1 convolution as a matrix product: on CPUs torch sends a 1x1x1 Conv3d to its slow path."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, z, y, x) -> (batch, n_out, z, y, x)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions with BatchNorm and ReLU, and a skip: projected by 1x1x1 where the widths differ.

    Without `residual` there is no skip: the plain block of a U-Net.
    """

    def __init__(self, n_in: int, n_out: int, residual: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(n_in, n_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(n_out)
        self.conv2 = nn.Conv3d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(n_out)
        self.residual = residual
        self.skip = nn.Identity() if n_in == n_out or not residual else Pointwise(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, z, y, x) -> (batch, n_out, z, y, x)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.residual:
            y += self.skip(x)
        return F.relu(y, inplace=True)


class DecoderStage(nn.Module):
    """Brings the coarser features up by 2, adds the encoder's at this level, and refines them in a residual block.

    The skip is an addition, not a concatenation: it costs half the multiplications of the block's first convolution.
    """

    def __init__(self, n_coarse: int, n_fine: int, residual: bool = True) -> None:
        super().__init__()
        self.narrow = Pointwise(n_coarse, n_fine)
        self.block = ResidualBlock(n_fine, n_fine, residual)

    def forward(self, coarse: Tensor, encoded: Tensor) -> Tensor:
        """(batch, n_coarse, z/2, y/2, x/2) and (batch, n_fine, z, y, x) -> (batch, n_fine, z, y, x)."""
        up = F.interpolate(self.narrow(coarse), scale_factor=2.0, mode="nearest")
        up += encoded
        out: Tensor = self.block(up)
        return out


class ResidualUNet(UNet):
    """The network. `forward` for training; `infer` gives what a segmenter needs."""

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__(settings)
        widths, residual = settings.widths, settings.residual
        outer = ResidualBlock(settings.in_channels, widths[0], residual)
        self.encoder = nn.ModuleList([outer, *(ResidualBlock(a, b, residual) for a, b in pairwise(widths))])
        fine_to_coarse = list(pairwise(widths))
        self.decoder = nn.ModuleList(DecoderStage(coarse, fine, residual) for fine, coarse in fine_to_coarse)
        supervised = fine_to_coarse if settings.deep_supervision else fine_to_coarse[:1]
        self.heads = nn.ModuleList(Pointwise(fine, 2) for fine, _ in supervised)
        if settings.deep_supervision:
            self.merge = nn.Parameter(torch.tensor([2.0] + [0.0] * (len(fine_to_coarse) - 1)))
        if settings.density:
            branch = fine_to_coarse[settings.density_level :]
            self.density_decoder = nn.ModuleList(DecoderStage(coarse, fine, residual) for fine, coarse in branch)
            self.density_head = Pointwise(widths[settings.density_level], 2)

    def forward(self, x: Tensor) -> UNetOutput:
        """(batch, in_channels, z, y, x), each side a multiple of `settings.multiple`."""
        encoded: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool3d(x, 2) if level else x)
            encoded.append(x)
        stages = self._segment(encoded)
        density = self._density(encoded) if self.settings.density else None
        if not self.settings.deep_supervision:
            return UNetOutput(stages[0], (), density)
        return UNetOutput(self._merged(stages), tuple(stages), density)

    @property
    def logit_biases(self) -> list[Tensor]:
        """Of every head: the merged logits are an average of theirs."""
        return [head.bias for head in cast(list[Pointwise], self.heads)]

    def _segment(self, encoded: list[Tensor]) -> list[Tensor]:
        """Logits of every stage that has a head, finest first."""
        x, stages = encoded[-1], []
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](x, encoded[level])
            if level < len(self.heads):
                stages.append(self.heads[level](x))
        return stages[::-1]

    def _merged(self, stages: list[Tensor]) -> Tensor:
        """The weighted average of all stages' logits; the weights are learned and sum to 1.

        Going up by 2 at a time and adding is the same as bringing each stage up by itself: interpolation is linear.
        """
        weights = torch.softmax(self.merge, dim=0)
        merged = weights[-1] * stages[-1]
        for weight, stage in zip(reversed(weights[:-1]), reversed(stages[:-1]), strict=True):
            merged = F.interpolate(merged, scale_factor=2.0, mode="trilinear", align_corners=False) + weight * stage
        return merged

    def _density(self, encoded: list[Tensor]) -> Tensor:
        x = encoded[-1]
        first = self.settings.density_level
        for offset in reversed(range(len(self.density_decoder))):
            x = self.density_decoder[offset](x, encoded[first + offset])
        return F.softplus(self.density_head(x))


class FoldedConv3d(nn.Conv3d):
    """A 3x3x3 convolution that always takes oneDNN on a CPU: torch sends small inputs of batch 1 to a slow path."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in, z, y, x) -> (batch, n_out, z, y, x)."""
        if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return super().forward(x)
        out: Tensor = torch.mkldnn_convolution(x, self.weight, self.bias, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
        return out


def fold_batchnorm(model: UNet) -> UNet:
    """An inference copy: each BatchNorm folded into the convolution before it, so that it costs nothing."""
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for block in folded.modules():
        for number in (1, 2):
            conv, norm = getattr(block, f"conv{number}", None), getattr(block, f"norm{number}", None)
            if conv is None or norm is None:
                continue
            fused = nn.utils.fuse_conv_bn_eval(conv, norm)
            if isinstance(fused, nn.Conv3d):
                fused.__class__ = FoldedConv3d  # the same parameters, another way to run them
            setattr(block, f"conv{number}", fused)
            setattr(block, f"norm{number}", nn.Identity())
    return folded
