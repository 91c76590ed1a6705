"""A page beside a service, asked over a real socket with a plain client: what tests of the page and of REST share."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.service.server import Service
from spheroidd.daemon.web.server import WebServer
from spheroidd.protocols.phrase import phrase
from tests.daemon.service.rig import Main, running

CALL_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks one page. What is given as a path is sent as it is: nothing is cleaned up on the way."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_S)

    def ask(self, verb: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request; `body` is sent as JSON, `last_event_id` is the header Last-Event-ID."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            given = {"content-type": "application/json", **given}
        connection = self.connect()
        try:
            connection.request(verb, path, data, given)
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: object = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)


def said(text: Any) -> str:
    """What the page was given to say, in English: the text of somebody, or a code with its values."""
    if isinstance(text, str):
        return text
    code, *values = text
    return phrase(code, **{name: said(value) for name, value in (values[0] if values else {}).items()})


@contextmanager
def asked(data_dir: Path, **settings: object) -> Iterator[tuple[Client, Main, Service]]:
    """A client, the stand-in for main that answers its orders, and the service."""
    settings = {"http_address": "127.0.0.1:0", **settings}
    with running(data_dir, **settings) as (service, main):
        config = ServiceConfig.model_validate(settings)
        with WebServer(service, data_dir, config) as web:
            yield Client(web.port), main, service
