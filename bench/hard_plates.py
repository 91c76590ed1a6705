"""Networks on plates that the easy emulator does not make: `python -m bench.hard_plates [MODEL ...]` prints JSON.

Each row is a plate of which one thing is hard: no killed well; half of the light out of focus; coarse steps; small
spheroids; slices that were computed of raw frames; tissue, cells, stains and lenses of the realisms `real` and
`hostile`, a plate a seed. Dice and precision are of all wells' voxels together, at the stacks' own sampling, where
anybody could know what is there; V count is beside the live share of the cells in the field, of wells that have one.
Limits, masks and counts are made by the code that a run uses. No network was chosen by these seeds. Parts: `--only
haze`, words of a row's name; rows are kept in bench/out/hard-plates.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Annotated, Any

import numpy as np
import typer
from scipy import ndimage

from bench.places import OUT
from bench.study import Well, imaged, keep_row, kept_row, reference_digest, say
from bench.trust import look, score
from spheroidd.daemon.evaluation.held_out import emulator_digest
from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.preprocessing.plate_limits import plate_limits
from spheroidd.inference.preprocessing.resample import NativeMasks, Spacing
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.training.overlap_counts import Overlap
from spheroidd.protocols.pixels import Pixels
from spheroidd.sim_emulator.camera import OFFSET_ADU
from spheroidd.sim_emulator.source import EmulatorSettings
from spheroidd.sim_emulator.truth import Truth

SEED = 6200
DESIGN = {"preset": "demo", "compounds": 2, "doses": 3, "negative_controls": 2, "positive_controls": 1}
NO_KILLED = {"negative_controls": 3, "positive_controls": 0}
HAZE_UM = (9.0, 5.0, 5.0)  # sigma of what is out of focus


@dataclass(frozen=True, slots=True)
class Hard:
    """A plate of the easy emulator with one thing changed, or a plate of a harder kind; `haze`: part of the light."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    haze: float = 0.0
    kind: str | None = None
    seed: int = SEED


PLATES: dict[str, Hard] = {
    "as it is": Hard(),
    "no killed well": Hard(NO_KILLED),
    "no killed well, half of the light haze": Hard(NO_KILLED, haze=0.5),
    "steps of 3 um": Hard({"z_step_um": 3.0, "n_z": 20}),
    "steps of 5 um": Hard({"z_step_um": 5.0, "n_z": 12}),
    "spheroids of 90 um": Hard({"diameter_um": 90.0, "n_z": 96, "height": 256, "width": 256}),
    "computed of raw frames": Hard(kind="sim", seed=6100),
    **{f"real {seed}": Hard(kind="real", seed=seed) for seed in range(6100, 6106)},
    **{f"hostile {seed}": Hard(kind="hostile", seed=seed) for seed in range(6100, 6103)},
}

FIGURES: tuple[tuple[str, Callable[[list[float]], float]], ...] = (("least", min), ("median", median), ("most", max))


def hazy(stack: Pixels, share: float, own_um: Spacing) -> Pixels:
    """A stack (2, z, y, x) with a share of its light out of focus."""
    light = stack.astype(np.float32) - OFFSET_ADU
    wide = [ndimage.gaussian_filter(one, [s / step for s, step in zip(HAZE_UM, own_um, strict=True)]) for one in light]
    mixed = (1 - share) * light + share * np.stack(wide) + OFFSET_ADU
    return np.clip(np.rint(mixed), 0, 65535).astype(np.uint16)


def wells_of(hard: Hard) -> tuple[Spacing, list[Well]]:
    """A plate's voxel (z, y, x) in um, and its wells."""
    if hard.kind is not None:
        plate = TrainingPlate(hard.kind, hard.seed)
        roles = {entry.well: entry.treatment.role for entry in plate.source.plate_map.imaged()}
        return plate.own_um, [Well(roles[well], *plate.render(well)) for well in plate.wells()]
    settings = EmulatorSettings.model_validate({"seed": hard.seed, "pace": "fast", **DESIGN, **hard.settings})
    preset = settings.field_preset()
    own_um = (preset.z_step_um, preset.pixel_um, preset.pixel_um)
    wells = imaged(settings, preset, "hard")
    return own_um, [replace(well, stack=hazy(well.stack, hard.haze, own_um)) for well in wells] if hard.haze else wells


def row(hard: Hard, segmenter: UNetSegmenter) -> dict[str, Any]:
    """One plate's figures."""
    own_um, wells = wells_of(hard)
    looks = {one.truth.well.well: look(one.stack, own_um, one.role, segmenter, one.truth.well.well) for one in wells}
    limits = plate_limits(one.well for one in looks.values())
    live, dead, errors, foreign = Overlap(), Overlap(), [], []
    for well, truth in ((one.truth.well.well, one.truth) for one in wells):
        masks: list[NativeMasks] = []
        measured = score(looks.pop(well), limits, segmenter, keep=masks.append).measurement
        for part, known in _known(masks, truth):
            live += Overlap.of(part.live & known, truth.live[_planes(part)] & known)
            dead += Overlap.of(part.dead & known, truth.dead[_planes(part)] & known)
        if measured.foreign_score is not None:
            foreign.append(measured.foreign_score)
        counted, there = (measured.n_live or 0) + (measured.n_dead or 0), truth.well.n_live + truth.well.n_dead
        if counted and there:
            errors.append(abs((measured.n_live or 0) / counted - truth.well.n_live / there))
    found: dict[str, Any] = {"wells": len(wells)}
    for name, one in (("live", live), ("dead", dead)):
        found[name] = {"dice": _rounded(2 * one.both, one.mask + one.truth)}
        found[name] |= {"precision": _rounded(one.both, one.mask), "recall": _rounded(one.both, one.truth)}
    if errors:
        found["v_count"] = {"wells": len(errors), "mae": round(fmean(errors), 3), "worst": round(max(errors), 3)}
    if foreign:
        found["foreign_score"] = {name: round(of(foreign), 2) for name, of in FIGURES}
    return found


def _known(masks: list[NativeMasks], truth: Truth) -> Iterator[tuple[NativeMasks, Any]]:
    """Each run of planes beside where it can be known what they show."""
    for part in masks:
        yield part, np.True_ if truth.known is None else truth.known[_planes(part)]


def _planes(part: NativeMasks) -> slice:
    return slice(part.z_start, part.z_start + len(part.live))


def _rounded(above: float, below: float) -> float | None:
    return round(float(above / below), 3) if below else None


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Names or paths; without, the shipped one.")] = None,
    only: Annotated[str, typer.Option(help="Only plates whose name holds this.")] = "",
) -> None:
    """Print every plate under every network; progress goes to the standard error."""
    found: dict[str, Any] = {"bench": "hard_plates"}
    for model in models or ["default"]:
        segmenter = load_segmenter(model, "cpu", threads=1)
        rows = found.setdefault(model, {"sha256": segmenter.sha256})
        for name, hard in PLATES.items():
            if only not in name:
                continue
            decisive = (segmenter.sha256, reference_digest(model), emulator_digest(), hard, DESIGN)
            place, kept = kept_row(OUT / "hard-plates" / name.replace(" ", "-"), decisive)
            if kept is None:
                say(f"{model}: {name}")
                kept = keep_row(place, row(hard, segmenter))
            rows[name] = kept
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
