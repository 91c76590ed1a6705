"""A microscope that Micro-Manager drives, as a source: one well after the other, each slice accounted for.

The core lives in a process of its own (`micromanager_process`), because a device adapter may crash or hang; frames
come over a bounded ring of shared memory. No engine is believed: every slice is counted against the plan, and one
that is missing is named.
"""

from collections.abc import Iterator, Sequence, Set
from functools import partial
from typing import ClassVar

from spheroidd.acquisition.instrument_messages import FrameTaken, PlannedSlice, StackOrder, StackOver
from spheroidd.acquisition.instrument_process import InstrumentProcess
from spheroidd.acquisition.micromanager_core import check_reach
from spheroidd.acquisition.micromanager_process import Attach, run_core
from spheroidd.acquisition.micromanager_settings import MicroManagerSettings
from spheroidd.acquisition.missing_slices import name_slices
from spheroidd.protocols.errors import ConfigError, InstrumentError, SpheroiddError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan


class MicroManagerSource:
    """A StackSource over Micro-Manager's core, one stack for each field of a well.

    `attach` is called with the loaded core, in its process; it must be importable by name (a function of a module, or
    a `functools.partial` of one). The emulator's camera comes in that way.
    """

    Settings: ClassVar[type[MicroManagerSettings]] = MicroManagerSettings

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

    @property
    def pid(self) -> int | None:
        """The core's process; None while there is none."""
        return self._process.pid

    def check(self) -> None:
        """Load the core, and raise ConfigError or InstrumentError where it is not the microscope of the settings."""
        self._check_files()
        check_reach(self._settings, self._keys())
        found, s = self._process.start(), self._settings
        promised = (s.width, s.height, s.frame_bytes // (s.width * s.height))
        if (camera := (found.width, found.height, found.bytes_per_pixel)) != promised:
            what = f"the camera gives (width, height, bytes) {camera}, the settings say {promised}"
            do = "correct source.width, height and dtype, or the camera's region, binning and bit depth"
            raise ConfigError(what, where="source", do=do)
        if found.pixel_um > 0 and abs(found.pixel_um - s.pixel_um) > 0.01 * s.pixel_um:
            what = f"Micro-Manager's pixel is {found.pixel_um:g} um, the settings say {s.pixel_um:g}"
            raise ConfigError(what, where="source.pixel_um", do="correct it, or the calibration of the objective")

    def plans(self) -> Sequence[StackPlan]:
        """One stack for each field of each well that is not empty, in the plan's order."""
        return [self.plan(key) for key in self._keys()]

    def plan(self, key: StackKey) -> StackPlan:
        """The geometry of a stack, the same for every well."""
        s = self._settings
        return StackPlan(
            key,
            s.channel_names,
            s.n_z,
            s.height,
            s.width,
            pixel_um=s.pixel_um,
            z_step_um=s.z_step_um,
            dtype=s.dtype,
            slice_period_s=s.period_s,
        )

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """Acquire the wanted slices of a well; InstrumentError names those that did not come."""
        order = self._order(plan, wanted)
        if not order.slices:
            return
        missing = {planned.index: None for planned in order.slices}
        over = False
        try:
            self._process.start()
            self._process.send(order)
            while not over:
                message = self._process.receive()
                if isinstance(message, FrameTaken):
                    yield self._frame(plan, message)
                    del missing[message.index]
                elif isinstance(message, StackOver):
                    over = True
                    self._conclude(plan, message, missing)
        except SpheroiddError as error:
            over = True  # what died was ended; what answered has ended by itself
            raise self._told(plan, error, missing) from error
        finally:
            if not over:
                self._process.abort()

    def close(self) -> None:
        """Close the shutter and end the core's process; may be called twice."""
        self._process.stop()

    def _keys(self) -> list[StackKey]:
        sites = self._settings.sites
        fields = range(len(sites.fields_um))
        return [StackKey(self._map.name, well, field) for well in sites.wells(self._map) for field in fields]

    def _order(self, plan: StackPlan, wanted: Set[SliceIndex]) -> StackOrder:
        x_um, y_um = self._settings.xy_um(plan.key.well, plan.key.stack)
        slices = (
            PlannedSlice(index, self._settings.z_um(index.z))
            for index in self._settings.slice_order(plan)
            if index in wanted
        )
        return StackOrder(str(plan.key), x_um, y_um, tuple(slices))

    def _frame(self, plan: StackPlan, message: FrameTaken) -> Frame:
        pixels = self._process.take(message, (plan.height, plan.width), plan.dtype)
        metadata = {**message.metadata, "host_time_s": self._clock.now()}
        return Frame(plan.key, message.index, pixels, message.acquired_s, metadata)

    def _conclude(self, plan: StackPlan, message: StackOver, missing: dict[SliceIndex, None]) -> None:
        printed = self._process.last_words()
        if not message.healthy:
            self._process.restart()
        if message.error is not None:
            raise InstrumentError(message.error.what + printed, do=message.error.do)
        if missing:
            raise InstrumentError("the acquisition ended without all of its slices")

    def _told(self, plan: StackPlan, error: SpheroiddError, missing: dict[SliceIndex, None]) -> InstrumentError:
        """The error with what it cost: which slices, of which stack."""
        lost = "no slice is missing"
        if missing:
            lost = f"{len(missing)} of {plan.n_slices} slices are missing: {name_slices(missing)}"
        return InstrumentError(f"{error.what} ({lost})", where=str(plan.key), do=error.do)

    def _check_files(self) -> None:
        s = self._settings
        if s.config is not None and not s.config.is_file():
            raise ConfigError("there is no such file", where=f"source.config = {s.config}", do="correct the path")
        folder = s.micromanager_dir
        if s.backend == "python" and folder != "test-adapters" and folder is not None and not folder.is_dir():
            do = "write the folder that Micro-Manager is installed in"
            raise ConfigError("there is no such folder", where=f"source.micromanager_dir = {folder}", do=do)
