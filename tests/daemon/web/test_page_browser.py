"""The page in a real browser: a plate runs, its heatmap fills, orders reach main, an alarm comes and goes."""

import csv
import io
import json
import os
import re
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pytest
from PIL import Image

from spheroidd.daemon.analysis.curves import curve_points
from spheroidd.daemon.catalog.plate_queue import PlateQueue
from spheroidd.daemon.catalog.writer import Catalog, RunState, StackState
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.launch.plate_end import plate_ended
from spheroidd.daemon.monitoring.alarm_conditions import Situation, conditions
from spheroidd.daemon.pipeline import orders, queue_orders
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.web.words import english
from spheroidd.protocols.errors import InstrumentError, NoRoomError, RefusedError, StackError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.results import Related, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import Ending
from spheroidd.protocols.trust import Trust, failed_reason, trust_of
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates
from tests.daemon.service.rig import Main
from tests.daemon.web.rig import Client, asked
from tests.daemon.web.test_page import fill_plate, show_life
from tests.daemon.web.test_page_answers import beating
from tests.faults.plate_runs import kill, start, write_config

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "msedge")
CHROMIUM = os.environ.get("SPHEROIDD_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
WAIT_MS = 30_000
VIEWERS = ["https://glancer.example/#!{neuroglancer}", "https://viewer.example/?source={url}&again={url}"]
SCREEN: "playwright.ViewportSize" = {"width": 1366, "height": 768}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install one, or name it in SPHEROIDD_CHROMIUM"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(browser: "playwright.Browser") -> Iterator["playwright.Page"]:
    """One for all tests, because a process of its own is half of what a page costs; each has another origin."""
    # Without transitions: a colour is read as it ends, not as it happens to be under way.
    window = browser.new_page(viewport=SCREEN, reduced_motion="reduce")
    window.set_default_timeout(WAIT_MS)
    yield window
    window.close()


@pytest.fixture
def page(window: "playwright.Page") -> Iterator["playwright.Page"]:
    """A page of a laboratory's screen, on which no script may fail."""
    window.set_viewport_size(SCREEN)
    failures: list[str] = []

    def keep(error: "playwright.Error") -> None:
        failures.append(str(error))

    window.on("pageerror", keep)
    yield window
    window.remove_listener("pageerror", keep)
    assert failures == []


@contextmanager
def shown(page: "playwright.Page", folder: Path, **settings: object) -> Iterator[tuple[Client, Main, Service]]:
    """`asked`, for a page that is left before its server ends: that waits for who is looking.

    It is left for a file of the same site, for which the browser needs no other process.
    """
    with asked(folder, **settings) as (client, main, service):
        yield client, main, service
        page.goto(f"http://127.0.0.1:{client.port}/favicon.svg")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate to be copied."""
    folder = tmp_path_factory.mktemp("filled") / "data"
    fill_plate(folder)
    return folder


@pytest.fixture
def data(filled: Path, tmp_path: Path) -> Path:
    """A plate under way, in a data directory of the test's own."""
    folder = Path(shutil.copytree(filled, tmp_path / "data"))
    show_life(folder)
    return folder


@pytest.fixture
def served(page: "playwright.Page", data: Path) -> Iterator[tuple[Client, Main, Path]]:
    with shown(page, data, http_viewers=VIEWERS) as (client, main, _):
        yield client, main, data


def visit(page: "playwright.Page", client: Client) -> None:
    page.goto(f"http://127.0.0.1:{client.port}/")
    page.wait_for_selector(".grid .well[data-state]")
    playwright.expect(page.locator("#state")).to_have_text("running")


def texts(page: "playwright.Page", selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def wait_until(condition: object, timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, "it did not come true"
        time.sleep(0.05)


def acquired(catalog: Catalog) -> int:
    return int(catalog.query("SELECT count(*) AS n FROM slices")[0]["n"])


def test_a_plate_runs_and_the_heatmap_fills(page: "playwright.Page", tmp_path: Path) -> None:
    source = {"pace": "real", "slice_period_s": 0.35, "n_z": 8}
    config = write_config(tmp_path, source=source, page=True)
    process = start(config)
    address = tmp_path / "data" / "page.json"
    try:
        wait_until(address.exists, 60)
        page.goto(json.loads(address.read_text())["url"])
        page.wait_for_selector('.grid .well[data-state="acquiring"]')
        page.wait_for_selector("#live:not([hidden])")
        page.click("#pause")
        playwright.expect(page.locator("#state")).to_have_text("paused", timeout=WAIT_MS)
        with Catalog.read_only(tmp_path / "data") as catalog:
            wait_until(lambda: acquired(catalog) == (time.sleep(0.5), acquired(catalog))[1])  # none is on its way
            assert 0 < acquired(catalog) < 5 * 2 * 8
        playwright.expect(page.locator("#pause")).to_be_hidden()
        page.click("#resume")
        playwright.expect(page.locator('.grid .well[data-state="final"]')).to_have_count(5, timeout=90_000)
        assert all(re.match(r"\d+", text) for text in texts(page, ".grid .well"))
        assert process.wait(60) == 0
        playwright.expect(page.locator("#lost")).to_be_visible(timeout=WAIT_MS)
    finally:
        kill(process)


def test_an_alarm_appears_and_ends(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, data_dir = served
    visit(page, client)
    assert page.locator(".alarm").count() == 0
    with Catalog.create_or_open(data_dir) as catalog:
        error = InstrumentError("the stage does not <answer>", where="stage", do="switch it on")
        catalog.raise_fault("stage", error)
    alarm = page.locator(".alarm")
    playwright.expect(alarm).to_contain_text("stage: the stage does not <answer>")
    playwright.expect(alarm).to_contain_text("To do: switch it on")
    with Catalog.create_or_open(data_dir) as catalog:
        catalog.clear_fault("stage")
    playwright.expect(alarm).to_have_count(0)


def test_a_row_that_comes_is_drawn(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, data_dir = served
    visit(page, client)
    waiting = page.locator('.grid .well[data-state="acquiring"]')
    name = waiting.get_attribute("data-well")
    assert name is not None
    wells, live = plates.screen_plate("P1", 4, 6, {"drug": 1.0})
    plates.score(data_dir, wells, {WellId.parse(name): live[WellId.parse(name)]})
    playwright.expect(page.locator(f"#well-{name}")).to_have_attribute("data-state", "final")
    assert texts(page, f"#well-{name}")[0]


def test_orders_by_mouse_and_their_questions(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, main, _ = served
    visit(page, client)
    page.click("#pause-after")
    playwright.expect(page.locator("#notes")).to_contain_text("it is done")
    page.click("#abort")
    page.click("#ask-no")
    page.click("#abort")
    page.keyboard.press("Escape")
    page.click("#abort")
    page.fill("#ask-text", "spilt")
    page.click("#ask-yes")
    wait_until(lambda: len(main.orders) == 2)
    pause = orders.Pause(who="local", plate="P1", after_well=True)
    assert main.orders == [pause, orders.Abort(who="local", plate="P1", reason="spilt")]
    main.refusal = orders.RefusedError("the instrument is warm", do="wait")
    page.click("#pause")
    playwright.expect(page.locator(".note.bad")).to_contain_text("the instrument is warm; wait")


def test_everything_by_keyboard(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, main, _ = served
    visit(page, client)
    page.locator("#well-A01").focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    playwright.expect(page.locator("#well-title")).to_contain_text("B02")
    page.wait_for_selector("#well-picture:not([hidden])")
    before = page.get_attribute("#well-picture", "src")
    image = f"http://127.0.0.1:{client.port}/zarr/P1.ome.zarr/B/02/0"
    links = [link.get_attribute("href") or "" for link in page.locator("#viewers a").all()]
    assert links[1] == f"https://viewer.example/?source={quote(image, safe='')}&again={quote(image, safe='')}"
    layers = json.loads(unquote(links[0].removeprefix("https://glancer.example/#!")))["layers"]
    assert [(one["name"], one["source"], one["localPosition"]) for one in layers] == [
        ("Calcein-AM (488)", f"zarr://{image}", [0]),
        ("Propidium iodide (561)", f"zarr://{image}", [1]),
    ]
    page.focus("#slice")
    page.keyboard.press("End")
    playwright.expect(page.locator("#slice-words")).to_have_text("Slice 8 of 8")
    wait_until(lambda: page.get_attribute("#well-picture", "src") != before)
    page.focus("#repeat")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_until(lambda: bool(main.orders))
    assert main.orders == [orders.RepeatWell(who="local", plate="P1", well=WellId(1, 1))]
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#now")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "well-B02"


def well_to_come(data_dir: Path) -> str:
    """A well of which nothing was taken yet."""
    with Catalog.read_only(data_dir) as catalog:
        taken = {row.key.well for row in catalog.stacks("P1") if row.state is not StackState.QUEUED}
        return next(str(entry.well) for entry in catalog.plate_map("P1").imaged() if entry.well not in taken)


def test_a_well_is_put_next_by_keyboard(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, main, data_dir = served
    visit(page, client)
    name = well_to_come(data_dir)
    page.locator(f"#well-{name}").focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Image next")
    playwright.expect(button).to_be_visible()
    for _ in range(8):  # from the well's title on, Tab comes to it
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "next":
            break
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#notes")).to_contain_text("it is done")
    assert main.orders == [orders.ReorderWells(who="local", plate="P1", wells=(WellId.parse(name),))]
    playwright.expect(button).to_be_focused()
    main.refusal = orders.RefusedError(
        f"well {name} is imaged already, or under way", do="repeat it once it was imaged"
    )
    page.keyboard.press("Enter")
    refused = page.locator(".note.bad")
    playwright.expect(refused).to_contain_text(f"well {name} is imaged already, or under way; repeat it once")
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#now")).to_be_visible()


def test_a_well_that_was_taken_cannot_be_put_next(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, _ = served
    visit(page, client)
    page.locator('.grid .well[data-state="final"]').first.click()
    playwright.expect(page.locator("#repeat")).to_be_visible()
    playwright.expect(page.locator("#next")).to_be_hidden()


def test_a_viewer_sees_and_cannot_order(page: "playwright.Page", data: Path) -> None:
    token = TokenFile(data).create("v", Role.VIEWER, 600)
    with shown(page, data, local_role="none") as (client, main, _):
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.fill("#ask-text", token)
        page.click("#ask-yes")
        playwright.expect(page.locator("#state")).to_have_text("running", timeout=WAIT_MS)
        page.wait_for_selector(".grid .well[data-state]")
        playwright.expect(page.locator("#who")).to_contain_text("v, viewer")
        page.click(f"#well-{well_to_come(data)}")
        playwright.expect(page.locator("#well-words")).to_contain_text("to come")
        for button in ("pause", "pause-after", "resume", "abort", "start", "next", "skip", "repeat"):
            playwright.expect(page.locator(f"#{button}")).to_be_hidden()
        assert main.orders == []


def test_words_of_others_are_words(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, data_dir = served
    with Catalog.create_or_open(data_dir) as catalog:
        key = next(row.key for row in catalog.stacks("P1") if row.state is StackState.FAILED)
    visit(page, client)
    page.click(f"#well-{key.well}")
    playwright.expect(page.locator("#viewers a")).to_have_text(["Open in viewer.example"])  # a state needs an image
    playwright.expect(page.locator("#well-flags")).to_contain_text("the worker ended <b>three</b> times")
    assert page.locator("#well-flags b").count() == 0


def test_a_skipped_well_is_not_as_red_as_a_failed_one(
    page: "playwright.Page", served: tuple[Client, Main, Path]
) -> None:
    client, _, _ = served
    visit(page, client)
    colour = "cell => getComputedStyle(cell).backgroundColor"
    skipped, failed = (page.locator(f'.grid .well[data-state="{state}"]') for state in ("skipped", "failed"))
    assert failed.evaluate(colour) == "rgb(193, 74, 0)"
    assert skipped.evaluate(colour) == "rgba(0, 0, 0, 0)"
    playwright.expect(skipped).to_have_text(re.compile("^–"))
    skipped.click()
    playwright.expect(page.locator("#well-words")).to_contain_text("skipped")
    playwright.expect(page.locator("#well-flags")).to_contain_text("skipped by Ada: mould")
    assert page.locator("#well-flags .bad").count() == 0


def test_it_fits_a_laboratory_screen(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, _ = served
    for width, height in ((1366, 640), (1920, 950)):
        page.set_viewport_size({"width": width, "height": height})
        visit(page, client)
        assert page.evaluate("document.documentElement.scrollHeight") <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator(".grid").bounding_box()
        room = page.locator("#room").bounding_box()
        assert box is not None
        assert room is not None
        assert box["height"] <= room["height"] + 1
        assert box["width"] <= room["width"] + 1


# -- the answer of the plate


def violations(page: "playwright.Page", **chosen: object) -> list[str]:
    """What axe finds, one line a rule; `chosen` are options that leave rules out."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, options={"resultTypes": ["violations"], **chosen}).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


OF_COLOURS = ["color-contrast", "link-in-text-block"]  # a scheme changes nothing else


@pytest.mark.parametrize(
    ("scheme", "chosen"),
    [("light", {}), ("dark", {"runOnly": {"type": "rule", "values": OF_COLOURS}})],
    ids=["light", "dark"],
)
def test_axe_finds_nothing(
    page: "playwright.Page",
    served: tuple[Client, Main, Path],
    scheme: "playwright.ColorScheme",
    chosen: dict[str, object],
) -> None:
    page.emulate_media(color_scheme=scheme)
    try:
        visit(page, served[0])
        found = {"plate": violations(page, **chosen)}
        for view, there in (("curves", ".curve svg"), ("results", "#results td")):
            page.click(f"#tab-{view}")
            page.wait_for_selector(there)
            found[view] = violations(page, **chosen)
        page.click("#tab-plate")
        page.click("#well-B02")
        page.wait_for_selector("#well-picture:not([hidden])")
        page.click("#exclude")
        found["well and question"] = violations(page, **chosen)
    finally:
        page.emulate_media(color_scheme="light")
    assert not any(found.values()), found


def test_curves_fill_while_wells_finish(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, data_dir = served
    visit(page, client)
    page.click("#tab-curves")
    page.wait_for_selector(".curve .fit", state="attached")
    playwright.expect(page.locator(".curve p.ic50")).to_have_text(re.compile("^(IC50 .*, so far|No IC50 yet)$"))
    playwright.expect(page.locator(".curve p.said")).to_contain_text("provisional")
    treated = page.locator(".curve circle.treated")
    before = treated.count()
    wells, live = plates.screen_plate("P1", 4, 6, {"drug": 1.0})
    with Catalog.read_only(data_dir) as catalog:
        (curve,) = curve_points(catalog, "P1")
    to_come = max(WellId.parse(one.well) for one in curve.missing)
    untreated = statistics.median(live[entry.well] for entry in wells if entry.treatment == plates.UNTREATED)
    plates.score(data_dir, wells, {to_come: live[to_come]})
    with Catalog.create_or_open(data_dir) as catalog, catalog.transaction():
        related = Related(WellStatus.FINAL, None, 100 * live[to_come] / untreated)
        catalog.update_related(StackKey("P1", to_come), plates.MODEL, related, "controls")
    playwright.expect(treated).to_have_count(before + 1)
    dot = page.locator(f'.curve circle[data-well="{to_come}"]')
    dot.click()
    playwright.expect(page.locator("#well-title")).to_contain_text(str(to_come))


def test_the_table_is_sorted_filtered_and_saved(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, data_dir = served
    visit(page, client)
    page.click("#tab-results")
    page.get_by_role("button", name="Sort by Viability").click()
    page.get_by_role("button", name="Sort by Viability").click()
    with Catalog.read_only(data_dir) as catalog:
        rows = [row.result for row in catalog.result_rows("P1")]
    known = sorted((row.v_control for row in rows if row.v_control is not None), reverse=True)
    place = 1 + texts(page, "#results th button").index("Viability, %")
    shown = texts(page, f"#results tbody tr > :nth-child({place})")
    assert shown == [f"{value:.1f}" for value in known] + ["—"] * (len(rows) - len(known))
    page.fill("#filter", "UNTREATED final")
    with page.expect_download() as saved:
        page.click("#csv")
    saved.value.save_as(data_dir / "saved.csv")
    with (data_dir / "saved.csv").open(newline="", encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert {row["role"] for row in told} == {"negative_control"}
    assert [float(row["v_control_percent"]) for row in told] == sorted(
        (float(row["v_control_percent"]) for row in told), reverse=True
    )


def test_an_exclusion_has_a_reason_and_is_undone(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    client, _, data_dir = served
    with beating(data_dir):
        visit(page, client)
        page.click("#well-B02")
        page.click("#exclude")
        page.click("#ask-yes")
        playwright.expect(page.locator("#ask-wrong")).to_have_text("A reason is needed")
        page.fill("#ask-text", "a <b>bubble</b>")
        page.click("#ask-yes")
        cell = page.locator("#well-B02")
        playwright.expect(cell).to_have_class(re.compile("excluded"))
        playwright.expect(page.locator("#well-flags")).to_contain_text("Excluded: a <b>bubble</b> (local)")
        page.get_by_role("button", name="Undo").click()
        playwright.expect(cell).not_to_have_class(re.compile("excluded"))
        playwright.expect(page.locator("#exclude")).to_be_visible()


# -- in another language


def bracketed(text: str) -> str:
    """A text of a language that is made up: each word in brackets, and what stands in braces as it is."""
    return re.sub(r"\{\w+\}|[^\W\d_]+", lambda found: found[0] if found[0][0] == "{" else f"[{found[0]}]", text)


# Every text that a person could read or hear, with the words in brackets and what is a name or holds a digit left out.
LEFT = """(known) => {
  const texts = [], walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  for (let at = walk.nextNode(); at; at = walk.nextNode()) {
    if (!at.parentElement.closest("script, style, noscript, footer > span")) texts.push(at.data);
  }
  for (const one of document.querySelectorAll("*")) {
    for (const name of ["title", "aria-label", "alt", "placeholder", "aria-valuetext"]) {
      texts.push(one.getAttribute(name) || "");
    }
  }
  const left = texts.flatMap((text) => text.replaceAll(/\\[[^\\]]*\\]/g, " ").split(/[\\s,;:()"'.…·\\/<>-]+/));
  return [...new Set(left)].filter((word) => /\\p{L}{2}/u.test(word) && !/\\d/.test(word) && !known.includes(word));
}"""
UNITS = ("µM", "µm", "µm³", "spheroidd", "REST", "UTC", "run")
WRITTEN = ("drug", "controls", "Bea", "bubble", "Ada", "mould", "the worker ended <b>three</b> times")  # by a person


def doubtful_plate(folder: Path) -> None:
    """A plate that is finished: wells whose images failed or are doubtful, one unlike the others, one left out."""
    fill_plate(folder)
    wells, live = plates.screen_plate("P1", 4, 6, {"drug": 1.0})
    left = sorted(live)[17:18] + sorted(live)[19:]
    plates.score(folder, wells, {well: live[well] for well in left}, control_um3=plates.FULL_UM3)
    for well in ("A04", "B03", "B04"):
        plates.store_images(folder, wells, plates.plan_of(StackKey("P1", WellId.parse(well))), 0.7)
    exclude_well(folder, "B04", "bubble", plate="P1", who="Bea")
    with Catalog.create_or_open(folder) as catalog, catalog.transaction():
        for well, flags in ((WellId(1, 2), ("no-cell", "too-dim")), (WellId(0, 3), ("drift", "shaded"))):
            trust = trust_of(flags)
            failed = trust is Trust.FAIL
            related = Related(WellStatus.FINAL, failed_reason(flags) if failed else None, None if failed else 80.0)
            related = replace(related, trust=trust, trust_flags=flags)
            catalog.update_related(StackKey("P1", well), plates.MODEL, related, "related to the plate's controls")
        now_s = time.time()
        catalog.set_run_state(RunState("1", 1, "idle", now_s, now_s, worker="scoring P1/D01/0 and 2 more"))


def told_of_it(folder: Path) -> list[str]:
    """What the daemon makes of that plate as texts alone: its verdict in the queue, answers to orders, an alarm."""
    with Catalog.create_or_open(folder) as catalog, catalog.transaction():
        queue, ada = PlateQueue(catalog), {"who": "Ada"}
        queue.add("P1", "Ada", 24)
        queue.started("P1")
        verdict = plate_ended(catalog, "P1", 0.0, 3600.0, "UTC")
        queue.ended("P1", verdict)
        given: list[orders.QueueOrder] = [orders.QueuePlate(**ada, plate=name, n_wells=1) for name in ("P2", "P3")]
        given += [orders.HoldPlate(**ada, plate="P2", held=held) for held in (True, False)]
        given += [orders.ArrangeQueue(**ada, plates=("P3", "P2")), orders.RemovePlate(**ada, plate="P3")]
        given += [orders.GoOn(**ada, goes_on=goes_on) for goes_on in (True, False)]
        said = [queue_orders.carry_out(order, catalog) for order in given]
        alarms = conditions(catalog, AlarmsConfig(), Situation(0.0, 10**12, acquiring=False)) or {}
        (alarm,) = (error for (code, _), error in alarms.items() if code is FaultCode.STACK_FAILED)
        catalog.raise_fault(FaultCode.STALLED, InstrumentError("no slice has come since 10:00:00 UTC", do=alarm.do))
    full = NoRoomError("the disk is full", where=str(folder), do="free some space; the run goes on by itself")
    ended = Ending.of(StackError("the acquisition ended without all of its slices"), StackKey("P1", WellId(0, 0)))
    more = (REFUSED.what, REFUSED.do, alarm.do, full.of_the_end().what, full.of_the_end().do, ended.what)
    return [verdict or "", *said, *more]


REFUSED = RefusedError("well D01 is imaged already, or under way", do="leave it out, or repeat it once it was imaged")


def test_a_second_language_leaves_no_word_of_the_first(page: "playwright.Page", tmp_path: Path) -> None:
    doubtful_plate(tmp_path)
    texts = told_of_it(tmp_path)
    file = tmp_path / "words.json"
    file.write_text(json.dumps({name: bracketed(text) for name, text in english().items()}), encoding="utf-8")
    known = [*UNITS, *(word for text in WRITTEN for word in re.findall(r"\w+", text))]
    with shown(page, tmp_path, http_words=file) as (client, main, _):
        main.refusal = REFUSED
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.wait_for_selector(".grid .well[data-state]")
        playwright.expect(page.locator("#state")).to_have_text("[idle]")
        left = {"plate": page.evaluate(LEFT, known)}
        for figure in ("volume", "layout", "state"):
            page.evaluate("(name) => document.querySelector(`input[value=${name}]`).click()", figure)
            left[figure] = page.evaluate(LEFT, known)
        for well in ("A04", "B03", "B04", "C05", "D01"):
            page.click(f"#well-{well}")
            playwright.expect(page.locator("#well-title")).to_have_text(re.compile(rf"{well}  \S"))
            page.wait_for_selector("#well-picture:not([hidden]), #well-none:not([hidden])")
            left[well] = page.evaluate(LEFT, known)
        views = {"curves": ".curve svg", "results": "#results td", "live": "#snap", "queue": "#queue-words"}
        for view, there in views.items():
            page.click(f"#tab-{view}")
            page.wait_for_selector(there, state="attached")
            left[view] = page.evaluate(LEFT, known)
        page.click("#queue-start")
        playwright.expect(page.locator(".note.bad")).to_contain_text("[well] D01 [is]")
        left["refused"] = page.evaluate(LEFT, known)
        translated = page.evaluate("(texts) => texts.map(told)", texts)
        by_hand = page.evaluate("(texts) => texts.map(told)", OF_PEOPLE)
    assert not any(left.values()), left
    words = {text: re.sub(r"\[[^\]]*\]", "", text) for text in translated}
    assert [text for text, rest in words.items() if set(re.findall(r"[A-Za-z]{2,}", rest)) - set(known)] == []
    assert tuple(by_hand) == OF_PEOPLE


OF_PEOPLE = ("mould", "it is mouldy: image it twice", "the lid was open, by accident", "3 drops of medium and a hair")


def test_a_wrong_token_is_told_so(page: "playwright.Page", data: Path) -> None:
    with shown(page, data, local_role="none") as (client, _, _):
        page.goto(f"http://127.0.0.1:{client.port}/")
        playwright.expect(page.locator("#ask-title")).to_have_text("A token is needed")
        page.fill("#ask-text", "wrong")
        page.click("#ask-yes")
        playwright.expect(page.locator("#ask-title")).to_have_text("That token is not valid")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    page: "playwright.Page", served: tuple[Client, Main, Path]
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, served[0])
    for view in ("curves", "results", "live", "queue", "plate"):
        page.click(f"#tab-{view}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
    page.locator("#well-B02").click()
    playwright.expect(page.locator("#well-title")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_red_light_alone_leaves_the_screen(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    visit(page, served[0])
    page.click("#well-B02")
    page.wait_for_selector("#well-picture:not([hidden])")
    page.select_option("#theme", "red")
    seen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert seen[..., 0].max() > 200
    assert seen[..., 1:].max() == 0
    page.click("text=Layout")
    assert page.locator('.grid .well[data-state="layout"][data-pattern="0"]').count() > 0  # those with the compound
    looks = page.evaluate(
        """() => [...Array(16).keys()].map((n) => {
          setPattern($("well-B02"), n);
          return getComputedStyle($("well-B02")).backgroundImage;
        })"""
    )
    assert len(set(looks)) == 16  # of compounds whose colours are one
    page.reload()
    page.wait_for_selector('html[data-theme="red"]')


PLAN = """[plate]
name = "P3"
[source]
kind = "emulator"
preset = "unit"
compounds = 1
doses = 1
[inference]
model = "threshold"
"""


def test_an_exposure_is_tried_out_before_a_run(page: "playwright.Page", data: Path) -> None:
    with shown(page, data) as (client, _, service):
        visit(page, client)
        page.click("#tab-live")
        playwright.expect(page.locator("#snap")).to_be_disabled()
        playwright.expect(page.locator("#snap-none")).to_have_text("The instrument belongs to the plate that is run.")
        assert client.post("/v1/plates", {"config_toml": PLAN}).status == 200
        with Catalog.create_or_open(data) as catalog:
            catalog.set_run_state(RunState("1", 1, "idle", time.time(), time.time()))
        service.live.allow()
        page.reload()
        page.locator("#plates").select_option("P3")
        page.fill("#snap-well", "A02")
        page.fill("#snap-exposure", "5000")
        page.click("#snap")
        page.wait_for_selector("#snap-picture:not([hidden])")
        playwright.expect(page.locator("#saturated")).to_contain_text("% of the pixels are saturated")
        playwright.expect(page.locator("#snap-facts")).to_contain_text("5000 ms")
        page.fill("#snap-exposure", "")
        page.get_by_role("button", name="+1", exact=True).click()
        playwright.expect(page.locator("#saturated")).to_have_text("No pixel is saturated")
        playwright.expect(page.locator("#histogram svg .bars")).to_be_visible()
        page.click("#sweep")
        playwright.expect(page.locator("#focus-curve svg circle").first).to_be_visible()
        assert violations(page) == []
        page.click("#into-plan")
        playwright.expect(page.locator("#notes")).to_contain_text("names no exposure_ms for channel 488")
        page.click("#live-on")
        playwright.expect(page.locator("#live-on")).to_have_attribute("aria-pressed", "true")
        assert service.live.forbid("a plate is run", WAIT_MS / 1000)
        playwright.expect(page.locator("#live-on")).to_have_attribute("aria-pressed", "false")
        playwright.expect(page.locator("#notes")).to_contain_text("a plate is run")


PLANS = {
    "[source.channels.488]\npreset = 1\nexposure_ms = 5\n": "[source.channels.488]\npreset = 1\nexposure_ms = 120\n",
    '[source.channels."488"]\nexposure_ms=5.5 # ms\n': '[source.channels."488"]\nexposure_ms=120 # ms\n',
    "488 = { preset = 'a', exposure_ms = 1e2 }": "488 = { preset = 'a', exposure_ms = 120 }",
    # of another channel
    "[source.channels.561]\nexposure_ms = 50\n[source.channels.488]\npreset = 'a'\n[other]\nexposure_ms = 1\n": None,
}


def test_the_plans_exposure_is_found_in_its_text(page: "playwright.Page", served: tuple[Client, Main, Path]) -> None:
    visit(page, served[0])
    found = page.evaluate("(plans) => plans.map((toml) => withExposure(toml, '488', '120'))", list(PLANS))
    assert dict(zip(PLANS, found, strict=True)) == PLANS


def test_plates_are_reordered_held_edited_and_removed(
    page: "playwright.Page", served: tuple[Client, Main, Path]
) -> None:
    client, main, data_dir = served
    with Catalog.create_or_open(data_dir) as catalog:
        queue = PlateQueue(catalog)
        for name in ("P1", "P2", "P3"):
            queue.add(name, "Ada", 24)
        queue.started("P1")
    config = "[plate]\nname = 'P3'\n[source]\nkind = 'push'\n"
    assert client.post("/v1/plates", {"config_toml": config, "plate_map_csv": "well,role\nA01,sample\n"}).status == 200
    main.orders.clear()
    visit(page, client)
    page.click("#tab-queue")
    names = page.locator("#queue .look")
    playwright.expect(names).to_have_text(["P1", "P2", "P3"])
    assert page.get_by_role("button", name="Remove P1").count() == 0
    page.get_by_role("button", name="Run P3 earlier").click()
    page.get_by_role("button", name="Hold P2").click()
    wait_until(lambda: len(main.orders) == 2)
    with Catalog.create_or_open(data_dir) as catalog:
        for order in main.orders:  # as main would carry them out
            queue_orders.carry_out(order, catalog)
    page.get_by_role("button", name="Edit P3").click()
    playwright.expect(page.locator("#edit-config")).to_have_value(config)
    page.fill("#edit-config", config + "patience_s = 5.0\n")
    page.click("#ask-yes")
    playwright.expect(page.locator("#notes")).to_contain_text("Plate P3 is submitted")
    playwright.expect(names).to_have_text(["P1", "P3", "P2"])
    playwright.expect(page.get_by_role("button", name="Release P2")).to_be_visible()
    page.get_by_role("button", name="Remove P2").click()
    page.click("#ask-yes")
    wait_until(lambda: len(main.orders) == 4)
    assert main.orders[0] == orders.ArrangeQueue(who="local", plates=("P3", "P2"))
    assert main.orders[3] == orders.RemovePlate(who="local", plate="P2")
    with Catalog.create_or_open(data_dir) as catalog:
        PlateQueue(catalog).ended("P1", "24 of 24 wells have a row; quality pass")
        catalog.set_run_state(RunState("1", 1, "idle", time.time(), time.time()))
    playwright.expect(page.locator(".note.stays")).to_contain_text("Plate P1 is finished: 24 of 24 wells have a row")
