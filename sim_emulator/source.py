"""The synthetic microscope as a source: it images a plate that exists only in its seed.

A slice's pixels depend on (plate, well, stack, seed, channel, z) alone, so a stack taken up after an interruption is
completed with the very bytes that were missing.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence, Set
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap, PlateWell
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.snapshot import SnapOrder, Snapshot
from spheroidd.protocols.stack import CHANNELS, Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import EXPOSURES, WellImaging
from spheroidd.sim_emulator.faults import Fault, FaultReel, look_of
from spheroidd.sim_emulator.look import PLAIN, Look, Specimen
from spheroidd.sim_emulator.plate import DrugMode, PlateDesign, SpecChoices, WellSpec, well_spec
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.realism import Realism
from spheroidd.sim_emulator.stage import UNTIMED_MS, Taken, taken
from spheroidd.sim_emulator.stripes import StripeSettings, TruePattern
from spheroidd.sim_emulator.truth import Truth, WellTruth
from spheroidd.sim_emulator.view import EmulatedView

if TYPE_CHECKING:
    from spheroidd.sim_emulator.raw_camera import RawCamera
    from spheroidd.sim_emulator.recorded.raw_camera import RecordedRawCamera
    from spheroidd.sim_emulator.recorded.recording import Recording
    from spheroidd.sim_emulator.scene import Scene

# What draws images takes half a second to import. A configuration is read without it; `check` loads it.

Positive = Field(default=None, gt=0)


class EmulatorSettings(BaseModel):
    """What the emulator images. Fields left None come from the preset or from each well's own draws."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["emulator"] = "emulator"
    preset: Literal["unit", "demo", "sim", "screen", "whole"] = "demo"
    seed: int = Field(default=0, ge=0)
    pace: Literal["real", "fast"] = "real"
    # The plate, where no plate map is given.
    compounds: int = Field(default=2, ge=0, le=1536)
    doses: int = Field(default=5, ge=1, le=48)
    replicates: int = Field(default=1, ge=1, le=384)
    negative_controls: int = Field(default=3, ge=1, le=384)
    positive_controls: int = Field(default=2, ge=0, le=384)
    patients: int = Field(default=1, ge=1, le=384)
    top_dose_um: float = Field(default=50.0, gt=0)
    dilution: float = Field(default=10**0.5, gt=1)
    shuffled: bool = False
    first_compound: int = Field(default=1, ge=1, le=1536)
    first_patient: int = Field(default=1, ge=1, le=384)
    modes: tuple[DrugMode, ...] = Field(default=tuple(DrugMode), min_length=1)
    edge_effects: bool = True
    # The field; see presets.Preset.
    n_z: int | None = Positive
    height: int | None = Positive
    width: int | None = Positive
    pixel_um: float | None = Positive
    z_step_um: float | None = Positive
    slice_period_s: float | None = Field(default=None, ge=0)
    field_z_um: float | None = None
    field_y_um: float | None = None
    field_x_um: float | None = None
    # The sample.
    diameter_um: float | None = Field(default=None, ge=60, le=1000)
    intensity: float = Field(default=1.0, gt=0)
    autofluorescence: float | None = Field(default=None, ge=0, le=1)
    cell_um: float | None = Field(default=None, ge=8, le=20)
    swapped_channels: bool = False
    realism: Realism = Realism.EASY
    """How hard tissue, stain and optics make it: `real` and `hostile` draw each anew for every plate."""
    # A recorded plate in its place.
    recording: Path | None = None
    """What is imaged instead of the phantom: a plate map with paths, the data directory of a plate that was run, or one
    stack, which then lies in every well."""
    exposure: float = Field(default=1.0, gt=0, le=1000)
    """How many times as much light as the recording was made with; 1 gives its very pixels."""
    faults: tuple[Fault, ...] = ()
    raw: StripeSettings | None = None
    """Deliver the raw frames of structured illumination; without it, slices as they are once reconstructed."""

    @model_validator(mode="after")
    def _resolves(self) -> "EmulatorSettings":
        if self.raw is None:
            return self
        if self.recording is not None and self.pixel_um is None:
            return self  # the recording says it, once it is opened
        try:
            _check_seen(self.raw, self.field_preset().pixel_um)
        except ConfigError as error:
            raise ValueError(f"{error.what}; {error.do}") from error
        return self

    def field_preset(self, recording: "Recording | None" = None) -> Preset:
        """The preset with this model's geometry in place of its own, and of the recording's where there is one.

        A recording's field is placed from where it was taken: without a word, just there.
        """
        names = {field.name for field in dataclasses.fields(Preset)} - {"name"}
        given = {name: value for name in names if (value := getattr(self, name, None)) is not None}
        if self.raw is not None:
            given["sigma_xy_um"] = self.raw.psf_sigma_um
        base = PRESETS[self.preset]
        if recording is not None:
            held = recording.geometry
            camera = held.camera
            base = dataclasses.replace(
                base,
                n_z=held.n_z,
                height=camera.height,
                width=camera.width,
                pixel_um=camera.pixel_um,
                z_step_um=held.z_step_um,
                field_z_um=0.0,
                field_y_um=0.0,
                field_x_um=0.0,
            )
        return dataclasses.replace(base, **given)

    def design(self) -> PlateDesign:
        """The plate to be made up."""
        return PlateDesign(**{f.name: getattr(self, f.name) for f in dataclasses.fields(PlateDesign)})


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """One slice as the instrument gives it away, and what goes wrong with it; it comes `copies` times."""

    index: SliceIndex
    pixels: Pixels
    kinds: frozenset[str]

    @property
    def copies(self) -> int:
        """0 for a slice that is not delivered."""
        return 0 if "drop" in self.kinds else 2 if "duplicate" in self.kinds else 1


class EmulatorSource:
    """A StackSource over a synthetic plate, or over a recorded one.

    `preset` replaces the one that the settings name; `recording` is the opened one, where they name one.
    """

    Settings: ClassVar[type[EmulatorSettings]] = EmulatorSettings
    imaging_columns: ClassVar[frozenset[str]] = frozenset(EXPOSURES.values())

    def __init__(
        self,
        settings: EmulatorSettings,
        plate_map: PlateMap | None,
        plate_name: str,
        clock: Clock,
        *,
        preset: Preset | None = None,
        recording: "Recording | None" = None,
    ) -> None:
        if settings.recording is not None and recording is None:
            do = "take the source from `build_source`, which opens it"
            raise ConfigError("the recording was not opened", where=str(settings.recording), do=do)
        self.settings, self.recording = settings, recording
        self.preset = preset or settings.field_preset(recording)
        if plate_map is None and recording is not None and recording.plate_map is not None:
            plate_map = PlateMap(plate_name, recording.plate_map.wells)
        if settings.raw is not None and recording is not None:
            _check_seen(settings.raw, self.preset.pixel_um)
        self._map = plate_map or settings.design().plate_map(plate_name, settings.seed)
        self._clock = clock
        self._faults = FaultReel(settings.faults)
        self._choices = SpecChoices(
            settings.seed,
            self.preset.diameter_um,
            settings.intensity,
            settings.autofluorescence,
            settings.edge_effects,
            settings.modes,
            settings.realism,
            settings.cell_um,
        )
        self._view: EmulatedView | None = None

    @property
    def plate_map(self) -> PlateMap:
        """The plate it images."""
        return self._map

    def check(self) -> None:
        """Raise ConfigError where a stack of the recording cannot be read; nothing else can be out of order.

        What draws images is loaded, so that the first slice does not wait for it.
        """
        import_module("spheroidd.sim_emulator.scene")
        if self.recording is not None:
            try:
                self.recording.check()
            except StackError as error:
                do = f"{error.do}, or take the well out of the recording's plate map"
                raise ConfigError(error.what, where=error.where, do=do) from error

    def plans(self) -> Sequence[StackPlan]:
        """One stack per well that is not empty, controls first."""
        return tuple(self.plan(entry.well) for entry in self._map.imaged())

    def plan(self, well: WellId, stack: int = 0) -> StackPlan:
        """The geometry of a well's stack."""
        p, held = self.preset, self.recording.geometry if self.recording else None
        return StackPlan(
            StackKey(self._map.name, well, stack),
            held.channels if held else CHANNELS,
            p.n_z,
            p.height,
            p.width,
            p.pixel_um,
            p.z_step_um,
            dtype=held.camera.dtype if held and self.settings.raw is None else "uint16",
            slice_period_s=p.slice_period_s,
            raw=self.settings.raw.promised() if self.settings.raw else None,
        )

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """The wanted slices in the plan's order, at the instrument's pace unless the settings say fast."""
        for delivery in self.deliveries(plan, wanted):
            pixels, said = delivery.pixels, self.taken(plan, delivery.index).facts
            if "cut" in delivery.kinds:
                pixels = pixels[: len(pixels) // 2]
            for _ in range(delivery.copies):
                yield Frame(plan.key, delivery.index, pixels, self._clock.now(), said)

    def deliveries(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Delivery]:
        """The same for an instrument that gives its slices away in its own form: each when it is due.

        What ends a stack or the connection has happened here already.
        """
        order = [index for index in plan.indices() if index in wanted]
        if not order:
            return
        image = self.camera_over(plan.key.well, plan.key.stack)
        image(order[0], PLAIN)  # what takes long to prepare is prepared before the shutter opens
        start = self._clock.elapsed()
        for index in order:
            faults = self._faults.due(plan.key.well, index)
            pixels = image(index, look_of(faults))
            self._wait_until(start + self._due_s(plan, index) - self._due_s(plan, order[0]))
            for fault in faults:
                self._suffer(fault, plan, index)
            kinds = frozenset(fault.kind for fault in faults)
            if "short" in kinds:
                return
            yield Delivery(index, pixels, kinds)

    def camera_over(self, well: WellId, stack: int) -> Callable[[SliceIndex, Look], Pixels]:
        """What gives a well's camera images by their index, exposed as the plate map has it."""
        own = self._own_light(well, stack)
        if self.settings.raw is not None:
            camera = self._raw_camera(self.settings.raw, well, stack)
            return lambda index, look: camera.image(index, look.brighter(own[index.channel]))
        specimen = self.specimen(well, stack)
        return lambda index, look: specimen.image(index.channel, index.z, look.brighter(own[index.channel]))

    def _own_light(self, well: WellId, stack: int) -> dict[str, float]:
        """How many times the plate's light a well's own exposures give, by channel."""
        plan, imaging = self.plan(well, stack), self._imaging(well)
        planned = {channel: self._planned_ms(plan, SliceIndex(channel, 0)) for channel in plan.channels}
        return {
            channel: 1.0 if (own_ms := imaging.exposure_of(channel)) is None else own_ms / (planned_ms or UNTIMED_MS)
            for channel, planned_ms in planned.items()
        }

    def _raw_camera(self, raw: StripeSettings, well: WellId, stack: int) -> "RawCamera | RecordedRawCamera":
        if self.recording is None:
            from spheroidd.sim_emulator.raw_camera import RawCamera

            return RawCamera.over(self.scene(well, stack), raw)
        from spheroidd.sim_emulator.recorded.raw_camera import RawField, RecordedRawCamera
        from spheroidd.sim_emulator.recorded.recording import RecordedSpecimen

        p, channels, specimen = self.preset, self.recording.geometry.channels, self.specimen(well, stack)
        if not isinstance(specimen, RecordedSpecimen):
            raise ConfigError("a recorded well is no phantom", where=str(well), do="leave out recording, or raw")
        of = RawField(p.n_z, p.height, p.width, p.pixel_um, p.z_step_um)
        return RecordedRawCamera.over(specimen, raw, of, channels, f"{self._map.name} {well} {stack}")

    def pattern_truth(self, channel: str) -> TruePattern:
        """What is true of a colour's pattern; ConfigError where slices come without one."""
        if self.settings.raw is None:
            raise ConfigError("no raw frames are emulated", where="emulator", do="give its settings [source.raw]")
        return self.settings.raw.truth(channel)

    @property
    def view_limits_um(self) -> tuple[float, float]:
        """See Snapping."""
        low_um, p = self.preset.field_z_um, self.preset
        return low_um, low_um + (p.n_z - 1) * p.z_step_um

    def snap(self, order: SnapOrder) -> Snapshot:
        """See Snapping. Faults are those of a run, and do not happen here."""
        if self.settings.pace == "real":
            self._clock.sleep((order.exposure_ms or 0.0) / 1000)
        self._view = self._view or EmulatedView(self)
        return self._view.snap(order)

    def put_back(self) -> None:
        """See Snapping."""
        self._view = None

    def close(self) -> None:
        """Let a recording's files go; may be called twice."""
        if self.recording is not None:
            self.recording.close()

    def specimen(self, well: WellId, stack: int = 0, *, x_um: float = 0.0, y_um: float = 0.0) -> Specimen:
        """What lies under the objective; a recording also beside the field, where nothing was recorded."""
        if self.recording is None:
            return self.scene(well, stack)
        from spheroidd.sim_emulator.recorded.recording import CameraField, Place, RecordedSpecimen

        p, held = self.preset, self.recording.geometry
        place = Place(well, p.field_x_um + x_um, p.field_y_um + y_um, p.field_z_um)
        camera = CameraField(p.height, p.width, p.pixel_um, held.camera.dtype)
        return RecordedSpecimen(self.recording, camera, place, p.z_step_um, self.settings.exposure)

    def taken(self, plan: StackPlan, index: SliceIndex) -> Taken:
        """How an image is taken; exposed as the plate map says, else as long as the recorded one was, times the factor,
        where that is known.
        """
        own_ms = self._imaging(plan.key.well).exposure_of(index.channel)
        exposure_ms = self._planned_ms(plan, index) if own_ms is None else own_ms
        return dataclasses.replace(taken(self.preset, plan, index), exposure_ms=exposure_ms)

    def _planned_ms(self, plan: StackPlan, index: SliceIndex) -> float | None:
        """The exposure of a well that has none of its own."""
        recorded_ms = self.recording.exposure_ms(plan.key.well, index.channel) if self.recording else None
        if recorded_ms is None:
            return taken(self.preset, plan, index).exposure_ms
        return recorded_ms * self.settings.exposure

    def scene(self, well: WellId, stack: int = 0) -> "Scene":
        """The well under the microscope, for slices and truth without a plan."""
        from spheroidd.sim_emulator.scene import Scene

        return Scene.of(self.spec(well), self.preset, stack=stack, swapped=self.settings.swapped_channels)

    def spec(self, well: WellId | str) -> WellSpec:
        """What the well truly is; ConfigError where it was recorded, because then only its truth's files know."""
        if self.recording is not None:
            do = "look for a folder `truth` beside the recording"
            raise ConfigError("a recorded well is no phantom", where=str(well), do=do)
        return well_spec(self._map, self._entry(well), self._choices)

    def well_truth(self, well: WellId | str, stack: int = 0) -> WellTruth:
        """The well's row of the truth, without rendering the stack."""
        from spheroidd.sim_emulator.scene import well_truth

        return well_truth(self.spec(well), self.preset, stack)

    def truth(self, well: WellId | str, stack: int = 0) -> Truth:
        """Masks, cell numbers and the cells' table of a well's stack, at its own sampling."""
        scene = self.scene(self._entry(well).well, stack)
        p = self.preset
        shape = (p.n_z, p.height, p.width)
        cells = scene.cells()
        number = np.uint16 if cells["id"].max(initial=0) < 2**16 else np.uint32
        live, dead, ids = np.empty(shape, bool), np.empty(shape, bool), np.empty(shape, number)
        for z, plane in enumerate(scene.planes_truth()):
            live[z], dead[z], ids[z] = plane
        row = self.well_truth(well, stack)
        known = np.stack([scene.known(z) for z in range(p.n_z)]) if row.known_um is not None else None
        return Truth(live, dead, ids, cells, row, known)

    def _entry(self, well: WellId | str) -> PlateWell:
        return self._map[WellId.parse(well) if isinstance(well, str) else well]

    def _imaging(self, well: WellId) -> WellImaging:
        """How the map has a well imaged; a place that is not on the plate like any other."""
        return next((entry.imaging for entry in self._map if entry.well == well), WellImaging())

    def _due_s(self, plan: StackPlan, index: SliceIndex) -> float:
        """When a slice is taken, from the stack's first: a z-step's channels share its period."""
        share = plan.channels.index(index.channel)
        if plan.raw is None:
            return self.preset.slice_period_s * (index.z + share / len(plan.channels))
        each = plan.frames_per_slice
        return self.preset.slice_period_s * (
            index.z + (share + plan.plane_of(index) % each / each) / len(plan.channels)
        )

    def _wait_until(self, due_s: float) -> None:
        if self.settings.pace == "real" and (left := due_s - self._clock.elapsed()) > 0:
            self._clock.sleep(left)

    def _suffer(self, fault: Fault, plan: StackPlan, index: SliceIndex) -> None:
        """Let what a fault does to the whole stack happen."""
        what = f"the emulator was set to fail at channel {index.channel} z {index.z}"
        if fault.kind == "fail":
            raise StackError(what, where=str(plan.key), do="take the fault out of the emulator's settings")
        if fault.kind == "lost":
            raise InstrumentError(what, where=str(plan.key), do="take the fault out of the emulator's settings")
        if fault.kind == "stall":
            self._clock.sleep(fault.seconds)


def _check_seen(raw: StripeSettings, pixel_um: float) -> None:
    """ConfigError where the camera's pixels are too large for the stripes."""
    finest = max(map(raw.frequency_per_um, CHANNELS))
    if 4 * pixel_um * finest > 1:
        what = f"pixel_um is {pixel_um:g}: the camera would not see the stripes"
        do = f'write {0.25 / finest:.3f} or less, or choose preset = "sim" or "screen"'
        raise ConfigError(what, where="emulator", do=do)
