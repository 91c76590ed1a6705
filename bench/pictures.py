"""Pictures of a plate that was run; `bench.docs_pictures` draws all that README and docs show.

python -m bench.pictures demo DATA OUT.png   one slice of every well of a plate, outlines of the masks, the figures
python -m bench.pictures well DATA WELL OUT  one well from above, from the side, and a slice through its middle
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import ndimage

from spheroidd.acquisition.store.labels import read_label
from spheroidd.acquisition.store.stack_files import read_block
from spheroidd.daemon.catalog.rows import ResultRow
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.inference.quality.depth_seen import depth_below_surface_um
from spheroidd.protocols.stack import CHANNELS, Block, StackKey, StackPlan
from spheroidd.protocols.well import WellId

LIVE, DEAD = "#35e06c", "#ff4fd8"  # green and magenta: told apart by the colour-blind too
DEPTH_UM = 2.0  # between the points of which the surface is found
Image = NDArray[np.float64]


class View(NamedTuple):
    """The axis looked along, and the slices of it that are projected (all of them, or one)."""

    axis: int
    at: slice = slice(None)


def flat(volume: NDArray[Any], view: View) -> NDArray[Any]:
    """The maximum over a view."""
    chosen = [slice(None)] * 3
    chosen[view.axis] = view.at
    projected: NDArray[Any] = volume[tuple(chosen)].max(axis=view.axis)
    return projected


def coloured(data: Path, plan: StackPlan, view: View, limits: dict[str, tuple[float, float]]) -> Image:
    """RGB: Calcein green, propidium iodide magenta."""
    rgb = None
    for channel, colour in zip(CHANNELS, ((0.1, 1.0, 0.35), (1.0, 0.2, 0.9)), strict=True):
        if channel not in plan.channels:
            continue
        plane = flat(read_block(data, Block(plan.key, channel, 0, plan.n_z)), view).astype(float)
        low, high = limits.get(channel) or tuple(np.percentile(plane, (1, 99.7)))
        shade = np.clip((plane - low) / max(high - low, 1.0), 0, 1)[..., np.newaxis] ** 0.7
        rgb = shade * colour if rgb is None else rgb + shade * colour
    if rgb is None:
        raise ValueError(f"{plan.key} has no channel to draw")
    return np.clip(rgb, 0, 1)


def draw(axes: Axes, data: Path, plan: StackPlan, view: View, limits: dict[str, tuple[float, float]]) -> None:
    """One view with the outlines of both masks, in micrometres."""
    steps = (plan.z_step_um, plan.pixel_um, plan.pixel_um)
    rows, columns = (n for n in range(3) if n != view.axis)
    shape = (plan.n_z, plan.height, plan.width)
    extent = (0, shape[columns] * steps[columns], shape[rows] * steps[rows], 0)
    axes.imshow(coloured(data, plan, view, limits), extent=extent, interpolation="nearest")
    for name, colour in (("live", LIVE), ("dead", DEAD)):
        if {"live": CHANNELS[0], "dead": CHANNELS[1]}[name] in plan.channels:
            mask = flat(read_label(data, plan.key, name), view)
            if mask.any():
                smooth = ndimage.gaussian_filter(mask.astype(float), 0.7)
                axes.contour(smooth, [0.5], colors=[colour], linewidths=0.7, extent=extent, origin="upper")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_plate(data: Path, out: Path) -> None:
    """Every well of the first plate."""
    with Catalog.read_only(data) as catalog:
        plate = catalog.plates()[0]
        rows = catalog.result_rows(plate)
        plans = {row.result.well: catalog.plan(_key(row)) for row in rows}
        locked = catalog.locked_limits(plate) or {}
    limits = {channel: (found.low, found.low + 1.6 * (found.high - found.low)) for channel, found in locked.items()}
    columns = 6
    figure, grid = plt.subplots(-(-len(rows) // columns), columns, figsize=(11, 2.35 * -(-len(rows) // columns)))
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, row in zip(grid.flat, rows, strict=False):
        axes.set_axis_on()
        plan = plans[row.result.well]
        draw(axes, data, plan, View(0, slice(plan.n_z // 3, plan.n_z // 3 + 1)), limits)
        axes.set_title(f"{row.result.well}  {_treatment(row)}", fontsize=8)
        axes.set_xlabel(_figures(row), fontsize=8)
    figure.suptitle(
        f"plate {plate}: one slice of each well, outlines of the live (green) and dead (magenta) masks", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def draw_well(data: Path, well: str, out: Path) -> None:
    """One well from above and from the side; dotted in its middle, how deep cells can be told apart."""
    with Catalog.read_only(data) as catalog:
        row = next(row for row in catalog.result_rows() if row.result.well == str(WellId.parse(well)))
        plan = catalog.plan(_key(row))
    figure, grid = plt.subplots(1, 3, figsize=(13, 4.8))
    middle = View(0, slice(plan.n_z // 2, plan.n_z // 2 + 1))
    views = {"projected along z": View(0), "projected along y": View(1), "the slice in the middle": middle}
    for axes, (title, view) in zip(grid, views.items(), strict=True):
        draw(axes, data, plan, view, {})
        axes.set_title(title, fontsize=9)
    if row.result.depth_seen_um is not None:
        _draw_depth(grid[-1], data, plan, row.result.depth_seen_um)
    figure.suptitle(f"{row.result.plate} {row.result.well}: {_figures(row)}", fontsize=10)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def _draw_depth(axes: Axes, data: Path, plan: StackPlan, seen_um: float) -> None:
    """A line in the middle slice, so far below the surface as cells can be told apart."""
    every = [max(1, round(DEPTH_UM / step)) for step in (plan.z_step_um, plan.pixel_um, plan.pixel_um)]
    at = tuple(slice(n // 2 % by, None, by) for n, by in zip((plan.n_z, plan.height, plan.width), every, strict=True))
    stacks = {channel: read_block(data, Block(plan.key, channel, 0, plan.n_z))[at] for channel in plan.channels}
    points = {channel: stack.astype(np.float32) for channel, stack in stacks.items()}
    floors = {channel: float(np.percentile(stack, 0.1)) for channel, stack in stacks.items()}
    z_um, y_um, x_um = every[0] * plan.z_step_um, every[1] * plan.pixel_um, every[2] * plan.pixel_um
    depth = depth_below_surface_um(points, (z_um, y_um, x_um), floors)
    if depth is None:
        return
    middle = depth[plan.n_z // 2 // every[0]]
    extent = (0, plan.width * plan.pixel_um, plan.height * plan.pixel_um, 0)
    for level, style in ((0.0, "dashed"), (seen_um, "dotted")):
        axes.contour(middle, [level + 1e-3], colors=["white"], linewidths=1.2, linestyles=style, extent=extent)
    axes.set_xlabel(f"dashed: surface; dotted: {seen_um:.0f} um below it, cells are told apart no deeper", fontsize=8)


def _key(row: ResultRow) -> StackKey:
    return StackKey(row.result.plate, WellId.parse(row.result.well), row.result.stack)


def _treatment(row: ResultRow) -> str:
    treatment = row.treatment
    if treatment.compound and treatment.dose_um is not None:
        return f"{treatment.compound} {treatment.dose_um:g} uM"
    return {"negative_control": "untreated", "positive_control": "killed"}.get(treatment.role, treatment.role)


def _figures(row: ResultRow) -> str:
    result = row.result
    count = "unknown" if result.v_count is None else f"{100 * result.v_count:.0f} %"
    control = "" if result.v_control is None else f", V control {result.v_control:.0f} %"
    return f"V count {count}{control}"


def main() -> None:
    """Draw what the arguments say."""
    match sys.argv[1:]:
        case ["demo", data, out]:
            draw_plate(Path(data), Path(out))
        case ["well", data, well, out]:
            draw_well(Path(data), well, Path(out))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
