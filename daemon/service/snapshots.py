"""Single images and focus sweeps as the wire contract has them: what an image shows, counted and drawn."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from PIL import Image

from spheroidd.acquisition.focus.focus_curve import FocusCurve, PlaneSeen, Target, look_at
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, RefusedError, StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.ports import Snapping
from spheroidd.protocols.snapshot import SnapOrder, Snapshot
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId

SIDE_PX = 960
JPEG_QUALITY = 85
BINS = 128
SATURATED = (255, 40, 20)
DARK, BRIGHT = 1.0, 99.8  # percentiles, as the page's pictures of a plate that has no limits yet
RANGE_UM, STEP_UM, MOST = 80.0, 4.0, 101
MIN_SIGNAL_ADU, MIN_CONTRAST = 20.0, 1.5  # less than before a stack: a person sees the curve
TARGETS: tuple[Target, ...] = ("bottom", "peak")


def snap_order(request: wire.SnapImageRequest | wire.SweepFocusRequest, z_um: float | None) -> SnapOrder:
    """What is asked of the instrument; ConfigError for what no instrument can do."""
    return SnapOrder(
        request.channel or CHANNELS[0],
        request.exposure_ms if request.HasField("exposure_ms") else None,
        WellId.parse(request.well) if request.well else None,
        request.field,
        z_um,
    )


def snapshot_message(plate: str, taken: Snapshot) -> wire.Snapshot:
    """An image with its counts, and as a picture."""
    pixels = taken.pixels
    dark, median, bright = (float(value) for value in np.percentile(pixels, [DARK, 50, BRIGHT]))
    counts, top = histogram(pixels, taken.ceiling_adu)
    seen = look_at(taken.z_um, pixels)
    found = wire.Snapshot(
        plate=plate,
        channel=taken.channel,
        x_um=taken.x_um,
        y_um=taken.y_um,
        z_um=taken.z_um,
        well=str(taken.well or ""),
        height=pixels.shape[0],
        width=pixels.shape[1],
        pixel_um=taken.pixel_um,
        taken_s=taken.taken_s,
        ceiling_adu=taken.ceiling_adu,
        saturated_share=float((pixels >= taken.ceiling_adu).mean()),
        dark_adu=dark,
        median_adu=median,
        bright_adu=bright,
        focus_measure=seen.measure,
        histogram=counts,
        histogram_top_adu=top,
        jpeg=picture(pixels, dark, bright, taken.ceiling_adu),
    )
    if taken.exposure_ms is not None:
        found.exposure_ms = taken.exposure_ms
    return found


def histogram(pixels: Pixels, ceiling_adu: int) -> tuple[list[int], int]:
    """How many pixels have which counts, in bins from 0 to the returned count, which lies above the brightest.

    Of a dim image only the lowest part of the camera's range is shown: the bins double in width as light is added.
    """
    top = BINS
    while top <= int(pixels.max()) and top <= ceiling_adu:
        top *= 2
    counts, _ = np.histogram(pixels, bins=BINS, range=(0, top))
    return [int(n) for n in counts], top


def picture(pixels: Pixels, dark: float, bright: float, ceiling_adu: int) -> bytes:
    """A JPEG in grey, from `dark` to `bright`; pixels that hold `ceiling_adu` are red."""
    shown = np.clip((pixels.astype(np.float32) - dark) / max(bright - dark, 1.0), 0, 1)
    image, clipped = Image.fromarray(np.round(255 * shown).astype(np.uint8)), pixels >= ceiling_adu
    if (step := -(-max(pixels.shape) // SIDE_PX)) > 1:
        image = image.reduce(step)
        clipped = np.asarray(Image.fromarray(clipped.astype(np.float32)).reduce(step)) > 0
    if clipped.any():
        rgb = np.asarray(image.convert("RGB")).copy()
        rgb[clipped] = SATURATED
        image = Image.fromarray(rgb)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class FocusSweep:
    """Where the focus is looked for: about `order.z_um`, or about where the focus stage stands."""

    order: SnapOrder
    range_um: float
    step_um: float
    target: Target

    @classmethod
    def of(cls, request: wire.SweepFocusRequest) -> Self:
        """What is asked for; ConfigError where it is no sweep."""
        target = next((one for one in TARGETS if one == (request.target or TARGETS[0])), None)
        if target is None:
            do = f"write {' or '.join(TARGETS)}"
            raise ConfigError(f"target is {request.target!r}", where="focus sweep", do=do)
        range_um = request.range_um if request.HasField("range_um") else RANGE_UM
        step_um = request.step_um if request.HasField("step_um") else STEP_UM
        if not (0 < step_um <= range_um and range_um / step_um <= MOST - 1):
            do = f"write a step above 0, and a range of {MOST - 1} steps at most"
            raise ConfigError(f"range_um is {range_um:g} and step_um {step_um:g}", where="focus sweep", do=do)
        centre_um = request.centre_um if request.HasField("centre_um") else None
        return cls(snap_order(request, centre_um), range_um, step_um, target)

    def take(self, source: Snapping, stopped: Callable[[], bool]) -> wire.FocusSweep:
        """Look at the planes, upwards, as far as the source's limits allow.

        RefusedError where `stopped` says so before it is through; errors as `Snapping.snap`.
        """
        here = source.snap(self.order)
        seen = [_seen(here)]
        low, high = source.view_limits_um
        half = int(self.range_um / 2 / self.step_um)
        places = [z for n in range(-half, half + 1) if low <= (z := here.z_um + self.step_um * n) <= high]
        try:
            for z_um in places:
                if stopped():
                    raise RefusedError("a plate is to be run", where="focus sweep", do="look once it has ended")
                seen.append(_seen(source.snap(replace(self.order, z_um=z_um))))
        finally:
            seen.append(_seen(source.snap(replace(self.order, z_um=here.z_um))))
        return _sweep_message(FocusCurve.of(seen), self.target)


def _seen(taken: Snapshot) -> PlaneSeen:
    seen = look_at(taken.z_um, taken.pixels)
    clipped = float((taken.pixels >= taken.ceiling_adu).mean())
    return PlaneSeen(seen.z_um, seen.measure, seen.signal_adu, clipped)


def _sweep_message(curve: FocusCurve, target: Target) -> wire.FocusSweep:
    found = wire.FocusSweep(points=_points(curve))
    try:
        curve.check(min_signal_adu=MIN_SIGNAL_ADU, min_contrast=MIN_CONTRAST)
        found.focus_um = curve.focus_um(target)
    except StackError as error:
        found.why = f"{error.what}; move the focus, and look again"  # what to do there is said of a run's settings
    return found


def _points(curve: FocusCurve) -> Iterator[wire.FocusPoint]:
    for plane in curve.planes:
        yield wire.FocusPoint(z_um=plane.z_um, focus_measure=plane.measure, saturated_share=plane.saturated_share)
