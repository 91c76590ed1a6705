"""The network's pictures: `python -m bench.network_pictures curves OUT.png`, or `... overlay OUT.png`.

`curves` draws the logs that lie beside the shipped weights. `overlay` images a well of a held-out plate and segments it
as a run does: a slab's maximum projection, with the outlines of the projected masks and of the truth.
"""

import io
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from spheroidd.daemon.evaluation.held_out import segment_stack
from spheroidd.daemon.evaluation.overlay import overlay as painted
from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.network.model_card import DEFAULT_MODEL, WEIGHTS_FOLDER
from spheroidd.inference.segmentation.segmenter import load_segmenter
from spheroidd.inference.training.history import read_csv
from spheroidd.protocols.plate import WellRole

app = typer.Typer(add_completion=False, help=__doc__)

LOGS = ("emulator-1500", "emulator-2300", "emulator-2800", DEFAULT_MODEL)  # each went on from the one before
SLAB_UM = 10.0  # about a cell's depth; more of it would hide outlines behind each other


@app.command()
def curves(
    out: Annotated[Path, typer.Argument(metavar="OUT.png")],
    log: Annotated[list[str] | None, typer.Option(help="Weights whose log is drawn; repeat.")] = None,
) -> None:
    """Loss and validation Dice over the steps of the trainings that made the shipped weights, one after the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.4))
    before = 0
    for number, name in enumerate(log or LOGS):
        rows = read_csv(WEIGHTS_FOLDER / f"{name}.log.csv")
        steps = [before + row["step"] for row in rows]
        panels[0].plot(steps, [row["loss"] for row in rows], "o-", ms=3, color=f"C{number}", label=name)
        for key, style in (("live_dice", "o-"), ("dead_dice", "s--")):
            told = None if number else key.split("_")[0]  # the colours are told beside it
            panels[1].plot(steps, [row[key] for row in rows], style, ms=3, color=f"C{number}", label=told)
        before += int(rows[-1]["step"])
    for axes, words in zip(
        panels, ("loss, mean since the last point", "validation Dice, mean over stacks"), strict=True
    ):
        axes.set_xlabel("steps of 4 patches")
        axes.set_ylabel(words)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        legend = axes.legend(fontsize=8, loc="upper right" if axes is panels[0] else "lower right")
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(color="black")
    panels[0].set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    plt.close(figure)


@app.command()
def overlay(
    out: Annotated[Path, typer.Argument(metavar="OUT.png")],
    model: Annotated[str, typer.Option(help="A model's name or path.")] = "default",
    kind: Annotated[str, typer.Option(help="The kind of plate.")] = "demo",
    seed: Annotated[int, typer.Option(help="The held-out plate.")] = 9000,
) -> None:
    """A projected slab of the first sample of a held-out plate, under the plate's limits."""
    segmenter = load_segmenter(model, "cpu", threads=1)
    plate = TrainingPlate(kind, seed)
    rendered = {well: plate.render(well) for well in plate.wells()}
    limits = plate.limits(segmenter.spacing_um, {well: stack for well, (stack, _) in rendered.items()})
    role = {entry.well: entry.treatment.role for entry in plate.source.plate_map.imaged()}
    well = next(one for one in rendered if role[one] is WellRole.SAMPLE)
    stack, truth = rendered[well]
    found, _ = segment_stack(segmenter, stack, plate.own_um, limits)
    true = {"live": truth.live, "dead": truth.dead}
    first, n = stack.shape[1] // 3, round(SLAB_UM / plate.own_um[0])
    slab = slice(first, first + n)
    planes = {label: stack[number, slab].max(axis=0) for number, label in enumerate(true)}
    dice = ", ".join(f"{label} Dice {agreement(found[label], true[label]).dice:.3f}" for label in true)
    title = f"{plate.name}/{well}, {SLAB_UM:g} um projected; whole stack: {dice}"
    flat = [{label: mask[slab].max(axis=0) for label, mask in masks.items()} for masks in (found, true)]
    with Image.open(io.BytesIO(painted(planes, *flat, title))) as picture:
        picture.quantize(64).save(out, optimize=True)  # a third of the bytes; no eye sees it


if __name__ == "__main__":
    app()
