"""A moment of a backup as a data directory: each file by its digest, then the whole as `spheroidd verify` checks it."""

import contextlib
import platform
import secrets
import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.daemon.backup.backup import DATA, REPLACED
from spheroidd.daemon.backup.copying import checked_copy
from spheroidd.daemon.backup.index import BackupIndex, Moment
from spheroidd.daemon.catalog.audit_chain import Action, utc
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.verification.findings import DAMAGED, Report
from spheroidd.daemon.verification.last_verified import MOST_TOLD, not_to_be_written
from spheroidd.daemon.verification.verifier import verify
from spheroidd.protocols.durable import PARTIAL, replace_path
from spheroidd.protocols.errors import ConfigError, SpheroiddError


@dataclass(frozen=True, slots=True)
class Restored:
    """What was brought back, which files the backup has no longer got, and what the verification found."""

    moment: Moment
    files: int
    file_bytes: int
    damaged: tuple[str, ...]
    report: Report
    unrecorded: str = ""  # why it does not stand in the audit trail; "" where it does

    @property
    def exit_code(self) -> int:
        """That of `spheroidd verify`; 3 where the backup itself was damaged."""
        return DAMAGED if self.damaged else self.report.exit_code


def choose_moment(index: BackupIndex, at: str | None) -> Moment:
    """The newest moment, or the newest one that is not after `at`: its number, or an ISO 8601 time (local without a
    zone). ConfigError where there is none.
    """
    moments = index.moments()
    where = str(index.path.parent)
    if not moments:
        raise ConfigError("no backup was ever finished here", where=where, do="let `spheroidd backup` end once")
    if at is None:
        return moments[-1]
    if at.isascii() and at.isdecimal() and len(at) < 10:
        chosen = [moment for moment in moments if moment.number == int(at)]
    else:
        try:
            until_s = datetime.fromisoformat(at).timestamp()
        except (ValueError, OverflowError, OSError):
            do = "write a moment's number, or a time such as 2026-03-01T12:00"
            raise ConfigError(f"{at!r} is no time", where="--at", do=do) from None
        chosen = [moment for moment in moments if moment.at_s <= until_s]
    if not chosen:
        raise ConfigError(f"there is no moment {at}", where=where, do="see `spheroidd restore --list`")
    return chosen[-1]


def restore(folder: Path, data_dir: Path, at: str | None = None) -> Restored:
    """Write a moment to `data_dir`, which must be empty or not there; it gets its name when all is there.

    ConfigError where something is there already; StorageError where the disk refuses.
    """
    _refuse_what_is_there(data_dir)
    with BackupIndex(folder) as index:
        moment = choose_moment(index, at)
        files = index.files(moment.number)
    partial = data_dir.with_name(f"{data_dir.name}.{secrets.token_hex(4)}{PARTIAL}")
    damaged = []
    try:
        with storage_errors(partial):
            partial.mkdir(parents=True)
        for path, held in sorted(files.items()):
            places = (folder / REPLACED / held.digest, folder / DATA / path)
            if not any(checked_copy(place, partial / path, held) for place in places):
                damaged.append(path)
        with storage_errors(data_dir):
            with contextlib.suppress(FileNotFoundError):
                data_dir.rmdir()  # it was empty, and is refused where it no longer is
            replace_path(partial, data_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    n_bytes = sum(held.size for held in files.values())
    done = Restored(moment, len(files) - len(damaged), n_bytes, tuple(damaged), verify(data_dir))
    return replace(done, unrecorded=_record(data_dir, folder, done))


def _record(data_dir: Path, folder: Path, done: Restored) -> str:
    """Enter it into the trail of what was brought back; a catalog that is damaged is left as it is, and it is said."""
    if (refusal := not_to_be_written(done.report)) is not None:
        return f"this is not in the audit trail: {refusal}"
    new = {
        "backup": str(folder.absolute()),
        "moment": done.moment.number,
        "moment_utc": utc(done.moment.at_s),
        "files": done.files,
        "damaged": list(done.damaged[:MOST_TOLD]),
        "findings": len(done.report.findings),
        "host": platform.node(),
    }
    try:
        with Catalog.create_or_open(data_dir) as catalog, catalog.transaction():
            for plate in catalog.plates():
                catalog.append_event(Action.RESTORED, plate=plate, new=new)
    except SpheroiddError as error:
        return f"this is not in the audit trail: {error.what}"
    return ""


def _refuse_what_is_there(data_dir: Path) -> None:
    with storage_errors(data_dir):
        there = data_dir.exists() or data_dir.is_symlink()
        if there and (not data_dir.is_dir() or data_dir.is_symlink() or next(data_dir.iterdir(), None) is not None):
            what = "something is there already, and nothing is ever overwritten"
            raise ConfigError(what, where=str(data_dir), do="give --to a new directory")
