"""Where a running daemon and its page can be reached: two small files in its data directory.

To read them takes neither gRPC nor a web server.
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.json_text import parse_json

ADDRESS_NAME = "service.json"


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """`certificate`: the PEM that the server shows, where it uses TLS; `name`: the name in it, where not the host's."""

    address: str
    pid: int
    certificate: str | None = None
    name: str | None = None


def write_address(data_dir: Path, address: ServiceAddress) -> None:
    """Say where the service is. A reader sees all of it, or nothing."""
    write_atomically(data_dir / ADDRESS_NAME, json.dumps(asdict(address)).encode())


def remove_address(data_dir: Path) -> None:
    """The service is gone."""
    with contextlib.suppress(OSError):  # it says nothing that the daemon's lock does not say better
        (data_dir / ADDRESS_NAME).unlink()


def read_address(data_dir: Path) -> ServiceAddress | None:
    """Where the service is, or was when its daemon was killed; None where there is none."""
    try:
        return ServiceAddress(**parse_json((data_dir / ADDRESS_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


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
        url = parse_json((data_dir / PAGE_NAME).read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else None
