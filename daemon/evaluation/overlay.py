"""A mask beside its truth on one slice of the stack, to be looked at: figures do not say where the two differ."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from spheroidd.acquisition.store.labels import read_label
from spheroidd.acquisition.store.stack_files import read_block
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.evaluation.plate import WellFigures
from spheroidd.daemon.evaluation.truth import plate_truth
from spheroidd.inference.annotations.volume import ClassNames
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL, Block, StackKey
from spheroidd.protocols.well import WellId

LEAST_PX = 460  # a panel's longer side, where the stack's is shorter
_TINTS = {"live": (0.25, 1.0, 0.45), "dead": (1.0, 0.35, 0.85)}
_FOUND, _TRUE = (255, 176, 0), (120, 190, 255)  # told apart by all eyes, on green and on magenta
_HEAD, _GAP = 34, 6
CHANNEL_OF = {"live": LIVE_CHANNEL, "dead": DEAD_CHANNEL}


def slice_to_show(found: Mapping[str, NDArray[np.bool_]], true: Mapping[str, NDArray[np.bool_]]) -> int:
    """The z at which masks and truths together cover most, so that there is much to see."""
    areas = [mask.sum((1, 2)) for masks in (found, true) for mask in masks.values()]
    return int(np.argmax(np.sum(areas, 0))) if areas else 0


def overlay(
    planes: Mapping[str, Pixels],
    found: Mapping[str, NDArray[np.bool_]],
    true: Mapping[str, NDArray[np.bool_]],
    title: str,
) -> bytes:
    """A PNG of one slice: a panel for each label ("live", "dead") with its channel, the mask's outline and the truth's.

    `planes` are the slice's pixels (y, x) by label, `found` and `true` its masks (y, x).
    """
    panels = [_panel(planes[label], found.get(label), true.get(label), label) for label in _TINTS if label in planes]
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (max(width, 320), _HEAD + max(panel.height for panel in panels)), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    draw.text((6, 2), title, (20, 20, 20), font)
    for x, ink, words in ((6, _FOUND, "mask"), (70, _TRUE, "truth")):
        draw.rectangle((x, 22, x + 12, 28), fill=ink)
        draw.text((x + 18, 17), words, (20, 20, 20), font)
    at = 0
    for panel in panels:
        sheet.paste(panel, (at, _HEAD))
        at += panel.width + _GAP
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def _panel(pixels: Pixels, found: NDArray[np.bool_] | None, true: NDArray[np.bool_] | None, label: str) -> Image.Image:
    values = pixels.astype(np.float64)
    low, high = np.percentile(values, (1, 99.7))
    shown = np.clip((values - low) / max(high - low, 1.0), 0, 1) ** 0.7
    scale = max(1, -(-LEAST_PX // max(values.shape)))
    picture = np.repeat(np.repeat(shown, scale, 0), scale, 1)
    colours = (picture[..., None] * 255 * np.array(_TINTS[label])).astype(np.uint8)
    for mask, ink in ((true, _TRUE), (found, _FOUND)):
        if mask is not None:
            large = np.repeat(np.repeat(mask, scale, 0), scale, 1)
            colours[large & ~ndimage.binary_erosion(large)] = ink
    return Image.fromarray(colours)


def well_overlay(data_dir: Path, well: WellFigures, truth: Path | None, names: ClassNames | None) -> bytes:
    """The overlay of a plate's well, read from disk: its masks, its truth, and the slice where there is most to see."""
    key = StackKey(well.plate, WellId.parse(well.well), well.stack)
    with Catalog.read_only(data_dir) as catalog:
        plan = catalog.plan(key)
        true = plate_truth(catalog, well.plate, truth, names).masks(key, plan)
    found = {label: read_label(data_dir, key, label) for label in well.labels}
    z = slice_to_show(found, true)
    planes = {
        label: read_block(data_dir, Block(key, channel, z, z + 1))[0]
        for label, channel in CHANNEL_OF.items()
        if channel in plan.channels
    }
    dice = ", ".join(f"{label} Dice {one.overlap.dice:.3f}" for label, one in well.labels.items())
    at = {kind: {label: mask[z] for label, mask in masks.items()} for kind, masks in (("found", found), ("true", true))}
    return overlay(planes, at["found"], at["true"], f"{well.plate}/{well.well}, slice {z} of {plan.n_z}: {dice}")
