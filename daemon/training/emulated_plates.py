"""Emulated plates to learn from and to be judged on: which fields, which samples, and what is true of them.

Held-out plates have seeds, and with them patients, compounds and optics, that no training plate has.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spheroidd.daemon.system.clock import SystemClock
from spheroidd.daemon.training.raw_plates import reconstructed
from spheroidd.inference.preprocessing.plate_limits import WellLight, plate_limits
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.inference.training.stack import TrainingStack, filter_stack, prepare_stack, stack_light
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.phantom import CellState
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.realism import Realism, conditions
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.sim_emulator.stripes import StripeSettings
from spheroidd.sim_emulator.truth import Truth

_LIVE_STATES = (CellState.LIVE,)
_DEAD_STATES = (CellState.DEAD, CellState.DOUBLE_POSITIVE)
_RULE = "all-wells"  # how limits are found: stacks that were kept under pooled controls' limits are made again
_JITTER = 0.25  # how far a third variant's limits are off, as a running estimate's or another plate's may be


@dataclass(frozen=True, slots=True)
class Field:
    """One kind of field to image: a preset, with some of it replaced, and how many samples a plate of it gives.

    `number` keeps apart what is drawn for plates of equal seeds. `doses`, `top_dose_um`: of the samples. With `swapped`
    calcein is imaged at 561 and PI at 488, and the two are put back in order: another bleed-through, another noise.
    With `raw` slices are computed of raw frames of structured illumination.
    With `anywhere` a plate has its own voxels and spheroids, and if it is not easy its own lens, too. Of those that are
    not easy every other one has no killed well.
    """

    number: int
    preset: str
    replaced: Mapping[str, float]
    samples: int
    doses: int = 5
    top_dose_um: float = 100.0
    swapped: bool = False
    realism: Realism = Realism.EASY
    anywhere: bool = False
    raw: bool = False

    def drawn(self, rng: np.random.Generator) -> Preset:
        """The preset with a place in the spheroid and a spheroid drawn for one plate."""
        base = dataclasses.replace(PRESETS[self.preset], **self.replaced)  # type: ignore[arg-type]
        if self.raw:
            base = dataclasses.replace(base, sigma_xy_um=StripeSettings().psf_sigma_um)
        if self.preset == "unit":
            return base
        if self.anywhere:
            placed = _anywhere(base, rng)
            return placed if self.realism is Realism.EASY else _through_any_lens(placed, rng)
        spread_um = 0.0 if self.preset == "whole" else 60.0
        return dataclasses.replace(
            base,
            diameter_um=rng.uniform(200, 500),
            field_z_um=base.field_z_um + rng.uniform(-8, 0.4 * spread_um),
            field_y_um=rng.uniform(-spread_um, spread_um),
            field_x_um=rng.uniform(-spread_um, spread_um),
        )


def _anywhere(base: Preset, rng: np.random.Generator) -> Preset:
    """Voxels and spheroid of any instrument: as far from the model's voxel as real stacks are."""
    pixel_um, z_step_um = (float(np.exp(rng.uniform(*np.log(ends)))) for ends in ((0.25, 1.3), (0.5, 4.0)))
    diameter_um = float(np.exp(rng.uniform(*np.log((70.0, 500.0)))))
    height_um = min(110.0, 0.8 * diameter_um + 10.0)
    width_um = min(130.0, 256 * pixel_um)
    aside_um = 0.3 * diameter_um if width_um < diameter_um else 0.0
    return dataclasses.replace(
        base,
        n_z=max(12, round(height_um / z_step_um)),
        height=max(48, round(width_um / pixel_um)),
        width=max(48, round(width_um / pixel_um)),
        pixel_um=pixel_um,
        z_step_um=z_step_um,
        diameter_um=diameter_um,
        field_z_um=float(rng.uniform(-10.0, 10.0)),
        field_y_um=float(rng.uniform(-aside_um, aside_um)),
        field_x_um=float(rng.uniform(-aside_um, aside_um)),
    )


def _through_any_lens(base: Preset, rng: np.random.Generator) -> Preset:
    """Seen less sharply than by the best instrument, or hardly less."""
    return dataclasses.replace(
        base,
        sigma_xy_um=float(np.exp(rng.uniform(*np.log((0.2, 1.6))))),
        sigma_z_um=float(np.exp(rng.uniform(*np.log((0.6, 5.0))))),
    )


FIELDS: dict[str, Field] = {
    "demo": Field(0, "demo", {}, 4),
    "screen": Field(1, "screen", {"n_z": 112, "height": 448, "width": 448}, 3),
    "unit": Field(2, "unit", {}, 3),
    "whole": Field(3, "whole", {"n_z": 100, "height": 256, "width": 256}, 3),
    "swapped": Field(4, "demo", {}, 3, swapped=True),
    "sim": Field(9, "sim", {"n_z": 24, "height": 320, "width": 320}, 3, raw=True),
    "real": Field(6, "demo", {}, 4, realism=Realism.REAL, anywhere=True),
    "hostile": Field(7, "demo", {}, 4, realism=Realism.HOSTILE, anywhere=True),
    "any": Field(8, "demo", {}, 4, anywhere=True),  # clear, in any voxels, of any spheroid
    "dying": Field(5, "demo", {}, 5, doses=2, top_dose_um=400.0),  # where few live cells stand among dead ones
}


class TrainingPlate:
    """One emulated plate: two untreated wells and a killed one, and samples, all under the plate's limits.

    `cell_um` is how wide its cells are; without it as wide as they are on plates of this kind.
    """

    def __init__(self, kind: str, seed: int, cell_um: float | None = None) -> None:
        rng = np.random.default_rng([seed, FIELDS[kind].number])
        self.name, self._field, self._rng = f"{kind}-{seed}", FIELDS[kind], rng
        preset, hard = self._field.drawn(rng), self._field.realism is not Realism.EASY
        settings = EmulatorSettings(
            preset=PRESETS[self._field.preset].name,  # type: ignore[arg-type]
            seed=seed,
            pace="fast",
            compounds=6,
            doses=self._field.doses,
            negative_controls=2,
            positive_controls=int(not hard or rng.random() < 0.5),
            top_dose_um=self._field.top_dose_um,
            intensity=rng.uniform(0.6, 1.4),
            autofluorescence=None if hard or rng.random() < 0.5 else rng.uniform(0, 0.3),
            shuffled=True,
            swapped_channels=self._field.swapped,
            realism=self._field.realism,
            cell_um=cell_um,
            raw=StripeSettings() if self._field.raw else None,
        )
        self.source = EmulatorSource(settings, None, f"train{seed}", SystemClock(), preset=preset)
        self.own_um: Spacing = (preset.z_step_um, preset.pixel_um, preset.pixel_um)

    @property
    def cell_um(self) -> float:
        """How wide a usual cell of the plate is."""
        settings = self.source.settings
        return settings.cell_um or conditions(settings.realism, settings.seed, self.source.plate_map.name).cell_um

    @property
    def is_easy(self) -> bool:
        """Whether its images are as clear as emulated ones can be."""
        return self._field.realism is Realism.EASY

    def wells(self) -> list[WellId]:
        """The controls, then the samples drawn for this plate."""
        wells = list(self.source.plate_map.imaged())
        controls = [entry.well for entry in wells if entry.treatment.role is not WellRole.SAMPLE]
        samples = [entry.well for entry in wells if entry.treatment.role is WellRole.SAMPLE]
        chosen = np.random.default_rng(self.source.settings.seed).permutation(len(samples))[: self._field.samples]
        return controls + [samples[number] for number in chosen]

    def stack_name(self, well: WellId) -> str:
        """What a well's training stack is called."""
        return f"{self.name}-{well}"

    def render(self, well: WellId) -> tuple[Pixels, Truth]:
        """The raw stack (2, z, y, x) uint16, and its truth."""
        return self.pixels(well), self.source.truth(well)

    def pixels(self, well: WellId) -> Pixels:
        """The raw stack (2, z, y, x) uint16."""
        plan = self.source.plan(well)
        if plan.raw is not None:
            return reconstructed(plan, plan.raw, self.source.frames(plan, set(plan.indices())))
        stack = np.empty((len(CHANNELS), plan.n_z, plan.height, plan.width), np.uint16)
        for frame in self.source.frames(plan, set(plan.indices())):
            stack[CHANNELS.index(frame.index.channel), frame.index.z] = frame.pixels
        return stack[::-1] if self._field.swapped else stack

    def limits(self, spacing_um: Spacing, rendered: Mapping[WellId, Pixels]) -> dict[str, Limits]:
        """The plate's limits, by the rule of a run: from the light of all of its wells that are used."""
        role = {entry.well: entry.treatment.role for entry in self.source.plate_map.imaged()}
        return plate_limits(
            WellLight(role[well], stack_light(stack, self.own_um, filter_stack(stack, self.own_um, spacing_um)))
            for well, stack in rendered.items()
        )

    def stacks(self, spacing_um: Spacing) -> Iterator[TrainingStack]:
        """Every well as a training stack, under its own limits, the plate's, and the plate's a little off."""
        found = {well: self.render(well) for well in self.wells()}
        plate = self.limits(spacing_um, {well: stack for well, (stack, _) in found.items()})
        for well in list(found):
            stack, truth = found.pop(well)
            off = {channel: self._moved(one) for channel, one in plate.items()}
            masks, points = (
                (truth.live, truth.dead),
                (self._points(truth, _LIVE_STATES), self._points(truth, _DEAD_STATES)),
            )
            yield prepare_stack(
                self.stack_name(well), stack, masks, points, self.own_um, spacing_um, (None, plate, off), truth.known
            )

    def _points(self, truth: Truth, states: tuple[CellState, ...]) -> NDArray[np.float64]:
        """Centres counted from the outer corner; the truth counts from the first voxel's centre."""
        return truth.points_um(*states) + np.array(self.own_um) / 2

    def _moved(self, limits: Limits) -> Limits:
        scale = 1 + self._rng.uniform(-_JITTER, _JITTER)
        low = limits.low
        return Limits(low, low + (limits.high - low) * scale, low + (limits.mean - low) * scale, limits.sd * scale)


def cached_stacks(kind: str, seed: int, spacing_um: Spacing, cache: Path) -> Iterator[TrainingStack]:
    """A plate's training stacks, rendered once, and then mapped from a folder of `cache`.

    A stack that was removed from it is rendered again, with its plate.
    """
    if kind not in FIELDS:
        raise ConfigError(
            f"there is no kind of plate {kind!r}", where="training", do=f"use one of: {', '.join(FIELDS)}"
        )
    folder = cache / f"{'x'.join(f'{v:g}' for v in spacing_um)}-{_RULE}" / f"{kind}-{seed}"
    done, plate = folder / "done", TrainingPlate(kind, seed)
    names = sorted(plate.stack_name(well) for well in plate.wells())
    if not done.exists() or not all((folder / name / "stack.json").exists() for name in names):
        for stack in plate.stacks(spacing_um):
            stack.save(folder / stack.name)
        done.touch()
    for name in names:
        yield TrainingStack.load(folder / name)
