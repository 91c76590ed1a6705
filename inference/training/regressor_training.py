"""Trains the viability regressor on cached profiles. Imports torch; only `regressor` is needed to use the result."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spheroidd.inference.viability.regressor import (
    BINS,
    FEATURES,
    HIDDEN,
    INPUTS,
    KERNEL,
    MIN_SIGMA,
    POOL,
    TOP,
    features,
)
from spheroidd.protocols.errors import ConfigError

COVERAGE = 0.9
BATCH = 1024  # wells
DECAY = 0.3  # for each unit of learning rate and step
LEAST_CALIBRATION = 20  # wells; nine of ten of fewer than that is no number


class RegressorRow(NamedTuple):
    """One well: its slicewise live volumes and its controls' (um3), and what MTT said, percent of the controls."""

    um3_by_z: Sequence[float]
    z_step_um: float
    control_um3_by_z: Sequence[Sequence[float]]
    mtt_percent: float


class RegressorNet(nn.Module):
    """The network of `regressor.forward`, where the parity test compares the two.

    It starts as V_control, and weight decay pulls it back there rather than to zero (`shrink`): what wells do not teach
    stays V_control.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(INPUTS, FEATURES, KERNEL, padding=KERNEL // 2)
        self.hidden = nn.Linear(FEATURES * BINS // POOL + 1, HIDDEN)
        self.head = nn.Linear(HIDDEN + 1, 2)
        with torch.no_grad():  # start as V_control with a sigma of a tenth
            self.head.weight.mul_(0.1)
            self.head.weight[0, -1] = 1.0
            self.head.bias.copy_(torch.tensor([0.0, -2.3]))

    def forward(self, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and sigma (n,) of inputs (n, 3, BINS)."""
        ratio = given[:, 0].mean(1, keepdim=True)
        hidden = self._hidden(given)
        apart = hidden - self._hidden(given[:, [1, *range(1, INPUTS)]])
        control = given[:, 1]
        unseen = (control[:, -TOP:].mean(1) / control.amax(1).clamp(min=1e-6)).clamp(0, 1)[:, None]
        for_mean, for_sigma = self.head.weight
        mean = torch.cat([unseen * apart, ratio], 1) @ for_mean + self.head.bias[0]
        raw = torch.cat([unseen * hidden, ratio], 1) @ for_sigma + self.head.bias[1]
        return mean, MIN_SIGMA + nn.functional.softplus(raw)

    def _hidden(self, given: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.avg_pool1d(torch.relu(self.conv(given)), POOL).flatten(1)
        found: torch.Tensor = torch.relu(self.hidden(torch.cat([pooled, given[:, 0].mean(1, keepdim=True)], 1)))
        return found

    def shrink(self, part: float) -> None:
        """Move every weight but biases this part of the way to V_control's."""
        with torch.no_grad():
            for layer in (self.conv, self.hidden, self.head):
                layer.weight.mul_(1 - part)
            self.head.weight[0, -1] += part

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The arrays that `regressor.forward` takes."""
        return {name: value.detach().numpy().copy() for name, value in self.state_dict().items()}


class Trained(NamedTuple):
    """Weights, and the conformal quantile of |error| / sigma."""

    weights: dict[str, NDArray[np.float32]]
    quantile: float


def fit(
    given: NDArray[np.float32],
    truth: NDArray[np.float32],
    *,
    steps: int = 600,
    seed: int = 0,
    start: Mapping[str, NDArray[np.float32]] | None = None,
    learning_rate: float = 1e-2,
    decay: float = DECAY,
) -> dict[str, NDArray[np.float32]]:
    """Weights of a network fitted to inputs (n, 3, BINS) and truths (n,), from `start` or from V_control.

    A step takes every well, or `BATCH` drawn ones where there are more.
    The loss is the Gaussian log-likelihood weighted by sigma (beta-NLL with beta 0.5, Seitzer et al. 2022): the plain
    one lets the network call a badly fitted well noisy and leave it at that.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RegressorNet()
    if start is not None:
        net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in start.items()})
    inputs, targets = torch.from_numpy(given), torch.from_numpy(truth)
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        batch = rng.integers(len(given), size=BATCH) if len(given) > BATCH else slice(None)
        optimiser.zero_grad()
        mean, sigma = net(inputs[batch])
        loss = (sigma.detach() * (torch.log(sigma) + 0.5 * ((targets[batch] - mean) / sigma) ** 2)).mean()
        loss.backward()
        optimiser.step()
        net.shrink(decay * float(schedule.get_last_lr()[0]))
        schedule.step()
    return net.weights()


def arrays(rows: Iterable[RegressorRow]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inputs (n, 3, BINS) and truths (n,) as fractions of 1; wells without a live control are left out."""
    inputs, truths = [], []
    for row in rows:
        given = features(row.um3_by_z, row.z_step_um, row.control_um3_by_z)
        if given is not None:
            inputs.append(given)
            truths.append(row.mtt_percent / 100)
    if not inputs:
        raise ConfigError("no row has a control with live volume", do="give rows of plates with untreated controls")
    return np.stack(inputs), np.array(truths, np.float32)


def conformal_quantile(scores: NDArray[np.floating[Any]], coverage: float = COVERAGE) -> float:
    """The score that at least `coverage` of new, exchangeable scores stay below: rank ceil((n + 1) * coverage)."""
    rank = min(math.ceil((len(scores) + 1) * coverage), len(scores))
    return float(np.sort(scores)[rank - 1])
