"""`python -m spheroidd.daemon.training`: emulated plates, a network's training, and its examination on held-out plates.

The only place where the emulator and the training meet.
"""

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

from spheroidd.daemon.training_plates import FIELDS, TrainingPlate, cached_stacks
from spheroidd.inference.evaluate import agreement
from spheroidd.inference.model_card import ModelCard, UNetSettings
from spheroidd.inference.resample import MaskResampler, Spacing
from spheroidd.inference.segment import StreamingSegmentation, UNetSegmenter
from spheroidd.inference.train import Progress, TrainSettings, background_bound, train
from spheroidd.inference.training_stack import TrainingStack, filter_stack
from spheroidd.inference.weights_file import load_model, save_model
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.results import Limits, Normalisation
from spheroidd.protocols.stack import Pixels
from spheroidd.sim_emulator.truth import Truth

TRAINING = {
    "demo": range(1000, 1011),
    "screen": range(1000, 1005),
    "unit": range(1000, 1003),
    "whole": range(1000, 1002),
}
HELD_OUT = {"demo": range(9000, 9002), "screen": range(9000, 9001), "whole": range(9000, 9001)}
HALO = 16  # of 46 voxels that a 4-level network can see; the rest changes no mask (tests/test_segment.py)

app = typer.Typer(add_completion=False, help=__doc__)
_console = Console(stderr=True)


@app.command("train")
def train_command(
    out: Annotated[Path, typer.Option(help="Folder for weights, card, log and checkpoint.")],
    minutes: Annotated[float, typer.Option(help="How long to train, rendering not counted.")] = 35.0,
    steps: Annotated[int, typer.Option(help="Train this many steps instead; 0 means by the clock.")] = 0,
    name: Annotated[str, typer.Option(help="What to call the weights.")] = "emulator",
    cache: Annotated[Path, typer.Option(help="Where rendered stacks are kept.")] = Path("training-cache"),
    base: Annotated[int, typer.Option(help="Features at the finest level.")] = 8,
    levels: Annotated[int, typer.Option(help="Levels of the network, 2 to 4.")] = 4,
    spacing_um: Annotated[tuple[float, float, float], typer.Option(help="Voxel size z y x.")] = (1.0, 1.0, 1.0),
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Train on emulated plates and write weights with their card."""
    torch.set_num_threads(threads)
    stacks = list(_stacks(TRAINING, spacing_um, cache, "training plates"))
    held_out = list(_stacks(HELD_OUT, spacing_um, cache, "held-out plates"))
    network = UNetSettings(base=base, levels=levels, spacing_um=spacing_um)
    settings = TrainSettings(network=network, seed=seed)
    settings = replace(settings, steps=steps or max(50, int(60 * minutes / _seconds_per_step(stacks, settings))))
    _console.print(f"{len(stacks)} stacks to learn from, {len(held_out)} held out, {settings.steps} steps")
    model = train(stacks, held_out, settings, out, report=_report)
    card = ModelCard(
        name,
        network,
        halo=HALO,
        sha256="",
        background=background_bound(model, stacks[::3] + held_out),  # a third tells, and takes minutes
        command=" ".join(["python -m spheroidd.daemon.training", *sys.argv[1:]]),
        seeds={"training": seed, "first_training_plate": 1000, "first_held_out_plate": 9000},
        description=f"Trained {settings.steps} steps of {settings.batch} patches on {len(stacks)} emulated stacks.",
    )
    metrics = examine(UNetSegmenter(model, card), HELD_OUT)
    written = save_model(model, out, replace(card, metrics=metrics))
    _console.print_json(data=written.as_json())


@app.command("examine")
def examine_command(model: Annotated[str, typer.Argument(help="A model's name or path.")], threads: int = 1) -> None:
    """Print how a model does on the held-out plates, as JSON."""
    torch.set_num_threads(threads)
    network, card = load_model(model)
    Console().print_json(data=examine(UNetSegmenter(network, card), HELD_OUT))


def examine(segmenter: UNetSegmenter, plates: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """Mean and sd over wells of live and dead Dice at the stacks' own sampling, by kind of field and normalisation."""
    found: dict[str, list[tuple[float, float]]] = {}
    for kind, seeds in plates.items():
        for seed in seeds:
            plate = TrainingPlate(kind, seed)
            rendered = {well: plate.render(well) for well in plate.wells()}
            limits = plate.limits(segmenter.spacing_um, {well: stack for well, (stack, _) in rendered.items()})
            for stack, truth in rendered.values():
                for normalisation, chosen in ((Normalisation.STACK, None), (Normalisation.PLATE, limits)):
                    dice = stack_dice(segmenter, stack, truth, plate.own_um, chosen)
                    found.setdefault(f"{kind} {normalisation}", []).append(dice)
    return {
        kind: {
            "wells": len(rows),
            **{
                f"{label}_dice_{name}": round(float(statistic([row[i] for row in rows])), 4)
                for i, label in enumerate(("live", "dead"))
                for name, statistic in (("mean", np.mean), ("sd", np.std), ("median", np.median))
            },
        }
        for kind, rows in found.items()
    }


def stack_dice(
    segmenter: UNetSegmenter, stack: Pixels, truth: Truth, own_um: Spacing, limits: Mapping[str, Limits] | None
) -> tuple[float, float]:
    """Live and dead Dice of one raw stack (2, z, y, x), from pixels to masks at its own sampling."""
    preprocessor = filter_stack(stack, own_um, segmenter.spacing_um)
    resampler = MaskResampler(preprocessor.shape, segmenter.spacing_um, truth.live.shape, own_um)
    live, dead = np.zeros_like(truth.live), np.zeros_like(truth.dead)
    for slab in StreamingSegmentation(preprocessor, segmenter, limits=limits).finish():
        for masks in resampler.feed(slab.z_start, slab.prediction.live, slab.prediction.dead):
            live[masks.z_start : masks.z_start + len(masks.live)] = masks.live
            dead[masks.z_start : masks.z_start + len(masks.dead)] = masks.dead
    return agreement(live, truth.live).dice, agreement(dead, truth.dead).dice


def _stacks(
    plates: Mapping[str, Iterable[int]], spacing_um: Spacing, cache: Path, what: str
) -> Iterator[TrainingStack]:
    chosen = [(kind, seed) for kind in FIELDS if kind in plates for seed in plates[kind]]
    for kind, seed in track(chosen, what, console=_console):
        yield from cached_stacks(kind, seed, spacing_um, cache)


def _seconds_per_step(stacks: list[TrainingStack], settings: TrainSettings) -> float:
    few = replace(settings, steps=4, every=100)
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.monotonic()
        train(stacks[:4], [], few, Path(folder))
        return (time.monotonic() - start_s) / few.steps


def _report(progress: Progress) -> None:
    live, dead = progress.mean_dice()
    where = f"step {progress.step}, {progress.seconds:.0f} s"
    _console.print(f"{where}: loss {progress.loss:.4f}, Dice live {live:.3f}, dead {dead:.3f}")


def main() -> None:
    """Run the command line; an error is told in a line."""
    try:
        app()
    except SpheroiddError as error:
        _console.print(f"[red]{error}[/red]")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
