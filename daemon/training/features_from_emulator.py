"""Makes what lies beside a network's weights, to tell foreign images by.

`python -m spheroidd.daemon.training.features_from_emulator`: emulated plates of the kinds that the network learnt from,
with seeds that no training, validation or test has. Its features of every well, under the plate's limits, under the
stack's own, and with either dye alone. Some plates say where home is, others how far from it healthy stacks lie at
most. Plates are kept, so that it goes on where it stopped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.network.known_features import (
    SUFFIX,
    KnownFeatures,
    Vector,
    home_of,
    kind_of,
)
from spheroidd.inference.network.model_card import find_weights
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.preprocessing.stream import BACKGROUND
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.segmentation.streaming import LONGEST_TILE_YX, LONGEST_TILE_Z, cut_tile
from spheroidd.inference.segmentation.tiles import tile_axis
from spheroidd.inference.training.stack import filter_stack
from spheroidd.protocols.results import Normalisation
from spheroidd.protocols.stack import CHANNELS

HOME = {
    "demo": (7000, 7001, 7002),
    "screen": (7000, 7001),
    "unit": (7000, 7001, 7002),
    "whole": (7000,),
    "dying": (7000, 7001),
}
HEALTHY = {"demo": (7100, 7101), "screen": (7100,), "unit": (7100,), "whole": (7100,), "dying": (7100,)}
_FIELD = 128  # voxels along each side that are looked at, in the middle: features are means


def plate_vectors(kind: str, seed: int, segmenter: UNetSegmenter) -> dict[str, list[Vector]]:
    """Every well's features, by the kinds of stacks that a network tells apart; without those of empty fields."""
    plate = TrainingPlate(kind, seed)
    stacks = {well: plate.pixels(well) for well in plate.wells()}
    limits = plate.limits(segmenter.spacing_um, stacks)
    found: dict[str, list[Vector]] = {}
    for stack in stacks.values():
        source = filter_stack(stack, plate.own_um, segmenter.spacing_um)
        histograms = source.histograms()
        own = {channel: histogram.own_limits() for channel, histogram in histograms.items()}
        by_plate, by_stack = (_middle(source.volume(0, source.shape[0], used)) for used in (limits, own))
        shown = {kind_of(CHANNELS, Normalisation.PLATE): by_plate, kind_of(CHANNELS, Normalisation.STACK): by_stack}
        for number, channel in enumerate(CHANNELS):
            alone = np.full_like(by_stack, BACKGROUND)
            alone[number] = by_stack[number]
            shown[kind_of((channel,), Normalisation.STACK)] = alone
        for name, volume in shown.items():
            if (vector := _vector(volume, segmenter)) is not None:
                found.setdefault(name, []).append(vector)
    return found


def _middle(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle of a volume (2, z, y, x)."""
    starts = [max(0, (n - _FIELD) // 2) for n in volume.shape[1:]]
    return volume[:, *(slice(start, start + _FIELD) for start in starts)].copy()


def _vector(volume: NDArray[np.float32], segmenter: UNetSegmenter) -> Vector | None:
    sides = zip(volume.shape[1:], (LONGEST_TILE_Z, LONGEST_TILE_YX, LONGEST_TILE_YX), strict=True)
    tiles_z, tiles_y, tiles_x = (tile_axis(n, longest, segmenter.halo) for n, longest in sides)
    segmenter.take_features()
    for z in tiles_z:
        for y in tiles_y:
            for x in tiles_x:
                segmenter.predict(cut_tile(volume, (z, y, x)))
    return segmenter.take_features().vector()


def _kept(kind: str, seed: int, segmenter: UNetSegmenter, cache: Path) -> dict[str, list[Vector]]:
    """`plate_vectors`, from the cache where they are there."""
    path = cache / f"{kind}-{seed}-{segmenter.sha256[:12]}.npz"
    if not path.exists():
        typer.echo(f"{kind} {seed}", err=True)
        found = plate_vectors(kind, seed, segmenter)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: np.stack(vectors) for name, vectors in found.items()})  # type: ignore[arg-type]
    with np.load(path, allow_pickle=False) as file:
        return {name: list(file[name]) for name in file.files}


def gathered(plates: Mapping[str, tuple[int, ...]], segmenter: UNetSegmenter, cache: Path) -> dict[str, list[Vector]]:
    """The features of all wells of some plates, by kind of stack."""
    found: dict[str, list[Vector]] = {}
    for kind, seeds in plates.items():
        for seed in seeds:
            for name, vectors in _kept(kind, seed, segmenter, cache).items():
                found.setdefault(name, []).extend(vectors)
    return found


def reference(
    home: Mapping[str, list[Vector]], healthy: Mapping[str, list[Vector]], weights_sha256: str, command: str
) -> KnownFeatures:
    """Where home is by some stacks, and how far others lie from it at most."""
    homes = {}
    for name, vectors in home.items():
        at = home_of(vectors)
        homes[name] = at._replace(limit=max(at.distance(vector) for vector in healthy[name]))
    about = {
        "command": command,
        "home": {kind: list(seeds) for kind, seeds in HOME.items()},
        "healthy": {kind: list(seeds) for kind, seeds in HEALTHY.items()},
        "stacks": {name: [len(home[name]), len(healthy[name])] for name in home},
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
    home, healthy = (gathered(plates, segmenter, cache) for plates in (HOME, HEALTHY))
    weights = find_weights(model)
    known = reference(home, healthy, segmenter.sha256, "python -m spheroidd.daemon.training.features_from_emulator")
    known.write(weights.with_name(weights.stem + SUFFIX))
    for name, at in known.homes.items():
        typer.echo(f"{name}: {len(home[name])} stacks, limit {at.limit:.2f}")


if __name__ == "__main__":
    typer.run(main)
