"""A training from its file to weights with their card; the only place where the emulator and the training meet.

`python -m spheroidd.daemon.training.run MODEL` examines weights on the held-out plates and prints JSON.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn, track
from rich.progress import Progress as Bar
from torch import distributed

from spheroidd.daemon.training.config import EmulatedPlates, Recording, TrainingConfig
from spheroidd.daemon.training.emulated_plates import TrainingPlate, cached_stacks
from spheroidd.daemon.training.joint_viability import tune
from spheroidd.daemon.training.recordings import recorded_stack
from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.network.model_card import ModelCard
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.network.weights import load_model, save_model
from spheroidd.inference.preprocessing.resample import MaskResampler, Spacing
from spheroidd.inference.segmentation.compute_cost import tradeoff_row
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.segmentation.streaming import StreamingSegmentation
from spheroidd.inference.training.history import Progress, tensorboard_writer
from spheroidd.inference.training.output_bias import balance
from spheroidd.inference.training.stack import TrainingStack, content_digest, filter_stack
from spheroidd.inference.training.trainer import background_bound, check_possible, train
from spheroidd.protocols.errors import ConfigError, ModelError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import Limits, Normalisation
from spheroidd.sim_emulator.truth import Truth

HELD_OUT = {"demo": range(9000, 9002), "screen": range(9000, 9001), "whole": range(9000, 9001)}
# Of 46 voxels that a 4-level network can see; the rest changes no mask
# (tests/inference/segmentation/test_segmenter.py).
HALO = 16
_BOUND_STACKS = 24  # a sample tells how flat a cell can be; all would take minutes


def run_training(config: TrainingConfig, console: Console, command: str) -> Path | None:
    """Render or read the stacks, train, examine; the weights' path (None in a process that only helped)."""
    device = chosen_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with _process_group(device) as rank:
        n_processes = distributed.get_world_size() if distributed.is_initialized() else 1
        check_possible(config.training, config.out, n_processes, device)
        if rank:  # the first process renders what is not cached; the others then find it
            distributed.barrier()
        stacks, validation = training_stacks(config, console)
        if rank == 0 and distributed.is_initialized():
            distributed.barrier()
        start_from = load_model(config.start_from)[0] if config.start_from is not None else None
        steps = config.training.steps
        console.print(f"{len(stacks)} stacks to learn from, {len(validation)} to validate on, {steps} steps")
        with _reports(config, console, rank) as (report, tick):
            model = train(
                stacks,
                validation,
                config.training,
                config.out,
                report=report,
                tick=tick,
                start_from=start_from,
                device=device,
            )
    return None if rank else _finish(config, model.cpu(), stacks, validation, console, command)


def _finish(
    config: TrainingConfig,
    model: UNet,
    stacks: Sequence[TrainingStack],
    validation: Sequence[TrainingStack],
    console: Console,
    command: str,
) -> Path:
    """What comes after the last step: the viability, the balance, the background bound, the card, the examination."""
    settings = config.training
    if config.viability is not None:
        tune(model, config.viability, settings.loss, config.data.cache, config.out, command)
    if config.balance:
        live, dead = balance(model, validation, config.balance)
        console.print(f"balanced on the validation stacks: live logits {live:+.3f}, dead {dead:+.3f}")
    card = ModelCard(
        config.name,
        settings.network,
        halo=HALO,
        sha256="",
        background=_bound(model, stacks, console),
        command=command,
        seeds=_seeds(config),
        data_sha256=content_digest(stacks),
        description=f"Trained {settings.steps} steps of {settings.batch} patches on {len(stacks)} stacks"
        + (f", from the weights {config.start_from}." if config.start_from else "."),
    )
    save_model(model, config.out, card)  # before the examination, which may be interrupted
    held_out: dict[str, range] = {plates.kind: _range(plates) for plates in config.data.held_out}
    if held_out:
        card = replace(card, metrics=examine(UNetSegmenter(model, card), held_out))
        console.print_json(data=dict(card.metrics))
    save_model(model, config.out, replace(card, tradeoff=(tradeoff_row(UNetSegmenter(model, card), card.metrics),)))
    return config.out / f"{config.name}.safetensors"


def training_stacks(config: TrainingConfig, console: Console) -> tuple[list[TrainingStack], list[TrainingStack]]:
    """The stacks to learn from and those to validate on, rendered or read; volumes stay on disk."""
    spacing_um, data = config.training.network.spacing_um, config.data
    return (
        [
            *_emulated(data.train, spacing_um, data.cache, "training plates", console),
            *_recorded(data.recordings, spacing_um, data.cache),
        ],
        [
            *_emulated(data.validation, spacing_um, data.cache, "validation plates", console),
            *_recorded(data.validation_recordings, spacing_um, data.cache),
        ],
    )


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
    if truth.known is not None:  # where nobody could tell, nothing is right or wrong
        live, dead = live & truth.known, dead & truth.known
        return agreement(live, truth.live & truth.known).dice, agreement(dead, truth.dead & truth.known).dice
    return agreement(live, truth.live).dice, agreement(dead, truth.dead).dice


def _emulated(
    plates: Sequence[EmulatedPlates], spacing_um: Spacing, cache: Path, what: str, console: Console
) -> Iterator[TrainingStack]:
    chosen = [(part.kind, seed) for part in plates for seed in _range(part)]
    for kind, seed in track(chosen, what, console=console, disable=not chosen):
        yield from cached_stacks(kind, seed, spacing_um, cache)


def _recorded(recordings: Sequence[Recording], spacing_um: Spacing, cache: Path) -> Iterator[TrainingStack]:
    return (recorded_stack(recording, spacing_um, cache) for recording in recordings)


def _range(plates: EmulatedPlates) -> range:
    return range(plates.first_seed, plates.first_seed + plates.plates)


def _seeds(config: TrainingConfig) -> dict[str, int]:
    """The training's seed and every first seed of a part, by part and kind."""
    found = {"training": config.training.seed}
    for part in ("train", "validation", "held_out"):
        for plates in getattr(config.data, part):
            name = f"first_{part}_{plates.kind}_plate"
            found[name] = min(plates.first_seed, found.get(name, plates.first_seed))
    return found


def _bound(model: UNet, stacks: Sequence[TrainingStack], console: Console) -> float | None:
    """The card's background bound; None, so that nothing is skipped, for a network that finds no cell."""
    chosen = [stacks[number] for number in np.linspace(0, len(stacks) - 1, min(len(stacks), _BOUND_STACKS), dtype=int)]
    try:
        return background_bound(model, chosen)
    except ModelError as error:
        console.print(f"{error.what}: the weights are of little use yet; {error.do}")
        return None


def chosen_device(device: str) -> str:
    """ "auto" resolved; under torchrun each process takes the GPU of its own number. ConfigError for what is none."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"device is {device!r}", where="training", do="give auto, cpu, cuda or cuda:0")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is {device}, but torch sees no GPU", where="training", do='set device = "auto"')
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


@contextlib.contextmanager
def _process_group(device: str) -> Iterator[int]:
    """Join the processes that `torchrun` started; this one's rank (0 where it is alone)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def _reports(
    config: TrainingConfig, console: Console, rank: int
) -> Iterator[tuple[Callable[[Progress], None], Callable[[int], None]]]:
    """What is told of a training: a line and TensorBoard's events at every validation, a bar at every step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with contextlib.ExitStack() as closed:
        bar = closed.enter_context(Bar(*columns, console=console, disable=rank > 0 or not console.is_terminal))
        task = bar.add_task("training", total=config.training.steps)
        write: list[Callable[[Progress], None]] = []
        if config.tensorboard and rank == 0:
            write.append(closed.enter_context(tensorboard_writer(config.out / "tensorboard")))

        def report(progress: Progress) -> None:
            for each in write:
                each(progress)
            live, dead = progress.mean_dice()
            dice = f", Dice live {live:.3f}, dead {dead:.3f}" if progress.dice else ""
            console.print(f"step {progress.step}, {progress.seconds:.0f} s: loss {progress.loss:.4f}{dice}")

        yield report, lambda step: bar.update(task, completed=step)


def main(model: Annotated[str, typer.Argument(help="A model's name or path.")], threads: int = 1) -> None:
    """Print how a model does on the held-out plates, as JSON."""
    torch.set_num_threads(threads)
    network, card = load_model(model)
    Console().print_json(data=examine(UNetSegmenter(network, card), HELD_OUT))


if __name__ == "__main__":
    typer.run(main)
