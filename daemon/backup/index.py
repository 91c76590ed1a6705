"""What a backup holds: its moments, and which content each file had from which moment to which.

A file's row lasts as long as its content: a moment is the rows that begin before it and do not end before it. Content
that the newest moment no longer has lies in `replaced/` under its digest.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from spheroidd.daemon.catalog.transaction import transaction, translated
from spheroidd.protocols.errors import ConfigError

NAME = "backup.sqlite"
FORMAT = 1
BUSY_S = 10.0
HOUR_S, DAY_S = 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Held:
    """One file's content, as the source had it: bytes, time in nanoseconds since 1970, BLAKE2b of 32 bytes in hex."""

    size: int
    mtime_ns: int
    digest: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment that can be gone back to; `damage` counts what its own check found. Seconds since 1970."""

    number: int
    at_s: float
    files: int
    file_bytes: int
    damage: int


class BackupIndex:
    """The index of one backup folder, for one thread. `change` is the one door to write through."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.path = folder / NAME
        if not create and not self.path.is_file():
            do = "give the folder that `spheroidd backup --to` wrote"
            raise ConfigError(f"this is no backup: there is no {NAME}", where=str(folder), do=do)
        with translated(self.path):
            self._connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA synchronous = FULL")
            if create:
                self._connection.executescript(_TABLES)
        self._check_format(create)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _check_format(self, create: bool) -> None:
        found = self.said("format")
        if found is None and create:
            self.say("format", str(FORMAT))
        elif found != str(FORMAT):
            do = "use the spheroidd that wrote it"
            raise ConfigError(
                f"a backup of format {found}, and this program reads {FORMAT}", where=str(self.path), do=do
            )

    @contextmanager
    def change(self) -> Iterator[None]:
        """All or nothing of what is written inside."""
        with translated(self.path), transaction(self._connection):
            yield

    def said(self, name: str) -> str | None:
        """A fact about the whole backup."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else None

    def say(self, name: str, value: str) -> None:
        """Write a fact down."""
        self._rows("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def moments(self) -> list[Moment]:
        """Every moment, the oldest first."""
        return [Moment(**dict(row)) for row in self._rows("SELECT * FROM moments ORDER BY number")]

    def files(self, moment: int | None = None) -> dict[str, Held]:
        """What each file was at a moment; the newest one's by default."""
        where = "last IS NULL" if moment is None else "first <= :at AND (last IS NULL OR last >= :at)"
        rows = self._rows(f"SELECT path, size, mtime_ns, digest FROM files WHERE {where}", {"at": moment})
        return {row["path"]: Held(row["size"], row["mtime_ns"], row["digest"]) for row in rows}

    def add(self, at_s: float, found: Mapping[str, Held], damage: int) -> Moment:
        """A new moment at which these are the files. Inside `change`."""
        before = self.files()
        number = max((moment.number for moment in self.moments()), default=0) + 1
        for path in [path for path, held in before.items() if found.get(path) != held]:
            self._rows("UPDATE files SET last = ? WHERE path = ? AND last IS NULL", number - 1, path)
        for path, held in found.items():
            if before.get(path) != held:
                values = (path, held.size, held.mtime_ns, held.digest, number)
                self._rows("INSERT INTO files VALUES (?, ?, ?, ?, ?, NULL)", *values)
        moment = Moment(number, at_s, len(found), sum(held.size for held in found.values()), damage)
        self._rows("INSERT INTO moments VALUES (?, ?, ?, ?, ?)", *(getattr(moment, name) for name in moment.__slots__))
        return moment

    def thin(self, now_s: float) -> None:
        """Forget moments that are close to a later one. Inside `change`."""
        kept = kept_moments(self.moments(), now_s)
        gone = [moment.number for moment in self.moments() if moment.number not in kept]
        for number in gone:
            self._rows("DELETE FROM moments WHERE number = ?", number)
        self._rows(_UNREACHABLE)

    def digests(self) -> set[str]:
        """Of every content that a moment has."""
        return {row["digest"] for row in self._rows("SELECT DISTINCT digest FROM files")}

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        given = values[0] if len(values) == 1 and isinstance(values[0], dict) else values
        with translated(self.path), closing(self._connection.execute(sql, given)) as cursor:
            return cursor.fetchall()


def kept_moments(moments: list[Moment], now_s: float) -> set[int]:
    """Every moment of the last hour, the last one of each hour of a day, the last one of each day; the newest anyhow.

    >>> kept_moments([Moment(n, 600.0 * n, 1, 1, 0) for n in range(1, 31)], 18_000.0)
    {5, 11, 17, 23, 24, 25, 26, 27, 28, 29, 30}
    """
    kept: dict[tuple[str, float], int] = {}
    for moment in moments:  # the oldest first: a later one takes its bucket
        age_s = now_s - moment.at_s
        if age_s <= HOUR_S:
            kept["moment", float(moment.number)] = moment.number
        else:
            length_s = HOUR_S if age_s <= DAY_S else DAY_S
            kept[f"{length_s}", moment.at_s // length_s] = moment.number
    return {*kept.values(), *(moment.number for moment in moments[-1:])}


_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS moments (number INTEGER PRIMARY KEY, at_s REAL NOT NULL, files INTEGER NOT NULL,
  file_bytes INTEGER NOT NULL, damage INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS files (path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
  digest TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER, PRIMARY KEY (path, first)) STRICT;
CREATE INDEX IF NOT EXISTS files_now ON files (path) WHERE last IS NULL;
"""
_UNREACHABLE = """DELETE FROM files WHERE last IS NOT NULL AND NOT EXISTS
  (SELECT 1 FROM moments WHERE number BETWEEN files.first AND files.last)"""
