"""A compound's doses in pictures: one well of each dose beside the next, the untreated first, in both colours.

Of the wells of a dose the one in the middle of their responses is shown. A picture that cannot be read is a crossed
field, and never a dark one.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from spheroidd.daemon.analysis.curves import CurvePoints
from spheroidd.daemon.report import drawing
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.drawing import Box, Drawing, Line, Picture, Shape, Text
from spheroidd.daemon.report.images import JPEG_QUALITY, LOOKS, Projection, scale_bar_um
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.protocols.well import WellId

MOST = 10  # pictures of a series
SIDE, GAP, TITLE, FOOT = 44.0, 3.2, 12.0, 17.0  # points: as many as that across a text column
PX_PER_POINT = 3.0
LEAST_SEEN = 2  # pictures that can be read: fewer are no series
Views = Callable[[WellEntry], "tuple[Projection, ...]"]


@dataclass(frozen=True, slots=True)
class Series:
    """The pictures of one curve's doses, as one drawing."""

    compound: str
    drawing: Drawing


@dataclass(frozen=True, slots=True)
class _Panel:
    head: str
    figure: str
    well: str
    projections: tuple[Projection, ...]  # none where they cannot be read


def series_of(curves: Iterable[CurvePoints], entries: Mapping[WellId, WellEntry], look: Views) -> tuple[Series, ...]:
    """The series of each curve that has pictures; `look` gives a well's channels from above, none where it cannot."""
    found = []
    for curve in curves:
        panels = [
            _Panel(head, f"{words.fixed(response, 0)} %", well, look(entries[WellId.parse(well)]))
            for head, well, response in chosen(curve)
        ]
        if sum(bool(panel.projections) for panel in panels) >= LEAST_SEEN:
            title = curve.compound if curve.patient is None else f"{curve.compound} · {curve.patient}"
            found.append(Series(curve.compound, _strip(title, panels)))
    return tuple(found)


def chosen(curve: CurvePoints) -> list[tuple[str, str, float]]:
    """The wells that are shown of a curve: what was done to each, its name and its response, by rising dose."""
    doses: dict[float, list[tuple[float, str]]] = {}
    for dose_um, response, well, out in zip(curve.doses_um, curve.responses, curve.wells, curve.excluded, strict=True):
        if out is None and dose_um > 0:
            doses.setdefault(dose_um, []).append((response, well))
    rows = [(words.dose(dose_um), *_middle(seen)) for dose_um, seen in sorted(doses.items())]
    controls = list(zip(curve.control_responses, curve.control_wells, strict=True))
    first = [("untreated", *_middle(controls))] if controls else []
    room = MOST - len(first)
    if len(rows) > room:
        rows = [rows[round(n * (len(rows) - 1) / (room - 1))] for n in range(room)]
    return first + rows


def _middle(seen: Sequence[tuple[float, str]]) -> tuple[str, float]:
    response, well = sorted(seen)[len(seen) // 2]
    return well, response


def _strip(title: str, panels: Sequence[_Panel]) -> Drawing:
    """The pictures side by side under the curve's name; below each its dose and its viability."""
    seen = [panel.projections[0] for panel in panels if panel.projections]
    tall = max(SIDE * one.shown.shape[0] / max(one.shown.shape) for one in seen)
    shapes: list[Shape] = [Text(0, 7, title, 6.8, bold=True)]
    for place, panel in enumerate(panels):
        shapes += _panel(panel, place * (SIDE + GAP), tall)
    wide = MOST * (SIDE + GAP) - GAP
    said = ", ".join(f"{panel.head} {panel.figure}" for panel in panels)
    return Drawing(wide, TITLE + tall + FOOT, f"Pictures of {title} by dose, viability: {said}", tuple(shapes))


def _panel(panel: _Panel, x: float, tall: float) -> list[Shape]:
    middle, foot = x + SIDE / 2, TITLE + tall
    below: list[Shape] = [
        Text(middle, foot + 7, panel.head, 5.4, "middle"),
        Text(middle, foot + 14, f"{panel.well}: {panel.figure}", 5.2, "middle", drawing.GREY),
    ]
    if not panel.projections:
        empty = Box(x, TITLE, SIDE, tall, drawing.PALE, tip=f"{panel.well}: the images cannot be read")
        return [empty, Line(x, TITLE, x + SIDE, foot, drawing.GREY), *below]
    first = panel.projections[0]
    height, width = first.shown.shape
    scale = SIDE / max(height, width)
    bar_um = scale_bar_um(width * first.pixel_um)
    right = x + width * scale - 3
    bar = Line(right - bar_um / first.pixel_um * scale, foot - 3, right, foot - 3, "#ffffff", 1.2)
    name = Text(x + 2.5, foot - 2, f"{bar_um:g} µm", 4.2, ink="#ffffff")
    image = Picture(x, foot - height * scale, width * scale, height * scale, _merged(panel.projections))
    return [image, bar, name, *below]


def _merged(projections: Sequence[Projection]) -> bytes:
    """The channels in their colours, added up, as a small JPEG: where both are bright it is white."""
    height, width = projections[0].shown.shape
    scale = min(1.0, PX_PER_POINT * SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb = np.zeros((size[1], size[0], 3))
    for one in projections:
        small = Image.fromarray(one.shown.astype(np.float32)).resize(size, Image.Resampling.BOX)
        rgb += np.asarray(small)[..., None] * np.array(LOOKS[one.channel][2])
    out = io.BytesIO()
    pixels = np.round(255 * np.clip(rgb, 0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()
