"""Where the page of a running daemon is: a small file in its data directory. Needs no web server to be read."""

import contextlib
import json
from pathlib import Path

from spheroidd.protocols.durable import write_atomically

PAGE_NAME = "page.json"


def write_page(data_dir: Path, url: str) -> None:
    """Say where the page is."""
    write_atomically(data_dir / PAGE_NAME, json.dumps({"url": url}).encode())


def remove_page(data_dir: Path) -> None:
    """The page is gone."""
    with contextlib.suppress(OSError):  # it says nothing that the daemon's lock does not say better
        (data_dir / PAGE_NAME).unlink()


def read_page(data_dir: Path) -> str | None:
    """Where the page is, or was when its daemon was killed; None where there is none."""
    try:
        url = json.loads((data_dir / PAGE_NAME).read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else None
