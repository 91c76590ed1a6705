"""One ZIP file for whoever helps: what ran, how it is, what went wrong. No image, no secret and, unless asked, no name.

Each part is made on its own, and a part that cannot be made says why instead: a bundle is made when things are broken.
"""

import json
import os
import platform
import re
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.monitoring.log_reader import log_files
from spheroidd.protocols.durable import replacing
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StorageError
from spheroidd.protocols.json_text import parse_json

LOG_BYTES = 2_000_000  # of the newest lines
MAX_FAULTS = 1000
_SECRET = re.compile(r"secret|token|password|passphrase|api_?key|credential|^(url|to|sender|user|host)$", re.IGNORECASE)
_PLAIN = re.compile(r"_env$")  # the name of a variable, not what it holds
_LOGIN = re.compile(r"(?<=://)[^/\s@\"']+@")
_QUERY = re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']*")
_REMOVED = "(removed)"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the bundle: its name, what it holds, and its text."""

    name: str
    holds: str
    text: str


def write_bundle(
    data_dir: Path, out: Path, *, with_names: bool = False, config: Path | None = None
) -> tuple[Part, ...]:
    """Write the bundle; its parts, for a person to see what is in it.

    ConfigError where there is no such data directory, StorageError where `out` cannot be written.
    """
    if not data_dir.is_dir():
        raise ConfigError("there is no such directory", where=str(data_dir), do="give the directory of a run")
    hide = _Names({}) if with_names else _names(data_dir)
    parts = tuple(_made(data_dir, config, hide))
    index = "".join(f"{part.name:20} {part.holds}\n" for part in parts)
    about = f"spheroidd support bundle of {data_dir.absolute()}\n\n{index}\n{_promise(with_names)}\n"
    parts = (Part("README.txt", "this list", hide(about)), *parts)
    try:
        with replacing(out) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as bundle:
            for part in parts:
                bundle.writestr(part.name, part.text.encode("utf-8", "replace"))
    except OSError as error:
        do = "give -o a file where you may write, on a disk with space"
        raise StorageError(f"cannot be written: {error.strerror}", where=str(out), do=do) from error
    return parts


def _promise(with_names: bool) -> str:
    names = "patients by their names (--with-names)" if with_names else "patients as patient-1, patient-2, ..."
    return (
        f"In it: {names}; names of plates, wells and compounds; paths, and the name of this computer.\n"
        "Not in it: images, masks, viabilities; tokens, passwords, addresses of webhooks and mail."
    )


def _made(data_dir: Path, config: Path | None, hide: "_Names") -> list[Part]:
    makers: Sequence[tuple[str, str, Callable[[], str]]] = (
        ("versions.json", "program, Python, libraries, computer", _versions),
        ("config.json", "each plate's configuration, without secrets", lambda: _configs(data_dir)),
        ("status.json", "what `spheroidd status --json` says", lambda: _status(data_dir)),
        ("faults.json", "open and former faults", lambda: _faults(data_dir)),
        ("catalog.json", "schema and numbers of rows", lambda: _catalog(data_dir)),
        ("doctor.json", "what `spheroidd doctor` finds", lambda: _doctor(config)),
        ("files.txt", "names and sizes beside the images", lambda: _files(data_dir)),
        ("log.jsonl", "the newest lines of the log", lambda: _log(data_dir)),
    )
    return [Part(name, holds, _hidden(name, _cleaned(_said(make)), hide)) for name, holds, make in makers]


def _hidden(name: str, text: str, hide: "_Names") -> str:
    """A part without names. In JSON only texts can hold one: a patient called 7 is not every 7."""
    if name.endswith(".json"):
        return json.dumps(_texts(parse_json(text), hide), indent=1)
    if name.endswith(".jsonl"):
        return "".join(_hidden_line(line, hide) for line in text.splitlines(keepends=True))
    return hide(text)


def _hidden_line(line: str, hide: "_Names") -> str:
    try:
        return json.dumps(_texts(parse_json(line), hide)) + "\n"
    except ValueError:  # the first line may be half a one
        return hide(line)


def _texts(tree: Any, hide: "_Names") -> Any:
    if isinstance(tree, dict):
        return {hide(key): _texts(value, hide) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_texts(each, hide) for each in tree]
    return hide(tree) if isinstance(tree, str) else tree


def _said(make: Callable[[], str]) -> str:
    """A part, or why there is none."""
    try:
        return make()
    except SpheroiddError as error:
        return json.dumps({"not available": str(error)})
    except Exception as error:  # whatever is broken is what the bundle is made for
        return json.dumps({"not available": repr(error)})


def _cleaned(text: str) -> str:
    return _QUERY.sub(rf"\1?{_REMOVED}", _LOGIN.sub(f"{_REMOVED}@", text))


def _versions() -> str:
    names = sorted({re.split(r"[\s<>=!~;\[(]", line)[0] for line in requires("spheroidd") or ()})
    found = {name: _version(name) for name in ("spheroidd", *names)}
    memory = psutil.virtual_memory()
    machine = {
        "python": sys.version,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "memory_gb": round(memory.total / 1e9, 1),
        "memory_free_gb": round(memory.available / 1e9, 1),
        "made_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return json.dumps({"machine": machine, "packages": {name: v for name, v in found.items() if v}}, indent=1)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _configs(data_dir: Path) -> str:
    with Catalog.read_only(data_dir) as catalog:
        found = {plate: without_secrets(parse_json(catalog.plate_config(plate))) for plate in catalog.plates()}
    return json.dumps(found, indent=1)


def without_secrets(tree: Any) -> Any:
    """The same tree without what could be a secret or somebody's address. Names of environment variables stay."""
    if isinstance(tree, dict):
        return {key: _kept(str(key), value) for key, value in tree.items()}
    return [without_secrets(each) for each in tree] if isinstance(tree, list) else tree


def _kept(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float) or _PLAIN.search(key) or not _SECRET.search(key):
        return without_secrets(value)
    return f"{urlsplit(value).scheme}://{_REMOVED}" if isinstance(value, str) and "://" in value else _REMOVED


def _status(data_dir: Path) -> str:
    from spheroidd.daemon.monitoring.status import look, to_json

    with Catalog.read_only(data_dir) as catalog:
        found = parse_json(to_json(look(data_dir, catalog)))
    for well in found["failed"]:  # why they failed is of use, their numbers are not
        for name in [name for name in well if name.startswith(("v_", "live_", "dead_", "n_live", "n_dead"))]:
            del well[name]
    return json.dumps(found, indent=1)


def _faults(data_dir: Path) -> str:
    with Catalog.read_only(data_dir) as catalog:
        return json.dumps([asdict(fault) for fault in catalog.faults(open_only=False)[-MAX_FAULTS:]], indent=1)


def _catalog(data_dir: Path) -> str:
    from spheroidd.daemon.catalog.audit_trail import head
    from spheroidd.daemon.catalog.schema import MIGRATIONS

    with Catalog.read_only(data_dir) as catalog:
        found = catalog.query("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
        tables = [row["name"] for row in found if row["type"] == "table"]
        counts = {name: catalog.query(f'SELECT count(*) AS n FROM "{name}"')[0]["n"] for name in tables}
        states = catalog.query("SELECT plate, state, ended, count(*) AS n FROM stacks GROUP BY plate, state, ended")
        return json.dumps(
            {
                "schema_version": catalog.query("PRAGMA user_version")[0]["user_version"],
                "schema_of_this_program": len(MIGRATIONS),
                "rows": counts,
                "stacks": states,
                "audit_head": str(head(catalog)),
                "problems": catalog.verify(),
                "schema": {row["name"]: row["sql"] for row in found},
            },
            indent=1,
        )


def _doctor(config: Path | None) -> str:
    from spheroidd.daemon.monitoring import preflight as doctor

    return doctor.to_json(doctor.examine(config))


def _files(data_dir: Path) -> str:
    sizes = [(path.name + "/" * path.is_dir(), path.stat().st_size) for path in sorted(data_dir.iterdir())]
    free_gb = psutil.disk_usage(str(data_dir)).free / 1e9
    return "".join(f"{size:12} {name}\n" for name, size in sizes) + f"{free_gb:.1f} GB are free\n"


def _log(data_dir: Path) -> str:
    kept: list[str] = []
    left = LOG_BYTES
    for path in reversed(log_files(data_dir)):
        text = path.read_text(encoding="utf-8", errors="replace")[-left:]
        kept.insert(0, text)
        left -= len(text)
        if left <= 0:
            break
    return "".join(kept)


class _Names:
    """Puts pseudonyms in the place of names, wherever these stand as whole words."""

    def __init__(self, pseudonyms: dict[str, str]) -> None:
        self._pseudonyms = {_in_json(name): other for name, other in pseudonyms.items()} | pseudonyms
        longest_first = sorted(self._pseudonyms, key=len, reverse=True)
        alternatives = "|".join(re.escape(name) for name in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)") if alternatives else None

    def __call__(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(lambda found: self._pseudonyms[found[0]], text)


def _in_json(name: str) -> str:
    return json.dumps(name)[1:-1]


def _names(data_dir: Path) -> _Names:
    """Pseudonyms for all patients of the catalog. ConfigError where these cannot be read: then nothing is told."""
    if not (data_dir / CATALOG_NAME).is_file():
        return _Names({})
    try:
        with Catalog.read_only(data_dir) as catalog:
            return _Names({name: f"patient-{number}" for number, name in enumerate(_patients(catalog), start=1)})
    except SpheroiddError as error:
        what = f"the patients' names cannot be read, so they cannot be hidden: {error.what}"
        do = "give --with-names where the names may be seen"
        raise ConfigError(what, where=str(data_dir), do=do) from error


def _patients(catalog: CatalogReader) -> list[str]:
    rows = catalog.query("SELECT DISTINCT patient FROM wells WHERE patient IS NOT NULL AND patient <> '' ORDER BY 1")
    return [row["patient"] for row in rows]
