"""An estimate and a reconstruction on the screen and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from spheroidd.daemon.reconstruction.raw_file import RawFile
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation


def estimate_json(file: RawFile, found: PatternEstimate) -> str:
    """The estimate with its verdict and how the file was read; `from_json` of its "estimate" gives it back."""
    said = {"file": file.raw.path.name, "read_as": read_as(file), **estimate_fields(found)}
    return json.dumps(said, indent=1, allow_nan=False)


def estimate_fields(found: PatternEstimate) -> dict[str, Any]:
    """An estimate with its verdict."""
    return {
        "usable": found.usable,
        "verdict": found.verdict,
        "period_nm": [1000 * one.period_um for one in found.angles],
        "estimate": asdict(found),
    }


def file_title(file: RawFile) -> str:
    """Which file, and how it was read."""
    return f"{file.raw.path.name}: {read_as(file)}"


def estimate_screen(title: str, found: PatternEstimate) -> Group:
    """A row for every order of every angle, then what is to be said of the whole."""
    table = Table(title=title, title_justify="left")
    for name in ("angle", "order", "period nm", "frequency 1/um", "direction deg", "modulation", "peak/median", ""):
        table.add_column(name, justify="left" if not name else "right")
    for one in found.angles:
        for order in one.orders:
            sd = f" +- {order.modulation_sd:.3f}" if order.modulation_sd else ""
            known = order.trusted
            frequency = order.order * one.frequency_per_um
            table.add_row(
                str(one.angle),
                str(order.order),
                f"{1000 / frequency:.1f}" if known else "-",
                f"{frequency:.4f}" if known else "-",
                f"{one.angle_deg:.2f}" if known else "-",
                f"{order.modulation:.3f}{sd}" if known else "-",
                f"{order.peak_to_median:.0f}",
                order.verdict,
            )
    lines = [
        f"angle {one.angle}: {_phases(one.phases_deg, one.phases_measured)}" for one in found.angles if one.trusted
    ]
    light = "no noise was found beyond the lens's cutoff" if found.electrons is None else _light(found.electrons)
    lines.append(f"{light}; Wiener constant {found.wiener:.3f}")
    verdict = "" if found.usable else "NOT USABLE: "
    lines += [verdict + found.verdict, *(f"note: {note}" for note in found.notes)]
    return Group(table, Text("\n".join(lines)))


def _light(electrons: float) -> str:
    if electrons > 1e5:
        return "almost no noise: the frames were computed, denoised or resampled"
    return f"about {electrons:.0f} electrons a pixel and frame, by the noise"


def _phases(phases_deg: Sequence[float], measured: bool) -> str:
    each = ", ".join(f"{phase:.0f}" for phase in phases_deg)
    return f"phases {each} deg at the field's centre ({'measured' if measured else 'nominal steps'})"


def read_as(file: RawFile) -> str:
    """How the frames were put in order."""
    n_z, n_angles, n_phases = file.slices.shape[:3]
    lengths = {"z": n_z, "angle": n_angles, "phase": n_phases}
    counts = " x ".join(f"{lengths[axis]} {axis}" for axis in file.pattern.order)
    lying = " x ".join(f"{n} {axis}" for axis, n in file.raw.axes)
    return f"read as {counts}, slowest first; in the file {lying}; {file.pixel_um:g} um a pixel"


def slices_json(slices: Sequence[SliceModulation], extra: dict[str, Any]) -> str:
    """How every slice was reconstructed."""
    rows = [asdict(one) | {"method": one.method} for one in slices]
    return json.dumps(extra | {"slices": rows}, indent=1, allow_nan=False)


def slices_screen(slices: Sequence[SliceModulation]) -> Table:
    """A row a slice: method, modulation and contrast to noise of every angle."""
    table = Table()
    for name in ("z", "method", "modulation by angle", "contrast to noise by angle"):
        table.add_column(name)
    for one in slices:
        table.add_row(str(one.z), one.method, _by_angle(one.modulation, ".2f"), _by_angle(one.contrast, ".0f"))
    return table


def _by_angle(values: Sequence[Sequence[float]], form: str) -> str:
    return "  ".join("/".join(format(value, form) for value in orders) for orders in values)
