"""Verifies a data directory: the catalog first, then every stack, several shards at a time.

What was done is written down stack by stack into `verify.state.json`, so that a pass that was interrupted goes on; a
stack whose ledger has grown since is done again. Nothing else is written, and a daemon may run beside it.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.system.lock import is_locked
from spheroidd.daemon.verification.catalog_check import CatalogState, check_catalog
from spheroidd.daemon.verification.findings import Finding, Kind, Report
from spheroidd.daemon.verification.foreign_reader import read_as_others_do
from spheroidd.daemon.verification.plate_checks import StackWork, conclude, directory_findings, stack_work
from spheroidd.daemon.verification.stack_check import Checked, Work
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StorageError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.stack import StackKey

STATE_NAME = "verify.state.json"
SAVE_S = 5.0  # how much work an interrupted pass may lose
AHEAD = 2  # stacks whose pieces are handed out: the threads never wait for a stack's last piece, memory stays small
MOST_THREADS = 8  # a disk gives no more beyond these
_WHOLE = ("slices", "shards", "pixel_bytes", "file_bytes")

Progress = Callable[[int, int, str], None]
"""Told pixel bytes done, pixel bytes in all, and the stack at work."""


@dataclass(slots=True)
class _State:
    """How far a pass has come: by stack its ledger's digest, what it counted, and what it found."""

    path: Path
    deep: bool
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    saved_s: float = field(default_factory=time.monotonic)
    refused: str = ""

    @classmethod
    def taken_up(cls, data_dir: Path, *, deep: bool, resume: bool) -> "_State":
        """The state of an interrupted pass of the same depth, or an empty one."""
        state = cls(data_dir / STATE_NAME, deep)
        if resume:
            with suppress(OSError, ValueError):  # none there, or one that is damaged: everything is done again
                found = parse_json(state.path.read_text(encoding="utf-8"))
                if isinstance(found, dict) and found.get("deep") is deep and isinstance(found.get("done"), dict):
                    state.done = found["done"]
        return state

    def save(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self.saved_s < SAVE_S:
            return
        text = json.dumps({"version": version("spheroidd"), "deep": self.deep, "done": self.done})
        try:
            write_atomically(self.path, text.encode())
        except OSError as error:
            self.refused = f"an interrupted pass could not go on: {error.strerror} ({self.path})"
        self.saved_s = time.monotonic()

    def forget(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def verify(
    data_dir: Path,
    *,
    deep: bool = False,
    resume: bool = False,
    threads: int | None = None,
    progress: Progress = lambda done, total, where: None,
) -> Report:
    """Check everything; with `deep` also read every stack with zarr-python, as other programs do.

    ConfigError where nothing was ever run; KeyboardInterrupt leaves a state that `resume` goes on from.
    """
    started_s, began = time.time(), time.monotonic()
    catalog = _open(data_dir)
    if isinstance(catalog, Finding):
        finding = (catalog,)
        return Report(str(data_dir), finding, 0, 0, 0, 0, 0, 0, 0, started_s, time.monotonic() - began, deep)
    state = _State.taken_up(data_dir, deep=deep, resume=resume)
    with catalog:
        told = check_catalog(catalog)
        found, whole = list(told.findings), Checked()
        n_stacks = resumed = 0
        try:
            found += directory_findings(catalog, data_dir)
            with ThreadPoolExecutor(threads or min(MOST_THREADS, os.cpu_count() or 1), "verify") as pool:
                for was_done, piece in _stacks(catalog, data_dir, state, pool, progress):
                    n_stacks, resumed = n_stacks + 1, resumed + was_done
                    found += piece.findings
                    for name in _WHOLE:
                        setattr(whole, name, getattr(whole, name) + getattr(piece, name))
        except KeyboardInterrupt:
            state.save(now=True)
            raise
        except (SpheroiddError, ValueError, KeyError, TypeError) as error:
            if not told.damaged:  # of a catalog that is damaged this is no news
                raise
            found.append(Finding(Kind.CATALOG, f"its stacks cannot be gone through: {error}", path=CATALOG_NAME))
    state.forget()
    notes = tuple(filter(None, (state.refused,)))
    return _report(data_dir, found, whole, told, n_stacks, started_s, time.monotonic() - began, deep, resumed, notes)


def _report(
    data_dir: Path,
    found: list[Finding],
    whole: Checked,
    told: CatalogState,
    n_stacks: int,
    started_s: float,
    seconds: float,
    deep: bool,
    resumed: int,
    notes: tuple[str, ...],
) -> Report:
    return Report(
        str(data_dir),
        tuple(found),
        n_stacks,
        whole.slices,
        told.rows,
        told.events,
        whole.shards,
        whole.pixel_bytes,
        whole.file_bytes,
        started_s,
        seconds,
        deep,
        resumed,
        notes,
    )


def _open(data_dir: Path) -> CatalogReader | Finding:
    """The catalog, or why it cannot be opened. ConfigError where nothing was ever run, or by a newer program."""
    path = data_dir / CATALOG_NAME
    images = next(images_root(data_dir).glob("*.ome.zarr"), None) if data_dir.is_dir() else None
    if not path.is_file() and images is not None:
        what = f"there is no catalog, though {images.name} is there: nothing can be compared"
        return Finding(Kind.CATALOG, what, path=CATALOG_NAME)
    try:
        return CatalogReader.read_only(data_dir)
    except StorageError as error:
        return Finding(Kind.CATALOG, f"it cannot be opened: {error.what}", path=CATALOG_NAME)
    except ConfigError as error:
        if path.is_file() and path.stat().st_size < 100 and images is not None:  # less than SQLite's own header
            return Finding(Kind.CATALOG, f"it is empty: {error.what}", path=CATALOG_NAME)
        raise


def _stacks(
    catalog: CatalogReader, data_dir: Path, state: _State, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[tuple[bool, Checked]]:
    """What each stack comes to, and whether an earlier pass had done it."""
    rows = [row for row in catalog.stacks() if row.n_slices_acked]
    total = sum(row.plan.n_bytes // row.plan.n_slices * row.n_slices_acked for row in rows)
    done_bytes = 0
    under_way: deque[tuple[StackWork, list[Future[Checked]]]] = deque()

    def first_done() -> Checked:
        work, futures = under_way.popleft()
        piece = conclude(catalog, data_dir, work, [future.result() for future in futures])
        if piece.findings and is_locked(data_dir):  # a daemon may have written between two looks: only what stays is so
            work = stack_work(catalog, data_dir, catalog.stack(work.key))
            piece = conclude(catalog, data_dir, work, [done() for done in work.pieces])
        state.done[str(work.key)] = _kept(work, piece)
        state.save()
        return piece

    try:
        for row in rows:
            work = stack_work(catalog, data_dir, row)
            known = state.done.get(str(row.key))
            if known is not None and known.get("ledger") == work.digest:
                done_bytes += work.n_bytes
                yield True, _restored(known)
                continue
            pieces: tuple[Work, ...] = work.pieces
            if state.deep:
                pieces = (*pieces, _foreign(data_dir, work.key, work))
            under_way.append((work, [pool.submit(piece) for piece in pieces]))
            if len(under_way) > AHEAD:
                done_bytes += under_way[0][0].n_bytes
                yield False, first_done()
                progress(done_bytes, total, str(row.key))
        while under_way:
            done_bytes, where = done_bytes + under_way[0][0].n_bytes, str(under_way[0][0].key)
            yield False, first_done()
            progress(done_bytes, total, where)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _foreign(data_dir: Path, key: StackKey, work: StackWork) -> Work:
    return lambda: read_as_others_do(data_dir, key, work.ledger)


def _kept(work: StackWork, piece: Checked) -> dict[str, Any]:
    counts = {name: getattr(piece, name) for name in _WHOLE}
    return {"ledger": work.digest, **counts, "findings": [finding.values() for finding in piece.findings]}


def _restored(known: Mapping[str, Any]) -> Checked:
    piece = Checked([Finding.of(values) for values in known["findings"]])
    for name in _WHOLE:
        setattr(piece, name, int(known[name]))
    return piece
