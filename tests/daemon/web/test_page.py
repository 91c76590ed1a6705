"""What the page asks for: the plate in colours, pictures, wells, metrics, health, and the files of the OME-Zarr."""

import gzip
import io
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from spheroidd.daemon.catalog.writer import Catalog, RunState, StackState
from spheroidd.daemon.report.heatmap import viridis
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.web import page
from spheroidd.daemon.web.live_images import LiveImages, paint
from spheroidd.daemon.web.page import SCRIPTS
from spheroidd.daemon.web.plate_view import plate_view, well_view
from spheroidd.daemon.web.plate_views import PlateViews
from spheroidd.daemon.web.words import FILE
from spheroidd.daemon.web.zarr_files import ZarrFiles
from spheroidd.protocols.errors import ConfigError, SpheroiddError
from spheroidd.protocols.focus import FocusFound, FocusStatus
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates
from tests.daemon.web.rig import Client, asked, said

N_ROWS, N_COLUMNS = 4, 6
IMAGED = WellId(1, 1)
"""The well that has pictures."""


def fill_plate(folder: Path) -> None:
    """A plate of which a part is scored; a well failed, one is being imaged, one was skipped, one has images."""
    wells, live = plates.screen_plate("P1", N_ROWS, N_COLUMNS, {"drug": 1.0})
    plates.register(folder, wells)
    ordered = sorted(live)
    plates.score(folder, wells, {well: live[well] for well in ordered[:16]})
    plates.end_stack(folder, "P1", ordered[16], StackEnd.FAILED, "the worker ended <b>three</b> times")
    plates.set_state(folder, "P1", ordered[17], StackState.ACQUIRING)
    plates.end_stack(folder, "P1", ordered[18], StackEnd.SKIPPED, "skipped by Ada: mould")
    plates.store_images(folder, wells, plates.plan_of(StackKey("P1", IMAGED)), 0.7)
    show_life(folder)
    (folder / "secret.txt").write_text("not for all")


def show_life(folder: Path) -> None:
    """What main writes down once a second, of that plate."""
    with Catalog.create_or_open(folder) as catalog:
        (well,) = (row.key.well for row in catalog.stacks("P1") if row.state is StackState.ACQUIRING)
        now_s = time.time()
        catalog.set_run_state(RunState("1", 1, "running", now_s, now_s, plate="P1", well=str(well)))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    fill_plate(folder)
    return folder


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[Client]:
    with asked(data_dir, http_viewers=["https://viewer.example/app/?source={url}"]) as (client, _, _):
        yield client


# -- the document


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        *((f"/{name}", "text/javascript") for name in SCRIPTS),
        ("/page.css", "text/css"),
        ("/favicon.svg", "image/svg+xml"),
    ],
)
def test_the_page_is_served_and_needs_nothing_from_elsewhere(client: Client, path: str, kind: str) -> None:
    answer = client.get(path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith(kind)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = answer.body.decode()
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(https?:)?//""", text) == []
    assert "innerHTML" not in text


def scripts(client: Client) -> str:
    return "\n".join(client.get(f"/{name}").body.decode() for name in SCRIPTS)


def words(client: Client) -> dict[str, str]:
    """The page's table of words, as its scripts read it."""
    found = re.search(r'<script type="application/json" id="words">(.*?)</script>', client.get("/").body.decode(), re.S)
    assert found is not None
    table: dict[str, str] = json.loads(found[1])
    return table


def test_every_element_that_the_scripts_name_is_there(client: Client) -> None:
    named = set(re.findall(r"""\$\(["']([\w-]+)["']\)""", scripts(client)))
    ids = re.findall(r'id="([\w-]+)"', client.get("/").body.decode())
    assert named - set(ids) == set()
    assert len(ids) == len(set(ids))  # of two that are called the same, scripts find the first


def test_all_words_of_the_page_stand_in_one_table_and_are_in_use(client: Client) -> None:
    template = (Path(page.__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    asked_for = set(re.findall(r"""say\(\s*"(\w+)\"""", scripts(client))) | set(re.findall(r"words\.(\w+)", template))
    asked_for |= {name for pair in re.findall(r"""\? "(\w+)" : "(\w+)"\)""", scripts(client)) for name in pair}
    own = json.loads((Path(page.__file__).parent / FILE).read_text(encoding="utf-8")).keys()
    made = {name for name in own if name.startswith(("daemon_", "state_", "role_", "theme_", "queue_", "who_"))}
    assert asked_for - words(client).keys() == set()
    assert own - asked_for - made == set()
    assert re.findall(r">[^<{]*[a-z]{3,}[^<{]*<", re.sub(r"\{[{%].*?[%}]\}|&nbsp;|spheroidd", "", template)) == []


def test_no_two_scripts_of_the_page_use_one_name(client: Client) -> None:
    """They share one scope, and the second of two equal names would keep its whole script from running."""
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", scripts(client), re.MULTILINE)
    assert len(names) > 100
    assert [name for name, n in Counter(names).items() if n > 1] == []


def test_the_page_itself_is_small(client: Client) -> None:
    paths = ["/", "/page.css", "/favicon.svg", *(f"/{name}" for name in SCRIPTS)]
    assert sum(len(client.get(path).body) for path in paths) <= 150_000


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/page/plate?plate=P1", "/page/results?plate=P1"])
def test_a_browser_gets_it_packed(client: Client, path: str) -> None:
    plain, packed = client.get(path), client.get(path, accept_encoding="gzip, br")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "accept-encoding"
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 2
    assert packed.headers.get("etag") == plain.headers.get("etag")


def test_a_picture_is_not_packed_again(client: Client) -> None:
    answer = client.get(f"/page/picture?plate=P1&well={IMAGED}", accept_encoding="gzip")
    assert (answer.status, answer.headers.get("content-encoding")) == (200, None)


# -- the plate


def test_the_page_has_a_word_and_a_look_for_every_state(client: Client) -> None:
    style = client.get("/page.css").body.decode()
    assert {name.removeprefix("state_") for name in words(client) if name.startswith("state_")} == set(WellStatus)
    red = re.search(r"([^}]*)\{ background: #c14a00", style)
    assert red is not None
    assert set(re.findall(r'data-state="(\w+)"', red[1])) == {state for state in WellStatus if state.went_wrong}


def test_the_plate_as_it_is_drawn(client: Client) -> None:
    found = client.get("/page/plate?plate=P1").json
    assert (found["rows"], found["columns"]) == (["A", "B", "C", "D"], N_COLUMNS)
    cells = {cell["well"]: cell for cell in found["wells"]}
    assert len(cells) == N_ROWS * N_COLUMNS
    states = [cell["state"] for cell in found["wells"]]
    assert (states.count("final"), states.count("failed"), states.count("acquiring")) == (16, 1, 1)
    assert cells["B02"]["viability"][0].isdecimal()
    assert re.fullmatch("#[0-9a-f]{6}", cells["B02"]["viability"][1])
    failed = next(cell for cell in found["wells"] if cell["state"] == "failed")
    assert failed["viability"] is None
    assert "<b>three</b>" in said(failed["words"][1])
    skipped = next(cell for cell in found["wells"] if cell["state"] == "skipped")
    assert (skipped["viability"], skipped["flagged"]) == (None, False)
    assert said(skipped["words"][-1]) == "skipped by Ada: mould"
    assert {cell["letter"] for cell in found["wells"]} == {"", "U", "K"}


def test_a_hundred_percent_and_more_have_colours_of_their_own(tmp_path: Path) -> None:
    wells, live = plates.screen_plate("P1", 2, 3, {"drug": 1.0}, noise=0.0)
    plates.register(tmp_path, wells)
    untreated = [entry.well for entry in wells if entry.treatment == plates.UNTREATED]
    plates.score(
        tmp_path, wells, {well: 1.5 * plates.FULL_UM3 if well not in untreated else live[well] for well in live}
    )
    with Catalog.read_only(tmp_path) as catalog:
        cells = {cell["well"]: cell["viability"] for cell in plate_view(catalog, "P1", None)["wells"]}
    colours = {figure: colour for figure, colour, _ in cells.values()}
    assert set(colours) == {"100", "150"}
    apart = [abs(int(colours["100"][n : n + 2], 16) - int(colours["150"][n : n + 2], 16)) for n in (1, 3, 5)]
    assert max(apart) > 60


def test_the_focus_map_is_drawn_from_the_lowest_well_to_the_highest(tmp_path: Path) -> None:
    wells, _ = plates.screen_plate("P1", 2, 6, {"drug": 1.0})
    plates.register(tmp_path, wells)
    first, second, third = [entry.well for entry in wells.imaged()][:3]
    with Catalog.create_or_open(tmp_path) as catalog:
        before = plate_view(catalog, "P1", None)
        catalog.expect(plates.plan_of(StackKey("P1", first, 1)))
        for well, stack, z_um in ((first, 0, 40.0), (first, 1, 99.0), (second, 0, 46.5), (third, 0, None)):
            status = FocusStatus.FOUND if z_um else FocusStatus.FAILED
            catalog.put_focus(
                FocusFound(StackKey("P1", well, stack), status, "488", 0.0, 0.0, z_um, z_um, None, False, ())
            )
        view = plate_view(catalog, "P1", None)
    assert before["focus_um"] is None
    assert not any("focus" in well for well in before["wells"])
    assert view["focus_um"] == [40.0, 46.5]
    drawn = {well["well"]: well["focus"] for well in view["wells"]}
    assert drawn[str(first)] == ["40.0", viridis(0.0), "#ffffff"]
    assert drawn[str(second)] == ["46.5", viridis(1.0), "#000000"]
    assert drawn[str(third)] is None


def test_what_fell_far_behind_is_marked_in_the_view(data_dir: Path) -> None:
    with Catalog.read_only(data_dir) as catalog:
        view = plate_view(catalog, "P1", PlateViews().quality(catalog, "P1"))
        none = plate_view(catalog, "P1", None)
    assert view["quality"]["verdict"]
    assert none["quality"] is None
    assert not any(cell["flagged"] for cell in none["wells"])


def test_a_view_is_made_anew_where_something_changed(tmp_path: Path) -> None:
    wells, live = plates.screen_plate("P1", 2, 3, {"drug": 1.0})
    plates.register(tmp_path, wells)
    views, well = PlateViews(lambda: 0.0), min(live)
    changes = [
        lambda: plates.set_state(tmp_path, "P1", well, StackState.ACQUIRING),
        lambda: plates.end_stack(tmp_path, "P1", well, StackEnd.SHORT, "spilt"),
        lambda: plates.end_stack(tmp_path, "P1", well, StackEnd.SKIPPED, "mould"),
        lambda: plates.score(tmp_path, wells, live),
    ]
    with Catalog.read_only(tmp_path) as catalog:
        seen = [views.of(catalog, "P1")]
        for change in changes:
            assert views.of(catalog, "P1")[1] is seen[-1][1]
            change()
            seen.append(views.of(catalog, "P1"))
    assert len({tag for tag, _ in seen}) == len(seen)
    assert len({view for _, view in seen}) == len(seen)


def test_a_plate_that_was_seen_is_not_sent_again(client: Client) -> None:
    first = client.get("/page/plate?plate=P1")
    again = client.get("/page/plate?plate=P1", if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def test_one_well(client: Client) -> None:
    found = client.get("/page/well?plate=P1&well=b2").json
    (stack,) = found["stacks"]
    assert (found["well"], found["state"], stack["n_z"]) == ("B02", "final", 8)
    assert dict(stack["figures"])["v_control"].endswith(" %")
    assert stack["history"][0]["status"] == "final"
    assert found["path"] == "P1.ome.zarr/B/02"


@pytest.mark.parametrize("outside", ["A99", "..", "P01", "%2e%2e%2fA01", ""])
def test_a_well_there_is_not(client: Client, outside: str) -> None:
    assert client.get(f"/page/well?plate=P1&well={outside}").status == 400
    assert client.get(f"/page/picture?plate=P1&well={outside}").status == 400


@pytest.mark.parametrize("path", ["/page/plate", "/page/plate?plate=P9", "/page/plate?plate=../x", "/page/picture?z=1"])
def test_what_is_missing_is_said(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status, answer.json["status"]) == (400, 400)
    assert answer.json["do"]


def test_a_plate_without_a_stack(tmp_path: Path) -> None:
    wells, _ = plates.screen_plate("P1", 2, 3, {"drug": 1.0})
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(wells, "{}")
        view = plate_view(catalog, "P1", None)
        assert {cell["state"] for cell in view["wells"]} == {"queued"}
        assert well_view(catalog, "P1", WellId(0, 0), None)["stacks"][0]["n_z"] == 0
        with pytest.raises(ConfigError, match="no well H12"):
            well_view(catalog, "P1", WellId(7, 11), None)


# -- pictures


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_a_picture_of_a_stored_stack(client: Client) -> None:
    answer = client.get("/page/picture?plate=P1&well=B02")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["x-stack"] == "P1/B02/0"
    assert pixels(answer.body).shape == (480, 480, 3)
    assert client.get("/page/picture?plate=P1&well=B02", if_none_match=answer.headers["etag"]).status == 304
    plain = client.get("/page/picture?plate=P1&well=B02&outlines=0")
    assert plain.body != answer.body
    slices = {client.get(f"/page/picture?plate=P1&well=B02&z={z}").body for z in range(8)}
    assert len(slices) == 8


def test_how_the_stripes_die_is_a_drawing(client: Client, data_dir: Path) -> None:
    """Of a stack that was made of raw frames; of another there is nothing to draw."""
    assert client.get("/page/stripes?plate=P1&well=B02").status == 204
    plates.store_stripes(data_dir, StackKey("P1", WellId(0, 0)))
    answer = client.get("/page/stripes?plate=P1&well=A01")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/svg+xml")
    drawn = ElementTree.fromstring(answer.body)
    reach = "SIM up to 3.0 µm, of 7.0"
    assert drawn.get("aria-label") == f"Stripes by depth. 488 nm: {reach}; 561 nm: {reach}"
    assert client.get("/page/stripes?plate=P1&well=A01", if_none_match=answer.headers["etag"]).status == 304


@pytest.mark.parametrize(
    ("query", "status"), [("z=8", 400), ("z=-1", 400), ("z=x", 400), ("stack=1", 400), ("stack=999999", 400)]
)
def test_a_slice_there_is_not(client: Client, query: str, status: int) -> None:
    assert client.get(f"/page/picture?plate=P1&well=B02&{query}").status == status


def test_a_stack_without_files_says_so(client: Client) -> None:
    answer = client.get("/page/picture?plate=P1&well=A01")
    assert (answer.status, answer.json["reason"]) == (503, "STORAGE_ERROR")


def test_the_growing_stack_is_read_block_by_block(tmp_path: Path) -> None:
    """As many slices are in the picture as were announced, and it only changes when there are more."""
    wells, _ = plates.screen_plate("P1", 2, 3, {"drug": 1.0})
    plan = plates.plan_of(StackKey("P1", WellId(0, 0)), n_z=16)
    plates.register(tmp_path, wells, plan=lambda key: plates.plan_of(key, n_z=16))
    plates.store_images(tmp_path, wells, plan, 0.5)
    images = LiveImages(tmp_path)
    with Catalog.create_or_open(tmp_path) as catalog:
        assert images.live(catalog) is None
        catalog.set_stack_state(plan.key, StackState.ACQUIRING)
        with catalog.transaction():
            catalog.connection.execute("UPDATE stacks SET opened_s = 1 WHERE well = 'A01'")
        assert images.live(catalog) is None
        seen = []
        for channel, start in (("488", 0), ("561", 0), ("488", 8), ("561", 8)):
            with catalog.transaction():
                columns = "(plate, well, stack, channel, z_start, z_stop)"
                values = ("P1", "A01", 0, channel, start, start + 8)
                catalog.connection.execute(f"INSERT INTO blocks {columns} VALUES (?, ?, ?, ?, ?, ?)", values)
            seen.append(images.live(catalog))
            assert images.live(catalog) is seen[-1]
    found = [picture for picture in seen if picture is not None]
    assert [picture.n_slices for picture in found] == [8, 16, 24, 32]
    assert len({picture.jpeg for picture in found}) == 4


def test_colours_and_outlines() -> None:
    plane = np.zeros((240, 240), np.uint16)
    plane[100:140, 100:140] = 1000
    limits = {"488": (0.0, 1000.0), "561": (0.0, 1000.0)}
    green = pixels(paint({"488": plane}, limits, {}))
    red, full, _ = green[240, 240].astype(int)
    assert full > 240 > red + 60
    both = pixels(paint({"488": plane, "561": plane}, limits, {}))
    assert both[240, 240].min() > 240
    mask = np.zeros((240, 240), bool)
    mask[60:180, 60:180] = True
    lined = pixels(paint({"488": plane}, limits, {"488": mask}))
    assert lined[122:358, 120:123].max() > 150
    assert lined[150, 150].max() < 60
    assert not pixels(paint({"488": plane * 0}, {"488": (0.0, 0.0)}, {})).any()


# -- metrics and health


def test_metrics_are_those_of_the_catalog(client: Client) -> None:
    answer = client.get("/metrics")
    assert answer.status == 200
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    samples = [sample for family in families.values() for sample in family.samples]
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert values["spheroidd_stacks", "P1", "scored"] == 16
    assert values["spheroidd_slices_acknowledged_total",] == 16 * 16
    assert values["spheroidd_stacks", "P1", "skipped"] == 1
    assert sum(n for (name, *_), n in values.items() if name == "spheroidd_wells") == 16
    assert values["spheroidd_slices_missing",] == 16  # of the failed stack; nobody misses those of the skipped one
    assert values["spheroidd_stage_seconds_count", "score"] == 16
    assert values["spheroidd_stage_seconds_bucket", "2.5", "score"] == 16
    assert values["spheroidd_stage_seconds_bucket", "1.0", "score"] == 0
    assert values["spheroidd_acknowledge_seconds_count",] == 16 * 16
    assert values["spheroidd_queue_depth", "stacks to score"] == 0


def test_health(tmp_path: Path) -> None:
    plates.register(tmp_path, plates.screen_plate("P1", 2, 3, {"drug": 1.0})[0])
    with asked(tmp_path, local_role="none") as (stopped, _, _):
        for state, age_s, health, ready in (
            ("running", 0.0, 200, 200),
            ("idle", 0.0, 200, 200),
            ("stopping", 0.0, 200, 503),
            ("running", 100.0, 503, 503),
        ):
            with Catalog.create_or_open(tmp_path) as catalog:
                catalog.set_run_state(RunState("1", 1, state, 0.0, time.time() - age_s))
            assert (stopped.get("/healthz").status, stopped.get("/readyz").status) == (health, ready), state


# -- who may see


PRIVATE = [
    "/page/me",
    "/page/plate?plate=P1",
    "/page/curves?plate=P1",
    "/page/results?plate=P1",
    "/page/well?plate=P1&well=A01",
    "/page/live",
    "/metrics",
]


def test_nothing_of_the_plate_is_shown_without_a_token(data_dir: Path) -> None:
    viewer = TokenFile(data_dir).create("v", Role.VIEWER, 600)
    with asked(data_dir, local_role="none") as (client, _, _):
        for path in [*PRIVATE, "/page/picture?plate=P1&well=B02", "/zarr/P1.ome.zarr/zarr.json"]:
            assert client.get(path).status == 401, path
            assert client.get(path, authorization=f"Bearer {viewer}").status in (200, 204), path
        assert client.get("/").status == 200
        found = client.get("/page/me", authorization=f"Bearer {viewer}").json
        assert (found["name"], found["role"]) == ("v", "viewer")


# -- the files


def test_the_zarr_is_served_with_ranges(client: Client, data_dir: Path) -> None:
    answer = client.get("/zarr/P1.ome.zarr/B/02/0/zarr.json")
    assert answer.json["node_type"] == "group"
    shard = "P1.ome.zarr/B/02/0/0/c/0/0/0/0"
    end = client.get(f"/zarr/{shard}", range="bytes=-16")
    assert (end.status, end.body) == (206, (data_dir / shard).read_bytes()[-16:])
    assert client.ask("HEAD", f"/zarr/{shard}").headers["content-length"] == str((data_dir / shard).stat().st_size)
    assert client.ask("PUT", f"/zarr/{shard}", b"x").status == 405


OUTSIDE = [
    "P1.ome.zarr/../secret.txt",
    "P1.ome.zarr/%2e%2e/secret.txt",
    "P1.ome.zarr/..%2fsecret.txt",
    "P1.ome.zarr/..%5csecret.txt",
    "P1.ome.zarr/B/02/0/../../../../secret.txt",
    "../secret.txt",
    "secret.txt",
    "catalog.sqlite",
    "P1.ome.zarr",
    "P1.ome.zarr/",
    "P1.ome.zarr//zarr.json",
    "P1.ome.zarr/B",
    "P1.ome.zarr/zarr.json%00",
    "P1.ome.zarr/zarr.json::$DATA",
    "P1.ome.zarr/%ff",
    "P1.ome.zarr/link/secret.txt",
    "/etc/passwd",
    "C:/P1.ome.zarr/zarr.json",
    "linked.ome.zarr/secret.txt",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_a_plate(client: Client, data_dir: Path, path: str) -> None:
    for link in (data_dir / "P1.ome.zarr" / "link", data_dir / "linked.ome.zarr"):
        if not link.is_symlink():
            try:
                link.symlink_to(data_dir, target_is_directory=True)
            except OSError:
                pytest.skip("this system makes no links")
    answer = client.get(f"/zarr/{path}")
    assert answer.status == 404
    assert b"not for all" not in answer.body


def test_the_plate_itself_may_not_lie_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(SpheroiddError, match="no such file"):
        ZarrFiles(tmp_path).find("P1.ome.zarr/zarr.json")


def test_a_viewer_that_is_named_may_read_images_and_nothing_else(client: Client) -> None:
    named = {"origin": "https://viewer.example", "sec_fetch_site": "cross-site"}
    answer = client.get("/zarr/P1.ome.zarr/zarr.json", **named)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://viewer.example")
    assert client.ask("OPTIONS", "/zarr/P1.ome.zarr/zarr.json", **named).status == 204
    assert client.get("/v1/status", **named).status == 403
    assert client.post("/v1/run:abort", **named).status == 403
    assert client.get("/zarr/P1.ome.zarr/zarr.json", origin="https://other.example").status == 403
