"""A wider network that answers as a trained narrower one does, to go on from there (Chen, Goodfellow and Shlens 2016).

Net2Net: each channel is there several times over, and the weights that read it are shared out among its copies. Shared
out by chance, not evenly, so that the copies get other gradients and part ways from the first step on.
"""

from dataclasses import replace

import torch
from torch import Tensor

from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.model_card import DEFAULT_ARCHITECTURE
from spheroidd.inference.network.unet import UNet
from spheroidd.protocols.errors import ConfigError

SPREAD = 0.25
"""A copy's share is up to this part of an even one more or less, before all copies' are made to sum to 1."""


def widened(narrow: UNet, base: int, seed: int) -> UNet:
    """A 3-D network of `base` features, a multiple of the narrow one's, with the same outputs up to rounding.

    Its skips are additions, so channel c of every layer is a copy of channel c modulo the narrow layer's number of
    channels. ConfigError for the 2-D network, whose skips are concatenated, where a level's width is no multiple, and
    where `max_features` makes two levels equally wide that were not.
    """
    wide = build_network(settings := replace(narrow.settings, base=base))
    levels = zip(settings.widths, narrow.settings.widths, strict=True)
    state, names = narrow.state_dict(), wide.state_dict().keys()
    multiples = all(many % few == 0 for many, few in levels)
    if settings.architecture != DEFAULT_ARCHITECTURE or not multiples or state.keys() != names:
        what = f"a {settings.architecture} of widths {narrow.settings.widths} cannot be widened to {settings.widths}"
        raise ConfigError(what, where="training.network", do=f"give base = {narrow.settings.base}, or twice as many")
    generator = torch.Generator().manual_seed(seed)
    wide.load_state_dict(
        {name: _spread(state[name], like.shape, generator) for name, like in wide.state_dict().items()}
    )
    return wide


def _spread(values: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """A parameter (n_out, n_in, ...) or (n_out,) at its size in the wide network."""
    if values.ndim == 0 or values.shape == shape:
        return values
    wide = values[torch.arange(shape[0]) % values.shape[0]]
    if values.ndim == 1 or shape[1] == values.shape[1]:
        return wide
    copies = shape[1] // values.shape[1]
    kernel = [1] * (values.ndim - 2)
    share = 1 + SPREAD * (2 * torch.rand((shape[0], copies, values.shape[1]), generator=generator) - 1)
    share /= share.sum(dim=1, keepdim=True)
    return wide.tile((1, copies, *kernel)) * share.reshape(*shape[:2], *kernel)
