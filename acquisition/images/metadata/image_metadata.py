"""What a file says of one camera image, under the names that every source uses; nothing is said that it does not say.

`x_um y_um z_um` are where the stages stood, `z_planned_um` where the focus was sent; `stage_x stage_y stage_z` are such
numbers without a unit of length, as they are. `exposure_ms`, `preset`, `camera`, `laser_nm`, `light_attenuation` (0 to
1); `instrument_time` in the instrument's own words, `instrument_elapsed_s` since its acquisition began.
"""

import math
from collections.abc import Mapping
from typing import Any

from spheroidd.acquisition.images.metadata.units import TO_UM

Facts = dict[str, float | str]
"""What is said, by name; numbers are finite."""

MAX_LETTERS = 200  # of a text that is kept for each image
NO_LENGTH = (None, "", "reference frame")  # the last is what OME-XML calls a stage's own unit
_TO_S = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_MICROMANAGER_TIMES = ("TimeReceivedByCore", "ReceivedTime", "Time")


def position(axis: str, value: Any, unit: str | None) -> Facts:
    """Where a stage stood along an axis: in micrometres, or as it was said where its unit is no length.

    >>> position("x", "0.25", "mm"), position("x", "0.0427", None), position("x", "3", "pixel")
    ({'x_um': 250.0}, {'stage_x': 0.0427}, {'stage_x': '3.0 pixel'})
    """
    number = _number(value)
    if number is None:
        return {}
    if unit in NO_LENGTH:
        return {f"stage_{axis}": number}
    um = _scaled(number, TO_UM.get(str(unit).strip().lower()))
    return {f"stage_{axis}": f"{number!r} {unit}"[:MAX_LETTERS]} if um is None else {f"{axis}_um": um}


def exposure(value: Any, unit: str = "s") -> Facts:
    """How long the shutter was open; 0 counts as not said.

    >>> exposure("0.02"), exposure("20", "ms"), exposure("0"), exposure("20", "lines")
    ({'exposure_ms': 20.0}, {'exposure_ms': 20.0}, {}, {})
    """
    ms = _scaled(_number(value), 1e3 * _TO_S.get(unit.strip(), math.nan))
    return {"exposure_ms": ms} if ms is not None and ms > 0 else {}


def elapsed(value: Any, unit: str = "s") -> Facts:
    """How long after its acquisition began an image was taken."""
    seconds = _scaled(_number(value), _TO_S.get(unit.strip()))
    return {} if seconds is None else {"instrument_elapsed_s": seconds}


def wavelength(name: str, value: Any, unit: str = "nm") -> Facts:
    """Of light; 0 counts as not said."""
    nm = _scaled(_number(value), 1e3 * TO_UM.get(unit.strip().lower(), math.nan))
    return {name: nm} if nm is not None and nm > 0 else {}


def fraction(name: str, value: Any) -> Facts:
    """A number from 0 to 1."""
    number = _number(value)
    return {name: number} if number is not None and 0 <= number <= 1 else {}


def text(name: str, value: Any) -> Facts:
    """A fact in the file's own words; nothing where there are none."""
    said = str(value).strip(" -\t\r\n") if value is not None else ""
    return {name: said[:MAX_LETTERS]} if said else {}


def of_micromanager(tags: Mapping[str, Any]) -> Facts:
    """What Micro-Manager and pycromanager write beside an image: lengths in um and times in ms, as their names say."""
    facts: Facts = {}
    for axis in "XYZ":
        facts |= position(axis.lower(), tags.get(f"{axis}PositionUm"), "um")
        planned = position(axis.lower(), tags.get(f"{axis}Position_um_Intended"), "um")
        facts |= {name.replace("_um", "_planned_um"): um for name, um in planned.items()}
    facts |= exposure(tags.get("Exposure-ms", tags.get("Exposure")), "ms")
    facts |= text("camera", tags.get("Camera", tags.get("Core-Camera")))
    facts |= elapsed(tags.get("ElapsedTime-ms"), "ms")
    return facts | text("instrument_time", next((tags[name] for name in _MICROMANAGER_TIMES if tags.get(name)), None))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _scaled(number: float | None, factor: float | None) -> float | None:
    """A number in another unit, without the last bits that the change leaves (0.02 s are 20 ms); None for no number."""
    if number is None or factor is None or not math.isfinite(number * factor):
        return None
    return float(f"{number * factor:.14g}")
