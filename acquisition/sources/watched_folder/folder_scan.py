"""The truth of a watched folder: what a rescan finds in it, cheaply enough for 100,000 files.

A folder whose time has not changed since a listing that began well after it first had that time holds the same names,
where the file system keeps such times; so an idle tree costs one stat a folder. Where it does not, every folder's names
are listed each time, and gone through only where they are not those of the last time, as a 64-bit hash of them tells;
a name that was a file and is a folder now is then found by the full listing every RELIST_S. Files are looked at until
they are given out. Nothing here opens, moves or changes a file.
"""

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from spheroidd.protocols.errors import InstrumentError

FINEST_TIME_S = 2.5  # a folder may change again within the same tick of its clock; FAT's is the coarsest, 2 s
RELIST_S = 300.0  # everything is listed again this often, whatever folders' times say
MAX_DENIED = 5  # folders that cannot be read, as examples


Signature = tuple[int, int]  # bytes, time of the last change in ns


@dataclass(slots=True)
class _File:
    """A file that is not given out: its signature, since when, and the signature it was refused with."""

    signature: Signature
    since_s: float
    refused: Signature | None = None


@dataclass(slots=True)
class _Folder:
    """A folder's time (0 where it keeps none), since when (monotonic) it is known to have it, and what a listing found:
    a hash of all names, and the folders to look into.
    """

    mtime_ns: int
    since_s: float
    sure: bool = False
    names: int | None = None
    folders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class News:
    """What a rescan found: images `ready` to be opened, with their size and time, those still `moving`, and new data
    sets that are folders; all relative, with "/".
    """

    ready: dict[str, Signature]
    moving: list[str]
    data_sets: list[str]


class FolderScan:
    """Finds the files of interest below `root` and says when each has come to rest.

    `wanted` says of a relative path whether it is of interest, `is_data_set` of a relative folder and the names in it
    whether it is one image, that nobody looks into here; `enters` of a relative folder whether to look into it at all.
    A file is ready when its size and time have not changed for `rest_s`, or when it is among those said to be closed.
    OSErrors of single folders go to `denied`.
    """

    def __init__(
        self,
        root: Path,
        wanted: Callable[[str], bool],
        is_data_set: Callable[[str, Collection[str]], bool],
        *,
        rest_s: float,
        keeps_times: bool,
        enters: Callable[[str], bool] = lambda folder: True,
    ) -> None:
        self._root, self._wanted, self._is_data_set, self._enters = str(root), wanted, is_data_set, enters
        self._rest_s, self._keeps_times = rest_s, keeps_times
        self._folders: dict[str, _Folder] = {}
        self._known: set[str] = set()  # names that were looked at once, of whatever kind
        self._had_names = False
        self._waiting: dict[str, _File] = {}
        self._data_sets: list[str] = []  # found by the rescan that is going on
        self._listed_s = float("-inf")
        self.denied: dict[str, str] = {}

    def rescan(self, now_s: float, closed: Collection[str] = ()) -> News:
        """Look at everything that may have changed. InstrumentError where the folder itself is gone."""
        self._started_s = time.monotonic()
        self._all = self._started_s - self._listed_s >= RELIST_S
        if self._all:
            self._listed_s = self._started_s
        found: list[str] = []
        pending = [""]
        while pending:
            pending += self._visit(pending.pop(), found)
        return self._come_to_rest(found, now_s, closed)

    def waiting(self) -> list[str]:
        """The files of interest that were not given out yet."""
        return sorted(self._waiting)

    def refuse(self, path: str, signature: Signature | None, now_s: float) -> None:
        """Take back a file that was given out and was not whole with that signature: it is given again once it has
        changed and rested; without a signature, once it has rested.
        """
        found = self.signature(path)
        if found is None:
            self._forget(path)
        else:
            self._waiting[path] = _File(signature or found, now_s, refused=signature)

    def signature(self, path: str) -> Signature | None:
        """What tells one state of a file from another; None where there is no such file."""
        try:
            found = os.stat(self._path(path))  # noqa: PTH116
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _visit(self, folder: str, found: list[str]) -> list[str]:
        """Look at one folder; what is new in it goes to `found`. Returns its sub-folders."""
        try:
            path = self._path(folder)
            mtime_ns = os.stat(path).st_mtime_ns if self._keeps_times else 0  # noqa: PTH116 (a Path is slow)
            known = self._folders.get(folder)
            if known is None or known.mtime_ns != mtime_ns:
                known = self._folders[folder] = _Folder(mtime_ns, self._started_s)
            if known.sure and not self._all:
                return known.folders
            if self._all or known.names is None or known.names != _hash(os.listdir(path)):  # noqa: PTH208
                known.names, known.folders = self._list(folder, found)
        except OSError as error:
            if not folder:
                do = "check the path, the share and its mount; the run goes on with what is missing"
                what = f"the watched folder cannot be read: {error.strerror or error}"
                raise InstrumentError(what, where=self._root, do=do) from error
            if not isinstance(error, FileNotFoundError) and len(self.denied) < MAX_DENIED:
                self.denied[folder] = error.strerror or str(error)
            self._folders.pop(folder, None)
            return []
        known.sure = self._keeps_times and self._started_s - known.since_s >= FINEST_TIME_S
        return known.folders

    def _list(self, folder: str, found: list[str]) -> tuple[int, list[str]]:
        """Go through a folder's names: a hash of them, and the sub-folders to look into."""
        prefix = f"{folder}/" if folder else ""
        names: list[str] = []
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(self._path(folder)) as entries:
            for entry in entries:
                names.append(entry.name)
                # A link to a folder may lead round in a circle.
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        if not folder and self._had_names and not folders and not files:
            do = "mount the share again; the run goes on with what is missing"
            raise InstrumentError("the watched folder has become empty", where=self._root, do=do)
        self._had_names |= bool(folders or files)
        if folder and self._is_data_set(folder, names):
            if folder not in self._known:
                self._known.add(folder)
                self._data_sets.append(folder)
            return _hash(names), []
        for name in files:
            path = prefix + name
            if path in self._known:
                continue
            self._known.add(path)
            if self._wanted(path):
                found.append(path)
        return _hash(names), [path for name in folders if self._enters(path := prefix + name)]

    def _forget(self, path: str) -> None:
        """A file is gone: it is news if it comes again, though its folder's names are the same then."""
        self._known.discard(path)
        folder = self._folders.get(path.rpartition("/")[0])
        if folder is not None:
            folder.names = None

    def _come_to_rest(self, found: list[str], now_s: float, closed: Collection[str]) -> News:
        data_sets, self._data_sets = self._data_sets, []
        ready: dict[str, Signature] = {}
        moving: list[str] = []
        for path in found:
            if (signature := self.signature(path)) is None:
                self._forget(path)
            elif path not in self._waiting:
                self._waiting[path] = _File(signature, now_s)
                moving.append(path)
        new = set(moving)
        for path, file in list(self._waiting.items()):
            current = file.signature if path in new else self.signature(path)
            if current is None:  # moved away, or deleted: news if it comes again
                del self._waiting[path]
                self._forget(path)
                continue
            if current != file.signature:
                file.signature, file.since_s = current, now_s
                moving.append(path)
            if current != file.refused and (path in closed or now_s - file.since_s >= self._rest_s):
                del self._waiting[path]
                ready[path] = current
        return News(ready, moving, data_sets)

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}" if relative else self._root


def _hash(names: list[str]) -> int:
    """Of a folder's names in the order in which they were listed; another order is looked at for nothing, no more."""
    return hash("\0".join(names))
