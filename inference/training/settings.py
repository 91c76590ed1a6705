"""How to train: all that decides the weights, besides the data."""

from dataclasses import dataclass, field
from typing import Literal

from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.training.augmentation import AugmentSettings
from spheroidd.inference.training.loss import LossSettings
from spheroidd.protocols.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train: all that decides the weights, besides the data.

    `patch` is (z, y, x) voxels; `minority` the part of patches centred on a cell of the rarer kind; `batch` that of all
    processes together. `ema_decay` 0 keeps the last weights instead of a running average. The study: learning rate
    1e-4, batch 4, 200 epochs. Every `every` steps there is a validation and a checkpoint.
    """

    network: UNetSettings = field(default_factory=UNetSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: AugmentSettings = field(default_factory=AugmentSettings)
    steps: int = 2000
    batch: int = 4
    patch: tuple[int, int, int] = (40, 48, 48)
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 20
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    minority: float = 0.3
    precision: Precision = "fp32"
    seed: int = 0
    every: int = 200

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch", tuple(self.patch))  # TOML knows lists only
        wrong = [n for n in ("steps", "batch", "learning_rate", "clip_norm", "every") if not getattr(self, n) > 0]
        if wrong:
            raise ConfigError(f"{wrong[0]} is {getattr(self, wrong[0])}", where="training", do="give more than 0")
        if not 0 <= self.minority <= 1:
            raise ConfigError(f"minority is {self.minority}", where="training", do="give 0 to 1")
        if not 0 <= self.ema_decay < 1:
            do = "give 0 or more and less than 1: at 1 the average would stay the first step's weights"
            raise ConfigError(f"ema_decay is {self.ema_decay}", where="training", do=do)
        if self.warmup < 0:
            raise ConfigError(f"warmup is {self.warmup}", where="training", do="give 0 or a number of steps")
        if len(self.patch) != 3 or any(side % self.network.multiple or side < 1 for side in self.patch):
            do = f"give three multiples of {self.network.multiple}"
            raise ConfigError(f"the patch is {self.patch}", where="training", do=do)
