"""A watched folder as the arrivals in it: scan, events and names put together, file by file sorted into its stack.

Opens nothing but what says how many stacks or slices there are; the pixels are for whoever asks for an arrival.
"""

import time
from collections.abc import Callable, Collection, Iterable

from spheroidd.acquisition.disk.file_system import mount_of
from spheroidd.acquisition.images.file_kind import check_regular
from spheroidd.acquisition.images.names.files import ImageName
from spheroidd.acquisition.images.names.leica import image_beside, is_field_metadata
from spheroidd.acquisition.images.ndtiff import index_path
from spheroidd.acquisition.images.ome.description import read_ome
from spheroidd.acquisition.images.open_stack import is_container, is_data_set, list_stacks
from spheroidd.acquisition.images.reading_time import ReadingTime
from spheroidd.acquisition.sources.watched_folder.folder_events import FolderEvents
from spheroidd.acquisition.sources.watched_folder.folder_scan import FolderScan, Signature
from spheroidd.acquisition.sources.watched_folder.settings import FolderSettings
from spheroidd.acquisition.sources.watched_folder.stack_arrival import Arrival, ArrivedFile
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import StackKey

HINT_S = 0.1  # how soon a hint, or an order to stop, is noticed
IDLE_SHARE = 1 / 100  # of a processor, at most, for looking at a folder in which nothing happens
BUSY_SHARE = 1 / 4  # and while hints come
PATIENCE_TIMES = 24  # of end_after_s, a day as it is delivered: a LIF of a whole plate is written to for a night
MAX_METADATA_BYTES = 2**24
MAX_INSIDE = 100_000  # stacks of one data set
MAX_TOLD, MAX_REASONS = 5, 1000  # why files are not used: in one message, and kept
_IMAGES = (".tif", ".tiff", ".lif", ".xlef", ".lof", ".nd2", ".czi", ".oib", ".oif", ".lsm", ".btf", ".tf8", ".png")


class FolderWatch:
    """The stacks whose files have come, by key, and the time of the last news of any of them.

    `enters` says of a relative folder whether to look into it.
    """

    def __init__(
        self,
        settings: FolderSettings,
        plate_map: PlateMap,
        clock: Clock,
        *,
        enters: Callable[[str], bool] = lambda folder: True,
    ) -> None:
        self._settings, self._clock, self._name = settings, clock, plate_map.name
        self.root, self._grammar, self._enters = settings.folder, settings.grammar(), enters
        self.reading = ReadingTime(settings.read_budget_s)
        self._imaged = {entry.well for entry in plate_map.imaged()}
        self.arrivals: dict[StackKey, Arrival] = {}
        self._data_sets: dict[str, tuple[Signature | None, float]] = {}  # growing, to be opened when they rest
        self._names: dict[str, ImageName] = {}  # of files that have not come to rest
        self._restless: dict[str, float] = {}  # since when files are written to, or were first found not to be whole
        self._unwanted: dict[str, tuple[int, str]] = {}  # why files are not used: how many, and one of them
        self._scan: FolderScan | None = None
        self._events: FolderEvents | None = None
        self.news_s = self._due_s = self.looked_s = clock.elapsed()
        self._cost_s = 0.0

    def arrival(self, key: StackKey) -> Arrival:
        """What has come of a stack, nothing perhaps."""
        if key not in self.arrivals:
            self.arrivals[key] = Arrival(key, self._clock.elapsed())
        return self.arrivals[key]

    def waiting(self) -> dict[StackKey, Arrival]:
        """The files that have not come to rest, as arrivals: for a glimpse, not to be believed."""
        glimpses: dict[StackKey, Arrival] = {}
        for path in self._scan.waiting() if self._scan else ():
            said = self._grammar.read(path)
            if isinstance(said, ImageName):
                key = StackKey(self._name, said.well, said.stack)
                glimpses.setdefault(key, Arrival(key, 0.0)).add(ArrivedFile(path, said), 0.0)
        return glimpses

    def look(self) -> None:
        """Rescan where it is due, and sort what is ready into its stacks. InstrumentError where the folder is gone."""
        now_s = self._clock.elapsed()
        if self._scan is not None and now_s < self._due_s:
            return
        scan = self._scan or self._begin()
        closed = self._events.take() if self._events else set()
        began_s = time.thread_time()
        news = scan.rescan(now_s, closed)
        for path in news.moving:
            self._restless.setdefault(path, now_s)
            if self._is_news(path, now_s):
                self._has_news(path, now_s)
        for path in sorted(news.ready):
            self._sort(path, now_s, news.ready[path])
        for path in news.data_sets:
            if index_path(self.root / path) is None:
                self._sort(path, now_s)
            else:
                self._data_sets[path] = None, now_s
        for path in list(self._data_sets):
            self._rest(path, now_s)
        self._cost_s = time.thread_time() - began_s
        self.looked_s = now_s
        self._due_s = now_s + max(self._settings.poll_s, self._cost_s / IDLE_SHARE)

    def _begin(self) -> FolderScan:
        s, mount = self._settings, mount_of(self.root, self._settings.file_system)
        rest_s = s.stable_polls * s.poll_s
        self._scan = FolderScan(
            self.root,
            self._is_wanted,
            self._is_image_folder,
            rest_s=rest_s,
            keeps_times=mount.keeps_times,
            enters=self._enters,
        )
        if mount.tells:
            events = FolderEvents(self.root)
            self._events = events if events.start() else None  # without it the rescans find everything, later
        return self._scan

    def wait(self, interrupted: Callable[[], bool]) -> None:
        """Until the next rescan is due, a hint has come, or whoever holds this has had enough."""
        least_s = self._clock.elapsed() + max(HINT_S, self._cost_s / BUSY_SHARE)
        while not interrupted():
            left_s = self._due_s - self._clock.elapsed()
            if left_s <= 0:
                return
            self._clock.sleep(min(HINT_S, left_s))
            if self._events is not None and self._events.stirred.is_set() and self._clock.elapsed() >= least_s:
                self._due_s = self._clock.elapsed()

    def hurry(self) -> None:
        """Let the next look come sooner, because the instrument told of an image; no sooner than is cheap enough."""
        self._due_s = min(self._due_s, self.looked_s + max(HINT_S, self._cost_s / BUSY_SHARE))

    def _is_wanted(self, path: str) -> bool:
        """Whether a file is of the plate; why not, where its name says so, is kept."""
        said = self._grammar.read(path)
        if isinstance(said, ImageName):
            if said.well not in self._imaged:
                said = f"well {said.well} is not in the plate map, or empty"
            elif said.z is not None and said.z < 0:
                self.arrival(StackKey(self._name, said.well, said.stack)).number(said.z)
                said = f"its slice is numbered before source.first_z = {self._settings.first_number}"
            else:
                self._names[path] = said
                return True
        if said is None:
            if is_container(path) or is_field_metadata(path):
                return True
            if not path.lower().endswith(_IMAGES) or path.rpartition("/")[2].startswith("."):
                return False
            said = "its name is not as source.pattern says"
        if said not in self._unwanted and len(self._unwanted) >= MAX_REASONS:
            said = "their names are not the plate's"
        count, example = self._unwanted.get(said, (0, path))
        self._unwanted[said] = count + 1, example
        return False

    def _is_image_folder(self, path: str, names: Collection[str]) -> bool:
        said = self._grammar.read(path)
        if not is_data_set(names):
            return False
        if isinstance(said, ImageName):
            return said.well in self._imaged
        return said is None and is_container(path, names)

    def _has_news(self, path: str, now_s: float) -> None:
        self.news_s = now_s
        said = self._names.get(path)
        if said is not None:
            self.arrival(StackKey(self._name, said.well, said.stack)).news_s = now_s

    def _is_news(self, path: str, now_s: float) -> bool:
        """Whether to wait for a file: not where it has been written to for ever, and was never whole."""
        end_s = self._settings.end_after_s
        return end_s is None or now_s - self._restless.get(path, now_s) < PATIENCE_TIMES * end_s

    def _rest(self, path: str, now_s: float) -> None:
        """Sort an NDTiff data set once its index has not grown for `settle_s`: nothing else says that it is whole."""
        index = index_path(self.root / path)
        signature = self._scan.signature(index.relative_to(self.root).as_posix()) if index and self._scan else None
        known, since_s = self._data_sets[path]
        if signature != known:
            self._data_sets[path] = signature, now_s
            self._has_news(path, now_s)
        elif now_s - since_s >= self._settings.settle_s:
            del self._data_sets[path]
            self._sort(path, now_s)

    def _sort(self, path: str, now_s: float, signature: Signature | None = None) -> None:
        """Put a file that is ready to its stack."""
        if self._is_news(path, now_s):
            self.news_s = now_s
        said = self._names.pop(path, None) or self._grammar.read(path)
        if isinstance(said, ImageName):
            arrival = self.arrival(StackKey(self._name, said.well, said.stack))
            if path not in arrival.refused:
                self._restless.pop(path, None)
            arrival.add(ArrivedFile(path, said, signature), now_s)
        elif is_field_metadata(path):
            self._read_metadata(path)
        else:
            self._look_into(path, now_s)

    def _look_into(self, path: str, now_s: float) -> None:
        """Find the stacks of a data set that holds several."""
        try:
            inside = self.reading.read(lambda: list_stacks(self.root / path), self.root / path, whole=True)
        except (StackError, OSError) as error:
            self._unwanted[error.what if isinstance(error, StackError) else str(error)] = 1, path
            return
        if len(inside) > MAX_INSIDE:
            self._unwanted[f"it holds {len(inside)} stacks, and no plate has so many"] = 1, path
            return
        for stack in (f"{path}/{name}" for name in inside):
            if self._is_wanted(stack):
                self._sort(stack, now_s)

    def _read_metadata(self, path: str) -> None:
        """A field's own OME-XML may say how many slices it has; the field's images say all else."""
        said = self._grammar.read(image_beside(path, self._grammar))
        file = self.root / path
        if not isinstance(said, ImageName) or said.well not in self._imaged:
            return
        arrival = self.arrival(StackKey(self._name, said.well, said.stack))
        try:
            if check_regular(file) <= MAX_METADATA_BYTES:
                ome = self.reading.read(lambda: read_ome(file.read_bytes(), file), file)
                arrival.said_n_z = ome.n_z
                arrival.note(ome.defects)
        except (StackError, OSError) as error:
            arrival.note((f"{file.name} cannot be read: {error}",))

    def restless(self) -> list[str]:
        """Files that did not become whole in the time for which a silent plate is waited for."""
        now_s, most_s = self._clock.elapsed(), self._settings.end_after_s
        late = [path for path, since_s in self._restless.items() if most_s is not None and now_s - since_s > most_s]
        return [path for path in late if self._scan is not None and self._scan.signature(path) is not None]

    def strangers(self) -> str:
        """Why files that look like images are not used, and folders that cannot be read."""
        reasons = list(self._unwanted.items())
        said = [f"{n} because {why}, such as {example}" for why, (n, example) in reasons[:MAX_TOLD]]
        if len(reasons) > MAX_TOLD:
            said.append(f"{sum(n for _, (n, _) in reasons[MAX_TOLD:])} for other reasons")
        text = f"{sum(n for n, _ in self._unwanted.values())} images are not used: " + "; ".join(said) if said else ""
        denied = self._scan.denied if self._scan else {}
        if late := self.restless():
            said_s = f"{self._settings.end_after_s:g} s"
            text += "; " * bool(text) + f"{len(late)} files did not become whole within {said_s}, such as {late[0]}"
        return "; ".join([*([text] if text else []), *(f"folder {f} cannot be read: {w}" for f, w in denied.items())])

    def refuse(self, arrival: Arrival, file: ArrivedFile, error: StackError | OSError) -> None:
        """A file is not whole: it comes again once it has changed and rested. One that cannot be read, because its
        writer may hold it, is tried again anyhow.
        """
        denied = isinstance(error, OSError)
        if isinstance(error, OSError):
            what = f"cannot be read: {error.strerror or error}"
            error = StackError(what, where=str(self.root / file.path), do="check the file and its rights")
        arrival.refuse(file, error)
        self._restless.setdefault(file.path, self._clock.elapsed())
        if self._scan is not None:
            self._scan.refuse(file.path, None if denied else file.signature, self._clock.elapsed())

    def taken(self, paths: Iterable[str]) -> None:
        """These files are whole after all."""
        for path in paths:
            self._restless.pop(path, None)

    def check_unchanged(self, file: ArrivedFile) -> None:
        """Raise StackError where a file is not as it was when it came to rest: its bytes may be of two states."""
        if file.signature and self._scan and self._scan.signature(file.path) != file.signature:
            what = "it was changed while it was read"
            raise StackError(what, where=str(self.root / file.path), do="let only one program write it")

    def stop(self) -> None:
        """Stop listening and close what is open; may be called twice."""
        for arrival in self.arrivals.values():
            arrival.close()
        self.reading.close()
        if self._events is not None:
            self._events.stop()
            self._events = None
