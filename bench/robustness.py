"""How far the weights carry: `python -m bench.robustness [--model MODEL]` prints JSON.

A plate that no network has learnt from, imaged again and again with one thing changed: the spheroids' diameter, the
intensity, autofluorescence, camera noise, fringes as a poor reconstruction leaves them, and the channels. The field is
the `demo` preset's at its own scale (102 x 102 x 50 um). Figures are of all wells' voxels together at the stacks' own
sampling, under each normalisation.

"channels exchanged, put in order" is a plate whose calcein was imaged at 561 and propidium iodide at 488, and whose
settings say so: only the noise is another, because the emulator's bleed-through belongs to the dyes. "channels
exchanged, nobody said so": the network's inputs are exchanged, and each output is judged by what its input shows:
whether 488 and 561 need a network each. "killed wells": only wells without a living spheroid, where a stack's own
limits stretch noise and leftovers to full scale. Killed, it goes on where it stopped; points are in
bench/out/robustness.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import typer

from bench.study import OUT, Well, figures, imaged, keep_row, kept_row, mask_overlaps, say
from spheroidd.inference.preprocessing.plate_limits import WellLight, plate_limits
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.segmentation.half_height import HalfHeightMasks
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.training.overlap_counts import NORMALISATIONS, Overlap
from spheroidd.inference.training.stack import filter_stack, stack_light
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.camera import OFFSET_ADU
from spheroidd.sim_emulator.plate import DrugMode
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.source import EmulatorSettings

SEED = 9100
FRINGE_UM = 2.0
PLATE = {"compounds": 2, "doses": 2, "negative_controls": 2, "positive_controls": 1, "top_dose_um": 10.0}
MODES = (DrugMode.UNIFORM, DrugMode.RIM_IN)


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that is changed: of the plate, of its images after they were taken, or of the network's inputs."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    diameter_um: float = 300.0
    noise_adu: float = 0.0
    fringes: float = 0.0
    inputs_exchanged: bool = False


POINTS: dict[str, Point] = {
    "as it is": Point(),
    **{f"diameter {d} um": Point(diameter_um=d) for d in (200, 400, 500)},
    **{f"intensity {100 * (i - 1):+.0f} %": Point({"intensity": i}) for i in (0.6, 0.8, 1.2, 1.4)},
    **{f"autofluorescence {a:g}": Point({"autofluorescence": a}) for a in (0.0, 0.1, 0.2, 0.3)},
    **{f"noise of {sd} counts more": Point(noise_adu=sd) for sd in (20, 50)},
    **{f"fringes of {100 * m:.0f} %": Point(fringes=m) for m in (0.1, 0.2)},
    "channels exchanged, put in order": Point({"swapped_channels": True}),
    "channels exchanged, nobody said so": Point(inputs_exchanged=True),
    "killed wells": Point({"positive_controls": 4, "compounds": 0, "negative_controls": 2}),
}


def plate(point: Point, seed: int, preset: Preset) -> list[Well]:
    """All wells of a point's plate, imaged."""
    wanted = {"preset": preset.name, "seed": seed, "pace": "fast", "modes": MODES, **PLATE, **point.settings}
    settings = EmulatorSettings.model_validate(wanted)
    return _imaged(settings.model_dump_json(), replace(preset, diameter_um=point.diameter_um))


@lru_cache(maxsize=1)  # several points change only what is done with the images
def _imaged(settings: str, preset: Preset) -> list[Well]:
    return imaged(EmulatorSettings.model_validate_json(settings), preset)


def changed(stack: Pixels, point: Point, own_um: Spacing, rng: np.random.Generator) -> Pixels:
    """A stack with the point's fringes and noise."""
    if not point.fringes and not point.noise_adu:
        return stack
    y, x = (np.arange(n) * step for n, step in zip(stack.shape[2:], own_um[1:], strict=True))
    phase = 2 * math.pi / FRINGE_UM * (0.5 * y[:, np.newaxis] + math.sqrt(0.75) * x)
    light = (stack - np.float32(OFFSET_ADU)) * (1 + point.fringes * np.cos(phase)).astype(np.float32)
    noise = np.float32(point.noise_adu) * rng.standard_normal(stack.shape, np.float32)
    return np.clip(np.rint(light + noise + np.float32(OFFSET_ADU)), 0, 65535).astype(np.uint16)


def as_in_a_run(stack: Pixels, own_um: Spacing, spacing_um: Spacing) -> StreamingPreprocessor:
    """A finished preprocessor over a raw stack (2, z, y, x), with a run's limits, that keeps its slices."""
    _, n_z, height, width = stack.shape
    preprocessor = StreamingPreprocessor(
        n_z, height, width, own_um[2], own_um[0], CHANNELS, spacing_um, own_window=True, keep_filtered=True
    )
    for channel, pixels in zip(CHANNELS, stack, strict=True):
        preprocessor.feed(channel, 0, pixels)
    preprocessor.finish()
    return preprocessor


def overlaps(
    segmenter: UNetSegmenter, wells: list[Well], own_um: Spacing, exchanged: bool
) -> Iterator[tuple[str, Well, tuple[Overlap, Overlap]]]:
    """Live and dead of every well under every normalisation, with boundaries where a run draws them."""
    filtered = (filter_stack(well.stack, own_um, segmenter.spacing_um) for well in wells)
    shared = plate_limits(
        WellLight(well.role, stack_light(well.stack, own_um, one)) for well, one in zip(wells, filtered, strict=True)
    )
    for well in wells:
        truths = (well.truth.dead, well.truth.live) if exchanged else (well.truth.live, well.truth.dead)
        for kind, known in zip(NORMALISATIONS, (None, shared), strict=True):
            one = as_in_a_run(well.stack, own_um, segmenter.spacing_um)  # anew: what draws boundaries lets slices go
            volume = one.volume(0, one.shape[0], known or one.limits())
            edges = HalfHeightMasks(one, segmenter.spacing_um, truths[0].shape, own_um, known)
            first, second = mask_overlaps(segmenter, volume, truths, edges)
            yield str(kind), well, (second, first) if exchanged else (first, second)


def row(segmenter: UNetSegmenter, point: Point, seed: int, preset: Preset) -> dict[str, Any]:
    """One point's figures."""
    own_um = (preset.z_step_um, preset.pixel_um, preset.pixel_um)
    rng = np.random.default_rng([seed, 1])
    wells = [replace(well, stack=changed(well.stack, point, own_um, rng)) for well in plate(point, seed, preset)]
    if point.inputs_exchanged:
        wells = [replace(well, stack=well.stack[::-1]) for well in wells]
    judged = list(overlaps(segmenter, wells, own_um, point.inputs_exchanged))
    only_killed = not any(well.role is WellRole.SAMPLE for well in wells)
    found: dict[str, Any] = {}
    for kind in map(str, NORMALISATIONS):
        ours = [
            (well, pair)
            for name, well, pair in judged
            if name == kind and (well.role is WellRole.POSITIVE_CONTROL or not only_killed)
        ]
        found[kind] = figures([pair for _, pair in ours], ["one plate"] * len(ours))
        killed = [pair[0] for well, pair in ours if well.role is WellRole.POSITIVE_CONTROL]
        voxel_um3 = math.prod(own_um)
        found[kind]["killed_wells"] = {
            "live_um3_true": round(sum(one.truth for one in killed) * voxel_um3),
            "live_um3_found_wrongly": round(sum(one.mask - one.both for one in killed) * voxel_um3),
        }
    return found


def least(table: Mapping[str, Mapping[str, Any]], normalisation: str) -> dict[str, Any]:
    """The poorest point of each figure that has a target; wells without life are a question of their own."""
    grid = {name: row[normalisation] for name, row in table.items() if name != "killed wells"}
    return {
        f"{label} {figure}": min((found[label][figure], name) for name, found in grid.items())
        for label, figure in (("live", "dice"), ("live", "precision"), ("live", "recall"), ("dead", "dice"))
    }


def main(
    model: Annotated[str, typer.Option(help="A model's name or path.")] = "default",
    seed: Annotated[int, typer.Option(help="The plate; none that a network learnt from.")] = SEED,
    only: Annotated[str, typer.Option(help="Only points whose name holds this.")] = "",
) -> None:
    """Print every point and the poorest as JSON; progress goes to the standard error."""
    segmenter = load_segmenter(model, "cpu", threads=1)
    table = {}
    for number, (name, point) in enumerate(POINTS.items()):
        if only not in name:
            continue
        place, found = kept_row(
            OUT / "robustness" / f"point-{number:02d}", (segmenter.sha256, seed, point, PLATE, "half-height")
        )
        if found is None:
            say(name)
            found = keep_row(place, {"point": name, **row(segmenter, point, seed, PRESETS["demo"])})
        table[name] = found
    poorest = {str(kind): least(table, str(kind)) for kind in NORMALISATIONS}
    about = {"bench": "robustness", "model": segmenter.card.name, "sha256": segmenter.sha256, "seed": seed}
    print(json.dumps({**about, "points": table, "poorest": poorest}, indent=1))


if __name__ == "__main__":
    typer.run(main)
