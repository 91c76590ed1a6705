"""The page: first paint, how long a row takes to be seen, what streams cost; the REST side's answers.

    python -m bench.page

A plate of 384 wells beside a real service; the browser is Debian's Chromium, headless, with an empty cache.
"""

import http.client
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psutil
from playwright.sync_api import Browser, sync_playwright

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.web.server import WebServer
from tests.daemon.report import plates
from tests.daemon.service.rig import beat

N_ROWS, N_SEEN, N_CALLS, N_STREAMS = 16, 20, 500, 50
SEEN = """([name, state]) => new Promise((done) => {
  const cell = document.getElementById(name);
  const look = () => cell.dataset.state === state ? done(Date.now()) : setTimeout(look, 5);
  look();
})"""


def first_paint(browser: Browser, url: str) -> dict[str, float]:
    """Milliseconds from the start of the navigation to paint, and to a plate that is drawn."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    begun_s = time.time()
    page.goto(url)
    page.wait_for_selector(".grid .well[data-state]")
    drawn_ms = 1000 * (time.time() - begun_s)
    paint_ms = page.evaluate("performance.getEntriesByType('paint')[0].startTime")
    page.close()
    return {"first_paint_ms": paint_ms, "plate_drawn_ms": drawn_ms}


def seen_after(browser: Browser, url: str, data: Path, score: list[object]) -> list[float]:
    """Milliseconds from a row's commit until the well is drawn as final."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.goto(url)
    page.wait_for_selector(".grid .well[data-state]")
    found = []
    wells, live = score
    for well in sorted(live)[:N_SEEN]:  # type: ignore[call-overload]
        time.sleep(0.37)  # out of step with every clock in the daemon
        plates.score(data, wells, {well: live[well]})  # type: ignore[arg-type, index]
        committed_ms = 1000 * time.time()
        found.append(page.evaluate(SEEN, [f"well-{well}", "final"]) - committed_ms)
    page.close()
    return found


def calls(port: int, path: str) -> list[float]:
    """Milliseconds of each of many calls, one after another over one connection."""
    connection, found = http.client.HTTPConnection("127.0.0.1", port), []
    for _ in range(N_CALLS):
        begun_s = time.perf_counter()
        connection.request("GET", path)
        connection.getresponse().read()
        found.append(1000 * (time.perf_counter() - begun_s))
    connection.close()
    return found


def cost_of_streams(port: int, data: Path, n: int, seconds: float = 15.0) -> float:
    """Per cent of a core that so many status streams cost while the status changes once a second."""
    ended = threading.Event()

    def work() -> None:
        with Catalog.create_or_open(data) as catalog:
            while not ended.wait(1.0):
                beat(catalog, round(time.time()))

    beating = threading.Thread(target=work)
    beating.start()
    connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(n)]
    for connection in connections:
        connection.request("GET", "/v1/status:watch?period_s=0.5")
        connection.getresponse()
    before = psutil.Process().cpu_times()
    time.sleep(seconds)
    after = psutil.Process().cpu_times()
    for connection in connections:
        connection.close()
    ended.set()
    beating.join()
    return 100 * (after.user + after.system - before.user - before.system) / seconds


def main() -> None:
    """Print one JSON object."""
    chromium = os.environ.get("SPHEROIDD_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        wells, live = plates.screen_plate("P1", N_ROWS, 24, {f"C{n:02d}": 0.1 * 2.0**n for n in range(12)})
        plates.register(data, wells)
        plates.score(data, wells, {well: live[well] for well in sorted(live)[N_SEEN:]})
        with Catalog.create_or_open(data) as catalog:
            beat(catalog, 0)
        settings = ServiceConfig(http_address="127.0.0.1:0")
        with (
            Service(data, settings) as service,
            WebServer(service, data, settings) as web,
            sync_playwright() as program,
        ):
            browser = program.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            paints = [first_paint(browser, web.url) for _ in range(5)]
            seen = seen_after(browser, web.url, data, [wells, live])
            browser.close()
            rest = {path: sorted(calls(web.port, path)) for path in ("/v1/status", "/page/plate?plate=P1")}
            idle = cost_of_streams(web.port, data, 0)
            streams = cost_of_streams(web.port, data, N_STREAMS)
    found = {
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        **{name: statistics.median(paint[name] for paint in paints) for name in paints[0]},
        "row_seen_ms": {"median": statistics.median(seen), "longest": max(seen)},
        **{path: {"p50_ms": times[N_CALLS // 2], "p99_ms": times[int(0.99 * N_CALLS)]} for path, times in rest.items()},
        f"{N_STREAMS}_streams_percent_of_a_core": streams - idle,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
