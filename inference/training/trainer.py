"""Trains a U-Net on stacks whose truth is known. Where the stacks come from is not its business.

One flat loop: patches are drawn and augmented, AdamW, cosine to zero, a running average of the weights. Every draw
depends on (seed, step) alone, so a run taken up from its checkpoint ends with the same bits. Under `torchrun` each
process takes its part of every batch.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy import ndimage
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.network.build import build_network, check_architecture
from spheroidd.inference.network.model_card import ModelCard, UNetSettings
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.network.widen import widened
from spheroidd.inference.segmentation.precision import AUTO, named_precision
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.checkpoint import Origin, resume, save_checkpoint, weights_digest
from spheroidd.inference.training.history import CSV_NAME, Progress, write_csv
from spheroidd.inference.training.loss import total_loss
from spheroidd.inference.training.patches import PatchSampler
from spheroidd.inference.training.settings import Precision, TrainSettings
from spheroidd.inference.training.stack import TrainingStack, stacks_digest
from spheroidd.protocols.errors import ConfigError, ModelError, StorageError

CHECKPOINT_NAME = "checkpoint.pt"
_LONGEST_MIDDLE = 192  # seven million voxels: seconds on a CPU, and a few GB


def train(
    stacks: Sequence[TrainingStack],
    validation: Sequence[TrainingStack],
    settings: TrainSettings,
    out: Path,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    tick: Callable[[int], None] = lambda step: None,
    start_from: UNet | None = None,
    device: str = "cpu",
) -> UNet:
    """Train to the last step; the averaged network, in evaluation mode.

    `out` gets `log.csv` and `checkpoint.pt`; a checkpoint of the same settings, stacks and first weights that is there
    already is taken up. `report` comes with every validation, `tick` after every step. `start_from` gives the first
    weights.
    """
    rank, n_ranks = (distributed.get_rank(), distributed.get_world_size()) if _is_distributed() else (0, 1)
    check_possible(settings, out, n_ranks, device)
    share = settings.batch // n_ranks
    torch.manual_seed(settings.seed)
    model = _first_weights(settings.network, start_from, settings.seed).train()
    model = model.to(device, memory_format=model.memory_format)  # type: ignore[call-overload]
    average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    network = cast(UNet, averaged.module)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    scaler = torch.amp.GradScaler(enabled=settings.precision == "fp16")
    parts: dict[str, Any] = {"model": model, "averaged": averaged, "optimiser": optimiser, "scaler": scaler}
    origin = Origin(settings, stacks_digest(stacks), "" if start_from is None else weights_digest(start_from))
    step = resume(out / CHECKPOINT_NAME, origin, parts)
    replica = _replicated(model, device) if n_ranks > 1 else model
    sampler = PatchSampler(stacks, settings.patch, settings.minority, settings.augmentation, settings.seed)
    losses: list[float] = []
    start_s = time.monotonic()
    while step < settings.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step)
        batch = sampler.batch(step, range(rank * share, (rank + 1) * share))
        volume, cells, density, known = (part.to(device, non_blocking=True) for part in batch)
        with _autocast(device, settings.precision):
            output = replica(volume)
        loss = total_loss(output, cells, density, settings.loss, known)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        averaged.update_parameters(model)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            do = "lower learning_rate, train anew with another seed, or in fp16 take bf16"
            raise ModelError(f"the loss is {losses[-1]} at step {step}", where="training", do=do)
        step += 1
        tick(step)
        if (step % settings.every == 0 or step == settings.steps) and rank == 0:
            dice, rate = validate(network, validation), learning_rate(settings, step - 1)
            progress = Progress(step, float(np.mean(losses)), rate, time.monotonic() - start_s, dice)
            losses.clear()
            write_csv(out / CSV_NAME, progress)  # first: a kill between the two writes this line again, and loses none
            save_checkpoint(out / CHECKPOINT_NAME, origin, parts, step)
            report(progress)
    return network.eval()


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear up over `warmup` steps, then cosine to zero at the last."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    part = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * part))


def validate(model: UNet, stacks: Sequence[TrainingStack], precision: str = AUTO) -> dict[str, tuple[float, float]]:
    """Live and dead Dice per stack and variant at the model's spacing, of probability 0.5 against half a voxel."""
    card = ModelCard("validation", model.settings, halo=0, sha256="")
    segmenter = UNetSegmenter(model, card, str(next(model.parameters()).device), precision)
    found = {}
    for stack in stacks:
        truth = stack.fractions() >= 0.5
        for number, variant in enumerate(stack.variants[:2]):
            prediction = segmenter.predict(variant.astype(np.float32))
            dice = [agreement(p >= 0.5, t).dice for p, t in zip(prediction[:2], truth, strict=True)]
            found[f"{stack.name}/{number}"] = (dice[0], dice[1])
    return found


def background_bound(model: UNet, stacks: Sequence[TrainingStack], reach: int = 8, precision: str = AUTO) -> float:
    """How much the input varies around the flattest voxel that was taken for a cell: three quarters of it; at most 0.5.

    Around is within `reach` voxels, far less than a tile: a tile that varies less is background all the more. A
    difference, not a level, because an empty field's level depends on how much of the stack is full. Half a standard
    deviation is never skipped, however contrasted the cells of these stacks were. Of a large stack the middle is taken:
    a field of 50 um is 500 voxels wide where they are of 0.1 um.
    """
    segmenter = UNetSegmenter(model, ModelCard("bound", model.settings, halo=0, sha256=""), "cpu", precision)
    flattest, size = math.inf, 2 * reach + 1
    for stack in stacks:
        for variant in stack.variants:
            volume = variant[:, *_middle(stack.shape)].astype(np.float32)
            prediction = segmenter.predict(volume)
            found = np.maximum(prediction.live, prediction.dead) >= 0.3
            varies = [ndimage.maximum_filter(part, size) - ndimage.minimum_filter(part, size) for part in volume]
            flattest = min(flattest, float(np.maximum(*varies)[found].min(initial=math.inf)))
    if not math.isfinite(flattest):
        raise ModelError("the network finds no cell in any stack", where="training", do="train it longer")
    return min(0.75 * flattest, 0.5)


def check_possible(settings: TrainSettings, out: Path, n_processes: int, device: str) -> None:
    """Refuse what `train` would end with, before anything is rendered; makes the folder `out`."""
    named_precision()
    check_architecture(settings.network)
    if settings.batch % n_processes:
        what, do = f"a batch of {settings.batch} for {n_processes} processes", "give a multiple of their number"
        raise ConfigError(what, where="training.batch", do=do)
    if settings.precision == "fp16" and torch.device(device).type == "cpu":
        raise ConfigError("fp16 has no CPU", where="training", do='set precision = "fp32" or "bf16"')
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        do = "give another folder as `out`"
        raise StorageError(f"the folder cannot be made: {error.strerror}", where=str(out), do=do) from error


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The middle of a volume (z, y, x), at most `_LONGEST_MIDDLE` voxels a side."""
    return tuple(slice(start := max(0, (n - _LONGEST_MIDDLE) // 2), start + min(n, _LONGEST_MIDDLE)) for n in shape)


def _first_weights(network: UNetSettings, start_from: UNet | None, seed: int) -> UNet:
    """A new network, or one with another's weights, whatever its spacing, and widened where it is narrower."""
    model = build_network(network)
    if start_from is not None:
        if replace(start_from.settings, spacing_um=network.spacing_um, base=network.base) != network:
            what = f"the weights to start from are of {start_from.settings}"
            raise ConfigError(what, where="training", do="give [training.network] the same shape, or a larger base")
        if start_from.settings.base != network.base:
            start_from = widened(start_from, network.base, seed)
        model.load_state_dict(start_from.state_dict())
    return model


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _replicated(model: UNet, device: str) -> nn.Module:
    """The model with its gradients averaged over all processes; on GPUs, BatchNorm sees the whole batch as well."""
    if device == "cpu":
        return DistributedDataParallel(model)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return DistributedDataParallel(synchronised, device_ids=[torch.device(device)])


def _autocast(device: str, precision: Precision) -> AbstractContextManager[Any]:
    kind = torch.device(device).type
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(kind, dtype=dtype, enabled=precision != "fp32")
