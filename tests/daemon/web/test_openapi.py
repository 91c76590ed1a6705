"""The OpenAPI document: made from the contract, valid, and kept by the service when wild requests come."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from spheroidd.daemon.web.openapi import openapi
from spheroidd.daemon.web.proto_comments import comments
from spheroidd.daemon.web.rest import SERVICE, routes
from tests.daemon.service.rig import fill
from tests.daemon.web.rig import Client, asked

if TYPE_CHECKING:
    import requests
    import schemathesis

DOCUMENT = openapi()
OPERATIONS = {
    operation["operationId"]: (verb.upper(), path, operation)
    for path, verbs in DOCUMENT["paths"].items()
    for verb, operation in verbs.items()
}
ASKED = settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
UNARY = [name for name in OPERATIONS if not name.startswith("Watch")]
STREAMS = [name for name in OPERATIONS if name.startswith("Watch")]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("data")
    fill(folder)
    with asked(folder) as (client, _, _):
        yield client


@pytest.fixture(scope="module")
def session() -> Iterator["requests.Session"]:
    """One for all requests: to make another for each takes an eighth of the time."""
    import requests

    with requests.Session() as session:
        yield session


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_it_is_valid_and_whole() -> None:
    import schemathesis

    schemathesis.openapi.from_dict(DOCUMENT).validate()
    names = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references(DOCUMENT)) <= names


def test_every_binding_has_its_operation() -> None:
    assert len(OPERATIONS) == len(routes())
    for route in routes():
        assert re.sub(r"By\w+$", "", DOCUMENT["paths"][route.template][route.verb.lower()]["operationId"]) == (
            route.method.name
        )


def test_it_says_what_the_contract_says() -> None:
    _, path, skip = OPERATIONS["SkipWell"]
    assert path == "/v1/run/wells/{well}:skip"
    assert "the one under way ends where it is" in skip["description"]
    assert "role operator" in skip["description"]
    assert "role viewer" in OPERATIONS["GetStatus"][2]["description"]
    fields = DOCUMENT["components"]["schemas"]["Status"]["properties"]
    assert fields["stack_slices_done"]["description"] == "of the stack under way"
    assert fields["sequence"]["type"] == "string"
    assert fields["wells"]["additionalProperties"]["type"] == "integer"
    assert fields["control"] == {"$ref": "#/components/schemas/Control"} | {
        "description": "who has reserved the controls; absent where nobody has. Without the lease itself."
    }


def test_comments_belong_to_what_they_stand_at() -> None:
    lines = [
        "// lost",
        "",
        "// -- section",
        "// A thing.",
        "message Thing {",
        "  // above",
        "  optional int32 n = 1;  // behind",
    ]
    assert comments([*lines, "  string other = 2;", "}"]) == {"Thing": "A thing.", "Thing.n": "above behind"}


def test_it_is_served(client: Client) -> None:
    answer = client.get("/openapi.json")
    assert (answer.status, answer.json) == (200, DOCUMENT)


@pytest.mark.parametrize("name", UNARY)
def test_wild_requests_are_answered_as_it_says(client: Client, session: "requests.Session", name: str) -> None:
    import schemathesis
    from schemathesis.specs.openapi import checks

    kept = [
        schemathesis.checks.not_a_server_error,
        checks.response_schema_conformance,
        checks.content_type_conformance,
        checks.status_code_conformance,
    ]
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    verb, path, operation = OPERATIONS[name]
    modes = schemathesis.GenerationMode
    takes_anything = bool(operation["parameters"]) or "requestBody" in operation
    answered: list[int] = []

    for mode in (modes.POSITIVE, modes.NEGATIVE) if takes_anything else (modes.POSITIVE,):

        @ASKED
        @given(case=schema[path][verb].as_strategy(generation_mode=mode))
        def ask(case: "schemathesis.Case") -> None:
            url = f"http://127.0.0.1:{client.port}"
            answer = case.call_and_validate(base_url=url, session=session, checks=kept)
            answered.append(answer.status_code)

        ask()
    assert answered, "nothing was asked"
    assert max(answered) < 500


def test_the_streams_are_there_too() -> None:
    streams = {method.name for method in SERVICE.methods if method.server_streaming} - {"PushSlices"}
    assert streams == {"WatchStatus", "WatchResults"}
    for name in streams:
        content = OPERATIONS[name][2]["responses"]["200"]["content"]
        assert list(content) == ["text/event-stream"]


def test_every_operation_is_asked_here() -> None:
    assert {*UNARY, *STREAMS} == set(OPERATIONS)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_begins_or_is_refused_as_it_says(client: Client, name: str) -> None:
    """The head of the answer is what counts: a stream of events has no end to wait for."""
    import requests
    import schemathesis

    schema = schemathesis.openapi.from_dict(DOCUMENT)
    verb, path, operation = OPERATIONS[name]
    codes: set[int] = set()
    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

        @ASKED
        @given(case=schema[path][verb].as_strategy(generation_mode=mode))
        def ask(case: "schemathesis.Case") -> None:
            said = case.as_transport_kwargs(base_url=f"http://127.0.0.1:{client.port}")
            with requests.request(**said, stream=True, timeout=20) as answer:
                told = operation["responses"].get(str(answer.status_code), operation["responses"].get("default"))
                assert told is not None, f"{answer.status_code} is not in the document"
                kind = answer.headers["content-type"].partition(";")[0]
                assert kind in told["content"], f"{kind} with {answer.status_code}"
                codes.add(answer.status_code)

        ask()
    assert 200 in codes
    assert max(codes) < 500
