"""A real web viewer opens a stack by the page's own link, from the page's own server, and draws what is stored."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spheroidd.daemon.catalog.writer import Catalog, RunState
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates
from tests.daemon.web.neuroglancer import INSTALLED, WEBGL, local_neuroglancer, open_link
from tests.daemon.web.rig import asked
from tests.daemon.web.test_page_browser import CHROMIUM, WAIT_MS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install one, or name it in SPHEROIDD_CHROMIUM"),
    pytest.mark.skipif(not INSTALLED, reason="no neuroglancer: its folder is not named in SPHEROIDD_NEUROGLANCER"),
]
WELL = WellId(1, 1)


def test_neuroglancer_draws_both_channels_of_a_stack(tmp_path: Path) -> None:
    wells, live = plates.screen_plate("P1", 4, 6, {"drug": 1.0})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, live)
    key = StackKey("P1", WELL)
    plan = plates.plan_of(key, 16, 96)
    plates.store_images(tmp_path, wells, plan, 0.5)
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.set_run_state(RunState("1", 1, "idle", time.time(), time.time()))
    with (
        local_neuroglancer() as viewer,
        asked(tmp_path, http_viewers=[f"{viewer}#!{{neuroglancer}}"]) as (client, _, _),
        playwright.sync_playwright() as program,
    ):
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *WEBGL])
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(WAIT_MS)
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.click(f"#well-{WELL}")
        link = page.get_by_role("link", name="Open in 127.0.0.1").get_attribute("href")
        assert link is not None
        open_link(page, link, WAIT_MS)
        names = page.evaluate("viewer.layerManager.managedLayers.map((one) => one.name)")
        seen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
        browser.close()
    assert names == ["Calcein-AM (488)", "Propidium iodide (561)"]
    green, red = (seen[..., n] - seen[..., 1 - n] > 100 for n in (1, 0))
    assert green.sum() > 1000
    assert red.sum() > 1000
