"""What of images that a network does not know is found: `python -m bench.foreign [SEED]` prints JSON.

Three wells each of emulated plates, as they are and spoiled in ways that nothing was chosen by, under the plate's
limits, under their own, and each dye alone. Of each way: the foreign score's median, how many are flagged, as what, and
the AUC against the same wells as they are. Voxels of a wrong width are what the width that cells look was fitted to,
on other plates; noise, blur, another stain, light on dark and a wrong z-step it never saw.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats

from bench.spoiled import OFFSET, Floats, Given, Spoil, Spoiled, blurred, unchanged
from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.daemon.training.features_from_emulator import volumes
from spheroidd.inference.network.known_features import KnownFeatures, known_features
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.training.stack import filter_stack
from spheroidd.protocols.evidence import StackLooks
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

SEED = 7200
KINDS = ("demo", "unit", "dying", "swapped", "whole")
WELLS = (0, 2, 4)  # an untreated one or a killed one, and samples
HEALTHY = "as it is"


def noisy(part: float, limits: Mapping[str, Limits]) -> Spoil:
    """Noise as a part of the plate's window, which is about as wide as a cell is bright."""
    windows = [limits[channel].high - limits[channel].low for channel in CHANNELS]
    return lambda given: given.stack + _normal(given) * part * np.reshape(windows, (-1, 1, 1, 1))


def mottled(sigma_um: float) -> Spoil:
    """Another stain's texture: blurred, then brighter and darker by half from place to place."""

    def spoil(given: Given) -> Floats:
        wide = [0.0, *(sigma_um / step for step in given.own_um)]
        texture = ndimage.gaussian_filter(_normal(given), wide)
        smooth = ndimage.gaussian_filter(given.stack - OFFSET, wide)
        return np.asarray(OFFSET + smooth * np.exp(0.5 * texture / texture.std()), np.float64)

    return spoil


def inverted(given: Given) -> Floats:
    """Dark on bright, as in brightfield."""
    ends = np.percentile(given.stack, (0.1, 99.9), axis=(1, 2, 3))[:, :, None, None, None]
    return np.asarray(OFFSET + np.maximum(ends[1] - given.stack, 0), np.float64)


def _normal(given: Given) -> NDArray[np.float64]:
    return given.rng.normal(size=given.stack.shape)


def ways(limits: Mapping[str, Limits]) -> Sequence[Spoiled]:
    """What is done to a well."""
    voxels = [Spoiled(f"voxel x {times:g}", "", unchanged, (times,) * 3) for times in (0.5, 0.7, 1.4, 2.0)]
    noise = [Spoiled(f"noise of {part:g}", "", noisy(part, limits)) for part in (0.25, 0.5)]
    blur = [Spoiled(f"blur of {um:g} um", "", blurred(um)) for um in (1.0, 2.0)]
    rest = [Spoiled("another stain", "", mottled(1.2)), Spoiled("dark on bright", "", inverted)]
    return [
        Spoiled(HEALTHY, "", unchanged),
        *voxels,
        *noise,
        *blur,
        *rest,
        Spoiled("z step x 2", "", unchanged, (2, 1, 1)),
    ]


def looks(kind: str, seed: int, segmenter: UNetSegmenter, known: KnownFeatures, note: Callable[..., None]) -> None:
    """Note how each well of a plate looks in each way: (kind of stack, way, StackLooks or None)."""
    plate = TrainingPlate(kind, seed)
    stacks = {well: plate.pixels(well) for well in plate.wells()}
    limits = plate.limits(segmenter.spacing_um, stacks)
    for well in [well for number, well in enumerate(stacks) if number in WELLS]:
        for way in ways(limits):
            stack, own_um = way.of(stacks[well], plate.own_um, seed)
            source = filter_stack(stack, own_um, segmenter.spacing_um)
            own = {channel: histogram.own_limits() for channel, histogram in source.histograms().items()}
            for name, volume in volumes(source, limits, own).items():
                segmenter.predict(volume)
                vector = segmenter.take_features().vector()
                note(name, way.kind, None if vector is None else known.homes[name].looks(vector))


def told(found: Sequence[StackLooks | None], healthy: Sequence[StackLooks | None]) -> dict[str, Any]:
    """A row of the table. A stack in which hardly a cell was found has no score; its row fails as `no-cell`."""
    scores, home = ([one.foreign for one in some if one] for some in (found, healthy))
    names = Counter(_told_as(one) for one in found if one and one.foreign > 1)
    u = stats.mannwhitneyu(scores, home).statistic if scores else np.nan
    return {
        "stacks": len(found),
        "without a score": len(found) - len(scores),
        "median": round(median(scores), 2) if scores else None,
        "flagged": sum(names.values()),
        "as": dict(names),
        "auc": round(float(u) / (len(scores) * len(home)), 3) if scores else None,
        "width": round(median(one.width for one in found if one), 2) if scores else None,
    }


def _told_as(one: StackLooks) -> str:
    return "foreign" if one.unlike >= one.width_off else "small" if one.width < 1 else "large"


def main() -> None:
    torch.set_num_threads(1)
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    segmenter = load_segmenter(None, "cpu", precision="fp32")
    known = known_features(None, segmenter.sha256)
    if known is None:
        sys.exit("these weights have no reference: python -m spheroidd.daemon.training.features_from_emulator")
    found: dict[str, dict[str, list[StackLooks | None]]] = {}
    for kind in KINDS:
        print(kind, file=sys.stderr)
        looks(
            kind,
            seed,
            segmenter,
            known,
            lambda name, way, one: found.setdefault(name, {}).setdefault(way, []).append(one),
        )
    table = {
        name: {way: told(stacks, ways_found[HEALTHY]) for way, stacks in ways_found.items()}
        for name, ways_found in found.items()
    }
    print(json.dumps({"bench": "foreign", "seed": seed, **table}, indent=1))


if __name__ == "__main__":
    main()
