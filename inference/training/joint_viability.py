"""The study's last term: alpha times the squared error of the viability, through the regressor into the network.

A thresholded count has no gradient, so the network is first trained to segment and the regressor on cached counts.
Then, where wanted, both are tuned together: a slice's live volume is the sum of its probabilities. BatchNorm keeps the
statistics it has, because one well is no batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from spheroidd.inference.network.unet import UNet
from spheroidd.inference.training.loss import LossSettings, total_loss
from spheroidd.inference.training.regressor_training import RegressorNet
from spheroidd.inference.training.stack import TrainingStack
from spheroidd.inference.viability.regressor import DEPTH_UNIT_UM, depth_profile
from spheroidd.protocols.errors import ConfigError, ModelError


@dataclass(frozen=True, slots=True)
class ViabilitySettings:
    """How to tune network and regressor together; `alpha` is the study's weight of the viability's squared error."""

    alpha: float = 0.1
    steps: int = 100
    learning_rate: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.alpha >= 0 or self.steps < 1 or not self.learning_rate > 0:
            do = "give alpha of 0 or more, steps of 1 or more and learning_rate above 0"
            raise ConfigError(f"the viability's tuning is {self}", where="training", do=do)


@dataclass(frozen=True, slots=True)
class ViabilityWell:
    """A well with its reference: the stack under its first limits, its plate's untreated wells, and what MTT said."""

    stack: TrainingStack
    controls: tuple[TrainingStack, ...]
    mtt_percent: float


def soft_profile(live: Tensor, spacing_um: Sequence[float]) -> Tensor:
    """Live volume of each slice in um3 (z,), from probabilities (z, y, x): their sum, which has a gradient."""
    return live.float().sum(dim=(1, 2)) * math.prod(spacing_um)


def soft_features(um3_by_z: Tensor, z_step_um: float, control_um3_by_z: Sequence[Sequence[float]]) -> Tensor:
    """`regressor.features` (3, BINS) of a profile (z,) that has a gradient; ModelError where the controls are empty."""
    control = np.median([depth_profile(one, z_step_um) for one in control_um3_by_z], axis=0)
    level = float(control.mean())
    if not level > 0:
        raise ModelError("the network finds no live cell in the controls", where="viability", do="train it longer")
    unit = np.eye(len(um3_by_z))
    to_bins = np.stack([depth_profile(row.tolist(), z_step_um) for row in unit], axis=1)  # it is linear in the volumes
    depth = math.log(len(um3_by_z) * z_step_um / DEPTH_UNIT_UM)
    constant = np.stack([control / level, np.full(len(control), depth)])
    profile = torch.from_numpy(to_bins).to(um3_by_z) @ um3_by_z / level
    return torch.cat([profile[None], torch.from_numpy(constant).to(um3_by_z)])


def viability_loss(mean: Tensor, mtt_percent: Tensor) -> Tensor:
    """Mean squared error of viabilities, as fractions of 1, in fp32: 10 percent points off cost 0.01."""
    return F.mse_loss(mean.float(), mtt_percent.float() / 100)


def tune_with_viability(
    model: UNet,
    regressor: RegressorNet,
    wells: Sequence[ViabilityWell],
    loss: LossSettings,
    settings: ViabilitySettings,
    tick: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Tune both in place: the segmentation's loss of a whole stack and alpha times the viability's, a well a step.

    The controls are measured once, with the network as it came. `tick` is told the step and its loss.
    """
    if not wells:
        raise ConfigError("there are no wells with a reference", where="viability", do="name plates with MTT")
    model.eval()
    controls = [[measured(model, stack) for stack in well.controls] for well in wells]
    parameters = [*model.parameters(), *regressor.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    order = np.random.default_rng(settings.seed)
    for step in range(settings.steps):
        number = int(order.integers(len(wells)))
        well, stack = wells[number], wells[number].stack
        volume, cells, density = (
            _padded(part, model) for part in (stack.variants[0], stack.fractions(), stack.density())
        )
        output = model(volume)
        live = torch.sigmoid(output.merged.float())[0, 0, : stack.shape[0], : stack.shape[1], : stack.shape[2]]
        z_step_um = stack.spacing_um[0]
        given = soft_features(soft_profile(live, stack.spacing_um), z_step_um, controls[number])
        mean, _ = regressor(given.float()[None])
        cost = total_loss(output, cells, density, loss)
        cost = cost + settings.alpha * viability_loss(mean, torch.tensor([well.mtt_percent]))
        optimiser.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        tick(step + 1, float(cost.detach()))


@torch.inference_mode()
def measured(model: UNet, stack: TrainingStack) -> list[float]:
    """A stack's soft live volume of each slice in um3."""
    probability, _ = model.infer(_padded(stack.variants[0], model))
    z, y, x = stack.shape
    return [float(v) for v in soft_profile(probability[0, 0, :z, :y, :x], stack.spacing_um)]


def load_regressor_net(weights: Mapping[str, NDArray[np.float32]]) -> RegressorNet:
    """The torch network with the weights that `regressor.forward` takes."""
    net = RegressorNet()
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return net


def _padded(part: NDArray[np.floating[Any]], model: UNet) -> Tensor:
    """(2, z, y, x) as a batch of one whose sides are multiples of what the network wants."""
    tensor = torch.from_numpy(np.asarray(part, np.float32))[None]
    missing = [-n % model.settings.multiple for n in tensor.shape[2:]]
    return F.pad(tensor, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
