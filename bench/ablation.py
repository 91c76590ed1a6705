"""What each part of the network is worth: `python -m bench.ablation [--kind real]` trains, judges, and prints JSON.

The network, without its residual skips, without deep supervision, without the density branch, and the study's 2-D
U-Net slice by slice: the same plates, the same patches from the same seeds, the same number of steps. Judged on plates
of other seeds, patients and compounds, at the model's spacing; of the kind `real`, where anybody could know what is
there. A short budget: it ranks, it does not reach the shipped weights. Killed, it goes on where it stopped; rows are
kept in bench/out/ablation.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.study import CACHE, OUT, keep_row, kept_row, plates, say, scored, trained
from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.inference.training.stack import TrainingStack, stacks_digest

NETWORK = UNetSettings(base=8, levels=4)
ROWS: dict[str, UNetSettings] = {
    "3-D residual U-Net": NETWORK,
    "2-D U-Net, slicewise": replace(NETWORK, architecture="SlicewiseUNet"),
    "no residual skips": replace(NETWORK, residual=False),
    "no deep supervision": replace(NETWORK, deep_supervision=False),
    "no density branch": replace(NETWORK, density=False),
}
SEEDS = {"demo": (range(1000, 1006), range(9000, 9002)), "real": (range(2000, 2008), range(9000, 9003))}
"""By kind of plate: what is learnt from, what is judged on."""
BUDGET = TrainSettings(steps=300, batch=4, patch=(24, 48, 48), learning_rate=3e-3, ema_decay=0.97, warmup=20, every=50)


def ablation(
    rows: dict[str, UNetSettings],
    training: dict[str, list[TrainingStack]],
    held_out: dict[str, list[TrainingStack]],
    budget: TrainSettings,
    out: Path,
) -> dict[str, Any]:
    """Every row of the table by its name; what is finished in `out` is not done again."""
    stacks = [stack for of_patient in training.values() for stack in of_patient]
    judged = stacks_digest([stack for of_patient in held_out.values() for stack in of_patient])
    table = {}
    for name, network in rows.items():
        settings = replace(budget, network=network)
        decisive = (settings, stacks_digest(stacks), judged)
        place, row = kept_row(out / f"{'-'.join(name.lower().split())}-seed{settings.seed}", decisive)
        if row is None:
            say(f"{name}: {settings.steps} steps")
            done = trained(stacks, settings, place)
            about = {
                "parameters": sum(part.numel() for part in done.model.parameters()),
                "cpu_s_per_step": round(done.cpu_s_per_step, 3),
            }
            row = keep_row(place, {**about, **scored(done.segmenter, held_out)})
        table[name] = row
    return table


def main(
    steps: Annotated[int, typer.Option(help="Steps of each training.")] = BUDGET.steps,
    seeds: Annotated[int, typer.Option(help="How many times, with other first weights and patches.")] = 1,
    base: Annotated[int, typer.Option(help="Features of the finest level.")] = NETWORK.base,
    kind: Annotated[str, typer.Option(help=f"Of the plates: {' or '.join(SEEDS)}.")] = "demo",
    cache: Annotated[Path, typer.Option(help="Where rendered plates are kept.")] = CACHE,
) -> None:
    """Print the table as JSON; progress goes to the standard error."""
    rows = {name: replace(network, base=base) for name, network in ROWS.items()}
    if kind not in SEEDS:
        sys.exit(f"there are no plates {kind!r} to learn from here; give one of {', '.join(SEEDS)}")
    training, held_out = (plates(kind, seeds, NETWORK.spacing_um, cache) for seeds in SEEDS[kind])
    by_seed = {
        f"seed {seed}": ablation(rows, training, held_out, replace(BUDGET, steps=steps, seed=seed), OUT / "ablation")
        for seed in range(seeds)
    }
    wells = {"training": sum(map(len, training.values())), "held_out": sum(map(len, held_out.values()))}
    print(
        json.dumps(
            {"bench": "ablation", "kind": kind, "steps": steps, "base": base, "wells": wells, **by_seed}, indent=1
        )
    )


if __name__ == "__main__":
    typer.run(main)
