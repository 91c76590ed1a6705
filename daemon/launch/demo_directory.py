"""The directory that a demonstration writes to: its mark, and what may be deleted of it.

`spheroidd demo` starts anew where an earlier demonstration stands, and deletes nothing else: not a catalog without the
demonstration's mark (an event at the start of its audit trail), not one that another plate was run in since, and no
file that a demonstration does not write.
"""

import shutil
from pathlib import Path

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.connection import CATALOG_NAME, holds_catalog
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.monitoring.event_log import FOLDER as LOGS_NAME
from spheroidd.daemon.monitoring.outage_note import NAME as OUTAGE_NAME
from spheroidd.daemon.service.tokens import TOKENS_NAME
from spheroidd.daemon.system.address_files import ADDRESS_NAME, PAGE_NAME
from spheroidd.daemon.system.lock import LOCK_NAME, PID_NAME, acquire_lock
from spheroidd.daemon.verification.scrub_state import NAME as SCRUB_NAME
from spheroidd.daemon.verification.verifier import STATE_NAME as VERIFY_NAME
from spheroidd.protocols.errors import ConfigError, StorageError

PLATE = "demo"
REPORT_NAME = "report.html"
_FILES = {
    *(CATALOG_NAME + end for end in ("", "-wal", "-shm")),
    *(OUTAGE_NAME, REPORT_NAME, LOCK_NAME, PID_NAME, ADDRESS_NAME, PAGE_NAME, TOKENS_NAME, SCRUB_NAME, VERIFY_NAME),
}
_FOLDERS = {f"{PLATE}.ome.zarr", f"{PLATE}.raw.zarr", LOGS_NAME}
_ELSEWHERE = "name a new directory"


def mark(data_dir: Path) -> None:
    """Make a catalog and say in its trail that it is a demonstration's; again is harmless.

    ConfigError where the directory holds anything else than a demonstration, or nothing.
    """
    if _there(data_dir):
        check(data_dir)
        if not _begun(data_dir):
            return
    with Catalog.create_or_open(data_dir) as catalog:
        catalog.append_event(Action.DEMO_STARTED, new={"plate": PLATE})


def holds_demonstration(data_dir: Path) -> bool:
    """Whether there is one to go on with or to replace; ConfigError where something else is there."""
    if not _there(data_dir):
        return False
    check(data_dir)
    return True


def _there(data_dir: Path) -> list[Path]:
    if not data_dir.exists():
        return []
    if not data_dir.is_dir():
        raise ConfigError("a file is there", where=str(data_dir), do=_ELSEWHERE)
    return [path for path in data_dir.iterdir() if path.name not in (LOCK_NAME, PID_NAME)]


def check(data_dir: Path) -> None:
    """ConfigError where the directory is not a demonstration's, or holds more than one writes."""
    where = str(data_dir)
    if not (data_dir / CATALOG_NAME).is_file():
        raise ConfigError("something else than a demonstration is there", where=where, do=_ELSEWHERE)
    if _begun(data_dir):
        marked, plates = True, []
    else:
        with CatalogReader.read_only(data_dir) as catalog:
            plates = catalog.plates()
            marked = any(event.action == Action.DEMO_STARTED for event in events(catalog))
    others = [plate for plate in plates if plate != PLATE]
    if not marked or others:
        listed = ", ".join((others or plates)[:5]) or "none"
        what = f"its catalog is not a demonstration's alone (plates: {listed})"
        raise ConfigError(what, where=where, do=f"{_ELSEWHERE}: what is there is kept")
    strange = sorted(path.name for path in data_dir.iterdir() if not _is_ours(path))
    if strange:
        what = f"it holds {', '.join(strange[:5])} beside a demonstration"
        raise ConfigError(what, where=where, do=f"move that away, or {_ELSEWHERE}")


def _begun(data_dir: Path) -> bool:
    """Whether the catalog is one that was being made when something came between: nothing was ever done with it."""
    if not (data_dir / CATALOG_NAME).is_file():
        return False
    if not holds_catalog(data_dir):
        return True
    with CatalogReader.read_only(data_dir) as catalog:
        return not catalog.plates() and all(event.action == Action.TRAIL_STARTED for event in events(catalog))


def _is_ours(path: Path) -> bool:
    if path.is_symlink():
        return False
    return path.name in (_FOLDERS if path.is_dir() else _FILES)


def clear(data_dir: Path) -> None:
    """Delete a demonstration, and nothing else; ConfigError where it is none or a daemon runs on it."""
    with acquire_lock(data_dir):
        check(data_dir)
        try:
            for path in sorted(data_dir.iterdir(), key=lambda path: path.name == CATALOG_NAME):
                if path.name in (LOCK_NAME, PID_NAME):
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            do = "close what has it open, or name a new directory"
            raise StorageError(f"cannot delete the old demonstration: {error}", where=str(data_dir), do=do) from error
