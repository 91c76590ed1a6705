"""Which spacing and which width: `python -m bench.pareto` trains a small network of each, judges it, and prints JSON.

Dice at the stacks' own sampling (0.125 x 0.125 x 0.5 um) against the CPU seconds of inference that a `screen` stack of
100 x 100 x 100 um takes on one core, halos included as the daemon has them. The seconds are measured on one tile and
scaled by the number of a stack's tiles; so a voxel of 0.1 um, of which a stack has a thousand times as many as of 1 um,
can stand in the table as well. Every network takes the same number of
steps of 32^3 voxels a patch (16^3 at 2 um: a crop has no more); `--steps 0` only
measures seconds. Points that no other beats in both are the front.

Each point is kept in bench/out/pareto; killed, it goes on where it stopped. `--spacings 0.1,0.25,0.5,1,2 --bases
4,8,16` is the whole grid. `--picture OUT.png` draws what is there.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench.study import OUT, Well, figures, imaged, keep_row, kept_row, mask_overlaps, say, trained
from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.model_card import ModelCard, UNetSettings
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.preprocessing.resample import MaskResampler, Spacing
from spheroidd.inference.segmentation.compute_cost import stack_seconds
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.inference.training.stack import TrainingStack, filter_stack, prepare_stack
from spheroidd.sim_emulator.presets import PRESETS
from spheroidd.sim_emulator.source import EmulatorSettings

CROP_UM = 32.0  # each side of what is learnt from and judged on
HALO = 16
TRAINING_SEEDS, HELD_OUT_SEED = (1000, 1001), 9000
BUDGET = TrainSettings(steps=150, batch=4, patch=(32, 32, 32), learning_rate=3e-3, ema_decay=0.95, warmup=15, every=50)
PLATE = {"compounds": 2, "doses": 2, "negative_controls": 1, "positive_controls": 1, "top_dose_um": 10.0}
FIELD = replace(PRESETS["screen"], n_z=64, height=256, width=256)
OWN_UM: Spacing = (FIELD.z_step_um, FIELD.pixel_um, FIELD.pixel_um)


@lru_cache
def crops(seed: int) -> list[Well]:
    """Every well of a plate of screen stacks, a cube of CROP_UM at a place in the spheroid drawn from the seed."""
    say(f"plate {seed}")
    rng = np.random.default_rng(seed)
    away_um, diameter_um = rng.uniform(-40, 40, 2), rng.uniform(250, 450)
    field = replace(FIELD, field_z_um=rng.uniform(0, 20), field_y_um=away_um[0], field_x_um=away_um[1])
    settings = EmulatorSettings.model_validate({"preset": "screen", "seed": seed, "pace": "fast", **PLATE})
    return imaged(settings, replace(field, diameter_um=diameter_um))


def learnt_from(spacing_um: Spacing) -> list[TrainingStack]:
    """The training crops at one spacing, each under its own limits; without centres: there is no density branch."""
    none = np.zeros((0, 3))
    return [
        prepare_stack(
            f"{seed}-{number}",
            well.stack,
            (well.truth.live, well.truth.dead),
            (none, none),
            OWN_UM,
            spacing_um,
            (None,),
        )
        for seed in TRAINING_SEEDS
        for number, well in enumerate(crops(seed))
    ]


def judged(model: UNet) -> dict[str, Any]:
    """Live and dead of the held-out crops at their own sampling."""
    segmenter = UNetSegmenter(model, ModelCard("pareto", model.settings, halo=HALO, sha256=""), "cpu")
    pairs = []
    for well in crops(HELD_OUT_SEED):
        filtered = filter_stack(well.stack, OWN_UM, segmenter.spacing_um)
        volume = filtered.volume(0, filtered.shape[0], filtered.limits())
        shape = (volume.shape[1], volume.shape[2], volume.shape[3])
        resampler = MaskResampler(shape, segmenter.spacing_um, well.truth.live.shape, OWN_UM)
        pairs.append(mask_overlaps(segmenter, volume, (well.truth.live, well.truth.dead), resampler))
    return figures(pairs, ["one plate"] * len(pairs))


def cpu_seconds(network: UNetSettings) -> dict[str, float]:
    """CPU seconds of inference of a whole stack; what a network has learnt changes nothing of them."""
    card = ModelCard("time", network, halo=HALO, sha256="")
    return stack_seconds(UNetSegmenter(build_network(network).eval(), card, "cpu"), HALO)


def point(network: UNetSettings, budget: TrainSettings, out: Path) -> dict[str, Any]:
    """One spacing and width: trained, judged, timed; kept in `out`."""
    spacing = network.spacing_um[0]
    side = min(budget.patch[0], round(CROP_UM / spacing) // network.multiple * network.multiple)
    settings = replace(budget, network=network, patch=(side, side, side))
    decisive = (settings, TRAINING_SEEDS, HELD_OUT_SEED, CROP_UM)
    place, row = kept_row(out / f"{spacing:g}um-base{network.base}", decisive)
    if row is not None:
        return row
    say(f"{spacing:g} um, base {network.base}")
    done = trained(learnt_from(network.spacing_um), settings, place)
    about = {"spacing_um": spacing, "base": network.base, "cpu_s_per_step": round(done.cpu_s_per_step, 3)}
    return keep_row(place, {**about, **cpu_seconds(network), **judged(done.model)})


def front(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no other point beats or equals in both Dice (the mean of live and dead) and seconds."""

    def worth(row: Mapping[str, Any]) -> tuple[float, float]:
        return (row["live"]["dice"] + row["dead"]["dice"]) / 2, -row["cpu_s_per_screen_stack"]

    def beaten(row: Mapping[str, Any]) -> bool:
        mine = worth(row)
        return any(
            worth(other) != mine and all(a >= b for a, b in zip(worth(other), mine, strict=True)) for other in points
        )

    return sorted((row for row in points if not beaten(row)), key=lambda row: row["cpu_s_per_screen_stack"])


def draw(points: list[dict[str, Any]], out: Path) -> None:
    """Dice against seconds: a colour for each spacing, a size for each width, a line along the front."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.4), sharex=True)
    spacings = sorted({row["spacing_um"] for row in points})
    best = front(points)
    for axes, label in zip(panels, ("live", "dead"), strict=True):
        for number, spacing in enumerate(spacings):
            ours = sorted((row for row in points if row["spacing_um"] == spacing), key=lambda row: row["base"])
            seconds, dice = ([row["cpu_s_per_screen_stack"] for row in ours], [row[label]["dice"] for row in ours])
            sizes = [12 * row["base"] for row in ours]
            axes.scatter(seconds, dice, s=sizes, color=f"C{number}", label=f"{spacing:g} um", zorder=3)
            for row, x, y in zip(ours, seconds, dice, strict=True):
                axes.annotate(
                    str(row["base"]), (x, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8
                )
        axes.plot([row["cpu_s_per_screen_stack"] for row in best], [row[label]["dice"] for row in best], "k:", lw=1)
        axes.axvline(12, color="0.6", lw=1)
        axes.set_xscale("log")
        axes.set_xlabel("CPU seconds of inference for a screen stack")
        axes.set_ylabel(f"{label} Dice")
        axes.grid(alpha=0.3)
        axes.margins(y=0.15)
    panels[1].legend(title="spacing", fontsize=8, loc="lower right")
    figure.suptitle(
        "spacing and width (numbers: features of the finest level); grey: 12 s; dotted: the front", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(
    spacings: Annotated[str, typer.Option(help="Micrometres, with commas between.")] = "2,1,0.5,0.25",
    bases: Annotated[str, typer.Option(help="Features of the finest level, with commas between.")] = "4,8,16",
    steps: Annotated[int, typer.Option(help="Steps of each training; 0 only measures seconds.")] = BUDGET.steps,
    picture: Annotated[Path | None, typer.Option(help="Draw the points to this file as well.")] = None,
) -> None:
    """Print every point and the front as JSON; progress goes to the standard error."""
    networks = [
        UNetSettings(base=int(base), levels=3, spacing_um=(float(s),) * 3, density=False)
        for s in spacings.split(",")
        for base in bases.split(",")
    ]
    if steps == 0:
        timed = [{"spacing_um": one.spacing_um[0], "base": one.base, **cpu_seconds(one)} for one in networks]
        print(json.dumps({"bench": "pareto", "steps": 0, "points": timed}, indent=1))
        return
    points = [point(network, replace(BUDGET, steps=steps), OUT / "pareto") for network in networks]
    if picture is not None:
        draw(points, picture)
    print(json.dumps({"bench": "pareto", "steps": steps, "points": points, "front": front(points)}, indent=1))


if __name__ == "__main__":
    typer.run(main)
