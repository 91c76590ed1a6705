"""The outputs' biases, chosen on validation stacks: a mask is probability 0.5, and that shall be where Dice is highest.

Where a class is rare, the loss leaves its output too careful or too bold. Shifting the logits by a constant changes
nothing else that the network has learned.
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import numpy as np
import torch

from spheroidd.inference.model_card import ModelCard
from spheroidd.inference.segment import UNetSegmenter
from spheroidd.inference.training_stack import TrainingStack
from spheroidd.inference.unet import UNet

Output = Literal["live", "dead"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
THRESHOLDS = np.linspace(0.3, 0.7, 17)


def balance(model: UNet, stacks: Sequence[TrainingStack], outputs: Collection[Output]) -> tuple[float, float]:
    """Shift the live or the dead logits, or both, to where the Dice of all voxels of the stacks together is highest.

    At the model's spacing; of a stack under its plate's limits, which are the default, or under its own where it knows
    no others. Returns the shifts, in logits: 0 for an output that is not asked for, and without stacks.
    """
    segmenter = UNetSegmenter(model, ModelCard("balance", model.settings, halo=0, sha256=""))
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
    if not either.all():
        return 0.0, 0.0
    best = THRESHOLDS[(both / either).argmax(axis=1)]
    shifts = (-math.log(threshold / (1 - threshold)) for threshold in best)
    live, dead = (shift if name in outputs else 0.0 for name, shift in zip(OUTPUTS, shifts, strict=True))
    with torch.no_grad():
        for bias in model.logit_biases:
            bias += torch.tensor([live, dead], dtype=bias.dtype, device=bias.device)
    return live, dead
