"""Pictures of a few wells: the brightest of all slices in each channel, with the outline of its mask and a scale bar.

They are read from a coarse level of the OME-Zarr pyramid and are there to be looked at, not measured. All pictures of
a plate share their display limits: a dead well looks dark beside a living one.
"""

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import measure

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.shard import decode_shard
from spheroidd.daemon.report import drawing
from spheroidd.daemon.report.drawing import Drawing, Picture, Shape, Text
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import StackMeasurement, WellStatus
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL, StackPlan

LEAST_PX = 200  # a picture's longer side has at least so many pixels, where the stack has them
SIDE, GAP, TITLE, FOOT = 115.0, 2.0, 20.0, 11.0  # points: four pictures in a text column
JPEG_QUALITY = 90
# channel -> label, name, colour of full brightness, colour of the outline
LOOKS = {
    LIVE_CHANNEL: ("live", "Calcein-AM", (0.25, 1.0, 0.45), "#f4fff6"),
    DEAD_CHANNEL: ("dead", "propidium iodide", (1.0, 0.35, 0.85), "#fff4fc"),
}
Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """One channel of a stack seen from above: 0 to 1 (y, x), the outlines of its mask in pixels (x, y), pixel size."""

    channel: str
    shown: NDArray[np.float64]
    outlines: tuple[Outline, ...]
    pixel_um: float
    label: str = ""  # instead of the dye's name


def choose(entries: Sequence[WellEntry], most: int = 6) -> list[WellEntry]:
    """Wells worth a look: an untreated and a killed one in the middle of their kind, and samples from end to end."""
    usable = [
        entry
        for entry in entries
        if entry.excluded is None
        and entry.results
        and entry.results[0].status in (WellStatus.FINAL, WellStatus.PROVISIONAL)
        and entry.figure("live_um3") is not None
    ]

    def ranked(role: WellRole) -> list[WellEntry]:
        kind = [entry for entry in usable if entry.treatment.role is role]
        return sorted(kind, key=lambda entry: (entry.figure("live_um3") or 0.0, entry.well))

    controls = [kind[len(kind) // 2] for role in _CONTROLS if (kind := ranked(role))]
    samples = ranked(WellRole.SAMPLE)
    room = most - len(controls)
    places = sorted({round(n * (len(samples) - 1) / max(room - 1, 1)) for n in range(room)}, reverse=True)
    return controls + [samples[place] for place in places if samples]


_CONTROLS = (WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL)


def display_limits(measurements: Sequence[StackMeasurement]) -> dict[str, tuple[float, float]]:
    """One pair of limits for each channel of a plate: the usual dark and the brightest stack's bright end."""
    limits = {}
    for channel in (LIVE_CHANNEL, DEAD_CHANNEL):
        found = [m.quantiles[channel] for m in measurements if channel in m.quantiles]
        lows = [q["0.02"] for q in found if "0.02" in q]
        highs = sorted(q["0.999"] for q in found if "0.999" in q)
        if lows and highs:
            low = statistics.median(lows)
            limits[channel] = (low, max(highs[round(0.9 * (len(highs) - 1))], low + 1))
    return limits


def project(
    root: Path,
    plan: StackPlan,
    channel: str,
    limits: Mapping[str, tuple[float, float]],
    acknowledged: Mapping[int, int] | None = None,
    *,
    outlined: bool = True,
) -> Projection:
    """The maximum over all slices of one channel, `outlined` where it has a label; StorageError where the stack or its
    label cannot be read, or its files are of other images than those `acknowledged`, the ledger's {z: crc32c}.
    """
    image = ngff.image_path(root, plan.key)
    shapes = ngff.level_shapes(plan.height, plan.width)
    level = max(n for n, shape in enumerate(shapes) if n == 0 or max(shape) >= LEAST_PX)
    place = (plan.channels.index(channel),)
    flat = _brightest(image / str(level), place, plan.n_z, acknowledged).astype(float)
    low, high = limits.get(channel) or (float(np.percentile(flat, 1)), float(flat.max()) + 1)
    shown = np.clip((flat - low) / (high - low), 0, 1) ** 0.7
    label = ngff.label_path(root, plan.key, LOOKS[channel][0]) / str(level)
    outlines = _outlines(_brightest(label, (), plan.n_z) > 0) if outlined and label.is_dir() else ()
    return Projection(channel, shown, outlines, plan.pixel_um * 2**level)


def _brightest(array: Path, lead: tuple[int, ...], n_z: int, acknowledged: Mapping[int, int] | None = None) -> Pixels:
    """The maximum (y, x) over the slices of an array that its shards hold."""
    grid = ngff.grid_from(array)
    found: Pixels | None = None
    for shard in range(-(-n_z // grid.depth)):
        path = ngff.shard_path(array, *lead, shard)
        try:
            header, planes = decode_shard(path, grid)
        except OSError as error:
            raise StorageError(f"cannot be read: {error}", where=str(path), do="check the disk") from error
        if acknowledged is not None and any(acknowledged.get(z) != crc for z, crc in header.crcs.items()):
            what = "the images are not those that were acknowledged"  # a header holds the full slices' checksums
            raise StorageError(what, where=str(path), do="`spheroidd verify` says what is damaged")
        held: Pixels = planes[[z - header.z_start for z in header.crcs]].max(axis=0)
        found = held if found is None else np.maximum(found, held)
    if found is None:
        raise StorageError("there is no slice", where=str(array), do="check the disk")
    return found


def _outlines(mask: NDArray[np.bool_]) -> tuple[Outline, ...]:
    """The borders of a mask in pixels (x, y) from the upper left corner, thinned to what an eye can tell."""
    padded = np.pad(mask.astype(np.float32), 1)
    contours = measure.find_contours(padded, 0.5)  # type: ignore[no-untyped-call]
    # Every second point is half a pixel away at most, and smooths the pixels' stairs; a few points are a speck.
    return tuple(tuple((float(x) - 0.5, float(y) - 0.5) for y, x in c[::2]) for c in contours if len(c) >= 8)


def picture(title: str, figures: str, projections: Sequence[Projection]) -> Drawing:
    """The channels of one well side by side, under two lines of text."""
    wide = SIDE * len(projections) + GAP * (len(projections) - 1)
    tall = TITLE + FOOT + SIDE * max(p.shown.shape[0] / max(p.shown.shape) for p in projections)
    shapes: list[Shape] = [Text(0, 7, title, 6.8, bold=True), Text(0, 15.5, figures, 6.0, ink=drawing.GREY)]
    for place, projection in enumerate(projections):
        shapes += _panel(projection, place * (SIDE + GAP), TITLE)
    return Drawing(wide, tall, f"{title}: {figures}", tuple(shapes))


def _panel(projection: Projection, x: float, y: float) -> list[Shape]:
    """The picture with its outlines, and a black foot with the channel's name and the scale bar."""
    _, name, colour, outline_ink = LOOKS[projection.channel]
    height, width = projection.shown.shape
    scale = SIDE / max(height, width)
    wide, foot = width * scale, y + height * scale
    shapes: list[Shape] = [
        Picture(x, y, wide, height * scale, _jpeg(projection.shown, colour)),
        drawing.Box(x, foot, wide, FOOT, "#000000"),
    ]
    for outline in projection.outlines:
        points = tuple((x + px * scale, y + py * scale) for px, py in outline)
        shapes.append(drawing.Path(points, outline_ink, 0.35, closed=True, opacity=0.9))
    bar_um = scale_bar_um(width * projection.pixel_um)
    left, right = x + wide - 4 - bar_um / projection.pixel_um * scale, x + wide - 4
    tint = "#" + bytes(round(255 * part) for part in colour).hex()
    return [
        *shapes,
        Text(x + 4, foot + 7.6, projection.label or name, 5.5, ink=tint),
        drawing.Line(left, foot + 5.6, right, foot + 5.6, "#ffffff", 1.4),
        Text(left - 3, foot + 7.6, f"{bar_um:g} µm", 5.5, "end", "#ffffff"),
    ]


def scale_bar_um(width_um: float) -> float:
    """A round length of about a fifth to a half of the picture."""
    power = 10.0 ** np.floor(np.log10(width_um / 4))
    return float(max(m * power for m in (1, 2, 5) if m * power <= width_um / 3.5))


def _jpeg(shown: NDArray[np.float64], colour: tuple[float, float, float]) -> bytes:
    """Black, over the channel's colour at four fifths, to white."""
    tint, light = np.clip(shown / 0.8, 0, 1)[..., None], np.clip((shown - 0.8) / 0.2, 0, 1)[..., None]
    rgb = tint * np.array(colour) * (1 - 0.5 * light) + 0.5 * light
    out = io.BytesIO()
    pixels = Image.fromarray(np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8))
    pixels.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()
