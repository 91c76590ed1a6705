"""A plate that was recorded before, fed again as if the microscope stood beside it. Files are known to `stack_file`."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from spheroidd.acquisition.images.codecs import CodecError
from spheroidd.acquisition.images.metadata.image_metadata import MAX_LETTERS
from spheroidd.acquisition.images.metadata.voxel_size import (
    LENGTHS,
    DisagreementError,
    LengthName,
    VoxelFrom,
    settle_length,
)
from spheroidd.acquisition.images.raw_stack import RawFilesStack, StoredRawStack, is_stored_raw
from spheroidd.acquisition.images.reading_time import BUDGET_S, ReadingTime
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.images.stored_ledger import UNREAD
from spheroidd.acquisition.plates.raw_settings import RawSettings
from spheroidd.acquisition.sources.replay_faults import FaultyReel, ReplayFault
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.acquisition.store.slice_names import name_slices
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.events import FaultRaised
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.focus import FocusFound
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap, PlateWell
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import CHANNELS, Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import IMAGING_COLUMNS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


AnyStack = RecordedStack | StoredRawStack | RawFilesStack
MAX_TOLD = 100  # doubts of one plate
ChannelPlace = Literal["488", "561", "-"]


class ReplaySettings(BaseModel):
    """Replay recorded stacks of a plate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["replay"] = "replay"
    map: Path | None = None
    """The plate map (CSV) whose path columns name the files; not needed where the run itself is given a map."""
    pace: Literal["real", "fast"] = "fast"
    """"real" waits slice_period_s for each z-step, as the instrument did; "fast" does not wait."""
    slice_period_s: Positive = 1.2
    """Seconds per z-step, all its channels together."""
    pixel_um: Positive | None = None
    """Pixel size; where a file or the map says it as well, they must agree."""
    z_step_um: Positive | None = None
    """Distance of two slices; where a file or the map says it as well, they must agree."""
    voxel_from: VoxelFrom | None = None
    """Whose word on the voxel's size holds where sources differ or say what can hardly be: file, map or settings."""
    channel_order: tuple[ChannelPlace, ...] | None = Field(default=None, min_length=1)
    """Which channel of a file is which, in the file's order: "488", "561", or "-" for one that is not used."""
    read_budget_s: Positive = BUDGET_S
    """A file that takes longer to be read (a large one in proportion) is not used; its well says so."""
    raw: RawSettings | None = None
    """The files hold raw frames of structured illumination, in the order that this states; pixel_um is that of the
    slices, half a frame's. Raw frames that a run has stored are known without it."""
    faults: tuple[ReplayFault, ...] = ()
    """What is to go wrong, to try out what becomes of it."""


class ReplaySource:
    """A StackSource over recorded files, one stack a well, in the map's order with the controls first.

    A well whose files are missing or damaged is still promised, in the geometry of the plate's first sound well, so
    that it gets its row; its `frames` raises the StackError that says why. Frames carry the replay's time. Of a stack
    that this program stored, every plane is checked against its checksum, on the disk and once more on its way out.
    """

    Settings: ClassVar[type[ReplaySettings]] = ReplaySettings
    imaging_columns: ClassVar[frozenset[str]] = frozenset(IMAGING_COLUMNS)  # it was imaged so already

    def __init__(self, settings: ReplaySettings, plate_map: PlateMap | None, plate_name: str, clock: Clock) -> None:
        if plate_map is None:
            if settings.map is None:
                raise ConfigError("source.map is missing", do="write the path of the plate map (CSV) to replay")
            plate_map = read_plate_map(settings.map, plate_name)
        self._settings, self._clock = settings, clock
        self._map = plate_map
        self._reading = ReadingTime(settings.read_budget_s)
        self._reel = FaultyReel(settings.faults, clock)
        self._tell: Callable[[FaultRaised | FocusFound], None] = lambda fault: None
        self._told_of: set[str] = set()  # unreadable ledgers and doubts: each is told of once, not once a well
        self._codec: CodecError | None = None

    @property
    def plate_map(self) -> PlateMap:
        """The map it was given or told to read."""
        return self._map

    def set_event_sink(self, tell: Callable[[FaultRaised | FocusFound], None]) -> None:
        """Tell of a recording's ledger that is there and cannot be read: its images are replayed without it."""
        self._tell = tell

    def check(self) -> None:
        """Raise ConfigError where the map names no file for a well or one for two, nothing says how big a sound file's
        voxels are, two sources differ on it, or a file's codec is not installed.

        A damaged or missing file is no reason not to start: that well fails, the others go on.
        """
        self._check_paths()
        self.plans()
        if self._codec is not None:
            raise ConfigError(self._codec.what, where=self._codec.where, do=self._codec.do)

    def _check_paths(self) -> None:
        """One well's images are no second well's: a control would count twice, a treatment would have two results."""
        named: dict[tuple[str, Path], WellId] = {}
        for entry in self._map.imaged():
            for channel, path in entry.paths.items():
                first = named.setdefault((channel, path.absolute()), entry.well)
                if first != entry.well:
                    what = f"{first} and {entry.well} name the same file, {path}"
                    do = "give each well its own file, or take one of the two out"
                    raise ConfigError(what, where=f"plate {self._map.name}", do=do)

    def plans(self) -> Sequence[StackPlan]:
        """One stack for each well that is not empty."""
        wells = self._map.imaged()
        found = [self._plan(well) for well in wells]
        sound = next((plan for plan in found if plan is not None), None)
        return [plan or self._stand_in(well, sound) for well, plan in zip(wells, found, strict=True)]

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """Read the wanted slices in the plan's order, at the pace set; StackError before the first of a bad file, and
        after the last where some were damaged on their way: those are not given out.
        """
        well = self._map[plan.key.well]
        with self._open(well) as stack:
            for name in LENGTHS:
                self._length(name, well, stack)
            self._check_promised(plan, stack)
            self._tell_of_doubts(stack)
            metadata = {"channels_told_apart": stack.assignment, **self._unread(stack)}
            order = [index for index in plan.indices() if index in wanted]
            damaged = []
            for index, pixels in self._reel.play(plan.key, self._paced(order), partial(self._plane, well, stack)):
                if stack.crc32c(index) not in (None, crc32c(pixels)):
                    damaged.append(index)
                    continue
                yield Frame(plan.key, index, pixels, self._clock.now(), {**stack.metadata(index), **metadata})
            if damaged:
                what = f"{len(damaged)} slices are not as they were recorded (crc32c): {name_slices(damaged)}"
                raise StackError(what, where=str(plan.key), do="replay the well again; check memory and disk")

    def _open(self, well: PlateWell) -> AnyStack:
        return self._reading.read(partial(_opened, well, self._settings), _path(well), whole=True)

    def _plane(self, well: PlateWell, stack: AnyStack, index: SliceIndex) -> Pixels:
        return self._reading.read(lambda: stack.plane(index), _path(well))

    def _tell_of_doubts(self, stack: AnyStack) -> None:
        """Tell a person of what was read and should be looked at, such as channel names that are not understood."""
        for doubt in stack.doubts:
            _, _, what = doubt.rpartition(": ")
            if what not in self._told_of and len(self._told_of) < MAX_TOLD:
                self._told_of.add(what)
                do = "look at an image of each channel; say otherwise with channel_order or in the plate map"
                self._tell(FaultRaised(FaultCode.RECORDING_DOUBTS, StackError(doubt, do=do)))

    def _unread(self, stack: AnyStack) -> dict[str, str]:
        """What each image is to say of a ledger that cannot be read; a person is told of it as well."""
        why = stack.unread()
        if why is None:
            return {}
        if why.where not in self._told_of:
            self._told_of.add(why.where)
            self._tell(FaultRaised(FaultCode.RECORDED_FACTS, why))
        return {UNREAD: why.what[:MAX_LETTERS]}

    def _paced(self, order: Iterable[SliceIndex]) -> Iterator[SliceIndex]:
        """The slices, each when the instrument would have taken it."""
        started_s, steps, last_z = self._clock.elapsed(), 0, None
        for index in order:
            if index.z != last_z:
                last_z, steps = index.z, steps + 1
                if self._settings.pace == "real":
                    due_s = started_s + steps * self._settings.slice_period_s
                    self._clock.sleep(max(0.0, due_s - self._clock.elapsed()))
            yield index

    def close(self) -> None:
        """Nothing stays open between stacks but the thread that reads."""
        self._reading.close()

    def _plan(self, well: PlateWell) -> StackPlan | None:
        """What the well's files hold; None where they cannot be read, which `frames` will say."""
        if not well.paths:
            do = "fill path, or path_488 and path_561, or give it the role empty"
            raise ConfigError("the plate map names no file for it", where=f"well {well.well}", do=do)
        try:
            stack = self._open(well)
        except CodecError as error:
            self._codec = self._codec or error
            return None
        except StackError:
            return None
        with stack, suppress(DisagreementError):
            return StackPlan(
                self._key(well),
                stack.channels,
                stack.n_z,
                stack.height,
                stack.width,
                pixel_um=self._length("pixel_um", well, stack),
                z_step_um=self._length("z_step_um", well, stack),
                dtype=stack.dtype,
                slice_period_s=self._settings.slice_period_s if self._settings.pace == "real" else None,
                raw=stack.raw,
            )
        return None

    def _stand_in(self, well: PlateWell, sound: StackPlan | None) -> StackPlan:
        """What to promise of a well that cannot be read: as the plate's first sound stack, or a single voxel."""
        channels = tuple(c for c in CHANNELS if c in well.paths)
        if sound is None:
            return StackPlan(self._key(well), channels or CHANNELS, 1, 1, 1, pixel_um=1.0, z_step_um=1.0)
        return replace(sound, key=self._key(well), channels=channels or sound.channels)

    def _key(self, well: PlateWell) -> StackKey:
        return StackKey(self._map.name, well.well)

    def _length(self, name: LengthName, well: PlateWell, stack: AnyStack) -> float:
        return settled_length(name, well, stack, self._settings)

    def _check_promised(self, plan: StackPlan, stack: AnyStack) -> None:
        now = (stack.channels, stack.n_z, stack.height, stack.width, stack.dtype, stack.raw)
        promised = (plan.channels, plan.n_z, plan.height, plan.width, plan.dtype, plan.raw)
        if now != promised:
            what = f"its files hold {now} and {promised} was planned"
            raise StackError(what, where=str(plan.key), do="do not change files during a run; replay the well again")


def _opened(well: PlateWell, settings: ReplaySettings) -> AnyStack:
    """A well's files: raw frames that a run stored, raw frames in a stated order, or slices."""
    paths = list(well.paths.values())
    if len(paths) == 1 and is_stored_raw(paths[0]):
        return StoredRawStack(paths[0])
    if settings.raw is not None:
        return RawFilesStack(well.paths, settings.raw.pattern(), settings.channel_order)
    return RecordedStack(well.paths, channel_order=settings.channel_order)


def _path(well: PlateWell) -> Path:
    """One of a well's files, to name it and to see how large it is."""
    return max(well.paths.values(), key=str)


def settled_length(name: LengthName, well: PlateWell, stack: AnyStack, settings: ReplaySettings) -> float:
    """A well's `pixel_um` or `z_step_um` as the file, the map and the settings say it.

    ConfigError where they differ or are silent, DisagreementError where the files alone contradict themselves.
    """
    said: dict[VoxelFrom, float | None] = {
        "file": getattr(stack, name),
        "map": getattr(well, name),
        "settings": getattr(settings, name),
    }
    where, conflict = f"well {well.well}", stack.conflicts.get(name, "")
    try:
        length = settle_length(name, said, settings.voxel_from, where=where, conflict=conflict)
    except DisagreementError as error:
        if conflict:
            raise
        raise ConfigError(error.what, where=error.where, do=error.do) from error
    if length is None:
        what = f"{name} is unknown: neither the file's metadata nor the plate map says it"
        do = f"write {name} (micrometres) into the plate map or the source's settings"
        raise ConfigError(what, where=where, do=do)
    return float(length)
