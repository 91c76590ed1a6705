"""The synthetic microscope as a source: it images a plate that exists only in its seed.

A slice's pixels depend on (plate, well, stack, seed, channel, z) alone, so a stack taken up after an interruption is
completed with the very bytes that were missing.
"""

import dataclasses
from collections.abc import Iterator, Sequence, Set
from typing import ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.plate import PlateMap, PlateWell
from spheroidd.protocols.ports import Clock
from spheroidd.protocols.stack import CHANNELS, Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.plate import DrugMode, PlateDesign, SpecChoices, WellSpec, well_spec
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.scene import Scene, well_truth
from spheroidd.sim_emulator.stage import taken
from spheroidd.sim_emulator.truth import Truth, WellTruth

Positive = Field(default=None, gt=0)


class Fault(BaseModel):
    """Something the instrument does wrong when it comes to one slice.

    drop: the slice is not delivered. duplicate: it comes twice. stall: it comes `seconds` late. short: the stack ends
    before it, without a word. fail: the stack is lost (StackError). lost: the instrument is gone (InstrumentError).
    A fault happens `times` times in a source's life.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["drop", "duplicate", "stall", "short", "fail", "lost"]
    well: str
    z: int = Field(ge=0)
    channel: Literal["488", "561"] = "488"
    seconds: float = Field(default=5.0, ge=0)
    times: int = Field(default=1_000_000, ge=1)

    @field_validator("well")
    @classmethod
    def _is_a_well(cls, text: str) -> str:
        try:
            return str(WellId.parse(text))
        except ConfigError as error:
            raise ValueError(str(error)) from error


class EmulatorSettings(BaseModel):
    """What the emulator images. Fields left None come from the preset or from each well's own draws."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["emulator"] = "emulator"
    preset: Literal["unit", "demo", "screen", "whole"] = "demo"
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
    swapped_channels: bool = False
    faults: tuple[Fault, ...] = ()

    def field_preset(self) -> Preset:
        """The preset with this model's geometry in place of its own."""
        names = {field.name for field in dataclasses.fields(Preset)} - {"name"}
        given = {name: value for name in names if (value := getattr(self, name, None)) is not None}
        return dataclasses.replace(PRESETS[self.preset], **given)

    def design(self) -> PlateDesign:
        """The plate to be made up."""
        return PlateDesign(**{f.name: getattr(self, f.name) for f in dataclasses.fields(PlateDesign)})


class EmulatorSource:
    """A StackSource over a synthetic plate. `preset` replaces the one that the settings name."""

    Settings: ClassVar[type[EmulatorSettings]] = EmulatorSettings

    def __init__(
        self,
        settings: EmulatorSettings,
        plate_map: PlateMap | None,
        plate_name: str,
        clock: Clock,
        *,
        preset: Preset | None = None,
    ) -> None:
        self.settings, self.preset = settings, preset or settings.field_preset()
        self._map = plate_map or settings.design().plate_map(plate_name, settings.seed)
        self._clock = clock
        self._fired: dict[Fault, int] = {}
        self._choices = SpecChoices(
            settings.seed,
            self.preset.diameter_um,
            settings.intensity,
            settings.autofluorescence,
            settings.edge_effects,
            settings.modes,
        )

    @property
    def plate_map(self) -> PlateMap:
        """The plate it images."""
        return self._map

    def check(self) -> None:
        """Nothing can be out of order: settings and plate map refused nonsense when they were made."""

    def plans(self) -> Sequence[StackPlan]:
        """One stack per well that is not empty, controls first."""
        return tuple(self.plan(entry.well) for entry in self._map.imaged())

    def plan(self, well: WellId, stack: int = 0) -> StackPlan:
        """The geometry of a well's stack."""
        p = self.preset
        key = StackKey(self._map.name, well, stack)
        return StackPlan(
            key, CHANNELS, p.n_z, p.height, p.width, p.pixel_um, p.z_step_um, slice_period_s=p.slice_period_s
        )

    def frames(self, plan: StackPlan, wanted: Set[SliceIndex]) -> Iterator[Frame]:
        """The wanted slices in the plan's order, at the instrument's pace unless the settings say fast."""
        order = [index for index in plan.indices() if index in wanted]
        if not order:
            return
        scene = self.scene(plan.key.well, plan.key.stack)
        scene.image(*order[0])  # what takes long to prepare is prepared before the shutter opens
        start = self._clock.elapsed()
        for index in order:
            pixels = scene.image(index.channel, index.z)
            self._wait_until(start + self._due_s(plan, index) - self._due_s(plan, order[0]))
            copies = 1
            for fault in self._faults(plan.key.well, index):
                if fault.kind == "short":
                    return
                copies = self._suffer(fault, plan, copies)
            said = taken(self.preset, plan, index).facts
            for _ in range(copies):
                yield Frame(plan.key, index, pixels, self._clock.now(), said)

    def close(self) -> None:
        """There is nothing to let go."""

    def scene(self, well: WellId, stack: int = 0) -> Scene:
        """The well under the microscope, for slices and truth without a plan."""
        return Scene.of(self.spec(well), self.preset, stack=stack, swapped=self.settings.swapped_channels)

    def spec(self, well: WellId | str) -> WellSpec:
        """What the well truly is."""
        return well_spec(self._map, self._entry(well), self._choices)

    def well_truth(self, well: WellId | str, stack: int = 0) -> WellTruth:
        """The well's row of the truth, without rendering the stack."""
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
        return Truth(live, dead, ids, cells, self.well_truth(well, stack))

    def _entry(self, well: WellId | str) -> PlateWell:
        return self._map[WellId.parse(well) if isinstance(well, str) else well]

    def _due_s(self, plan: StackPlan, index: SliceIndex) -> float:
        """When a slice is taken, from the stack's first: a z-step's channels share its period."""
        return self.preset.slice_period_s * (index.z + plan.channels.index(index.channel) / len(plan.channels))

    def _wait_until(self, due_s: float) -> None:
        if self.settings.pace == "real" and (left := due_s - self._clock.elapsed()) > 0:
            self._clock.sleep(left)

    def _faults(self, well: WellId, index: SliceIndex) -> Iterator[Fault]:
        for fault in self.settings.faults:
            here = fault.well == str(well) and (fault.channel, fault.z) == index
            if here and self._fired.get(fault, 0) < fault.times:
                self._fired[fault] = self._fired.get(fault, 0) + 1
                yield fault

    def _suffer(self, fault: Fault, plan: StackPlan, copies: int) -> int:
        """Let a fault happen; how many copies of the slice come after it."""
        what = f"the emulator was told to fail at channel {fault.channel} z {fault.z}"
        if fault.kind == "fail":
            raise StackError(what, where=str(plan.key), do="take the fault out of the emulator's settings")
        if fault.kind == "lost":
            raise InstrumentError(what, where=str(plan.key), do="take the fault out of the emulator's settings")
        if fault.kind == "stall":
            self._clock.sleep(fault.seconds)
        return {"drop": 0, "duplicate": 2}.get(fault.kind, copies)
