"""The network architectures, by the name that a model card gives them. A new one is a file and a row here.

The name is `UNetSettings.architecture`: a training's configuration, a model's card and a bioimage.io package hold it.
"""

from collections.abc import Callable

from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.network.unet import ResidualUNet, UNet
from spheroidd.inference.network.unet2d import SlicewiseUNet
from spheroidd.protocols.errors import ModelError

ARCHITECTURES: dict[str, Callable[[UNetSettings], UNet]] = {
    "ResidualUNet": ResidualUNet,
    "SlicewiseUNet": SlicewiseUNet,
}


def build_network(settings: UNetSettings) -> UNet:
    """The network that the settings describe, with its first weights drawn from torch's generator.

    ModelError, which lists those that there are, for an unknown architecture.
    """
    check_architecture(settings)
    return ARCHITECTURES[settings.architecture](settings)


def check_architecture(settings: UNetSettings) -> None:
    """ModelError where this version has no such network; costs nothing, unlike building it."""
    if settings.architecture not in ARCHITECTURES:
        what = f"there is no network architecture {settings.architecture!r:.60} in this version"
        raise ModelError(what, do=f"use one of: {', '.join(ARCHITECTURES)}")
