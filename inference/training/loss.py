"""The study's loss, in fp32: lambda_D * (-log Dice) + lambda_F * focal at every scale, and the density's squared error.

Dice and focal are MONAI's. Targets of coarser scales are averages over areas: nearest neighbours lose small objects.
Each voxel counts by how far it is `known` (batch, 1, z, y, x), 0 to 1: nothing is learnt where nobody could tell.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from spheroidd.inference.network.unet import DENSITY_UNIT_PER_UM3, UNetOutput
from spheroidd.protocols.errors import ConfigError

_LEAST_DICE = 1e-6


@dataclass(frozen=True, slots=True)
class LossSettings:
    """The weights of the loss's parts; lambda_dice, lambda_focal and gamma as in the study.

    `stages` is the weight of the decoder stages' losses together, beside the merged map's 1; a stage weighs half of the
    next finer one. `smoothing` is the part of a batch's voxels that is added to Dice's numerator and denominator: it
    decides what an empty target costs (see `negative_log_dice`).
    """

    lambda_dice: float = 0.5
    lambda_focal: float = 0.5
    gamma: float = 2.0
    stages: float = 0.5
    density: float = 1.0
    smoothing: float = 1e-3

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", where="loss", do="give 0 or more")
        if self.smoothing == 0:
            raise ConfigError("smoothing is 0", where="loss", do="give more: an empty patch would cost 13.8")


def negative_log_dice(logits: Tensor, target: Tensor, smoothing: float, known: Tensor | None = None) -> Tensor:
    """The mean over outputs of -log Dice, Dice pooled over the batch; both (batch, outputs, z, y, x), target 0 to 1.

    With s = smoothing * voxels, Dice = (2 |pt| + s) / (|p| + |t| + s), with |pt| = (|p| + |t| - |p - t|) / 2 so that
    a fractional target that is met costs nothing. Of an empty target, p = 0 costs 0, and p = 1 everywhere costs
    log(1 + 1 / smoothing): 6.9 at 0.001.
    """
    from monai.losses.dice import DiceLoss  # takes seconds to load, and only training needs it

    s = smoothing * target.numel() / target.shape[1]
    found, target = torch.sigmoid(logits.float()), target.float()
    if known is not None:
        found, target = found * known, target * known
    dice = DiceLoss(batch=True, reduction="none", smooth_nr=s, smooth_dr=s, soft_label=True)
    # Pooled over the batch, so that a patch without a single cell does not weigh as much as one full of them.
    lost: Tensor = dice(found, target).flatten()
    return -torch.log((1 - lost).clamp_min(_LEAST_DICE)).mean()


def segmentation_loss(logits: Tensor, target: Tensor, settings: LossSettings, known: Tensor | None = None) -> Tensor:
    """lambda_D * (-log Dice) + lambda_F * focal, of one scale."""
    from monai.losses.focal_loss import FocalLoss

    if known is None:
        focal: Tensor = FocalLoss(gamma=settings.gamma)(logits.float(), target.float())
    else:
        focal = (FocalLoss(gamma=settings.gamma, reduction="none")(logits.float(), target.float()) * known).mean()
    dice = negative_log_dice(logits, target, settings.smoothing, known)
    return settings.lambda_dice * dice + settings.lambda_focal * focal


def density_loss(density: Tensor, target_per_um3: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean squared error in units of DENSITY_UNIT_PER_UM3, at the output's own resolution."""
    target = pool_to(target_per_um3.float() / DENSITY_UNIT_PER_UM3, density.shape)
    if known is None:
        return F.mse_loss(density.float(), target)
    return ((density.float() - target) ** 2 * pool_to(known, density.shape)).mean()


def total_loss(
    output: UNetOutput, cells: Tensor, density_per_um3: Tensor, settings: LossSettings, known: Tensor | None = None
) -> Tensor:
    """The loss of a batch; parts that the network does not have cost nothing.

    `cells` (batch, 2, z, y, x): which part of each voxel is live body, and dead nucleus, 0 to 1. `density_per_um3` of
    the same shape: live and dead cells per um3. Without `known` all of it is.
    """
    if known is not None and bool((known == 1).all()):
        known = None
    total = segmentation_loss(output.merged, cells, settings, known)
    if output.stages:
        weights = [0.5**level for level in range(len(output.stages))]
        stages = [
            segmentation_loss(
                stage, pool_to(cells, stage.shape), settings, None if known is None else pool_to(known, stage.shape)
            )
            for stage in output.stages
        ]
        auxiliary = sum(w * loss for w, loss in zip(weights, stages, strict=True)) / sum(weights)
        total = total + settings.stages * auxiliary
    if output.density is not None:
        total = total + settings.density * density_loss(output.density, density_per_um3, known)
    return total


def pool_to(target: Tensor, shape: torch.Size) -> Tensor:
    """The target averaged over areas to the (z, y, x) of `shape`, by a whole factor."""
    factor = target.shape[-1] // shape[-1]
    return target if factor == 1 else F.avg_pool3d(target, factor)
