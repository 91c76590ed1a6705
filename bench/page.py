"""The page: first paint, payload, how long a row takes to be seen and its curve to grow; what streams and REST cost.

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
from spheroidd.protocols.plate import PlateMap, WellRole
from tests.daemon.report import plates
from tests.daemon.report.plates import Figures
from tests.daemon.service.rig import beat

N_ROWS, N_SEEN, N_CURVES, N_CALLS, N_STREAMS = 16, 20, 10, 500, 50
SEEN = """([name, state]) => new Promise((done) => {
  const cell = document.getElementById(name);
  const look = () => cell.dataset.state === state ? done(Date.now()) : setTimeout(look, 5);
  look();
})"""


CURVE = """(well) => new Promise((done) => {
  let row = 0;
  const look = () => {
    row = row || (plate.wells.find((one) => one.well === well).state === "final" ? Date.now() : 0);
    const cards = [...document.getElementById("curves").children];
    const grown = cards.some((card) => JSON.parse(card.dataset.key).points.some((point) => point[0] === well));
    return grown ? done([row || Date.now(), Date.now()]) : setTimeout(look, 5);
  };
  look();
})"""
PAYLOAD = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter((one) => !one.name.includes(":watch")).reduce((sum, one) => sum + one.transferSize, 0)"""


def first_paint(browser: Browser, url: str) -> dict[str, float]:
    """Milliseconds from the start of the navigation to paint, and to a plate that is drawn."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    begun_s = time.time()
    page.goto(url)
    page.wait_for_selector(".grid .well[data-state]")
    drawn_ms = 1000 * (time.time() - begun_s)
    paint_ms = page.evaluate("performance.getEntriesByType('paint')[0].startTime")
    payload_kb = page.evaluate(PAYLOAD) / 1000
    page.close()
    return {"first_paint_ms": paint_ms, "plate_drawn_ms": drawn_ms, "payload_kb": payload_kb}


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


def curve_after(browser: Browser, url: str, data: Path, late: Figures, wells: PlateMap) -> list[tuple[float, float]]:
    """Milliseconds until a curve has grown by a row's point: from the row's commit, and from when the page had it."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.goto(f"{url}#curves")
    page.wait_for_selector(".curve")
    found = []
    for well, live_um3 in late.items():
        time.sleep(0.37)
        plates.score(data, wells, {well: live_um3}, control_um3=plates.FULL_UM3)
        committed_ms = 1000 * time.time()
        row_ms, grown_ms = page.evaluate(CURVE, str(well))
        found.append((grown_ms - committed_ms, grown_ms - row_ms))
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
        first = sorted(live)[:N_SEEN]
        treated = [entry.well for entry in wells if entry.treatment.role is WellRole.SAMPLE and entry.well not in first]
        late = {well: live[well] for well in treated[::-1][:N_CURVES]}
        plates.score(data, wells, {well: live[well] for well in live if well not in first and well not in late})
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
            curves = curve_after(browser, web.url, data, late, wells)
            browser.close()
            rest = {path: sorted(calls(web.port, path)) for path in ("/v1/status", "/page/plate?plate=P1")}
            idle = cost_of_streams(web.port, data, 0)
            streams = cost_of_streams(web.port, data, N_STREAMS)
    found = {
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        **{name: statistics.median(paint[name] for paint in paints) for name in paints[0]},
        "row_seen_ms": {"median": statistics.median(seen), "longest": max(seen)},
        "curve_after_commit_ms": statistics.median(one for one, _ in curves),
        "curve_after_row_ms": {
            "median": statistics.median(one for _, one in curves),
            "longest": max(one for _, one in curves),
        },
        **{path: {"p50_ms": times[N_CALLS // 2], "p99_ms": times[int(0.99 * N_CALLS)]} for path, times in rest.items()},
        f"{N_STREAMS}_streams_percent_of_a_core": streams - idle,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
