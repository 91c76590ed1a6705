"""Emulated plates for the viability regressor: each seen through many fields, with a segmentation's errors and an MTT.

A regressor that has seen few places of few spheroids takes each of them for a rule and goes astray in the next. So
spheroids of all sizes are grown once, and looked at from many places; no slice is rendered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spheroidd.daemon.emulation.emulated_mtt import MTT_CV, MTT_NOISE_PERCENT
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.inference.training.regressor_training import RegressorRow
from spheroidd.protocols.plate import WellRole
from spheroidd.sim_emulator.coarse import CoarseSpheroid, DepthVolumes
from spheroidd.sim_emulator.phantom import count_states, grow
from spheroidd.sim_emulator.plate import DrugMode
from spheroidd.sim_emulator.presets import PRESETS, Preset
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

FIELDS = ("demo", "screen", "part", "whole", "small")
FIELDS_OF_A_PLATE, VARIANTS = 12, 2  # a variant: other errors, other controls
SMALL_UM, LARGE_UM = (70.0, 180.0), (180.0, 500.0)  # diameters; a fine field can hold a small one whole
SMALL_SHARE = 0.25  # of plates have small ones
CONTROLS, LEAST_CONTROLS = 6, 2  # untreated wells of a plate, and the fewest that a variant of it is related to
TOP_DOSE_UM, DILUTION = (25.0, 100.0), (3.0, 5.0)
OFF_CENTRE_UM = 60.0  # at most, of fields that show a part of a spheroid
# How the shipped network errs on emulated plates beside their truth (`python -m bench.validation`: -2 to 7 % more live
# volume than there is, -5 to 2 % of the dead volume taken for live), and some more for plates that are not like those.
EXCESS, FALSE_DEAD = (-0.05, 0.1), (-0.05, 0.05)  # drawn for a plate
WELL_EXCESS_SD, WELL_FALSE_SD = 0.03, 0.03  # and from well to well about that
SLICE_CV = 0.03  # and from slice to slice
FADING_SHARE, FADING_UM, FADING_WIDTH_UM = 0.5, (120.0, 400.0), (15.0, 50.0)  # where cells get too dim to be found
_N_Z = 64  # slices: a profile has half as many bins

Floats = NDArray[np.float64]
Rows = dict[str, list[RegressorRow]]  # by kind of field


@dataclass(frozen=True, slots=True)
class _Well:
    control: bool
    n_live: int  # in the whole spheroid, as the assay counts
    seen: list[DepthVolumes]  # through each field


def emulated_rows(seed: int, variants: int = 1) -> Rows:
    """One plate's wells, by the kind of field that they are seen through, as the daemon would relate them.

    Every plate has a seed, and so spheroids and compounds, of its own; three of the modes of action. A first variant
    is related to all of its controls, the others to some.
    """
    rng = np.random.default_rng([seed, 0x5667])
    diameter_um = rng.uniform(*(SMALL_UM if rng.random() < SMALL_SHARE else LARGE_UM))
    modes = tuple(DrugMode(mode) for mode in rng.permutation(list(DrugMode)))
    settings = EmulatorSettings(
        seed=seed,
        pace="fast",
        compounds=3,
        doses=4,
        top_dose_um=rng.uniform(*TOP_DOSE_UM),
        dilution=rng.uniform(*DILUTION),
        negative_controls=CONTROLS,
        positive_controls=1,
        modes=modes,
    )
    preset = replace(PRESETS["demo"], diameter_um=diameter_um)
    source = EmulatorSource(settings, None, f"viability{seed}", SystemClock(), preset=preset)
    fields = [field(diameter_um, rng) for _ in range(FIELDS_OF_A_PLATE)]
    wells = []
    for entry in source.plate_map.imaged():
        phantom = grow(source.spec(entry.well))
        spheroid = CoarseSpheroid.of(phantom)
        control = entry.treatment.role is WellRole.NEGATIVE_CONTROL
        seen = [spheroid.depth_volumes(one) for one in fields]
        wells.append(_Well(control, count_states(phantom.cells.state)[0], seen))
    wells.sort(key=lambda well: not well.control)
    found: Rows = {}
    for number, one in enumerate(fields):
        for variant in range(variants):
            n_used = int(rng.integers(LEAST_CONTROLS, CONTROLS + 1)) if variant else CONTROLS
            left_out = rng.permutation(CONTROLS)[n_used:]
            used = [well for place, well in enumerate(wells) if place not in left_out]
            found.setdefault(one.name, []).extend(_variant(used, n_used, number, one, rng))
    return found


def field(diameter_um: float, rng: np.random.Generator) -> Preset:
    """A field over a spheroid of that diameter, drawn: of the study's presets, a window of any size, or all of it."""
    if diameter_um < SMALL_UM[1] and rng.random() < 0.5:
        side_um = diameter_um * rng.uniform(1.2, 1.8)
        return _window("small", (side_um, side_um), (-3.0, 0.0, 0.0))
    kind = str(rng.choice(["demo", "screen", "part", "whole"], p=[1 / 3, 1 / 3, 1 / 6, 1 / 6]))
    aside_um, lower_um, upper_um = OFF_CENTRE_UM, -12.0, 20.0
    if kind == "whole":
        depth_um, side_um = diameter_um * rng.uniform(0.5, 1.5), diameter_um * rng.uniform(1.0, 1.8)
        aside_um, lower_um, upper_um = 0.1 * diameter_um, -15.0, 5.0
    elif kind == "part":
        depth_um, side_um = (float(np.exp(rng.uniform(*np.log(span)))) for span in ((30, 400), (50, 500)))
        aside_um, lower_um, upper_um = min(OFF_CENTRE_UM, diameter_um / 4), -15.0, 30.0
    else:
        depth_um, side_um, _ = PRESETS[kind].extent_um
        if kind == "screen" and rng.random() < 0.5:  # the corner that networks are judged on
            depth_um = side_um = 56.0
    if rng.random() < 0.4:  # well centred, as a focus and a camera picture make it
        aside_um, lower_um, upper_um = 0.1 * aside_um, -4.0, -4.0
    y_um, x_um = rng.uniform(-aside_um, aside_um, 2)
    return _window(kind, (depth_um, side_um), (rng.uniform(lower_um, upper_um), y_um, x_um))


def _window(name: str, extent_um: tuple[float, float], place_um: tuple[float, float, float]) -> Preset:
    (depth_um, side_um), (z_um, y_um, x_um) = extent_um, place_um
    at = {"field_z_um": z_um, "field_y_um": float(y_um), "field_x_um": float(x_um)}
    return Preset(name, _N_Z, 100, 100, side_um / 100, depth_um / _N_Z, 0.0, **at)


def _variant(
    wells: Sequence[_Well], n_controls: int, number: int, preset: Preset, rng: np.random.Generator
) -> list[RegressorRow]:
    """The wells (the controls first) seen through one field, segmented once, and their assay."""
    excess, false_dead = rng.uniform(*EXCESS), rng.uniform(*FALSE_DEAD)
    found = _found(preset, rng)
    profiles = [tuple(_segmented(well.seen[number], excess, false_dead, rng) * found) for well in wells]
    related = profiles[:n_controls]
    reference = float(np.median([well.n_live for well in wells[:n_controls]]))
    rows = []
    for well, profile in zip(wells, profiles, strict=True):
        mtt = 100 * well.n_live / reference * (1 + MTT_CV * rng.normal()) + MTT_NOISE_PERCENT * rng.normal()
        rows.append(RegressorRow(profile, preset.z_step_um, related, float(mtt)))
    return rows


def _found(preset: Preset, rng: np.random.Generator) -> Floats | float:
    """The part of each slice's volume (n_z,) that light and dye let a network find; deep in a spheroid it falls."""
    if rng.random() >= FADING_SHARE:
        return 1.0
    z_um = preset.field_z_um + preset.z_step_um * np.arange(preset.n_z)
    return np.asarray(1 / (1 + np.exp((z_um - rng.uniform(*FADING_UM)) / rng.uniform(*FADING_WIDTH_UM))))


def _segmented(seen: DepthVolumes, excess: float, false_dead: float, rng: np.random.Generator) -> Floats:
    """What a segmentation would measure."""
    found = seen.live_um3 * (1 + excess + WELL_EXCESS_SD * rng.normal())
    false = seen.dead_um3 * (false_dead + WELL_FALSE_SD * rng.normal())
    return np.clip((found + false) * rng.normal(1, SLICE_CV, len(found)), 0, None)
