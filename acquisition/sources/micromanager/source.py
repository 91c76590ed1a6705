"""A microscope that Micro-Manager drives, as a source: one well after the other, each slice accounted for.

The core lives in a process of its own (`micromanager_process`), because a device adapter may crash or hang; frames
come over a bounded ring of shared memory. No engine is believed: every slice is counted against the plan, and one
that is missing is named.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import ClassVar

from spheroidd.acquisition.focus.autofocus import Autofocus
from spheroidd.acquisition.plates.stack_settings import plan_of
from spheroidd.acquisition.sources.micromanager.child_process import InstrumentProcess
from spheroidd.acquisition.sources.micromanager.core import check_reach
from spheroidd.acquisition.sources.micromanager.messages import (
    FrameTaken,
    LookOrder,
    PlannedSlice,
    PutBack,
    StackOrder,
    StackOver,
    Work,
)
from spheroidd.acquisition.sources.micromanager.session import Attach, run_core
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.acquisition.sources.micromanager.well_settings import PlateSettings
from spheroidd.acquisition.store.slice_names import name_slices
from spheroidd.protocols.errors import ConfigError, InstrumentError, SpheroiddError
from spheroidd.protocols.events import FaultRaised
from spheroidd.protocols.focus import FocusFound
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.snapshot import SnapOrder, Snapshot
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well_imaging import IMAGING_COLUMNS


class SweepInterruptedError(Exception):
    """A search for the focus was to end; no fault."""


class MicroManagerSource:
    """A StackSource over Micro-Manager's core, one stack for each field of a well.

    `attach` is called with the loaded core, in its process; it must be importable by name (a function of a module, or
    a `functools.partial` of one). The emulator's camera comes in that way.
    """

    Settings: ClassVar[type[MicroManagerSettings]] = MicroManagerSettings
    imaging_columns: ClassVar[frozenset[str]] = frozenset(IMAGING_COLUMNS)

    def __init__(
        self,
        settings: MicroManagerSettings,
        plate_map: PlateMap | None,
        plate_name: str,
        clock: Clock,
        *,
        attach: Attach | None = None,
    ) -> None:
        if plate_map is None:
            do = "write the path of a plate map (CSV): it says which wells are imaged"
            raise ConfigError("plate.map is missing", where=f"plate {plate_name}", do=do)
        self._settings, self._map, self._clock = settings, plate_map, clock
        self._wells = PlateSettings(settings, plate_map)
        self._autofocus = None
        if settings.autofocus is not None:
            depth_um = (settings.n_z - 1) * settings.z_step_um
            self._autofocus = Autofocus(
                settings.autofocus,
                start_um=settings.z_start_um,
                depth_um=depth_um,
                limits_um=settings.z_limits_um,
            )
        self._tell: Callable[[FocusFound], None] = lambda found: None
        self._interrupted: Callable[[], bool] = lambda: False
        self._process = InstrumentProcess(
            partial(run_core, settings, attach),
            frame_bytes=settings.frame_bytes,
            ring_mb=settings.ring_mb,
            start_timeout_s=settings.start_timeout_s,
        )

    @property
    def plate_map(self) -> PlateMap:
        """The map it was given."""
        return self._map

    @classmethod
    def check_map(cls, settings: MicroManagerSettings, plate_map: PlateMap) -> None:
        """See ChecksItsMap: depths, exposures, channels, and whether the stage may go to each well."""
        PlateSettings(settings, plate_map)
        check_reach(settings, _keys(settings, plate_map))

    @property
    def pid(self) -> int | None:
        """The core's process; None while there is none."""
        return self._process.pid

    def check(self) -> None:
        """Load the core, and raise ConfigError or InstrumentError where it is not the microscope of the settings."""
        self._check_files()
        check_reach(self._settings, _keys(self._settings, self._map))
        found, s = self._process.start(), self._settings
        height, width = s.frame_shape
        promised = (width, height, s.frame_bytes // (width * height))
        if (camera := (found.width, found.height, found.bytes_per_pixel)) != promised:
            what = f"the camera gives (width, height, bytes) {camera}, the settings say {promised}"
            do = "correct source.width, height and dtype, or the camera's region, binning and bit depth"
            do += "; of raw frames width and height are twice the camera's" if s.raw else ""
            raise ConfigError(what, where="source", do=do)
        if found.pixel_um > 0 and abs(found.pixel_um - s.frame_pixel_um) > 0.01 * s.frame_pixel_um:
            what = f"Micro-Manager's pixel is {found.pixel_um:g} um, the settings say {s.frame_pixel_um:g}"
            raise ConfigError(what, where="source.pixel_um", do="correct it, or the calibration of the objective")

    def plans(self) -> Sequence[StackPlan]:
        """One stack for each field of each well that is not empty, in the plan's order."""
        return [self.plan(key) for key in _keys(self._settings, self._map)]

    def plan(self, key: StackKey) -> StackPlan:
        """The geometry of a stack; the same for every well, but for a z-step and exposures of its own."""
        own, raw = self._wells.of(key), self._settings.raw
        plan = replace(plan_of(key, self._settings, own.period_s), z_step_um=own.z_step_um)
        return plan if raw is None else replace(plan, raw=raw.pattern())

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """Acquire the wanted slices of a well; InstrumentError names those that did not come, StackError says why a
        well's focus could not be found.
        """
        if not any(index in wanted for index in plan.indices()):
            return
        try:
            focus = self._focus(plan, wanted)
        except SweepInterruptedError:
            return
        start_um = self._wells.of(plan.key).z_start_um
        if focus is not None and focus.first_z_um is not None:
            start_um = focus.first_z_um
        said: dict[str, float | str] = {}
        if focus is not None and focus.focus_z_um is not None:
            said = {"focus_z_um": focus.focus_z_um, "focus": focus.status.value}
        yield from self._acquire(plan, self._order(plan, wanted, start_um), wanted, said)

    @property
    def view_limits_um(self) -> tuple[float, float]:
        """See Snapping."""
        return self._settings.z_limits_um

    def snap(self, order: SnapOrder) -> Snapshot:
        """See Snapping. A well that is named without a z is looked at in the middle of its stack."""
        s = self._settings
        if order.channel not in s.channels:
            do = f"choose one of {', '.join(s.channel_names)}"
            raise ConfigError(f"there is no channel {order.channel!r}", where="source.channels", do=do)
        if order.well is not None and not order.field < len(s.sites.fields_um):
            do = f"a well has the fields 0 to {len(s.sites.fields_um) - 1}"
            raise ConfigError(f"there is no field {order.field}", where=f"well {order.well}", do=do)
        xy_um = s.xy_um(order.well, order.field) if order.well is not None else None
        own = self._wells.at(order.well)
        z_um = own.z_um(s.n_z // 2) if order.z_um is None and xy_um is not None else order.z_um
        exposure_ms = order.exposure_ms or own.exposure_ms[order.channel]
        name = f"an image of {order.well or 'where the stage stands'}"
        taken = self._answered(LookOrder(name, order.channel, exposure_ms, xy_um, z_um))
        if taken is None:
            raise InstrumentError(f"{name} did not come", do="check the camera, and try again")
        frame, pixels = taken
        said = {key: float(value) for key, value in frame.metadata.items()}
        place = said["x_um"], said["y_um"]
        return Snapshot(
            pixels,
            order.channel,
            said["exposure_ms"],
            *place,
            said["z_um"],
            s.well_at(*place),
            s.frame_pixel_um,
            int(said["ceiling_adu"]),
            frame.acquired_s,
        )

    def put_back(self) -> None:
        """See Snapping."""
        if self._process.pid is not None:  # one that was started anew knows nothing of it
            self._answered(PutBack())

    def _answered(self, order: Work) -> tuple[FrameTaken, Pixels] | None:
        """What the process does of an order for one image; the image, where one comes."""
        over, taken = False, None
        try:
            self._process.start()
            self._process.send(order)
            while not over:
                message = self._process.receive()
                if isinstance(message, FrameTaken):
                    taken = message, self._process.take(message, self._settings.frame_shape, self._settings.dtype)
                elif isinstance(message, StackOver):
                    over = True
                    if message.error is not None:
                        raise message.error
        except SpheroiddError:
            over = True  # as in `_acquire`
            raise
        finally:
            if not over:
                self._process.abort()
        return taken

    def set_event_sink(self, tell: Callable[[FaultRaised | FocusFound], None]) -> None:
        """See FaultTelling: it tells of each stack's focus."""
        self._tell = tell

    def set_interrupt(self, interrupted: Callable[[], bool]) -> None:
        """See Interruptible: a search for the focus is given up."""
        self._interrupted = interrupted

    def restore_focus_map(self, found: Iterable[FocusFound]) -> None:
        """See FocusRecalling."""
        if self._autofocus is not None:
            self._autofocus.map.restore(found)

    def _focus(self, plan: StackPlan, wanted: Set[SliceIndex]) -> FocusFound | None:
        """Where this stack's focus is, looked for before its first slice; None where nobody looked.

        A stack that has slices already is completed where it was begun.
        """
        focusing = self._autofocus
        if focusing is None:
            return None
        if not all(index in wanted for index in plan.indices()):
            return focusing.map.found.get(plan.key)  # without one it was begun before there was an autofocus
        x_um, y_um = self._settings.xy_um(plan.key.well, plan.key.stack)
        found = focusing.seek(plan.key, x_um, y_um, partial(self._sweep, plan, focusing.channel))
        self._tell(found)
        focusing.check(found)
        return found

    def _sweep(self, plan: StackPlan, channel: str, positions_um: Sequence[float]) -> Iterator[Pixels]:
        """The image at each focus position; SweepInterruptedError where somebody wants it to end."""
        height, width = plan.frame_shape  # of raw frames too it is single images, without a pattern that steps
        sweep = replace(plan, channels=(channel,), n_z=len(positions_um), raw=None, height=height, width=width)
        order = replace(
            self._order(plan, set(), 0.0),
            name=f"{plan.key}, autofocus",
            slices=tuple(PlannedSlice(SliceIndex(channel, n), z_um) for n, z_um in enumerate(positions_um)),
        )
        with contextlib.closing(self._acquire(sweep, order, set(sweep.indices()), {})) as frames:
            for frame in frames:
                if self._interrupted():
                    raise SweepInterruptedError
                yield frame.pixels

    def _acquire(
        self, plan: StackPlan, order: StackOrder, wanted: Set[SliceIndex], said: Mapping[str, float | str]
    ) -> Generator[Frame, None, None]:
        """The wanted frames of one order, each with what is `said` of all of them."""
        missing = {planned.index: None for planned in order.slices if planned.index in wanted}
        over = False
        try:
            self._process.start()
            self._process.send(order)
            while not over:
                message = self._process.receive()
                if isinstance(message, FrameTaken):
                    frame = self._frame(plan, message, said)
                    if message.index in missing:
                        yield frame
                        del missing[message.index]
                elif isinstance(message, StackOver):
                    over = True
                    self._conclude(plan, message, missing)
        except SpheroiddError as error:
            over = True  # what died was ended; what answered has ended by itself
            raise self._told(plan, order.name, error, missing) from error
        finally:
            if not over:
                self._process.abort()

    def close(self) -> None:
        """Close the shutter and end the core's process; may be called twice."""
        self._process.stop()

    def _order(self, plan: StackPlan, wanted: Set[SliceIndex], start_um: float) -> StackOrder:
        """A slice of which any image is wanted is taken whole: a sequence plays the pattern from its beginning."""
        x_um, y_um = self._settings.xy_um(plan.key.well, plan.key.stack)
        own = self._wells.of(plan.key)
        taken = {(index.channel, index.z) for index in wanted}
        slices = (
            PlannedSlice(index, start_um + index.z * own.z_step_um)
            for index in self._settings.slice_order(plan)
            if (index.channel, index.z) in taken
        )
        return StackOrder(str(plan.key), x_um, y_um, tuple(slices), own.exposure_ms, own.stall_s)

    def _frame(self, plan: StackPlan, message: FrameTaken, said: Mapping[str, float | str]) -> Frame:
        pixels = self._process.take(message, plan.frame_shape, plan.dtype)
        metadata = {**message.metadata, **said, "host_time_s": self._clock.now()}
        return Frame(plan.key, message.index, pixels, message.acquired_s, metadata)

    def _conclude(self, plan: StackPlan, message: StackOver, missing: dict[SliceIndex, None]) -> None:
        printed = self._process.last_words()
        if not message.healthy:
            self._process.restart()
        if message.error is not None:
            raise InstrumentError(message.error.what + printed, do=message.error.do)
        if missing:
            raise InstrumentError("the acquisition ended without all of its slices")

    def _told(
        self, plan: StackPlan, where: str, error: SpheroiddError, missing: dict[SliceIndex, None]
    ) -> InstrumentError:
        """The error with what it cost: which slices, of which stack."""
        lost = "no slice is missing"
        if missing:
            lost = f"{len(missing)} of {plan.n_slices} slices are missing: {name_slices(missing)}"
        return InstrumentError(f"{error.what} ({lost})", where=where, do=error.do)

    def _check_files(self) -> None:
        s = self._settings
        if s.config is not None and not s.config.is_file():
            raise ConfigError("there is no such file", where=f"source.config = {s.config}", do="correct the path")
        folder = s.micromanager_dir
        if s.backend == "python" and folder != "test-adapters" and folder is not None and not folder.is_dir():
            do = "write the folder that Micro-Manager is installed in"
            raise ConfigError("there is no such folder", where=f"source.micromanager_dir = {folder}", do=do)


def _keys(settings: MicroManagerSettings, plate_map: PlateMap) -> list[StackKey]:
    """The stacks of a plate, in the plan's order."""
    sites = settings.sites
    fields = range(len(sites.fields_um))
    return [StackKey(plate_map.name, well, field) for well in sites.wells(plate_map) for field in fields]
