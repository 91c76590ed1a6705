"""The 2-D U-Net that the study compares with: each slice by itself, behind the same port as the 3-D network."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.network.unet import UNet, UNetOutput


class PlainBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and ReLU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(slices, n_in, y, x) -> (slices, n_out, y, x)."""
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)


class SlicewiseUNet(UNet):
    """Ronneberger's U-Net in 2-D, on every slice of a volume: skips are concatenated, nothing passes between slices.

    It has neither residual skips nor deep supervision nor a density branch, whatever the settings say of them.
    """

    memory_format = torch.channels_last

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__(settings)
        widths = settings.widths
        outer = PlainBlock(settings.in_channels, widths[0])
        self.encoder = nn.ModuleList([outer, *(PlainBlock(a, b) for a, b in pairwise(widths))])
        fine_to_coarse = list(pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in fine_to_coarse)
        self.decoder = nn.ModuleList(PlainBlock(2 * fine, fine) for fine, _ in fine_to_coarse)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> UNetOutput:
        """(batch, in_channels, z, y, x), y and x multiples of `settings.multiple`."""
        n_batch, _, n_z = x.shape[:3]
        x = x.movedim(2, 1).flatten(0, 1)
        encoded: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            encoded.append(x)
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](torch.cat((self.up[level](x), encoded[level]), dim=1))
        logits: Tensor = self.head(x)
        return UNetOutput(logits.reshape(n_batch, n_z, *logits.shape[1:]).movedim(1, 2), (), None)

    @property
    def logit_biases(self) -> list[Tensor]:
        """Of the last convolution."""
        assert self.head.bias is not None
        return [self.head.bias]
