"""What is on the plate: the design (compounds x doses x replicates, controls, patients) and each well's true state."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.draws import Draws
from spheroidd.sim_emulator.realism import EASY, TYPICAL_CELL_UM, Conditions, Realism, conditions

PLATE_FORMATS = ((8, 12), (16, 24), (32, 48))  # rows, columns of the SBS plates
_DIAMETERS_UM = (25.0, 1000.0)  # from a few cells, as a small spheroid is that stopped growing, to the largest made


class DrugMode(StrEnum):
    """How a compound shows: where cells die, or what else it does."""

    UNIFORM = "uniform"
    RIM_IN = "rim_in"
    CORE_OUT = "core_out"
    CYTOSTATIC = "cytostatic"  # the spheroid stays small, its cells stay alive
    SHEDDING = "shedding"  # dead cells and debris lie around the spheroid
    AUTOFLUORESCENT = "autofluorescent"  # the compound itself shines


@dataclass(frozen=True, slots=True)
class Compound:
    """A compound's true action on the typical patient: viability falls from 1 to `floor` around `ic50_um`."""

    name: str
    ic50_um: float
    hill: float
    floor: float
    mode: DrugMode

    def response(self, dose_um: float, ic50_um: float) -> float:
        """b + (1-b)/(1+(c/IC50)^h), for the IC50 of one patient on one plate."""
        if dose_um <= 0:
            return 1.0
        return self.floor + (1 - self.floor) / (1 + math.pow(dose_um / ic50_um, self.hill))


@dataclass(frozen=True, slots=True)
class PlateDesign:
    """A plate to be made up: every patient gets its own controls and dose series.

    Doses fall from `top_dose_um` by `dilution` each. A screen is several plates, told apart by their names:
    `first_compound` and `first_patient` say with which of the world's compounds (C01, ...) and patients (P01, ...) this
    plate begins, and `shuffled` spreads controls and samples over it, so that the edge falls on all alike.
    """

    compounds: int = 2
    doses: int = 5
    replicates: int = 1
    negative_controls: int = 3
    positive_controls: int = 2
    patients: int = 1
    top_dose_um: float = 50.0
    dilution: float = 10**0.5
    shuffled: bool = False
    first_compound: int = 1
    first_patient: int = 1

    def dose_series_um(self) -> tuple[float, ...]:
        """The doses, rising, to four digits as a person would write them."""
        return tuple(float(f"{self.top_dose_um / self.dilution**k:.4g}") for k in reversed(range(self.doses)))

    def lines(self) -> list[list[Treatment]]:
        """What belongs together in a row of the plate: each patient's controls, then each dose series."""
        out: list[list[Treatment]] = []
        for number in range(self.first_patient, self.first_patient + self.patients):
            patient = f"P{number:02d}"
            untreated = Treatment(WellRole.NEGATIVE_CONTROL, None, 0.0, patient)
            killed = Treatment(WellRole.POSITIVE_CONTROL, None, None, patient)
            out.append([untreated] * self.negative_controls + [killed] * self.positive_controls)
            for compound in range(self.first_compound, self.first_compound + self.compounds):
                doses = [
                    Treatment(WellRole.SAMPLE, f"C{compound:02d}", dose, patient) for dose in self.dose_series_um()
                ]
                out += [doses] * self.replicates
        return out

    def plate_map(self, name: str, seed: int) -> PlateMap:
        """The layout as a plate map, on the smallest plate that holds it.

        Each line starts a row where that fits; else, and with `shuffled` (in an order drawn from the seed and the
        name), the wells are filled one after the other.
        """
        lines = self.lines()
        treatments = [treatment for line in lines for treatment in line]
        if self.shuffled:
            order = np.argsort(Draws.of(seed, name).uniforms("layout", len(treatments)), kind="stable")
            treatments = [treatments[k] for k in order]
        for n_rows, n_columns in PLATE_FORMATS:
            if len(treatments) > n_rows * n_columns:
                continue
            tidy = not self.shuffled and len(lines) <= n_rows and max(map(len, lines)) <= n_columns
            table = lines if tidy else [treatments[k : k + n_columns] for k in range(0, len(treatments), n_columns)]
            cells = ((WellId(r, c), treatment) for r, line in enumerate(table) for c, treatment in enumerate(line))
            return PlateMap(name, tuple(PlateWell(well, treatment) for well, treatment in cells))
        raise ConfigError(
            f"{len(treatments)} wells do not fit on a 1536-well plate", do="use fewer compounds, doses or replicates"
        )


@dataclass(frozen=True, slots=True)
class WellSpec:
    """Everything about a well that the microscope does not choose. Fractions are 0 to 1, intensities camera counts.

    `v_target` is the live fraction aimed at outside a necrotic core. Draws for cells and noise come from `draws`.
    """

    well: WellId
    treatment: Treatment
    draws: Draws
    seed: int
    diameter_um: float
    v_target: float
    mode: DrugMode
    effect: float  # 0 untreated to 1: how far the compound has gone, for debris, shrinking and its own light
    ic50_um: float | None
    sites_per_um3: float
    rim_um: float
    necrotic: bool
    double_positive: float
    double_negative: float
    calcein_adu: float
    pi_adu: float
    calcein_lp_um: float
    pi_lp_um: float
    light_um: float
    haze: float
    bleed_calcein: float
    bleed_pi: float
    autofluorescence: float
    background_adu: float
    bleaching: float
    red_drug: float = 0.0  # the compound's own light in every nucleus, relative to `pi_adu`
    conditions: Conditions = EASY


def compound_named(seed: int, name: str, modes: tuple[DrugMode, ...] = tuple(DrugMode)) -> Compound:
    """The compound of that name in this seed's world; C01, C02, ... take the modes in turn, other names any of them."""
    draws = Draws.of(seed, "compound", name)
    number = name[1:] if name[:1] == "C" and name[1:].isdigit() else ""
    turn = int(number) - 1 if number else draws.key("mode")
    return Compound(
        name,
        ic50_um=draws.log_uniform("ic50", 1.0, 10.0),
        hill=draws.uniform("hill", 0.8, 2.5),
        floor=draws.uniform("floor", 0.0, 0.3),
        mode=modes[turn % len(modes)],
    )


@dataclass(frozen=True, slots=True)
class SpecChoices:
    """What the settings fix for all wells; None leaves it to the well's draws."""

    seed: int
    diameter_um: float
    intensity: float = 1.0
    autofluorescence: float | None = None
    edge_effects: bool = True
    modes: tuple[DrugMode, ...] = tuple(DrugMode)
    realism: Realism = Realism.EASY
    cell_um: float | None = None


def well_spec(plate_map: PlateMap, entry: PlateWell, choices: SpecChoices) -> WellSpec:
    """What this well truly is, from its treatment and the seed; see SpecChoices for what may be fixed."""
    draws = Draws.of(choices.seed, plate_map.name, entry.well)
    treatment = entry.treatment
    healthy = draws.uniform("healthy", 0.95, 0.985)
    volume = math.exp(0.15 * draws.normal("seeding"))
    if choices.edge_effects and _is_edge(plate_map, entry.well):
        volume *= 1 - draws.uniform("edge volume", 0.05, 0.10)
        healthy *= 1 - draws.uniform("edge death", 0.0, 0.03)
    viability, mode, effect, ic50 = _drug_effect(plate_map.name, treatment, choices)
    if treatment.role is WellRole.POSITIVE_CONTROL:
        live = draws.uniform("killed", 0.02, 0.04)
    else:
        live = healthy * (1.0 if mode is DrugMode.CYTOSTATIC else viability)
        live += 4 * live * (1 - live) * draws.uniform("noise", 0.04, 0.06) * draws.normal("well")
    if mode is DrugMode.CYTOSTATIC:
        volume *= max(viability, 0.1)
    tissue, plate = _shared_draws(plate_map.name, treatment, choices)
    here = conditions(choices.realism, choices.seed, plate_map.name)
    if choices.cell_um is not None:
        here = replace(here, cell_um=choices.cell_um)
    calcein, pi, auto = _stain(choices, here, tissue, plate, draws)
    if mode is DrugMode.AUTOFLUORESCENT:
        auto += 0.15 * effect
    diameter = min(max(choices.diameter_um * volume ** (1 / 3), _DIAMETERS_UM[0]), _DIAMETERS_UM[1])
    return WellSpec(
        well=entry.well,
        treatment=treatment,
        draws=draws,
        seed=choices.seed,
        diameter_um=diameter,
        v_target=min(max(live, 0.0), 0.99),
        mode=mode,
        effect=effect,
        ic50_um=ic50,
        sites_per_um3=tissue.uniform("density", 0.85e-3, 1.10e-3)
        * (1 + 0.02 * draws.normal("density"))
        / (here.cell_um / TYPICAL_CELL_UM) ** 3,
        rim_um=draws.uniform("rim", 100.0, 150.0),
        necrotic=diameter > 400.0,
        double_positive=draws.uniform("double positive", 0.02, 0.05),
        double_negative=draws.uniform("double negative", 0.02, 0.05),
        calcein_adu=calcein,
        pi_adu=pi,
        calcein_lp_um=here.reach[0] * draws.uniform("calcein depth", 70.0, 100.0),
        pi_lp_um=here.reach[1] * draws.uniform("pi depth", 120.0, 200.0),
        light_um=here.reach[2] * draws.uniform("light depth", 90.0, 150.0),
        haze=draws.uniform("haze", 0.15, 0.35),
        bleed_calcein=plate.uniform("bleed calcein", 0.05, 0.10) + here.bleed_calcein,
        bleed_pi=0.01,
        autofluorescence=auto,
        background_adu=draws.uniform("background", 10.0, 30.0),
        bleaching=plate.uniform("bleaching", 0.05, 0.20),
        red_drug=here.red_drug * effect,
        conditions=here,
    )


def _shared_draws(plate: str, treatment: Treatment, choices: SpecChoices) -> tuple[Draws, Draws]:
    """Of a patient's tissue, which is of one kind, and of a plate, which is stained in one go: wells differ by less."""
    return Draws.of(choices.seed, "patient", treatment.patient), Draws.of(choices.seed, "plate", plate)


def _stain(
    choices: SpecChoices, here: Conditions, tissue: Draws, plate: Draws, draws: Draws
) -> tuple[float, float, float]:
    """Peaks of Calcein and of propidium iodide (camera counts), and autofluorescence as a share of the first."""
    calcein, pi = (0.2 * plate.normal(dye) + 0.12 * draws.normal(dye) for dye in ("calcein", "pi"))
    auto = tissue.uniform("autofluorescence", 0.07, 0.18) + draws.uniform("autofluorescence", -0.02, 0.02)
    light = choices.intensity * here.brightness
    return (
        light * min(max(1500 * math.exp(calcein), 600.0), 2800.0),
        light * here.pi_share * min(max(1200 * math.exp(pi), 500.0), 2500.0),
        auto + here.autofluorescence if choices.autofluorescence is None else choices.autofluorescence,
    )


def _drug_effect(plate: str, treatment: Treatment, choices: SpecChoices) -> tuple[float, DrugMode, float, float | None]:
    """Relative viability, mode, how far the effect has gone (0 to 1), and the true IC50 here."""
    if treatment.role is not WellRole.SAMPLE or treatment.compound is None or treatment.dose_um is None:
        return 1.0, DrugMode.UNIFORM, 0.0, None
    compound = compound_named(choices.seed, treatment.compound, choices.modes)
    shift = Draws.of(choices.seed, "plate", plate).normal("ic50", 0, 0.1)
    if treatment.patient is not None:
        patient = Draws.of(choices.seed, "patient", treatment.patient)
        shift += patient.normal(f"ic50 {compound.name}", 0, 0.35)
    ic50 = compound.ic50_um * 10**shift
    viability = compound.response(treatment.dose_um, ic50)
    return viability, compound.mode, (1 - viability) / (1 - compound.floor), ic50


def _is_edge(plate_map: PlateMap, well: WellId) -> bool:
    rows = max(entry.well.row for entry in plate_map) + 1
    columns = max(entry.well.column for entry in plate_map) + 1
    for n_rows, n_columns in PLATE_FORMATS:
        if rows <= n_rows and columns <= n_columns:
            return well.row in (0, n_rows - 1) or well.column in (0, n_columns - 1)
    return False
