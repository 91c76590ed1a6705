"""Neuroglancer on this computer: the built client that its Python package ships, from a folder beside the project.

python -m pip install --no-deps --target FOLDER neuroglancer
SPHEROIDD_NEUROGLANCER=FOLDER python -m pytest tests/daemon/web/test_viewers.py
"""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = os.environ.get("SPHEROIDD_NEUROGLANCER")
CLIENT = Path(FOLDER) / "neuroglancer" / "static" / "client" if FOLDER else None
INSTALLED = CLIENT is not None and (CLIENT / "index.html").is_file()
PREFIX = "/v/here/"  # the client takes a session's name from its address
WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
_DRAWN = """() => {
  const found = window.viewer && viewer.layerManager.managedLayers;
  return Boolean(found) && found.length > 0 && found.every((one) => one.isReady()) && viewer.isReady();
}"""


class _Files(http.server.SimpleHTTPRequestHandler):
    """The client's files; its Python side, which it would like to hear, is silent."""

    def do_GET(self) -> None:
        if self.path.startswith("/events/"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.server.over.wait(60)  # type: ignore[attr-defined]
        else:
            super().do_GET()

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace(PREFIX, "/", 1))

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def local_neuroglancer() -> Iterator[str]:
    """The address under which it is served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(CLIENT))) as server:
        server.over = threading.Event()  # type: ignore[attr-defined]
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        finally:
            server.over.set()  # type: ignore[attr-defined]
            server.shutdown()
            serving.join()


def open_link(page: "Page", link: str, wait_ms: int) -> None:
    """Open what the page links to, and wait until every chunk that is seen has arrived and is drawn."""
    page.goto(link)
    page.wait_for_function(_DRAWN, timeout=wait_ms)
    page.wait_for_timeout(500)
