"""Weights beside each other on validation plates: `python -m bench.validation [MODEL ...]` prints JSON.

This is what weights that ship are chosen by; no held-out plate is opened. Every well is judged as it is and with its
channels exchanged without a word, under its own limits and its plate's: Dice at the model's spacing, of all voxels
together and the mean over wells; and by plate the errors of the live volume. Stacks are kept in bench/out/study-plates,
or in `--cache`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.study import CACHE, figures, plates, say
from spheroidd.inference.network.model_card import DEFAULT_MODEL
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.overlap_counts import NORMALISATIONS, Overlap, stack_overlaps
from spheroidd.inference.training.stack import TrainingStack
from spheroidd.protocols.results import Normalisation

PLATES = {"demo": (5000, 5001), "screen": (5000, 5001), "dying": (5000,), "swapped": (5000,), "unit": (5000,)}


def exchanged(stack: TrainingStack) -> TrainingStack:
    """The same well, imaged with calcein at 561 and propidium iodide at 488."""
    return replace(
        stack,
        variants=tuple(np.ascontiguousarray(volume[::-1]) for volume in stack.variants),
        cells=np.ascontiguousarray(stack.cells[::-1]),
        live_points_um=stack.dead_points_um,
        dead_points_um=stack.live_points_um,
    )


def volume_errors(pairs: Sequence[tuple[Overlap, Overlap]], owners: Sequence[str]) -> dict[str, dict[str, float]]:
    """By plate, how much more live volume is found than there is, and which part of the dead volume is taken for live.

    Least squares over the plate's wells; `daemon/training/regressor_from_emulator.py` draws a network's errors from it.
    """
    found = {}
    for plate in dict.fromkeys(owners):
        ours = [pair for pair, owner in zip(pairs, owners, strict=True) if owner == plate]
        true = np.array([(live.truth, dead.truth) for live, dead in ours], float)
        slopes, *_ = np.linalg.lstsq(true, np.array([live.mask for live, _ in ours], float))
        found[plate] = {"live_excess": round(slopes[0] - 1, 3), "dead_taken_for_live": round(slopes[1], 3)}
    return found


def row(model: str, cache: Path) -> dict[str, Any]:
    """One model's figures, by order of the dyes and normalisation."""
    network, card = load_model(model)
    segmenter = UNetSegmenter(network, replace(card, background=None), "cpu")
    wells: dict[str, list[TrainingStack]] = {}
    for kind, seeds in PLATES.items():
        wells |= plates(kind, seeds, card.settings.spacing_um, cache)
    patients = [plate for plate, stacks in wells.items() for _ in stacks]
    found: dict[str, Any] = {}
    for variant, normalisation in enumerate(NORMALISATIONS):
        for order in ("in order", "exchanged"):
            pairs = []
            for stack in (stack for stacks in wells.values() for stack in stacks):
                if order == "in order":
                    pairs.append(stack_overlaps(segmenter, stack, variant))
                else:  # a dye's mask is the other output's
                    pairs.append(stack_overlaps(segmenter, exchanged(stack), variant)[::-1])
            found[f"{order}, limits of the {normalisation}"] = figures(pairs, patients)
            if order == "in order" and normalisation is Normalisation.PLATE:
                found["volume_errors"] = volume_errors(pairs, patients)
            say(f"{model}, {order}, limits of the {normalisation}: done")
    return found


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Names or paths; the shipped one without.")] = None,
    cache: Annotated[Path, typer.Option(help="Where rendered plates are kept.")] = CACHE,
) -> None:
    """Print every model's figures."""
    torch.set_num_threads(1)
    names = models or [DEFAULT_MODEL]
    print(json.dumps({"bench": "validation", **{name: row(name, cache) for name in names}}, indent=1))


if __name__ == "__main__":
    typer.run(main)
