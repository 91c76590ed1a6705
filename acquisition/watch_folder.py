"""A folder into which a microscope's own program writes, as a source: each slice as soon as its file is whole.

Events are hints, a rescan every `poll_s` is the truth. A file is opened when it has come to rest, believed when its
structure holds to the last byte, and never touched. What the store has already is not read again.
"""

import time
from collections.abc import Callable, Collection, Iterator, Set
from pathlib import Path
from typing import ClassVar

from spheroidd.acquisition.arrival import Arrival, ArrivedFile
from spheroidd.acquisition.folder_events import FolderEvents
from spheroidd.acquisition.folder_scan import FolderScan
from spheroidd.acquisition.image_name import ImageName
from spheroidd.acquisition.leica_names import is_field_metadata
from spheroidd.acquisition.mount import mount_of
from spheroidd.acquisition.ome_description import read_ome
from spheroidd.acquisition.plane_file import read_slice
from spheroidd.acquisition.stack_file import RecordedStack, is_container, is_data_set, list_stacks
from spheroidd.acquisition.watch_plan import Promise
from spheroidd.acquisition.watch_settings import FolderSettings, MatrixScreenerSettings, WatchSettings
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.events import FaultRaised
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan

HINT_S = 0.1  # how soon a hint, or an order to stop, is noticed
IDLE_SHARE = 1 / 80  # of a processor, at most, for looking at a folder in which nothing happens
BUSY_SHARE = 1 / 4  # and while hints come
MAX_METADATA_BYTES = 2**24
_IMAGES = (".tif", ".tiff", ".lif", ".xlef", ".lof", ".nd2", ".czi", ".oib", ".oif", ".lsm", ".btf", ".tf8", ".png")


class WatchSource:
    """A StackSource over a watched folder: stacks in the order of their coming, controls first among those there.

    A well for which nothing usable came is promised in the geometry of a sound one once the plate is over, so that it
    gets its row. Of several files for one slice the first that is whole is taken.
    """

    Settings: ClassVar[type[FolderSettings]] = WatchSettings

    def __init__(self, settings: FolderSettings, plate_map: PlateMap | None, plate_name: str, clock: Clock) -> None:
        if plate_map is None:
            do = "write the path of a plate map (CSV): it says what was done to each well"
            raise ConfigError("plate.map is missing", where=f"plate {plate_name}", do=do)
        self._settings, self._map, self._clock = settings, plate_map, clock
        self._root, self._grammar = settings.folder, settings.grammar()
        self._promise = Promise(settings, plate_map)
        self._imaged = {entry.well for entry in plate_map.imaged()}
        self._arrivals: dict[StackKey, Arrival] = {}
        self._containers: dict[str, set[str]] = {}  # data sets with several stacks, and those that were found in them
        self._unwanted: dict[str, tuple[int, str]] = {}  # why files are not used: how many, and one of them
        self._told: str | None = None
        self._interrupted: Callable[[], bool] = lambda: False
        self._tell: Callable[[FaultRaised], None] = lambda fault: None
        self._scan: FolderScan | None = None
        self._events: FolderEvents | None = None
        self._news_s = self._due_s = clock.now()
        self._cost_s = 0.0

    @property
    def plate_map(self) -> PlateMap:
        """The map it was given."""
        return self._map

    def heed(self, interrupted: Callable[[], bool]) -> None:
        """See `Interruptible`."""
        self._interrupted = interrupted

    def tell_to(self, tell: Callable[[FaultRaised], None]) -> None:
        """See `FaultTelling`."""
        self._tell = tell

    def check(self) -> None:
        """Raise ConfigError where there is no such folder, or what lies in it already lacks what no setting says."""
        if not self._root.is_dir():
            do = "create it, mount the share, or correct the path"
            raise ConfigError("there is no such folder", where=f"source.folder = {self._root}", do=do)
        self._look()
        glimpses: dict[StackKey, Arrival] = {}
        for path in self._scan.waiting() if self._scan else ():
            said = self._grammar.read(path)
            if isinstance(said, ImageName):
                key = StackKey(self._map.name, said.well, said.stack)
                glimpses.setdefault(key, Arrival(key, 0.0)).add(ArrivedFile(path, said), 0.0)
        for key in self._keys():
            if key in glimpses and self._is_promising(glimpses[key]):
                break

    def plans(self) -> Iterator[StackPlan]:
        """Each stack when its first slice, or its file, is there; then those for which nothing usable came."""
        to_come = self._keys()
        self._news_s = self._clock.now()
        while to_come and not self._interrupted():
            self._look()
            plan = self._next_plan(to_come)
            if plan is not None:
                to_come.remove(plan.key)
                yield plan
                self._close(plan.key)
                self._news_s = self._clock.now()
            elif self._is_over():
                yield from self._stand_ins(to_come)
                break
            else:
                self._wait()
        self._tell_of_strangers()

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """The wanted slices as they come; StackError with the counts where the stack goes quiet before its end."""
        left, heard_s, last_look = set(wanted), self._clock.now(), False
        arrival = self._arrival(plan.key)
        arrival.look_again()
        try:
            while left and not self._interrupted():
                self._look()
                n_before = len(left)
                for frame in self._read(plan, arrival, left):
                    left.discard(frame.index)
                    yield frame
                    if self._interrupted():
                        return
                if len(left) < n_before:
                    heard_s, last_look = self._clock.now(), False
                elif self._clock.now() - max(heard_s, arrival.news_s) < self._settings.settle_s:
                    self._wait()
                elif last_look:
                    raise self._short(plan, arrival, len(left))
                else:  # a file may have become whole without a change of its size and time
                    last_look = True
                    arrival.look_again()
        finally:
            arrival.close()
            self._tell_of_refused(arrival)

    def close(self) -> None:
        """Stop listening; may be called twice."""
        for arrival in self._arrivals.values():
            arrival.close()
        if self._events is not None:
            self._events.stop()
            self._events = None

    # -- looking at the folder -------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Rescan where it is due, and sort what is ready into its stacks. InstrumentError where the folder is gone."""
        now_s = self._clock.now()
        if self._scan is not None and now_s < self._due_s:
            return
        scan = self._scan or self._begin()
        closed = self._events.take() if self._events else set()
        began_s = time.thread_time()
        news = scan.rescan(now_s, closed)
        for path in news.moving:
            self._has_news(path, now_s)
        for path in news.ready:
            self._sort(path, now_s)
        for path in self._containers:
            self._look_into(path, now_s)
        self._cost_s = time.thread_time() - began_s
        self._due_s = now_s + max(self._settings.poll_s, self._cost_s / IDLE_SHARE)

    def _begin(self) -> FolderScan:
        s, mount = self._settings, mount_of(self._root, self._settings.file_system)
        rest_s = s.stable_polls * s.poll_s
        self._scan = FolderScan(
            self._root, self._is_wanted, self._is_image_folder, rest_s=rest_s, keeps_times=mount.keeps_times
        )
        if mount.tells:
            events = FolderEvents(self._root)
            self._events = events if events.start() else None  # without it the rescans find everything, later
        return self._scan

    def _wait(self) -> None:
        """Until the next rescan is due, a hint has come, or whoever holds this has had enough."""
        least_s = self._clock.now() + max(HINT_S, self._cost_s / BUSY_SHARE)
        while not self._interrupted():
            left_s = self._due_s - self._clock.now()
            if left_s <= 0:
                return
            self._clock.sleep(min(HINT_S, left_s))
            if self._events is not None and self._events.stirred.is_set() and self._clock.now() >= least_s:
                self._due_s = self._clock.now()

    def _is_wanted(self, path: str) -> bool:
        """Whether a file is of the plate; why not, where its name says so, is kept."""
        said = self._grammar.read(path)
        if isinstance(said, ImageName):
            if said.well in self._imaged:
                return True
            said = f"well {said.well} is not in the plate map, or empty"
        if said is None:
            if is_container(path) or is_field_metadata(path):
                return True
            if not path.lower().endswith(_IMAGES) or path.rpartition("/")[2].startswith("."):
                return False
            said = "its name is not as source.pattern says"
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
        self._news_s = now_s
        said = self._grammar.read(path)
        if isinstance(said, ImageName):
            self._arrival(StackKey(self._map.name, said.well, said.stack)).news_s = now_s

    def _sort(self, path: str, now_s: float) -> None:
        """Put a file that is ready to its stack."""
        self._news_s = now_s
        said = self._grammar.read(path)
        if isinstance(said, ImageName):
            key = StackKey(self._map.name, said.well, said.stack)
            signature = self._scan.signature(path) if self._scan else None
            self._arrival(key).add(ArrivedFile(path, said, signature), now_s)
        elif is_field_metadata(path):
            self._read_metadata(path)
        else:
            self._containers.setdefault(path, set())

    def _look_into(self, path: str, now_s: float) -> None:
        """Find the stacks of a data set that holds several."""
        try:
            inside = list_stacks(self._root / path)
        except StackError as error:
            self._unwanted[f"{error.what}"] = 1, path
            return
        for name in inside:
            if name not in self._containers[path]:
                self._containers[path].add(name)
                stack = f"{path}/{name}"
                if self._is_wanted(stack):
                    self._sort(stack, now_s)

    def _read_metadata(self, path: str) -> None:
        """A field's own OME-XML may say how many slices it has; the field's images say all else."""
        said = self._grammar.read(path.replace("/metadata/", "/").removesuffix(".ome.xml") + ".ome.tif")
        file = self._root / path
        if not isinstance(said, ImageName) or said.well not in self._imaged:
            return
        arrival = self._arrival(StackKey(self._map.name, said.well, said.stack))
        try:
            if file.stat().st_size <= MAX_METADATA_BYTES:
                ome = read_ome(file.read_bytes(), file)
                arrival.said_n_z = ome.n_z
                arrival.note(ome.defects)
        except (StackError, OSError) as error:
            arrival.note((f"{file.name} cannot be read: {error}",))

    # -- what a stack is -------------------------------------------------------------------------------------------

    def _keys(self) -> list[StackKey]:
        """Every stack of the plate, controls first."""
        wells = [entry.well for entry in self._map.imaged()]
        return [StackKey(self._map.name, well, stack) for well in wells for stack in range(self._settings.n_stacks)]

    def _arrival(self, key: StackKey) -> Arrival:
        if key not in self._arrivals:
            self._arrivals[key] = Arrival(key, self._clock.now())
        return self._arrivals[key]

    def _close(self, key: StackKey) -> None:
        self._arrival(key).close()

    def _next_plan(self, to_come: list[StackKey]) -> StackPlan | None:
        for key in to_come:
            arrival = self._arrivals.get(key)
            if arrival is None:
                continue
            quiet = self._clock.now() - arrival.news_s >= self._settings.settle_s
            plan = self._plan_of(arrival, quiet=quiet)
            if plan is None and quiet and (arrival.refused or arrival.paths):
                plan = self._promise.stand_in(key)
            if plan is not None:
                return plan
        return None

    def _plan_of(self, arrival: Arrival, *, quiet: bool = False) -> StackPlan | None:
        """What a stack will be, once enough of it is there to say so; ConfigError where a setting must say it."""
        if self._settings.slice_files:
            self._sample(arrival)
            return self._promise.of_slices(arrival, quiet=quiet)
        self._open(arrival)
        return self._promise.of_file(arrival) if arrival.opened else None

    def _is_promising(self, glimpse: Arrival) -> bool:
        try:
            return self._plan_of(glimpse) is not None
        finally:
            glimpse.close()

    def _sample(self, arrival: Arrival) -> None:
        """Read slices until one is whole."""
        if arrival.sample is not None:
            return
        for file in arrival.take_fresh():
            try:
                arrival.sample = read_slice(self._root / file.path, file.name)
            except (StackError, OSError) as error:
                self._refuse(arrival, file, error)
            else:
                arrival.fresh.appendleft(arrival.looked_at.pop())  # its pixels are still to be given out
                arrival.note(arrival.sample.defects)
                return

    def _open(self, arrival: Arrival) -> None:
        """Open the stack's file, or its files by channel, where they are whole or may be read as they grow."""
        if arrival.opened is not None:
            return
        expected, again = self._settings.channel_names, []
        for file in arrival.take_fresh():
            arrival.paths[file.name.channel or ""] = file.path
            if expected is not None and not set(expected) <= arrival.paths.keys():
                continue
            paths = {channel: self._root / path for channel, path in arrival.paths.items()}
            try:
                arrival.opened = RecordedStack(paths, growing=True, n_z=self._settings.n_z)
            except (StackError, OSError) as error:
                self._refuse(arrival, file, error)
                if (self._root / file.path).is_dir():
                    again.append(arrival.looked_at.pop())  # a data set grows within
            else:
                arrival.refused.clear()
                break
        arrival.fresh.extend(again)

    def _refuse(self, arrival: Arrival, file: ArrivedFile, error: StackError | OSError) -> None:
        if isinstance(error, OSError):
            what = f"cannot be read: {error.strerror or error}"
            error = StackError(what, where=str(self._root / file.path), do="check the file and its rights")
        arrival.refuse(file, error)
        if self._scan is not None:
            self._scan.refuse(file.path, file.signature, self._clock.now())

    def _is_over(self) -> bool:
        end_s = self._settings.end_after_s
        return end_s is not None and self._clock.now() - self._news_s >= end_s

    def _stand_ins(self, to_come: list[StackKey]) -> Iterator[StackPlan]:
        """Promise what nothing usable came for, so that it gets its row."""
        stand_ins = [self._promise.stand_in(key) for key in to_come]
        for plan in stand_ins:
            if plan is None:
                raise self._nothing(to_come)
            yield plan

    def _nothing(self, to_come: list[StackKey]) -> InstrumentError:
        came = [self._arrivals[key] for key in to_come if key in self._arrivals]
        refused = [error for arrival in came for _, error in arrival.refused.values()]
        what = f"nothing usable came for {len(to_come)} stacks in {self._settings.end_after_s:g} s"
        what += f", first because: {refused[0]}" if refused else ""
        strangers = self._strangers()
        what += f" ({strangers})" if strangers else ""
        do = "check source.folder and the names it expects, or raise source.end_after_s"
        return InstrumentError(what, where=str(self._root), do=do)

    # -- its pixels ------------------------------------------------------------------------------------------------

    def _read(self, plan: StackPlan, arrival: Arrival, left: Set[SliceIndex]) -> Iterator[Frame]:
        if self._settings.slice_files:
            yield from self._read_slices(plan, arrival, left)
        else:
            yield from self._read_file(plan, arrival, left)

    def _read_slices(self, plan: StackPlan, arrival: Arrival, left: Set[SliceIndex]) -> Iterator[Frame]:
        for file in arrival.take_fresh():
            z = file.name.z or 0
            channels = (file.name.channel,) if file.name.channel else plan.channels
            if not any(SliceIndex(channel, z) in left for channel in channels):
                continue  # it is there already, or came twice: old news
            path = self._root / file.path
            try:
                slices, changed_s = read_slice(path, file.name), path.stat().st_mtime
                self._check_like(plan, slices.geometry, path)
            except (StackError, OSError) as error:
                self._refuse(arrival, file, error)
                continue
            arrival.refused.pop(file.path, None)
            arrival.note(slices.defects)
            metadata: dict[str, float | str] = {"file": file.path, "host_time_s": self._clock.now()}
            if slices.defects:
                metadata["file_defects"] = "; ".join(slices.defects)
            for channel, pixels in slices.pixels.items():
                index = SliceIndex(channel, z)
                if index in left:
                    yield Frame(plan.key, index, pixels, changed_s, metadata)

    def _read_file(self, plan: StackPlan, arrival: Arrival, left: Set[SliceIndex]) -> Iterator[Frame]:
        self._open(arrival)
        stack = arrival.opened
        if stack is None:
            return
        where = self._root / next(iter(arrival.paths.values()))
        if (stack.n_z, stack.channels) != (plan.n_z, plan.channels):
            what = f"its files hold {stack.n_z} slices of {stack.channels}, {plan.n_z} of {plan.channels} were planned"
            raise StackError(what, where=str(where), do="do not change files during a run; give the plate a new name")
        self._check_like(plan, (stack.height, stack.width, stack.dtype), where)
        metadata = {"file": ", ".join(arrival.paths.values()), "channels_told_apart": stack.assignment}
        for index in plan.indices():
            if index in left and stack.has(index):
                now_s = self._clock.now()
                yield Frame(plan.key, index, stack.plane(index), now_s, {**metadata, "host_time_s": now_s})

    def _check_like(self, plan: StackPlan, geometry: tuple[int, int, str], path: Path) -> None:
        if geometry != (promised := (plan.height, plan.width, plan.dtype)):
            what = f"its planes are (height, width, dtype) {geometry}, and {promised} was planned"
            raise StackError(what, where=str(path), do="image the whole plate with one format")

    # -- what went wrong -------------------------------------------------------------------------------------------

    def _short(self, plan: StackPlan, arrival: Arrival, n_left: int) -> StackError:
        settle_s = self._settings.settle_s
        what = f"{plan.n_slices - n_left} of {plan.n_slices} slices came before the folder went quiet"
        complaint = arrival.complaint(self._root)
        what += f" ({complaint.what})" if complaint else ""
        do = f"raise source.settle_s above {settle_s:g} s or image the well again"
        return StackError(what, where=str(plan.key.well), do=do)

    def _tell_of_refused(self, arrival: Arrival) -> None:
        complaint = arrival.complaint(self._root)
        fault = complaint or StackError("its files are whole", where=str(arrival.key))
        self._tell(FaultRaised("quarantine", fault, arrival.key, cleared=complaint is None))

    def _strangers(self) -> str:
        """Why files that look like images are not used, and folders that cannot be read."""
        said = [f"{n} because {why}, such as {example}" for why, (n, example) in self._unwanted.items()]
        text = f"{sum(n for n, _ in self._unwanted.values())} images are not used: " + "; ".join(said) if said else ""
        denied = self._scan.denied if self._scan else {}
        return "; ".join([*([text] if text else []), *(f"folder {f} cannot be read: {w}" for f, w in denied.items())])

    def _tell_of_strangers(self) -> None:
        said = self._strangers()
        if said != (self._told or ""):
            fault = StackError(said or "every image is used", where=str(self._root), do="no file was touched")
            self._tell(FaultRaised("watch-folder", fault, cleared=not said))
            self._told = said


class MatrixScreenerSource(WatchSource):
    """A StackSource over the tree that Leica's Matrix Screener writes."""

    Settings: ClassVar[type[FolderSettings]] = MatrixScreenerSettings
