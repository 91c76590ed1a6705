"""The network architectures, by the name that a model card gives them. A new one is a file and a row here."""

from collections.abc import Callable

from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.network.unet import ResidualUNet, UNet
from spheroidd.inference.network.unet2d import SlicewiseUNet

ARCHITECTURES: dict[str, Callable[[UNetSettings], UNet]] = {
    "ResidualUNet": ResidualUNet,
    "SlicewiseUNet": SlicewiseUNet,
}


def build_network(settings: UNetSettings) -> UNet:
    """The network that the settings describe, with its first weights drawn from torch's generator."""
    return ARCHITECTURES[settings.architecture](settings)
