"""What the benches of the study's tables share: emulated plates, figures over wells, rows that are kept on disk.

A row's folder carries a digest of all that decides it, so that another budget or seed never finds an old row.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.places import OUT
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.daemon.training.emulated_plates import cached_stacks
from spheroidd.inference.agreement.method_comparison import spread
from spheroidd.inference.network.known_features import SUFFIX
from spheroidd.inference.network.model_card import ModelCard, find_weights
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.preprocessing.resample import MakesMasks, Spacing
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.history import CSV_NAME
from spheroidd.inference.training.overlap_counts import NORMALISATIONS, Overlap, stack_overlaps
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.inference.training.stack import TrainingStack
from spheroidd.inference.training.trainer import CHECKPOINT_NAME, train
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.presets import Preset
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.sim_emulator.truth import Truth

Mask = NDArray[np.bool_]
CACHE = OUT / "study-plates"
LABELS = ("live", "dead")


@dataclass(frozen=True, slots=True)
class Trained:
    """A network and the CPU seconds that one step of its training took."""

    model: UNet
    cpu_s_per_step: float

    @property
    def segmenter(self) -> UNetSegmenter:
        """The network behind the port, on the CPU; no background is skipped."""
        return UNetSegmenter(self.model, ModelCard("study", self.model.settings, halo=16, sha256=""), "cpu")


@dataclass(frozen=True, slots=True)
class Well:
    """A stack (2, z, y, x) in the order that a network expects, and what is true of it."""

    role: WellRole
    stack: Pixels
    truth: Truth


def imaged(settings: EmulatorSettings, preset: Preset, plate: str = "study") -> list[Well]:
    """Every well of an emulated plate of that name; channels that the settings exchange are put back in order."""
    source = EmulatorSource(settings, None, plate, SystemClock(), preset=preset)
    found = []
    for entry in source.plate_map.imaged():
        plan = source.plan(entry.well)
        stack = np.empty((len(CHANNELS), plan.n_z, plan.height, plan.width), np.uint16)
        for frame in source.frames(plan, set(plan.indices())):
            stack[CHANNELS.index(frame.index.channel), frame.index.z] = frame.pixels
        ordered = stack[::-1] if settings.swapped_channels else stack
        found.append(Well(entry.treatment.role, ordered, source.truth(entry.well)))
    return found


def mask_overlaps(
    segmenter: UNetSegmenter, volume: NDArray[np.float32], truths: tuple[Mask, Mask], maker: MakesMasks
) -> tuple[Overlap, Overlap]:
    """A normalised volume (2, z, y, x) segmented in one piece, its masks made at the truths' sampling and judged."""
    prediction = segmenter.predict(volume)
    found = [Overlap(), Overlap()]
    for masks in [*maker.feed(0, prediction.live, prediction.dead), *maker.finish()]:
        planes = slice(masks.z_start, masks.z_start + len(masks.live))
        for number, mask in enumerate((masks.live, masks.dead)):
            found[number] += Overlap.of(mask, truths[number][planes])
    return found[0], found[1]


def plates(kind: str, seeds: Iterable[int], spacing_um: Spacing, cache: Path = CACHE) -> dict[str, list[TrainingStack]]:
    """Emulated plates by patient: a plate's seed is its patient's, too."""
    found = {}
    for seed in seeds:
        say(f"plate {kind}-{seed} at {spacing_um[0]:g} um")
        found[f"{kind}-{seed}"] = list(cached_stacks(kind, seed, spacing_um, cache))
    return found


def trained(stacks: Sequence[TrainingStack], settings: TrainSettings, folder: Path) -> Trained:
    """Train on one thread, or go on where a killed training stopped."""
    torch.set_num_threads(1)
    taken, began_s = 0, time.process_time()

    def tick(step: int) -> None:
        nonlocal taken
        taken += 1
        if step % 50 == 0:
            say(f"  step {step} of {settings.steps}")

    model = train(stacks, [], settings, folder, tick=tick)
    return Trained(model, (time.process_time() - began_s) / max(taken, 1))


def figures(overlaps: Sequence[tuple[Overlap, Overlap]], patients: Sequence[str]) -> dict[str, Any]:
    """Pooled over all voxels, and the mean over wells with its sd and its interval over patients."""
    found: dict[str, Any] = {"wells": len(overlaps)}
    for number, label in enumerate(LABELS):
        ours = [pair[number] for pair in overlaps]
        pooled = sum(ours, Overlap())
        over_wells = spread([one.dice for one in ours], list(patients))
        found[label] = {
            "dice": _rounded(pooled.dice),
            "precision": _rounded(pooled.precision),
            "recall": _rounded(pooled.recall),
            "dice_well_mean": _rounded(over_wells.mean),
            "dice_well_sd": _rounded(over_wells.sd),
            "dice_well_median": _rounded(over_wells.median),
            "dice_well_mean_95": [_rounded(over_wells.mean_lo), _rounded(over_wells.mean_hi)],
        }
    return found


def scored(segmenter: UNetSegmenter, held_out: dict[str, list[TrainingStack]]) -> dict[str, Any]:
    """The figures under each normalisation, and the CPU seconds of inference per million voxels."""
    pairs = [(patient, stack) for patient, stacks in held_out.items() for stack in stacks]
    began_s, voxels, found = time.process_time(), 0, {}
    for variant, normalisation in enumerate(NORMALISATIONS):
        known = [(patient, stack) for patient, stack in pairs if variant < len(stack.variants)]
        overlaps = [stack_overlaps(segmenter, stack, variant) for _, stack in known]
        voxels += sum(stack.cells[0].size for _, stack in known)
        if known:
            found[str(normalisation)] = figures(overlaps, [patient for patient, _ in known])
    return {**found, "cpu_s_per_mvoxel": round((time.process_time() - began_s) / (voxels / 1e6), 3)}


def kept_row(folder: Path, decisive: object) -> tuple[Path, dict[str, Any] | None]:
    """The row's folder, named after `decisive` as well, and the row if it was finished before."""
    digest = hashlib.sha256(repr(decisive).encode()).hexdigest()[:8]
    place = folder.with_name(f"{folder.name}-{digest}")
    try:
        row = json.loads((place / "row.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return place, None
    return place, dict(row)


def reference_digest(model: str) -> str:
    """Of what a network tells foreign images by, so what its scores come from; empty where it has nothing to."""
    weights = find_weights(model)
    reference = weights.with_name(weights.stem + SUFFIX)
    return hashlib.sha256(reference.read_bytes()).hexdigest() if reference.exists() else ""


def keep_row(place: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Write a finished row; the training's checkpoint is of no more use."""
    place.mkdir(parents=True, exist_ok=True)
    partial = place / "row.partial"
    partial.write_text(json.dumps(row, indent=1), encoding="utf-8")
    partial.replace(place / "row.json")
    for name in (CHECKPOINT_NAME, CSV_NAME):
        (place / name).unlink(missing_ok=True)
    say(json.dumps(row))
    return row


def say(text: str) -> None:
    """A word of progress; standard output is the JSON's."""
    print(text, file=sys.stderr, flush=True)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
