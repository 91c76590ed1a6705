"""What a header says that pixel values are to be: value = offset + slope * pixel. Applied exactly, or refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import StackError

MOST = 65_535  # what a pixel can be in a store of uint16
_STRAIGHT_LINE, _NONE = 0, 20  # ImageJ's numbers of its functions
_GDAL_TAG = 42112
_GDAL_ITEM = re.compile(r'<Item[^>]*role="(scale|offset)"[^>]*>([^<]*)</Item>', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A straight line of whole numbers, by which every pixel stays a whole number."""

    slope: int
    offset: int
    path: Path

    def applied(self, pixels: NDArray[Any]) -> NDArray[np.uint16]:
        """The calibrated pixels; StackError where one is below 0 or above 65535."""
        values = pixels.astype(np.int64) * self.slope + self.offset
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > MOST:
            what = (
                f"its pixels are {low} to {high} after its calibration (value = {self.offset} + {self.slope} x pixel)"
            )
            raise StackError(what, where=str(self.path), do=f"save it with values from 0 to {MOST}")
        return values.astype(np.uint16)


def linear(slope: Any, offset: Any, path: Path, unit: str = "") -> Calibration | None:
    """The calibration of a slope and an offset; None where they change nothing, StackError where they cannot be applied
    without loss.
    """
    try:
        a, b = float(slope), float(offset)
    except (TypeError, ValueError):
        a = b = float("nan")
    if (a, b) == (1.0, 0.0):
        return None
    if not (a.is_integer() and b.is_integer() and 0 < a <= MOST and abs(b) <= MOST):
        what = f"its pixel values are calibrated: value{f' ({unit})' if unit else ''} = {offset} + {slope} x pixel"
        do = "save it as uint16 with the calibration applied, or removed (Fiji: Analyze > Calibrate > None)"
        raise StackError(what, where=str(path), do=do)
    return Calibration(int(a), int(b), path)


def imagej_calibration(said: Mapping[str, Any], path: Path) -> Calibration | None:
    """ImageJ's calibration function: how it keeps signed images, and what Analyze > Calibrate sets."""
    function = said.get("cf")
    if function is None or function == _NONE:
        return None
    unit = str(said.get("vunit", ""))
    if function != _STRAIGHT_LINE:
        what = f"its pixel values are calibrated by a curve (ImageJ's function {function}, {unit})"
        do = "remove the calibration (Fiji: Analyze > Calibrate > None) and save it again"
        raise StackError(what, where=str(path), do=do)
    return linear(said.get("c1", 1), said.get("c0", 0), path, unit)


def gdal_calibration(page: Any, path: Path) -> None:
    """Refuse a TIFF whose GDAL metadata give its pixels a scale or an offset: no microscope writes them."""
    tag = getattr(page, "tags", {}).get(_GDAL_TAG)
    said = dict(_GDAL_ITEM.findall(str(tag.value))) if tag is not None else {}
    if said and linear(said.get("scale", 1), said.get("offset", 0), path) is not None:
        what = f"its pixel values are scaled: {said}"
        raise StackError(what, where=str(path), do="save it with the scale applied")
