"""Trains the residual U-Net on stacks whose truth is known. Where the stacks come from is not its business.

Patches are drawn, turned, mirrored, brightened, blurred and made noisy; AdamW, cosine to zero, a running average of the
weights. Every draw depends on (seed, step) alone, so a run taken up from its checkpoint ends with the same bits.
"""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spheroidd.inference.evaluate import agreement
from spheroidd.inference.loss import LossSettings, total_loss
from spheroidd.inference.model_card import ModelCard, UNetSettings
from spheroidd.inference.preprocess import BACKGROUND
from spheroidd.inference.segment import UNetSegmenter
from spheroidd.inference.training_stack import TrainingStack
from spheroidd.inference.unet import ResidualUNet
from spheroidd.protocols.errors import ConfigError, ModelError

_KINDS = ("live", "dead")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train. `patch` is (z, y, x) voxels; `minority` the part of patches centred on a cell of the rarer kind."""

    network: UNetSettings = field(default_factory=UNetSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    steps: int = 2000
    batch: int = 4
    patch: tuple[int, int, int] = (40, 48, 48)
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 20
    ema_decay: float = 0.99
    minority: float = 0.3
    seed: int = 0
    every: int = 200  # steps between checkpoints, each with a validation

    def __post_init__(self) -> None:
        wrong = [n for n in ("steps", "batch", "learning_rate", "every") if not getattr(self, n) > 0]
        if wrong:
            raise ConfigError(f"{wrong[0]} is {getattr(self, wrong[0])}", where="training", do="give more than 0")
        if any(side % self.network.multiple or side < 1 for side in self.patch):
            do = f"give multiples of {self.network.multiple}"
            raise ConfigError(f"the patch is {self.patch}", where="training", do=do)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is: `loss` is the mean since the last report, `dice` per stack name, (live, dead)."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    dice: dict[str, tuple[float, float]]

    def mean_dice(self) -> tuple[float, float]:
        """Live and dead, the mean over the stacks (NaN without)."""
        live, dead = np.mean(list(self.dice.values()), axis=0) if self.dice else (math.nan, math.nan)
        return float(live), float(dead)


def train(
    stacks: Sequence[TrainingStack],
    held_out: Sequence[TrainingStack],
    settings: TrainSettings,
    folder: Path,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
) -> ResidualUNet:
    """Train to the last step; the averaged network, in evaluation mode.

    `folder` gets `log.csv` and `checkpoint.pt`; a checkpoint of the same settings that is there already is taken up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    model = ResidualUNet(settings.network).train().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    network = cast(ResidualUNet, averaged.module)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    trained: dict[str, Any] = {"model": model, "averaged": averaged, "optimiser": optimiser}
    checkpoint = folder / "checkpoint.pt"
    step = _resume(checkpoint, settings, trained)
    sampler = PatchSampler(stacks, settings)
    losses: list[float] = []
    start_s = time.monotonic()
    while step < settings.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step)
        volume, cells, density = sampler.batch(step)
        loss = total_loss(model(volume), cells, density, settings.loss)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(model)
        losses.append(float(loss.detach()))
        step += 1
        if step % settings.every == 0 or step == settings.steps:
            dice = validate(network, held_out)
            rate = learning_rate(settings, step - 1)
            progress = Progress(step, float(np.mean(losses)), rate, time.monotonic() - start_s, dice)
            losses.clear()
            _log(folder / "log.csv", progress)
            _save_checkpoint(checkpoint, settings, trained, step)
            report(progress)
    return network.eval()


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear up over `warmup` steps, then cosine to zero at the last."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    part = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * part))


class PatchSampler:
    """Draws batches: each stack as likely as any other, half the patches anywhere, others around a cell."""

    def __init__(self, stacks: Sequence[TrainingStack], settings: TrainSettings) -> None:
        if not stacks:
            raise ConfigError("there are no stacks to train on", where="training", do="render some first")
        self._stacks, self._settings = stacks, settings
        # float16 with a unit of 1e-3 cells per um3 keeps a training set of densities in a quarter of the memory.
        self._density = [(stack.density() * 1e3).astype(np.float16) for stack in stacks]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Volumes, cell fractions and densities (cells per um3) of one step, each (batch, 2, z, y, x) float32."""
        rng = np.random.default_rng([self._settings.seed, step])
        patches = [self._patch(rng) for _ in range(self._settings.batch)]
        volume, cells, density = (torch.from_numpy(np.stack(parts)) for parts in zip(*patches, strict=True))
        return volume.contiguous(memory_format=torch.channels_last_3d), cells, density

    def _patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        number = int(rng.integers(len(self._stacks)))
        stack = self._stacks[number]
        variant = stack.variants[int(rng.integers(len(stack.variants)))]
        region = self._place(rng, stack)
        volume = _grow(variant[:, *region].astype(np.float32), self._settings.patch, "edge")
        cells = _grow(stack.fractions(region), self._settings.patch, "constant")
        density = _grow(self._density[number][:, *region].astype(np.float32) * 1e-3, self._settings.patch, "constant")
        turns, mirror_y, mirror_x = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
        volume, cells, density = (_turn(part, turns, mirror_y, mirror_x) for part in (volume, cells, density))
        return disturb(rng, volume), cells, density

    def _place(self, rng: np.random.Generator, stack: TrainingStack) -> tuple[slice, ...]:
        """Where a patch lies; smaller than asked for where the stack is."""
        shape, patch = stack.shape, self._settings.patch
        rest = [max(0, n - p) for n, p in zip(shape, patch, strict=True)]
        starts = [int(rng.integers(r + 1)) for r in rest]
        live, dead = stack.live_points_um, stack.dead_points_um
        rarer = min((live, dead), key=lambda points: len(points) or math.inf)
        if rng.random() < self._settings.minority and len(rarer):
            centre = rarer[int(rng.integers(len(rarer)))] / stack.spacing_um
            starts = [int(min(max(c - p / 2, 0), r)) for c, p, r in zip(centre, patch, rest, strict=True)]
        return tuple(slice(s, min(s + p, n)) for s, p, n in zip(starts, patch, shape, strict=True))


def disturb(rng: np.random.Generator, volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change brightness, contrast, noise and sharpness of each channel (2, z, y, x) a little; rarely, drop one."""
    for channel in volume:
        channel *= rng.uniform(0.85, 1.15)
        channel += rng.uniform(-0.1, 0.1)
        if rng.random() < 0.2:
            blurred = F.avg_pool3d(torch.from_numpy(channel)[None], 3, 1, 1, count_include_pad=False)[0].numpy()
            channel += rng.uniform(0, 0.7) * (blurred - channel)
        if rng.random() < 0.4:
            channel += rng.uniform(0, 0.15) * rng.standard_normal(channel.shape, np.float32)
        if rng.random() < 0.02:
            channel[:] = BACKGROUND
    return volume


def validate(model: ResidualUNet, stacks: Sequence[TrainingStack]) -> dict[str, tuple[float, float]]:
    """Live and dead Dice per stack and variant at the model's spacing, of probability 0.5 against half a voxel."""
    card = ModelCard("validation", model.settings, halo=0, sha256="")
    segmenter = UNetSegmenter(model, card, str(next(model.parameters()).device))
    found = {}
    for stack in stacks:
        truth = stack.fractions() >= 0.5
        for number, variant in enumerate(stack.variants[:2]):
            prediction = segmenter.predict(variant.astype(np.float32))
            dice = [agreement(p >= 0.5, t).dice for p, t in zip(prediction[:2], truth, strict=True)]
            found[f"{stack.name}/{number}"] = (dice[0], dice[1])
    return found


def background_bound(model: ResidualUNet, stacks: Sequence[TrainingStack], reach: int = 8) -> float:
    """How much the input varies around the flattest voxel that was taken for a cell: three quarters of it; at most 0.5.

    Around is within `reach` voxels, far less than a tile: a tile that varies less is background all the more. A
    difference, not a level, because an empty field's level depends on how much of the stack is full. Half a standard
    deviation is never skipped, however contrasted the cells of these stacks were.
    """
    segmenter = UNetSegmenter(model, ModelCard("bound", model.settings, halo=0, sha256=""), "cpu")
    flattest, size = math.inf, 2 * reach + 1
    for stack in stacks:
        for variant in stack.variants:
            volume = variant.astype(np.float32)
            prediction = segmenter.predict(volume)
            found = np.maximum(prediction.live, prediction.dead) >= 0.3
            varies = [ndimage.maximum_filter(part, size) - ndimage.minimum_filter(part, size) for part in volume]
            flattest = min(flattest, float(np.maximum(*varies)[found].min(initial=math.inf)))
    if not math.isfinite(flattest):
        raise ModelError("the network finds no cell in any stack", where="training", do="train it longer")
    return min(0.75 * flattest, 0.5)


def _grow(part: NDArray[np.float32], patch: tuple[int, ...], mode: str) -> NDArray[np.float32]:
    """Pad a patch of a stack that is smaller than the patch, at its ends."""
    missing = [(0, 0), *((0, p - n) for p, n in zip(patch, part.shape[1:], strict=True))]
    return np.pad(part, missing, mode=mode) if any(n for _, n in missing) else part  # type: ignore[call-overload]


def _turn(part: NDArray[np.float32], turns: int, mirror_y: bool, mirror_x: bool) -> NDArray[np.float32]:
    """Turn about z and mirror in the plane; never in z, from whose lower end the light comes."""
    part = np.rot90(part, turns, axes=(2, 3)) if part.shape[2] == part.shape[3] else part
    return np.ascontiguousarray(part[:, :, :: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def _log(path: Path, progress: Progress) -> None:
    live, dead = progress.mean_dice()
    row = {"step": progress.step, "loss": progress.loss, "learning_rate": progress.learning_rate}
    row |= {"seconds": progress.seconds, "live_dice": live, "dead_dice": dead}
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row.keys())
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _save_checkpoint(path: Path, settings: TrainSettings, trained: dict[str, Any], step: int) -> None:
    states = {name: part.state_dict() for name, part in trained.items()}
    partial = path.with_suffix(".partial")
    torch.save({"step": step, "settings": asdict(settings), **states}, partial)
    partial.replace(path)


def _resume(path: Path, settings: TrainSettings, trained: dict[str, Any]) -> int:
    """Load a checkpoint if there is one; the step it was written after."""
    if not path.exists():
        return 0
    found = torch.load(path, weights_only=True)
    if {**found["settings"], "every": 0} != {**asdict(settings), "every": 0}:  # reports change nothing
        do = "go on with the same settings, or train in another folder"
        raise ConfigError("it was written with other settings", where=str(path), do=do)
    for name, part in trained.items():
        part.load_state_dict(found[name])
    return int(found["step"])
