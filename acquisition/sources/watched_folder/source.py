"""A folder into which a microscope's own program writes, as a source: each slice as soon as its file is whole.

Events are hints, a rescan every `poll_s` is the truth. A file is opened when it has come to rest, believed when its
structure holds to the last byte, and never touched. What the store has already is not read again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import ClassVar

from spheroidd.acquisition.images.codecs import CodecError
from spheroidd.acquisition.images.metadata.units import agree
from spheroidd.acquisition.images.metadata.voxel_size import LENGTHS, DisagreementError
from spheroidd.acquisition.images.metadata.z_axis import measured_step_um, step_conflict
from spheroidd.acquisition.images.plane_folder import SliceRead, read_slice
from spheroidd.acquisition.images.raw_stack import RawFilesStack
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.sources.watched_folder.arrivals import FolderWatch
from spheroidd.acquisition.sources.watched_folder.promised_plan import Promise
from spheroidd.acquisition.sources.watched_folder.settings import FolderSettings, MatrixScreenerSettings, WatchSettings
from spheroidd.acquisition.sources.watched_folder.slice_numbers import first_never_came, is_first_awaited, misnumbered
from spheroidd.acquisition.sources.watched_folder.stack_arrival import Arrival, ArrivedFile
from spheroidd.acquisition.store.slice_names import name_slices
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.events import FaultRaised
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan


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
        self._watch = FolderWatch(settings, plate_map, clock)
        self._promise = Promise(settings, plate_map)
        self._told = ""
        self._interrupted: Callable[[], bool] = lambda: False
        self._tell: Callable[[FaultRaised], None] = lambda fault: None

    @property
    def plate_map(self) -> PlateMap:
        """The map it was given."""
        return self._map

    def set_interrupt(self, interrupted: Callable[[], bool]) -> None:
        """See `Interruptible`."""
        self._interrupted = interrupted

    def set_event_sink(self, tell: Callable[[FaultRaised], None]) -> None:
        """See `FaultTelling`."""
        self._tell = tell

    def check(self) -> None:
        """Raise ConfigError where there is no such folder, or what lies in it already lacks what no setting says."""
        if not self._watch.root.is_dir():
            do = "create it, mount the share, or correct the path"
            raise ConfigError("there is no such folder", where=f"source.folder = {self._watch.root}", do=do)
        self._watch.look()
        glimpses = self._watch.waiting()
        for key in self._keys():
            if key in glimpses and self._is_promising(glimpses[key]):
                break

    def plans(self) -> Iterable[StackPlan]:
        """Each stack when its first slice, or its file, is there; then those for which nothing usable came."""
        to_come = self._keys()
        self._watch.news_s = self._clock.elapsed()
        while to_come and not self._interrupted():
            self._watch.look()
            plan = self._next_plan(to_come)
            if plan is not None:
                to_come.remove(plan.key)
                yield plan
                self._watch.arrival(plan.key).close()
                self._watch.news_s = self._clock.elapsed()
            elif self._is_over():
                yield from self._stand_ins(to_come)
                break
            else:
                if self._watch.restless():
                    self._tell_of_strangers()
                self._watch.wait(self._interrupted)
        self._tell_of_strangers()

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """The wanted slices as they come; StackError with the counts where the stack goes quiet before its end."""
        left, heard_s, last_look = set(wanted), self._clock.elapsed(), False
        arrival = self._watch.arrival(plan.key)
        arrival.look_again()
        try:
            if arrival.unusable is not None:
                raise arrival.unusable
            while left and not self._interrupted():
                self._watch.look()
                self._check_numbers(plan, arrival)
                n_before, held = len(left), is_first_awaited(arrival, self._settings.first_channel)
                for frame in () if held else self._read(plan, arrival, left):
                    left.discard(frame.index)
                    yield frame
                    if self._interrupted():
                        return
                if len(left) < n_before:
                    heard_s, last_look = self._clock.elapsed(), False
                elif self._clock.elapsed() - max(heard_s, arrival.news_s) < self._settings.settle_s:
                    self._watch.wait(self._interrupted)
                elif last_look:
                    self._tell_of_refused(arrival)
                    raise self._short(plan, arrival, left, held=held)
                else:  # a file may have become whole without a change of its size and time
                    last_look = True
                    arrival.look_again()
            if not left:
                self._tell_of_refused(arrival)
                self._tell_of_others(arrival)
                self._check_z_axis(plan, arrival)
        finally:
            arrival.close()

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._watch.stop()

    # -- what a stack is -------------------------------------------------------------------------------------------

    def _keys(self) -> list[StackKey]:
        """Every stack of the plate, controls first."""
        wells = [entry.well for entry in self._map.imaged()]
        return [StackKey(self._map.name, well, stack) for well in wells for stack in range(self._settings.n_stacks)]

    def _next_plan(self, to_come: list[StackKey]) -> StackPlan | None:
        for key in to_come:
            arrival = self._watch.arrivals.get(key)
            if arrival is None:
                continue
            quiet = self._clock.elapsed() - arrival.news_s >= self._settings.settle_s
            plan = self._plan_of(arrival, quiet=quiet)
            if plan is None and quiet and (arrival.refused or arrival.paths):
                plan = self._promise.stand_in(key)
            if plan is not None:
                return plan
        return None

    def _plan_of(self, arrival: Arrival, *, quiet: bool = False) -> StackPlan | None:
        """What a stack will be, once enough of it is there to say so; ConfigError where a setting must say it."""
        try:
            if self._settings.slice_files:
                self._sample(arrival)
                return self._promise.of_slices(arrival, quiet=quiet)
            self._open(arrival)
            return self._promise.of_file(arrival) if arrival.opened else None
        except DisagreementError as error:
            stand_in = self._promise.stand_in(arrival.key)
            if stand_in is None:  # the first stack: whoever starts the run is still there
                raise ConfigError(error.what, where=error.where, do=error.do) from error
            arrival.unusable = error
            return stand_in

    def _is_promising(self, glimpse: Arrival) -> bool:
        """Whether a stack can be planned; ConfigError where its files show that the settings, or this computer, are not
        as they have to be.
        """
        try:
            plan = self._plan_of(glimpse)
            known = self._watch.arrivals.get(glimpse.key)
            if known is not None and known.low_z is not None:
                glimpse.number(known.low_z)  # of a file that is not used, because its number is below the first
            wrong = misnumbered(glimpse, plan.n_z, self._settings.first_number) if plan else None
            lacking = next((error for _, error in glimpse.refused.values() if isinstance(error, CodecError)), None)
            error = wrong or lacking
            if error is not None:
                raise ConfigError(error.what, where=error.where, do=error.do)
            return plan is not None
        finally:
            glimpse.close()

    def _check_numbers(self, plan: StackPlan, arrival: Arrival) -> None:
        error = misnumbered(arrival, plan.n_z, self._settings.first_number)
        if error is not None:
            raise error

    def _check_z_axis(self, plan: StackPlan, arrival: Arrival) -> None:
        """Where slices' own files say where they stood: at equal distances, and those that were planned."""
        for channel, facts in arrival.facts.items():
            where = f"well {plan.key.well}, channel {channel}"
            conflict = step_conflict(plan.z_step_um, measured_step_um(facts, plan.z_step_um, where))
            if conflict and self._settings.voxel_from not in ("map", "settings"):
                do = 'correct the z-step, or write voxel_from = "map" or "settings" under [source]'
                raise DisagreementError(conflict, where=where, do=do)

    def _sample(self, arrival: Arrival) -> None:
        """Read slices until one is whole."""
        if arrival.sample is not None:
            return
        for file in arrival.take_fresh():
            try:
                arrival.sample = self._read_slice(file)
            except (StackError, OSError) as error:
                self._watch.refuse(arrival, file, error)
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
            paths = {channel: self._watch.root / path for channel, path in arrival.paths.items()}
            try:
                arrival.opened = self._watch.reading.read(
                    partial(_opened, paths, self._settings),
                    self._watch.root / file.path,
                    whole=True,
                )
            except (StackError, OSError) as error:
                self._watch.refuse(arrival, file, error)
                if not (self._watch.root / file.path).is_file():
                    again.append(arrival.looked_at.pop())  # a data set changes within
            else:
                arrival.refused.clear()
                self._watch.taken(arrival.paths.values())
                break
        arrival.fresh.extend(again)

    def _is_over(self) -> bool:
        end_s = self._settings.end_after_s
        return end_s is not None and self._clock.elapsed() - self._watch.news_s >= end_s

    def _stand_ins(self, to_come: list[StackKey]) -> Iterator[StackPlan]:
        """Promise what nothing usable arrived for, so that it gets its row."""
        stand_ins = [self._promise.stand_in(key) for key in to_come]
        for plan in stand_ins:
            if plan is None:
                raise self._nothing(to_come)
            yield plan

    def _nothing(self, to_come: list[StackKey]) -> InstrumentError:
        came = [self._watch.arrivals[key] for key in to_come if key in self._watch.arrivals]
        refused = [error for arrival in came for _, error in arrival.refused.values()]
        what = f"nothing usable arrived for {len(to_come)} stacks in {self._settings.end_after_s:g} s"
        what += f", first because: {refused[0]}" if refused else ""
        strangers = self._watch.strangers()
        what += f" ({strangers})" if strangers else ""
        do = "check source.folder and the names it expects, or raise source.end_after_s"
        return InstrumentError(what, where=str(self._watch.root), do=do)

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
            path = self._watch.root / file.path
            try:
                slices, changed_s = self._read_slice(file), path.stat().st_mtime
                self._check_like(plan, slices.geometry, path)
                self._check_lengths(arrival, slices, path)
                self._watch.check_unchanged(file)
            except (StackError, OSError) as error:
                self._watch.refuse(arrival, file, error)
                continue
            arrival.refused.pop(file.path, None)
            self._watch.taken([file.path])
            arrival.note(slices.defects)
            if slices.doubt and slices.doubt not in arrival.told:
                arrival.told.add(slices.doubt)
                self._tell_of_doubts(plan.key, (f"{path}: its channels were distinguished {slices.doubt}",))
            metadata: dict[str, float | str] = {"file": file.path, "host_time_s": self._clock.now()}
            if slices.defects:
                metadata["file_defects"] = "; ".join(slices.defects)
            for channel, pixels in slices.pixels.items():
                index = SliceIndex(channel, z)
                if index in left:
                    said = slices.metadata[channel]
                    arrival.facts.setdefault(channel, {})[z] = said
                    yield Frame(plan.key, index, pixels, changed_s, {**said, **metadata})

    def _read_file(self, plan: StackPlan, arrival: Arrival, left: Set[SliceIndex]) -> Iterator[Frame]:
        self._open(arrival)
        stack = arrival.opened
        if stack is None:
            return
        where = self._watch.root / next(iter(arrival.paths.values()))
        if (stack.n_z, stack.channels, stack.raw) != (plan.n_z, plan.channels, plan.raw):
            what = f"its files hold {stack.n_z} slices of {stack.channels}, {plan.n_z} of {plan.channels} were planned"
            raise StackError(what, where=str(where), do="do not change files during a run; give the plate a new name")
        self._check_like(plan, (stack.height, stack.width, stack.dtype), where)
        self._tell_of_doubts(plan.key, stack.doubts)
        self._tell_of_others(arrival)
        metadata = {"file": ", ".join(arrival.paths.values()), "channels_told_apart": stack.assignment}
        read = self._watch.reading.read
        for index in plan.indices():
            if index in left and read(lambda index=index: stack.has(index), where):  # type: ignore[misc]
                now_s = self._clock.now()
                said = {**stack.metadata(index), **metadata, "host_time_s": now_s}
                pixels = read(lambda index=index: stack.plane(index), where)  # type: ignore[misc]
                yield Frame(plan.key, index, pixels, now_s, said)

    def _read_slice(self, file: ArrivedFile) -> SliceRead:
        path = self._watch.root / file.path
        return self._watch.reading.read(
            lambda: read_slice(path, file.name, self._settings.channel_order), path, whole=True
        )

    def _check_like(self, plan: StackPlan, geometry: tuple[int, int, str], path: Path) -> None:
        if geometry != (promised := (plan.height, plan.width, plan.dtype)):
            what = f"its planes are (height, width, dtype) {geometry}, and {promised} was planned"
            raise StackError(what, where=str(path), do="image the whole plate with one format")

    def _check_lengths(self, arrival: Arrival, slices: SliceRead, path: Path) -> None:
        """Two files of one stack say the same voxel, or the user said whose word holds."""
        if arrival.sample is None or self._settings.voxel_from in ("map", "settings"):
            return
        for name in LENGTHS:
            ours, theirs = getattr(arrival.sample, name), getattr(slices, name)
            if ours is not None and theirs is not None and not agree(ours, theirs):
                what = f"{name} is {theirs:g} um in it and {ours:g} um in another slice of the stack"
                raise StackError(what, where=str(path), do='image the well again, or write voxel_from = "map"')

    # -- what went wrong -------------------------------------------------------------------------------------------

    def _short(self, plan: StackPlan, arrival: Arrival, left: Set[SliceIndex], *, held: bool) -> StackError:
        if held:
            return first_never_came(arrival, plan.n_z, self._settings.first_number)
        settle_s = self._settings.settle_s
        what = f"{plan.n_slices - len(left)} of {plan.n_slices} slices arrived before the folder went quiet"
        what += f", missing are {name_slices(left)}" if len(left) < plan.n_slices else ""
        complaint = arrival.complaint(self._watch.root)
        what += f" ({complaint.what})" if complaint else ""
        do = f"raise source.settle_s above {settle_s:g} s or image the well again"
        if complaint:
            do = f"mend these files, or raise source.settle_s above {settle_s:g} s if they were still being written"
        return StackError(what, where=str(plan.key.well), do=do)

    def _tell_of_doubts(self, key: StackKey, doubts: Iterable[str]) -> None:
        """Tell a person of what was read and should be looked at, such as channel names that are not understood."""
        for doubt in doubts:
            do = "look at an image of each channel; say otherwise with source.channel_order"
            self._tell(FaultRaised(FaultCode.RECORDING_DOUBTS, StackError(doubt, do=do), key))

    def _tell_of_others(self, arrival: Arrival) -> None:
        """A well that came in two files may be two wells under one name: a person has to know which one was taken."""
        if self._settings.slice_files:
            return
        taken = set(arrival.paths.values())
        there = {file.path: file.name.channel or "" for file in (*arrival.looked_at, *arrival.fresh)}
        for path in sorted(there.keys() - taken - arrival.refused.keys() - arrival.told):
            arrival.told.add(path)
            what = (
                f"{path} is named as {arrival.paths.get(there[path], 'another file')} is, which was taken in its place"
            )
            do = "look which one is the well's; a new name of the plate takes the other one"
            self._tell(FaultRaised(FaultCode.RECORDING_DOUBTS, StackError(what, do=do), arrival.key))

    def _tell_of_refused(self, arrival: Arrival) -> None:
        complaint = arrival.complaint(self._watch.root)
        fault = complaint or StackError("its files are whole", where=str(arrival.key))
        self._tell(FaultRaised(FaultCode.QUARANTINE, fault, arrival.key, cleared=complaint is None))

    def _tell_of_strangers(self) -> None:
        said = self._watch.strangers()
        if said != self._told:
            fault = StackError(said or "every image is used", where=str(self._watch.root), do="no file was touched")
            self._tell(FaultRaised(FaultCode.WATCH_FOLDER, fault, cleared=not said))
            self._told = said


def _opened(paths: Mapping[str, Path], settings: FolderSettings) -> RecordedStack | RawFilesStack:
    """A stack's files: slices, or raw frames in the order that the settings state."""
    if settings.raw is not None:
        return RawFilesStack(paths, settings.raw.pattern(), settings.channel_order)
    return RecordedStack(paths, growing=True, channel_order=settings.channel_order)


class MatrixScreenerSource(WatchSource):
    """A StackSource over the tree that Leica's Matrix Screener writes."""

    Settings: ClassVar[type[FolderSettings]] = MatrixScreenerSettings
