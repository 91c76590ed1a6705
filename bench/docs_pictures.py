"""Every picture of README and docs anew, in one command: `python -m bench.docs_pictures [NAME.png ...]`.

Each is named when it is begun and when it is there; about six minutes on two cores. Requires a Chromium on the PATH or
in SPHEROIDD_CHROMIUM. What shows recordings needs them where tests look for them (`bench.places`); without them that
picture stays as it is, which is said.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image as Picture
from rich.console import Console

from bench import network_pictures, pareto, pictures, realism, sim
from bench.places import DOCS, REAL_DATA, ROOT
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.launch.demo import demo_config
from spheroidd.daemon.launch.demo_directory import REPORT_NAME
from spheroidd.daemon.launch.run import run_plate
from spheroidd.daemon.report.writer import write_report
from spheroidd.daemon.system.address_files import read_page
from spheroidd.inference.network.model_card import read_card
from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "msedge")
SCREEN = {"width": 1366, "height": 768}
SHEET = {"width": 1000, "height": 1400}  # px; the report's picture is two of them beside each other
SHARE_SCORED = 0.6  # of the wells, when the page is photographed
PATIENCE_S = 900.0
TOLD_EVERY_S = 10.0
# So slowly that a computer of two cores scores meanwhile: the page is to show wells of all kinds.
DEMO = {"slice_period_s": 0.15}
SIM = {"n_z": 16, "z_step_um": 2.5, "pace": "fast"}
SPHEROID = ("B01_488.tif", "B01_405.tif")  # of morphosphere/MorphoSphere3D; its voxel size is not known
MICROTUBULES = "sim_raw/rdlsim_microtubules_3x3.mrc"
FINEST_DRAWN_UM = 0.25  # a voxel of 0.1 um takes a thousand seconds, beside which no other could be told apart


def say(words: str) -> None:
    """A line at once."""
    print(words, flush=True)


@dataclass(frozen=True)
class Studio:
    """Where pictures are made: a folder for what they are of, and a page of a browser."""

    folder: Path
    page: "Page"

    @cached_property
    def demonstration(self) -> Path:
        """The data directory of the demonstration, whose page was photographed while it ran."""
        return self._run_plate("demo", self._photograph_page)

    def _run_plate(self, preset: str, on_the_way: Callable[[Path], None] | None = None) -> Path:
        """Run a plate to its end in a process of its own; its report is written."""
        data = self.folder / f"{preset}-data"
        command = [sys.executable, "-m", "bench.docs_pictures", "plate", preset, data.name]
        began_s = told_s = time.monotonic()
        with (
            (self.folder / f"{preset}.log").open("w+", encoding="utf-8") as log,
            subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
            ) as plate,
        ):
            try:
                while plate.poll() is None:
                    now_s = time.monotonic()
                    if now_s - began_s > PATIENCE_S:
                        sys.exit(f"the plate has not ended within {PATIENCE_S:g} s")
                    measured, scored, wells = scored_wells(data)
                    if now_s - told_s > TOLD_EVERY_S:
                        told_s = now_s
                        say(f"    {measured} of {wells} wells segmented after {now_s - began_s:.0f} s")
                    if on_the_way is not None and scored >= SHARE_SCORED * wells > 0:
                        on_the_way(data)
                        on_the_way = None
                    time.sleep(0.5)
            finally:
                plate.kill()
            if plate.wait() not in (0, 1) or on_the_way is not None:  # 1: some well is to be looked at
                log.seek(0)
                sys.exit(f"the plate ended with exit code {plate.returncode}:\n{log.read()[-2000:]}")
        write_report(data, data / REPORT_NAME, command=f"spheroidd report {data.name} -o {data.name}/{REPORT_NAME}")
        return data

    def _photograph_page(self, data: Path) -> None:
        url = read_page(data)
        if url is None:
            sys.exit("the demonstration has no page")
        self.page.set_viewport_size(SCREEN)
        self.page.goto(url)
        self.page.wait_for_selector(".grid .well[data-state]")
        self.page.wait_for_timeout(5000)  # the slice that is imaged has arrived
        # Without its foot, which names the folder of the data.
        above_foot = {"x": 0, "y": 0, "width": SCREEN["width"], "height": SCREEN["height"] - 26}
        self.page.screenshot(path=self.folder / "page.png", clip=above_foot)

    def demo(self, out: Path) -> None:
        """The demonstration's masks."""
        pictures.draw_plate(self.demonstration, out)

    def live_page(self, out: Path) -> None:
        """The demonstration's page while it ran."""
        shutil.copyfile(self.demonstration.parent / "page.png", out)

    def report(self, out: Path) -> None:
        """The report's first two sheets beside each other; the second begins with a heading."""
        shown = self._open_report(self.demonstration)
        width, height = SHEET["width"], SHEET["height"]
        tops = self.page.eval_on_selector_all("h3", "all => all.map(one => one.getBoundingClientRect().top + scrollY)")
        cut = max((round(top) - 30 for top in tops if height / 2 < top <= height), default=height)
        sheets = Picture.new("RGB", (2 * width + 12, height), "white")
        sheets.paste("#ddd", (width, 0, width + 12, height))
        sheets.paste(shown.crop((0, 0, width, cut)), (0, 0))
        sheets.paste(shown.crop((0, cut, width, min(cut + height, shown.height))), (width + 12, 0))
        small = sheets.resize((sheets.width * 7 // 10, sheets.height * 7 // 10))
        small.quantize(128).save(out, optimize=True)

    def sim_report(self, out: Path) -> None:
        """The part on structured illumination of the report of a plate of raw frames."""
        shown = self._open_report(self._run_plate("sim"))
        tops = self.page.eval_on_selector_all(
            "h2, h3",
            "all => all.map(one => [one.textContent.trim(), one.getBoundingClientRect().top + scrollY])",
        )
        begin = next(n for n, (title, _) in enumerate(tops) if title == "Structured illumination")
        top = round(tops[begin][1]) - 10
        end = round(tops[begin + 1][1]) - 20 if begin + 1 < len(tops) else shown.height
        shown.crop((0, top, shown.width, end)).quantize(128).save(out, optimize=True)

    def _open_report(self, data: Path) -> Picture.Image:
        self.page.set_viewport_size(SHEET)
        self.page.goto((data / REPORT_NAME).absolute().as_uri())
        self.page.wait_for_timeout(1000)
        return Picture.open(io.BytesIO(self.page.screenshot(full_page=True))).convert("RGB")

    def spheroid(self, out: Path) -> None:
        """A recorded spheroid, replayed with the weights for tissue that scatters."""
        paths = [REAL_DATA / "spheroid_2colour" / name for name in SPHEROID]
        table = f"well,path_488,path_561,role\nA01,{paths[0]},{paths[1]},sample\n"
        (self.folder / "map.csv").write_text(table, encoding="utf-8")
        command = [sys.executable, "-c", "from spheroidd.daemon.cli import main; main()", "replay", "map.csv"]
        options = ["spheroid-data", "--pixel-um", "2", "--z-step-um", "2", "--model", "scattering"]
        done = subprocess.run(
            [*command, *options], cwd=self.folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        if done.returncode not in (0, 1):
            sys.exit(f"the replay ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
        pictures.draw_well(self.folder / "spheroid-data", "A01", out)


def scored_wells(data: Path) -> tuple[int, int, int]:
    """How many wells of a plate are segmented, how many have a viability, and how many it has."""
    try:
        with Catalog.read_only(data) as catalog:
            wells = sum(len(list(catalog.plate_map(plate).imaged())) for plate in catalog.plates())
            results = [row.result for row in catalog.result_rows()]
    except ConfigError:  # it is not there yet, or is being made
        return 0, 0, 0
    measured = sum(result.live_um3 is not None for result in results)
    return measured, sum(result.v_control is not None for result in results), wells


def draw_front(out: Path) -> None:
    """Spacing and width, of the points that stand on the shipped weights' card."""
    points = [
        {
            "spacing_um": row["spacing_um"][0],
            "base": row["base"],
            "live": {"dice": row["live_dice"]},
            "dead": {"dice": row["dead_dice"]},
            "cpu_s_per_screen_stack": row["cpu_s"],
        }
        for row in read_card().tradeoff
        if row["network"].startswith("bench.pareto") and row["spacing_um"][0] >= FINEST_DRAWN_UM
    ]
    pareto.draw(points, out)


def draw_docs(chosen: set[str]) -> None:
    """Draw the pictures of the docs that are chosen, all where none is named."""
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        studio = Studio(Path(folder), page)
        steps: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
            "network-curves.png": (network_pictures.curves, ()),
            "pareto.png": (draw_front, ()),
            "realism.png": (realism.draw, ()),
            "sim.png": (sim.picture, (MICROTUBULES,)),
            "network-overlay.png": (network_pictures.overlay, ()),
            "spheroid.png": (studio.spheroid, tuple(f"spheroid_2colour/{name}" for name in SPHEROID)),
            "page.png": (studio.live_page, ()),
            "demo.png": (studio.demo, ()),
            "report.png": (studio.report, ()),
            "sim-report.png": (studio.sim_report, ()),
        }
        if unknown := chosen - steps.keys():
            sys.exit(f"there is no {', '.join(sorted(unknown))}: choose of {', '.join(steps)}")
        drawn = [name for name in steps if not chosen or name in chosen]
        for number, name in enumerate(drawn, 1):
            draw, recordings = steps[name]
            say(f"{number} of {len(drawn)}: {name}")
            if missing := [one for one in recordings if not (REAL_DATA / one).exists()]:
                say(f"    stays as it is: {', '.join(missing)} is not in {REAL_DATA}")
                continue
            began_s = time.monotonic()
            draw(DOCS / name)
            say(f"    {(DOCS / name).stat().st_size / 1000:.0f} kB in {time.monotonic() - began_s:.0f} s")


@contextmanager
def browser() -> Iterator["Page"]:
    """A page of a Chromium."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("SPHEROIDD_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        sys.exit("no Chromium: install one, or name it in SPHEROIDD_CHROMIUM")
    with sync_playwright() as program:
        chromium = program.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium.new_page(viewport=SCREEN, reduced_motion="reduce")
        chromium.close()


def image_plate(preset: str, data: Path) -> int:
    """A demonstration's plate, as the pictures need it."""
    config = demo_config(data, seed=0, preset=preset)
    source = config.source.model_copy(update=DEMO if preset == "demo" else SIM)
    return run_plate(config.model_copy(update={"source": source}), console=Console(), live=False)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["plate", preset, data]:
            sys.exit(image_plate(preset, Path(data)))
        case names:
            draw_docs(set(names))
