"""REST: the contract's own paths, JSON and refusals, over a real socket."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.pipeline import orders
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.service.tokens import Role, TokenFile
from spheroidd.daemon.web.rest import SERVICE, event_id, is_stream, request_message, resume, routes
from spheroidd.protocols import errors
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, ModelError, StackError, StorageError
from spheroidd.protocols.well import WellId
from tests.daemon.service.rig import MODEL, Main, beat, fill, many_changes
from tests.daemon.web.rig import Client, asked

PROBLEM = "application/problem+json"
Asked = tuple[Client, Main, Service]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    fill(folder)
    return folder


@pytest.fixture(scope="module")
def served(data_dir: Path) -> Iterator[Asked]:
    with asked(data_dir) as found:
        yield found


@pytest.fixture
def client(served: Asked) -> Client:
    return served[0]


@pytest.fixture
def main(served: Asked) -> Iterator[Main]:
    served[1].orders.clear()
    yield served[1]
    served[1].refusal = None


def events(connection: http.client.HTTPConnection, path: str, n: int, **headers: str) -> list[dict[str, str]]:
    """The first events of a stream."""
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")
    found: list[dict[str, str]] = []
    event: dict[str, str] = {}
    while len(found) < n:
        line = answer.readline().decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if not line and "data" in event:
            found.append(event)
        event = {} if not line else event | {name: value}
    return found


# -- paths and JSON


def test_every_method_but_the_pushing_one_can_be_asked() -> None:
    assert {method.name for method in SERVICE.methods} - {route.method.name for route in routes()} == {"PushSlices"}


def test_the_status_is_the_catalogs(client: Client, data_dir: Path) -> None:
    found = client.get("/v1/status").json
    assert (found["state"], found["plate"], found["data_dir"]) == ("running", "P1", str(data_dir))
    assert found["slices_done"] == "0"


@pytest.mark.parametrize("path", ["/v1/results?plate=P1", "/v1/plates/P1/results", "/v1/plates/%501/results"])
def test_a_viability_of_zero_is_a_zero_and_an_unknown_one_is_absent(client: Client, path: str) -> None:
    scored, waiting = client.get(path).json["results"]
    assert (scored["v_count"], scored["live_um3"], scored["model_sha256"]) == (0.0, 0.0, MODEL)
    assert waiting["dose_um"] == 0.0
    assert "v_count" not in waiting


@pytest.mark.parametrize(
    ("path", "body", "order"),
    [
        ("/v1/run:pause", None, orders.Pause(who="local")),
        ("/v1/run:pause", {"when": "PAUSE_WHEN_AFTER_WELL"}, orders.Pause(who="local", after_well=True)),
        ("/v1/run:abort", {"plate": "P1", "reason": "spilt"}, orders.Abort(who="local", plate="P1", reason="spilt")),
        ("/v1/run/wells/b3:skip", {"reason": "ü"}, orders.SkipWell(who="local", well=WellId(1, 2), reason="ü")),
        ("/v1/run/wells/A01:repeat", {"well": "A01"}, orders.RepeatWell(who="local", well=WellId(0, 0))),
        ("/v1/run/wells:reorder", {"wells": ["b3"]}, orders.ReorderWells(who="local", wells=(WellId(1, 2),))),
        ("/v1/plates/P1:rescore", {"wells": ["A01"]}, orders.Rescore(who="local", plate="P1", wells=(WellId(0, 0),))),
    ],
)
def test_an_order_reaches_main(client: Client, main: Main, path: str, body: object, order: orders.Order) -> None:
    answer = client.post(path, body)
    assert answer.json == {"done": "it is done", "state": "paused"}
    assert main.orders == [order]


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/", None, 404),
        ("PATCH", "/v1/status", None, 405),
        ("GET", "/v1/run:pause", None, 405),
        ("GET", "/v1/results?plate=P9", None, 400),
        ("GET", "/v1/results?plate=..", None, 400),
        ("GET", "/v1/plates/%2e%2e/results", None, 400),
        ("GET", "/v1/plates/%ff/results", None, 400),
        ("GET", "/v1/results?plat=P1", None, 400),
        ("GET", "/v1/results?plate=P1&plate=P2", None, 400),
        ("GET", "/v1/plates/P1/wells/A01/stacks/9e9/progress", None, 400),
        ("GET", "/v1/status:watch?period_s=Infinity", None, 400),
        ("GET", "/v1/status:watch?period_s=NaN", None, 400),
        ("GET", "/v1/status:watch?period_s=1e300", None, 400),
        ("GET", "/v1/results:watch?after_sequence=18446744073709551615", None, 400),
        ("POST", "/v1/control:take", {"duration_s": "Infinity"}, 400),
        ("GET", "/v1/plates/P1/wells/A01/stacks/99999999999999/progress", None, 400),
        ("POST", "/v1/run/wells/..:skip", None, 400),
        ("POST", "/v1/run/wells/..%2f..%2fetc:skip", None, 400),
        ("POST", "/v1/run/wells/A01:skip", {"well": "B02"}, 400),
        ("POST", "/v1/run:pause?when=PAUSE_WHEN_NOW", None, 400),
        ("POST", "/v1/run:pause", {"when": "soon"}, 400),
        ("POST", "/v1/run:pause", {"wen": 1}, 400),
        ("POST", "/v1/run:pause", [], 400),
        ("POST", "/v1/run:pause", b"{", 400),
        ("POST", "/v1/run:pause", b'{"plate": "\\ud800"}', 400),
        ("POST", "/v1/run:pause", b'{"plate": "P1", "plate": "P2"}', 400),
        ("POST", "/v1/control:take", b'{"duration_s": NaN}', 400),
        ("POST", "/v1/run:pause", b"[" * 100_000, 400),
        ("POST", "/v1/run:pause", b" " * (5 << 20), 413),
    ],
)
def test_what_cannot_be_is_a_problem_with_what_to_do(
    client: Client, main: Main, verb: str, path: str, body: object, status: int
) -> None:
    answer = client.ask(verb, path, body)
    assert (answer.status, answer.headers["content-type"]) == (status, PROBLEM)
    found = answer.json
    assert found["status"] == status
    assert found["title"]
    assert found["do"]
    assert found["detail"].endswith(found["do"])
    assert main.orders == []
    if status == 405:
        assert answer.headers["allow"]


def test_a_body_that_a_form_could_send_is_refused(client: Client, main: Main) -> None:
    answer = client.post("/v1/run:pause", b"{}", content_type="text/plain")
    assert (answer.status, main.orders) == (415, [])


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (errors.RefusedError("no", do="wait"), 409),
        (errors.BusyError("no", do="wait"), 429),
        (errors.MissingError("no", do="wait"), 404),
        (StorageError("full", do="make room"), 503),
        (ModelError("no", do="wait"), 409),
        (StackError("no", do="wait"), 409),
        (ConfigError("no", where="here", do="wait"), 400),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_main_refuses_keeps_its_words(client: Client, main: Main, refusal: ConfigError, status: int) -> None:
    main.refusal = refusal
    answer = client.post("/v1/run:resume")
    assert (answer.status, answer.json["title"], answer.json["do"]) == (status, refusal.what, refusal.do)
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_an_order_that_is_not_taken_in_time_is_withdrawn(client: Client, main: Main) -> None:
    with main.busy():
        answer = client.post("/v1/run:pause", prefer="wait=1")
    assert answer.status == 504
    assert client.post("/v1/run:resume").status == 200
    assert main.orders == [orders.Resume(who="local")]


# -- who may


FOREIGN = [
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "https://127.0.0.1"}, 403),
    ({"origin": "http://127.0.0.1:1"}, 403),
    ({"sec_fetch_site": "cross-site"}, 403),
    ({"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"}, 403),
    ({"host": "evil.example"}, 421),
    ({"host": "127.0.0.1.evil.example:80"}, 421),
    ({"host": ""}, 421),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN, ids=str)
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_another_site_is_refused(client: Client, main: Main, headers: dict[str, str], status: int, verb: str) -> None:
    path = "/v1/status" if verb == "GET" else "/v1/run:abort"
    answer = client.ask(verb, path, **headers)
    assert (answer.status, answer.headers["content-type"]) == (status, PROBLEM)
    assert main.orders == []
    assert "access-control-allow-origin" not in answer.headers


def test_the_page_itself_may(client: Client, main: Main) -> None:
    own = {"origin": f"http://localhost:{client.port}", "host": f"localhost:{client.port}"}
    assert client.post("/v1/run:pause", **own, sec_fetch_site="same-origin").status == 200
    assert client.get("/v1/status", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200


def test_roles(tmp_path: Path) -> None:
    fill(tmp_path)
    now_s = [1e9]
    tokens = TokenFile(tmp_path, now=lambda: now_s[0])
    expired = tokens.create("old", Role.ADMIN, 60)
    now_s[0] = 4e9
    viewer, operator = tokens.create("v", Role.VIEWER, 60), tokens.create("o", Role.OPERATOR, 60)
    with asked(tmp_path, local_role="none") as (client, main, _):

        def ask(verb: str, path: str, token: str | None) -> int:
            return client.ask(verb, path, **({"authorization": f"Bearer {token}"} if token else {})).status

        assert ask("GET", "/v1/status", None) == 401
        assert ask("GET", "/v1/status", expired) == 401
        assert ask("GET", "/v1/status", "sph_nobody_nothing") == 401
        assert client.get("/v1/status").headers["www-authenticate"].startswith("Bearer")
        assert ask("GET", "/v1/status", viewer) == 200
        assert ask("POST", "/v1/run:pause", viewer) == 403
        assert main.orders == []
        assert ask("POST", "/v1/run:pause", operator) == 200
        assert main.orders == [orders.Pause(who="o")]


# -- streams


def test_a_watcher_that_comes_back_misses_nothing(client: Client, data_dir: Path) -> None:
    connection = client.connect()
    first, second = events(connection, "/v1/results:watch?after_sequence=0", 2)
    connection.close()
    assert (first["event"], first["id"]) == ("ResultChange", "1")
    assert json.loads(second["data"])["result"]["n_dead"] == "5"
    many_changes(data_dir, 3)
    connection = client.connect()
    later = events(connection, "/v1/results:watch", 4, last_event_id="1")
    connection.close()
    assert [event["id"] for event in later] == ["2", "3", "4", "5"]


def test_the_status_goes_on_after_the_one_last_seen(client: Client, data_dir: Path) -> None:
    connection = client.connect()
    (first,) = events(connection, "/v1/status:watch", 1)
    connection.close()
    connection = client.connect()
    with Catalog.create_or_open(data_dir) as catalog:
        beat(catalog, 41)
    (later,) = events(connection, "/v1/status:watch", 1, last_event_id=first["id"])
    connection.close()
    assert later["id"] != first["id"]
    assert int(json.loads(later["data"])["sequence"]) > int(json.loads(first["data"])["sequence"])


def test_a_stream_that_is_refused_says_so_as_any_call(client: Client) -> None:
    for path, headers in (("/v1/status:watch?period_s=x", {}), ("/v1/results:watch", {"last_event_id": "x"})):
        answer = client.get(path, **headers)
        assert (answer.status, answer.headers["content-type"]) == (400, PROBLEM)


def test_resume_of_another_daemons_stream_begins_anew() -> None:
    route = next(route for route in routes() if route.method.name == "WatchStatus")
    request = request_message(route, {}, [])
    resume(request, "ab:12")
    assert request == wire.WatchStatusRequest(instance="ab", after_sequence=12)
    assert event_id(wire.Status(instance="ab", sequence=12)) == "ab:12"
    assert is_stream(route.method)


def test_viewers_that_go_away_are_forgotten(client: Client, served: Asked) -> None:
    """More come and go, one after another, than may watch at once."""
    for _ in range(70):
        connection = client.connect()
        assert len(events(connection, "/v1/status:watch", 1)) == 1
        connection.close()
