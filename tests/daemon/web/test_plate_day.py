"""A day with plates as a person has it: a real daemon, its page in Chromium, from the queue to the report.

Pictures of it go to $SPHEROIDD_SCREENSHOTS, to be looked at: `pytest -m slow tests/daemon/web/test_plate_day.py`.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from spheroidd.protocols import spheroidd_pb2 as wire
from tests.daemon.service.test_service_run import EMULATED, serving, until
from tests.daemon.web.test_page_browser import CHROMIUM, violations

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install one, or name it in SPHEROIDD_CHROMIUM"),
]
PLATE = EMULATED.replace("slice_period_s = 0.2", "slice_period_s = 0.06").replace("doses = 2", "doses = 8")
WELL = "B02"
FAILS = '[[source.faults]]\nkind = "fail"\nwell = "{well}"\nz = 3\ntimes = 1\n'  # once: the repeat is sound
LONG_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """Somebody who looks, and takes pictures."""

    def __init__(self, page: "playwright.Page", folder: Path) -> None:
        self.page, self._folder, self._n = page, folder, 0

    def picture(self, name: str) -> None:
        """The screen as it is, in three forms: a laboratory's, that at night, and a phone's."""
        self._n += 1
        for scheme, width, height in (("light", 1366, 768), ("dark", 1366, 768), ("light", 390, 844)):
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            self.page.set_viewport_size({"width": width, "height": height})
            assert self.page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
            self.page.screenshot(path=self._folder / f"{self._n}-{name}-{width}-{scheme}.png", full_page=width < 500)
            assert violations(self.page) == [], (name, scheme, width)
        self.page.set_viewport_size({"width": 1366, "height": 768})

    def sees(self, selector: str, words: str) -> None:
        playwright.expect(self.page.locator(selector)).to_contain_text(words, timeout=LONG_MS)


def test_a_day_with_plates(browser: "playwright.Browser", tmp_path: Path) -> None:
    pictures = Path(os.environ.get("SPHEROIDD_SCREENSHOTS") or tmp_path / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    settings = tmp_path / "daemon.toml"
    settings.write_text('[service]\nhttp_address = "127.0.0.1:0"\ntime_zone = "Europe/Berlin"\n')
    with serving(tmp_path, "--config", str(settings)) as (_, client):
        for name in ("morning", "noon", "evening"):
            given = PLATE.replace("P1", name).replace("[inference]", FAILS.format(well=WELL) + "[inference]")
            client.call(client.stub.SubmitPlate, wire.SubmitPlateRequest(config_toml=given))
        address = tmp_path / "data" / "page.json"
        until(address.exists, "the page is there")
        page = browser.new_page(viewport={"width": 1366, "height": 768}, accept_downloads=True)
        page.set_default_timeout(LONG_MS)
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(json.loads(address.read_text())["url"])
        visitor = Visitor(page, pictures)

        page.click("#tab-queue")
        playwright.expect(page.locator("#queue .look")).to_have_text(["morning", "noon", "evening"])
        page.get_by_role("button", name="Run evening earlier").click()
        playwright.expect(page.locator("#queue .look")).to_have_text(["morning", "evening", "noon"])
        page.get_by_role("button", name="Hold noon").click()
        visitor.picture("queue")

        page.click("#tab-live")
        page.fill("#snap-well", WELL)
        page.fill("#snap-exposure", "40")
        page.click("#snap")
        page.wait_for_selector("#snap-picture:not([hidden])")
        page.click("#sweep")
        page.wait_for_selector("#focus-curve svg circle")
        visitor.picture("instrument")

        page.click("#tab-queue")
        page.click("#queue-start")
        visitor.sees("#state", "running")

        page.click("#tab-plate")
        page.wait_for_selector('.grid .well[data-state="acquiring"]')
        page.wait_for_selector(".grid .well.known")
        visitor.picture("plate")
        page.click("#tab-plate")
        page.wait_for_selector(f"#well-{WELL}[data-state=failed]")
        page.click("#pause")
        visitor.sees("#state", "paused")
        page.click(f"#well-{WELL}")
        visitor.sees("#well-flags", "the emulator was set to fail at channel 488 z 3")
        visitor.picture("failed")
        page.click("#repeat")
        page.fill("#ask-text", "the emulator failed")
        page.click("#ask-yes")
        visitor.sees("#notes", WELL)
        page.click("#close")

        page.locator(".grid .well.known").first.click()
        page.wait_for_selector("#well-picture:not([hidden])")
        page.click("#exclude")
        page.fill("#ask-text", "a bubble")
        page.click("#ask-yes")
        visitor.sees("#well-flags", "Excluded: a bubble (local)")
        visitor.picture("excluded")
        page.get_by_role("button", name="Undo").last.click()  # of the exclusion; the repeat has one too
        playwright.expect(page.locator("#exclude")).to_be_visible()
        page.click("#close")
        page.click("#resume")
        page.click("#tab-curves")
        page.wait_for_selector(".curve circle.treated")
        visitor.picture("curves")

        page.click("#tab-queue")
        visitor.sees("#notes", "Plate morning is finished: 11 of 11 wells have a row")
        visitor.sees("#queue", "Europe/Berlin")
        visitor.sees("#state", "running")  # the next one
        page.get_by_role("button", name="Look at morning").click()
        visitor.sees("#plate-name", "morning")
        playwright.expect(page.locator(f"#well-{WELL}")).to_have_attribute("data-state", "final")
        page.click("#tab-curves")
        page.wait_for_selector(".curve .fit", state="attached")  # a level one has no height
        heading = page.locator(".curve p.ic50").first
        playwright.expect(heading).not_to_have_text(re.compile("yet|so far"), timeout=LONG_MS)  # it is over
        page.click("#tab-results")
        page.wait_for_selector("#results td")
        visitor.picture("results")
        with page.expect_download(timeout=LONG_MS) as saved:
            page.click("#report-pdf")
        saved.value.save_as(tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
        page.click("#tab-queue")
        visitor.sees("#queue-words", "no plate waits that is not held")
        visitor.picture("over")
        page.close()
    assert failures == []
