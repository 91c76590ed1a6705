"""Makes what lies beside a network's weights, to tell foreign images and cells of other widths by.

`python -m spheroidd.daemon.training.features_from_emulator`: emulated plates of the kinds that the network learnt from,
with seeds that no training, validation or test has. Its features of every well, under the plate's limits, under the
stack's own, and with either dye alone; some wells in larger and in smaller voxels, and plates of larger and of smaller
cells, too. Some plates say where home is and how wide cells look, others how far from it healthy stacks lie at most.
Plates are kept, so that it goes on where it stopped.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.agreement.overlap_metrics import agreement
from spheroidd.inference.network.known_features import SUFFIX, KnownFeatures, Vector, home_of, kind_of
from spheroidd.inference.network.model_card import find_weights
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.inference.preprocessing.stream import BACKGROUND, StreamingPreprocessor
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.stack import covered, filter_stack
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.results import USUAL_CELL_UM, Limits, Normalisation
from spheroidd.protocols.stack import CHANNELS
from spheroidd.sim_emulator.truth import Truth

Seeds = Sequence[int] | Mapping[int, float]  # of plates of one kind; mapped to how wide their cells are, um

HOME: dict[str, Seeds] = {
    "demo": (7000, 7001, 7002),
    "screen": (7000,),
    "unit": (7000, 7001, 7002),
    "whole": (7000,),
    "dying": (7000, 7001),
    "swapped": (7000,),
    "any": (7000, 7001, 7002, 7003),
    "real": (7000, 7001, 7002, 7003),
}
HEALTHY: dict[str, Seeds] = {
    "demo": (7100, 7101),
    "screen": (7100,),
    "unit": range(7100, 7110),  # small fields, whose width is told least surely
    "whole": (7100,),
    "dying": (7100,),
    "swapped": (7100,),
    "any": range(7100, 7107),
    "real": (7100, 7101, 7102),
}
OTHER_CELLS: dict[str, Seeds] = {
    "demo": {7010: 8.8, 7011: 10.5, 7012: 15.0, 7013: 17.6, 7014: 8.8, 7015: 17.6},
    "dying": {7010: 9.5, 7011: 16.5},
    "unit": {7010: 8.8, 7011: 17.6},
    "any": {7010: 8.8, 7011: 10.5, 7012: 15.0, 7013: 17.6},
}
WIDTHS = (0.5, 0.7, 1.4, 2.0)  # by so much voxels are wrong in which some wells are shown
_NEARLY_ALL, _ROOM = 0.99, 1.1  # of the healthy stacks held out lie within the limit, which is a tenth wider than that
_AGREES = 0.8  # Dice from which on the network knows what it sees in a well of a plate that is not easy
_SOME = 1000  # voxels of cells that are enough for a Dice
_HALF = 128  # of the 255 that a voxel has which lies wholly in a cell
_FIELD = 96  # voxels along each side that are looked at, in the middle: features are means


class Shown(NamedTuple):
    """A network's features of a stack, how wide its cells were shown, in the width of usual ones, and whether that was
    in the stack's own voxels.
    """

    vector: Vector
    width: float
    own: bool


def plate_vectors(
    kind: str, seed: int, segmenter: UNetSegmenter, cell_um: float | None = None
) -> dict[str, list[Shown]]:
    """Every well, by the kinds of stacks that a network tells apart; without empty fields.

    Of plates that are not easy only wells in which the network's masks are right: it does not know the others.
    """
    plate, spacing_um = TrainingPlate(kind, seed, cell_um), segmenter.spacing_um
    rendered = {well: plate.render(well) for well in plate.wells()}
    limits = plate.limits(spacing_um, {well: stack for well, (stack, _) in rendered.items()})
    width = plate.cell_um / USUAL_CELL_UM
    others = WIDTHS if cell_um is None else (1 / width,)  # other cells are shown as wide as usual ones, too
    found: dict[str, list[Shown]] = {}
    for number, (stack, truth) in enumerate(rendered.values()):
        whole = filter_stack(stack, plate.own_um, spacing_um)
        own = {channel: histogram.own_limits() for channel, histogram in whole.histograms().items()}
        if not plate.is_easy and not _agrees(_middle(whole.volume(0, whole.shape[0], limits)), truth, plate, segmenter):
            continue
        for times in (1.0, *(others if number % 2 == 0 else ())):
            stated_um = tuple(times * step for step in plate.own_um)
            source = whole if times == 1 else filter_stack(_part(stack, stated_um, spacing_um), stated_um, spacing_um)
            for name, volume in volumes(source, limits, own).items():
                segmenter.predict(volume)
                vector = segmenter.take_features().vector()
                if vector is not None:
                    found.setdefault(name, []).append(Shown(vector, times * width, times == 1 and cell_um is None))
    return found


def volumes(
    source: StreamingPreprocessor, plate: Mapping[str, Limits], own: Mapping[str, Limits]
) -> dict[str, NDArray[np.float32]]:
    """The middle of a filtered stack (2, z, y, x) as each kind: under the plate's limits, its own, one dye alone."""
    by_plate, by_stack = (_middle(source.volume(0, source.shape[0], used)) for used in (plate, own))
    shown = {kind_of(CHANNELS, Normalisation.PLATE): by_plate, kind_of(CHANNELS, Normalisation.STACK): by_stack}
    for number, channel in enumerate(CHANNELS):
        alone = np.full_like(by_stack, BACKGROUND)
        alone[number] = by_stack[number]
        shown[kind_of((channel,), Normalisation.STACK)] = alone
    return shown


def _middle(volume: NDArray[Any], sides: tuple[int, ...] = (_FIELD,) * 3) -> NDArray[Any]:
    """The middle of an array whose last axes are (z, y, x), at most so many voxels wide."""
    starts = (max(0, (n - side) // 2) for n, side in zip(volume.shape[-3:], sides, strict=True))
    z, y, x = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return volume[..., z, y, x].copy()


def _part(stack: Pixels, own_um: Spacing, spacing_um: Spacing) -> Pixels:
    """As much of the middle of a raw stack as is looked at, and a margin."""
    sides = tuple(math.ceil((_FIELD + 16) * wide / step) for wide, step in zip(spacing_um, own_um, strict=True))
    return _middle(stack, sides)


def _agrees(volume: NDArray[np.float32], truth: Truth, plate: TrainingPlate, segmenter: UNetSegmenter) -> bool:
    """Whether the network's masks are right where there are cells to be seen, of what anybody could know."""
    said = segmenter.predict(volume)
    segmenter.take_features()

    def seen(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return _middle(covered(mask, plate.own_um, segmenter.spacing_um)) >= _HALF

    known = np.ones(said.live.shape, bool) if truth.known is None else seen(truth.known)
    for probability, mask in ((said.live, truth.live), (said.dead, truth.dead)):
        true = seen(mask)[known]
        if np.count_nonzero(true) >= _SOME and agreement(probability[known] >= 0.5, true).dice < _AGREES:
            return False
    return True


def _kept(kind: str, seed: int, segmenter: UNetSegmenter, cache: Path, cell_um: float | None) -> dict[str, list[Shown]]:
    """`plate_vectors`, from the cache where they are there."""
    path = cache / f"{kind}-{seed}-{segmenter.sha256[:12]}.npz"
    if not path.exists():
        typer.echo(f"{kind} {seed}", err=True)
        found = plate_vectors(kind, seed, segmenter, cell_um)
        cache.mkdir(parents=True, exist_ok=True)
        rows = {name: np.stack([[*one.vector, one.width, one.own] for one in shown]) for name, shown in found.items()}
        np.savez(path, **rows)  # type: ignore[arg-type]
    with np.load(path, allow_pickle=False) as file:
        return {name: [Shown(row[:-2], row[-2], bool(row[-1])) for row in file[name]] for name in file.files}


def gathered(segmenter: UNetSegmenter, cache: Path, *groups: Mapping[str, Seeds]) -> dict[str, list[Shown]]:
    """All wells of some plates, by kind of stack."""
    found: dict[str, list[Shown]] = {}
    for kind, seeds in (one for plates in groups for one in plates.items()):
        for seed, cell_um in (seeds if isinstance(seeds, Mapping) else dict.fromkeys(seeds)).items():
            for name, shown in _kept(kind, seed, segmenter, cache, cell_um).items():
                found.setdefault(name, []).extend(shown)
    return found


def reference(
    home: Mapping[str, list[Shown]], healthy: Mapping[str, list[Shown]], weights_sha256: str, command: str
) -> KnownFeatures:
    """Where home is and how wide cells look by some stacks, and how far others lie from it at most."""
    homes, stacks = {}, {}
    for name, shown in home.items():
        usual, others = ([one for one in some if one.own] for some in (shown, healthy[name]))
        at = home_of([one.vector for one in usual], [(one.vector, one.width) for one in shown])
        distances = [at.distance(one.vector) for one in others]
        offs = [abs(at.log_width(one.vector) - math.log(one.width)) for one in others]
        farthest, off = (_ROOM * float(np.quantile(some, _NEARLY_ALL)) for some in (distances, offs))
        homes[name] = at._replace(farthest=farthest, off=off)
        stacks[name] = [len(usual), len(shown), len(others)]
    about = {
        "command": command,
        "home": {kind: list(seeds) for kind, seeds in HOME.items()},
        "other cells": OTHER_CELLS,
        "healthy": {kind: list(seeds) for kind, seeds in HEALTHY.items()},
        "stacks": stacks,
    }
    return KnownFeatures(homes, weights_sha256, about)


def main(
    model: Annotated[str, typer.Option(help="The weights' name or path.")] = "emulator",
    cache: Annotated[Path, typer.Option(help="Where each plate's features are kept.")] = Path("feature-cache"),
) -> None:
    """Emulate plates, let the network look at them, and write the reference beside its weights."""
    torch.set_num_threads(1)
    network, card = load_model(model)
    segmenter = UNetSegmenter(network, card, "cpu", "fp32")
    home = gathered(segmenter, cache, HOME, OTHER_CELLS)
    healthy = gathered(segmenter, cache, HEALTHY)
    weights = find_weights(model)
    known = reference(home, healthy, segmenter.sha256, "python -m spheroidd.daemon.training.features_from_emulator")
    known.write(weights.with_name(weights.stem + SUFFIX))
    for name, at in known.homes.items():
        usual, shown, others = known.about["stacks"][name]
        typer.echo(
            f"{name}: {usual} stacks at home, {shown} to tell widths by, {others} held out; "
            f"farthest {at.farthest:.2f}, widths within {math.exp(-at.off):.2f} to {math.exp(at.off):.2f}"
        )


if __name__ == "__main__":
    typer.run(main)
