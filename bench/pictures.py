"""The pictures of README and docs from today's weights, in one command: `python -m bench.pictures docs`.

python -m bench.pictures docs [DATA]         run the demonstration (or take the one in DATA) and draw docs/demo.png,
                                             page.png, report.png, network-overlay.png and network-curves.png: 4
                                             minutes, and a Chromium on the PATH or in SPHEROIDD_CHROMIUM
python -m bench.pictures demo DATA OUT.png   one slice of every well of a plate, outlines of the masks, the figures
python -m bench.pictures well DATA WELL OUT  one well from above, from the side, and a slice through its middle
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image as Picture
from rich.console import Console
from scipy import ndimage

from bench import network_pictures
from bench.places import DOCS, ROOT
from spheroidd.acquisition.store.labels import read_label
from spheroidd.acquisition.store.stack_files import read_block
from spheroidd.daemon.catalog.rows import ResultRow
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.launch.demo import demo_config
from spheroidd.daemon.launch.demo_directory import REPORT_NAME
from spheroidd.daemon.launch.run import run_plate
from spheroidd.daemon.report.writer import write_report
from spheroidd.daemon.system.address_files import read_page
from spheroidd.protocols.stack import CHANNELS, Block, StackKey, StackPlan
from spheroidd.protocols.well import WellId

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "msedge")
SCREEN = {"width": 1366, "height": 768}
SHEET = {"width": 1000, "height": 1400}  # px; the report's picture is two of them beside each other
SLICE_PERIOD_S = 0.35  # the demonstration's own is 0.1
SHARE_SCORED = 0.6  # of the wells, when the page is photographed
PATIENCE_S = 900.0
LIVE, DEAD = "#35e06c", "#ff4fd8"  # green and magenta: told apart by the colour-blind too
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
    """One well from above and from the side."""
    with Catalog.read_only(data) as catalog:
        row = next(row for row in catalog.result_rows() if row.result.well == str(WellId.parse(well)))
        plan = catalog.plan(_key(row))
    figure, grid = plt.subplots(1, 3, figsize=(13, 4.8))
    middle = View(0, slice(plan.n_z // 2, plan.n_z // 2 + 1))
    views = {"projected along z": View(0), "projected along y": View(1), "the slice in the middle": middle}
    for axes, (title, view) in zip(grid, views.items(), strict=True):
        draw(axes, data, plan, view, {})
        axes.set_title(title, fontsize=9)
    figure.suptitle(f"{row.result.plate} {row.result.well}: {_figures(row)}", fontsize=10)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def draw_docs(data: Path | None) -> None:
    """Every picture of the docs that shows the demonstration or the network."""
    with tempfile.TemporaryDirectory() as folder, _browser() as page:
        if data is None:
            data = Path(folder) / "demo-data"
            _run_demonstration(data, page)
        draw_plate(data, DOCS / "demo.png")
        _photograph_report(data, page)
    network_pictures.overlay(DOCS / "network-overlay.png")
    network_pictures.curves(DOCS / "network-curves.png")


@contextmanager
def _browser() -> Iterator["Page"]:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("SPHEROIDD_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        sys.exit("no Chromium: install one, or name it in SPHEROIDD_CHROMIUM")
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser.new_page(viewport=SCREEN, reduced_motion="reduce")
        browser.close()


def image_plate(data: Path) -> int:
    """The demonstration's plate, so slowly that a busy computer scores it meanwhile."""
    config = demo_config(data, seed=0)
    source = config.source.model_copy(update={"slice_period_s": SLICE_PERIOD_S})
    return run_plate(config.model_copy(update={"source": source}), console=Console(), live=False)


def _run_demonstration(data: Path, page: "Page") -> None:
    """Run it to its end; photograph its page on the way."""
    command = [sys.executable, "-m", "bench.pictures", "plate", data.name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=data.parent, env=environment) as demonstration:
        deadline_s = time.monotonic() + PATIENCE_S
        while (share := _share_scored(data)) < SHARE_SCORED:
            if demonstration.poll() is not None or time.monotonic() > deadline_s:
                demonstration.kill()
                sys.exit(f"the demonstration ended, or took too long, with {share:.0%} of its wells")
            time.sleep(1)
        url = read_page(data)
        if url is None:
            demonstration.kill()
            sys.exit("the demonstration has no page")
        page.goto(url)
        page.wait_for_selector(".grid .well[data-state]")
        page.wait_for_timeout(5000)  # the slice that is imaged has arrived
        # Without its foot, which names the folder of the data.
        above_foot = {"x": 0, "y": 0, "width": SCREEN["width"], "height": SCREEN["height"] - 26}
        page.screenshot(path=DOCS / "page.png", clip=above_foot)
    if demonstration.returncode:
        sys.exit(f"the demonstration ended with exit code {demonstration.returncode}")
    write_report(data, data / REPORT_NAME, command=f"spheroidd report {data.name} -o {data.name}/{REPORT_NAME}")


def _share_scored(data: Path) -> float:
    if not (data / "catalog.sqlite").exists():
        return 0.0
    with Catalog.read_only(data) as catalog:
        found = [row.result.v_control is not None for row in catalog.result_rows()]
    return sum(found) / len(found) if found else 0.0


def _photograph_report(data: Path, page: "Page") -> None:
    """Its first two sheets beside each other; the second begins with a heading."""
    page.set_viewport_size(SHEET)
    page.goto((data / REPORT_NAME).absolute().as_uri())
    page.wait_for_timeout(1000)
    width, height = SHEET["width"], SHEET["height"]
    tops = page.eval_on_selector_all("h3", "found => found.map(one => one.getBoundingClientRect().top + scrollY)")
    cut = max((round(top) - 30 for top in tops if height / 2 < top <= height), default=height)
    found = Picture.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    sheets = Picture.new("RGB", (2 * width + 12, height), "white")
    sheets.paste("#ddd", (width, 0, width + 12, height))
    sheets.paste(found.crop((0, 0, width, cut)), (0, 0))
    sheets.paste(found.crop((0, cut, width, min(cut + height, found.height))), (width + 12, 0))
    small = sheets.resize((sheets.width * 7 // 10, sheets.height * 7 // 10))
    small.quantize(128).save(DOCS / "report.png", optimize=True)


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
        case ["plate", data]:
            sys.exit(image_plate(Path(data)))
        case ["docs", *data]:
            draw_docs(Path(data[0]) if data else None)
        case ["demo", data, out]:
            draw_plate(Path(data), Path(out))
        case ["well", data, well, out]:
            draw_well(Path(data), well, Path(out))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
