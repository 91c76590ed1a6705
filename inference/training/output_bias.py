"""The outputs' biases, chosen on validation stacks: a mask is probability 0.5, and that shall be where Dice is highest.

Where a class is rare, the loss leaves its output too careful or too bold. Shifting the logits by a constant changes
nothing else that the network has learned.
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import numpy as np
import torch

from spheroidd.inference.network.model_card import ModelCard
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.segmentation.precision import AUTO
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.stack import TrainingStack

Output = Literal["live", "dead"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
THRESHOLDS = np.linspace(0.3, 0.7, 17)


def balance(
    model: UNet, stacks: Sequence[TrainingStack], outputs: Collection[Output], precision: str = AUTO
) -> tuple[float, float]:
    """Shift the live or the dead logits, or both, to where the Dice of all voxels of the stacks together is highest.

    At the model's spacing; of a stack under its plate's limits, which are the default, or under its own where it knows
    no others. Of thresholds with the same Dice the one nearest to 0.5 is taken. Returns the shifts, in logits: 0 for an
    output that is not asked for, or that no stack has a cell of, which tells nothing of where it should be.
    """
    segmenter = UNetSegmenter(model, ModelCard("balance", model.settings, halo=0, sha256=""), precision=precision)
    both = np.zeros((2, len(THRESHOLDS)))  # voxels in mask and truth, by output and threshold
    either = np.zeros_like(both)  # voxels of the mask and of the truth, added
    for stack in stacks:
        truth = stack.fractions() >= 0.5
        prediction = segmenter.predict(stack.variants[:2][-1].astype(np.float32))
        for output, (probability, true) in enumerate(zip(prediction[:2], truth, strict=True)):
            for number, threshold in enumerate(THRESHOLDS):
                mask = probability >= threshold
                both[output, number] += np.count_nonzero(mask & true)
                either[output, number] += np.count_nonzero(mask) + np.count_nonzero(true)
    dice = 2 * both / np.maximum(either, 1)
    middling = np.where(dice == dice.max(axis=1, keepdims=True), -np.abs(THRESHOLDS - 0.5), -np.inf)
    best = THRESHOLDS[middling.argmax(axis=1)]  # all are 0, and 0.5 the most middling, where nothing is true
    shifts = (math.log((1 - threshold) / threshold) for threshold in best)
    live, dead = (shift if name in outputs else 0.0 for name, shift in zip(OUTPUTS, shifts, strict=True))
    with torch.no_grad():
        for bias in model.logit_biases:
            bias += torch.tensor([live, dead], dtype=bias.dtype, device=bias.device)
    return live, dead
