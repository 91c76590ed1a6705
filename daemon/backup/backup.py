"""One pass of a backup: the catalog by SQLite's own copy, then the files that changed, then the check at the other end.

What stands in the index is a moment that can be gone back to: it is written last and at once. A pass that was killed
leaves files that no moment has; the next one copies them again.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.leftovers import sweep_files
from spheroidd.daemon.backup.copying import Fill, SourceUnreadableError, copy_file, digest_of, put_aside
from spheroidd.daemon.backup.index import NAME, BackupIndex, Held, Moment
from spheroidd.daemon.backup.source_files import files_to_copy
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.transaction import translated
from spheroidd.daemon.system.lock import is_locked
from spheroidd.daemon.verification.catalog_check import check_catalog
from spheroidd.daemon.verification.findings import DAMAGED, INTACT, Finding, Kind
from spheroidd.daemon.verification.plate_checks import conclude, directory_findings, stack_work
from spheroidd.protocols.errors import ConfigError

LOCK_S = 0.5
ROUNDS, PAUSE_S = 3, 2.0  # a row follows its masks within a second
DATA, REPLACED, LOCK = "data", "replaced", "backup.lock"
_TRAIL = "SELECT sha256 FROM audit ORDER BY seq LIMIT 1"
_ANYWHERE = ("*", "*/*", *(f"data/{'*/' * depth}*" for depth in range(12)))


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did: the moment it made, what was copied, and what the check at the other end found.

    `mended` files had other bytes than were copied before, and are copied anew; `lost` contents, by their digests, are
    of earlier moments alone and cannot be.
    """

    moment: Moment
    copied: int
    copied_bytes: int
    checked: int  # slices
    findings: tuple[Finding, ...]
    mended: tuple[str, ...]
    lost: tuple[str, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 as it was written, 3 damage at one end or the other."""
        return DAMAGED if self.moment.damage or self.mended or self.lost else INTACT


@contextmanager
def backup_folder(folder: Path) -> Iterator[BackupIndex]:
    """The index of a backup, for this process alone; a new one in a folder that is empty or not there.

    ConfigError where the folder holds something else, or another backup is being made into it.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in folder.iterdir() if path.name != LOCK]
    if others and NAME not in others:
        what = f"it is not empty and no backup: {', '.join(sorted(others)[:3])}"
        raise ConfigError(what, where=str(folder), do="give --to a new folder")
    with _alone(folder):
        for level in _ANYWHERE:
            list(sweep_files(folder, level))
        with BackupIndex(folder, create=True) as index:
            yield index


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOCK_S)
    except Timeout:
        what = "another spheroidd makes a backup into this folder"
        raise ConfigError(what, where=str(folder), do="wait for it, or give another folder") from None
    except OSError as error:
        do = "choose a folder you may write to"
        raise ConfigError(f"cannot lock the backup: {error.strerror}", where=str(folder), do=do) from error
    try:
        yield
    finally:
        lock.release()


def back_up(data_dir: Path, folder: Path, index: BackupIndex, *, check: bool = False) -> Pass:
    """Make a moment; with `check` read everything that was copied before, too.

    ConfigError where nothing was run or another directory was backed up here before; StorageError where a disk
    refuses, after which the moments before stay what they are.
    """
    began, at_s = time.monotonic(), time.time()
    work = _Pass(data_dir, folder, index, check=check)
    checked, findings = work.copy_and_check()
    with index.change():
        moment = index.add(at_s, work.found, sum(finding.kind.is_damage for finding in findings))
        index.thin(at_s)
    work.put_away()
    seconds = time.monotonic() - began
    mended, lost = tuple(sorted(work.mended)), work.lost() if check else ()
    return Pass(moment, work.copied, work.copied_bytes, checked, tuple(findings), mended, lost, seconds)


class _Pass:
    """What is known while a pass is under way."""

    def __init__(self, data_dir: Path, folder: Path, index: BackupIndex, *, check: bool) -> None:
        self._data_dir, self._copy, self._replaced = data_dir, folder / DATA, folder / REPLACED
        self._index, self._before = index, index.files()
        self.found: dict[str, Held] = {}
        self.copied = self.copied_bytes = 0
        self.mended: set[str] = set()
        self._changed: set[str] = set()
        self._check = check
        self._unreadable: dict[str, Finding] = {}

    def copy_and_check(self) -> tuple[int, list[Finding]]:
        """Everything in its order. Beside a daemon a mask and its row may be of two moments: only what stays is so."""
        for left in reversed(range(ROUNDS)):
            beside = is_locked(self._data_dir)  # now: a daemon that ends meanwhile has written until then
            plates, self.found = self._copy_catalog(), {**self.found}
            there = {CATALOG_NAME}
            for path, fill, anew in files_to_copy(self._data_dir, plates):
                self._copy_file(path, fill, anew=anew)
                there.add(path)
            self.found = {path: held for path, held in self.found.items() if path in there}
            checked, findings = self._look()
            findings += self._unreadable.values()
            if not any(finding.kind.is_damage for finding in findings) or not left or not beside:
                break
            time.sleep(PAUSE_S)
        return checked, findings

    def _copy_catalog(self) -> list[str]:
        """The catalog as it is at one moment, while the daemon writes on; the plates in it."""
        with CatalogReader.read_only(self._data_dir) as catalog:  # ConfigError where there is none
            self._know(catalog)
        with storage_errors(self._copy):
            self._copy.mkdir(exist_ok=True)
        self._copy_file(CATALOG_NAME, _copy_database, anew=True)
        with CatalogReader.read_only(self._copy) as catalog:
            return catalog.plates()

    def _know(self, catalog: CatalogReader) -> None:
        """Refuse another directory's catalog: the moments of the first one would end with its files."""
        first = catalog.query(_TRAIL)
        trail = first[0]["sha256"] if first else ""
        known = self._index.said("trail")
        if known is None:
            self._index.say("trail", trail)
        elif known != trail:
            what = "another data directory was backed up here before, or its catalog was made anew"
            raise ConfigError(what, where=str(self._copy.parent), do="give --to a folder of its own")

    def _copy_file(self, path: str, fill: Fill | None, *, anew: bool) -> None:
        """Copy one file unless the copy has it; one that went away meanwhile is left out."""
        source, target = self._data_dir / path, self._copy / path
        before = self._before.get(path)
        known = self.found.get(path, before)
        try:
            state = source.stat()
            if known is not None and not anew and (state.st_size, state.st_mtime_ns) == (known.size, known.mtime_ns):
                if self._is_good(target, known, path):
                    self.found[path] = known
                    return
                held = copy_file(source, target)  # what is there is nobody's: it is not put aside
            else:
                aside = partial(self._put_aside, target, before)
                held = copy_file(source, target, fill=fill, aside=aside)
        except FileNotFoundError:
            return
        except SourceUnreadableError as error:
            if not error.gone:
                self._unreadable[path] = Finding(Kind.UNREADABLE, error.what, path=path)
                self.found.update({path: known} if known is not None else {})  # as it was when it could be read
            return
        self.found[path] = held
        self._changed.add(path)
        self.copied += 1
        self.copied_bytes += held.size

    def _is_good(self, target: Path, known: Held, path: str) -> bool:
        """Whether the copy is still there; where all is checked, with the same bytes."""
        try:
            found = target.stat()
            good = (found.st_size, found.st_mtime_ns) == (known.size, known.mtime_ns)
            if good and self._check and path not in self._changed and digest_of(target) != known.digest:
                self.mended.add(path)
                return False
        except OSError:
            return False
        return good

    def _put_aside(self, target: Path, before: Held | None, digest: str) -> None:
        if before is not None and digest != before.digest:
            put_aside(target, self._replaced, before.digest)

    def _look(self) -> tuple[int, list[Finding]]:
        """The copy against its own catalog: the whole catalog, and each stack of which something was copied."""
        with CatalogReader.read_only(self._copy) as catalog:
            state = check_catalog(catalog)
            found, checked = list(state.findings), 0
            if state.damaged:
                return checked, found
            found += directory_findings(catalog, self._copy)
            for row in catalog.stacks():
                place = ngff.image_path(self._copy, row.key).relative_to(self._copy).as_posix() + "/"
                if row.n_slices_acked and (self._check or any(path.startswith(place) for path in self._changed)):
                    work = stack_work(catalog, self._copy, row)
                    piece = conclude(catalog, self._copy, work, [one() for one in work.pieces])
                    checked += piece.slices
                    found += piece.findings
        return checked, found

    def put_away(self) -> None:
        """After the moment was made: what the source no longer has leaves the newest copy, what no moment has goes.

        The newest catalog is kept aside too: `spheroidd verify` writes an event into the one beside the images.
        """
        for path in self._before.keys() - self.found.keys():
            put_aside(self._copy / path, self._replaced, self._before[path].digest)
        catalog = self._replaced / self.found[CATALOG_NAME].digest
        if not catalog.exists():
            copy_file(self._copy / CATALOG_NAME, catalog)
        needed = self._index.digests()
        with storage_errors(self._replaced):
            for content in self._replaced.iterdir():
                if content.name not in needed:
                    content.unlink()

    def lost(self) -> tuple[str, ...]:
        """Contents of earlier moments that are not what they were."""
        return tuple(sorted(path.name for path in self._replaced.iterdir() if digest_of(path) != path.name))


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's backup: one moment of the catalog in one file, with no log beside it."""
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with (
        translated(source),
        closing(sqlite3.connect(uri, uri=True)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
