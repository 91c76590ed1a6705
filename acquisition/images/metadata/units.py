"""Lengths, pixel sizes and pixel types as files say them, in ours."""

from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.protocols.errors import StackError


def dtype_name(path: Path, dtype: np.dtype[Any]) -> str:
    """Return "uint8" or "uint16" whatever the byte order; StackError for any other."""
    if dtype.name in ("uint8", "uint16"):
        return dtype.name
    raise StackError(
        f"its pixels are {dtype.name}, and only uint8 and uint16 can be read",
        where=str(path),
        do="save it as uint16 (whole numbers from 0 to 65535 keep their values)",
    )


MAX_DISAGREEMENT = 0.01  # of one length, as two sources say it
TO_UM = {"": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0}


TO_UM |= {"nm": 1e-3, "nanometer": 1e-3, "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "inch": 25400.0, "in": 25400.0}


TO_UM |= {"mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "m": 1e6, "meter": 1e6}
TO_UM |= {"nanometre": 1e-3, "picometer": 1e-6, "decimeter": 1e5, "dm": 1e5, "km": 1e9, "kilometer": 1e9}
TO_UM |= {"micrometers": 1.0, "micrometres": 1.0, "nanometers": 1e-3, "millimeters": 1e3, "inches": 25400.0}
_OTHER_BY_CASE = ("Mm", "Pm", "MM", "PM")  # megametre and petametre are no millimetre and picometre


def length_um(size: float | str | None, unit: str | None) -> float | None:
    """A length in micrometres; None where it is missing, 0, not a number, or in a unit that is none ("pixel").

    >>> length_um("125", "nm"), length_um(0.0, "µm"), length_um(1, "pixel"), length_um("0.5", None)
    (0.125, None, None, 0.5)
    """
    try:
        value = float(size or 0.0) * TO_UM["no unit" if unit in _OTHER_BY_CASE else (unit or "").strip().lower()]
    except (ValueError, KeyError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def agree(one_um: float, other_um: float) -> bool:
    """Whether two sources say the same length, to 1 %."""
    return abs(one_um - other_um) <= MAX_DISAGREEMENT * max(one_um, other_um)


def square_pixel_um(path: Path, y_um: float | None, x_um: float | None) -> float | None:
    """The one pixel size of both axes, None where either is unknown; StackError where they differ by over 1 %."""
    if y_um is None or x_um is None:
        return None
    if abs(y_um - x_um) > 0.01 * x_um:
        what = f"its pixels are {x_um} um wide and {y_um} um high"
        raise StackError(what, where=str(path), do="resample it to square pixels")
    return x_um
