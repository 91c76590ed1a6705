"""Network and regressor tuned together on emulated wells, whose MTT is emulated as well."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from spheroidd.daemon.emulation.emulated_mtt import emulated_mtt
from spheroidd.daemon.training.config import EmulatedPlates, ViabilitySection
from spheroidd.daemon.training.emulated_plates import TrainingPlate, cached_stacks
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.inference.training.joint_viability import (
    ViabilitySettings,
    ViabilityWell,
    load_regressor_net,
    tune_with_viability,
)
from spheroidd.inference.training.loss import LossSettings
from spheroidd.inference.viability import regressor
from spheroidd.protocols.plate import WellRole


def tune(model: UNet, section: ViabilitySection, loss: LossSettings, cache: Path, out: Path, command: str) -> None:
    """Tune the network in place, and write the regressor that was tuned with it to `out`.

    Its interval is the one it came with: calibrate it on plates of its own before it is believed.
    """
    wells = list(viability_wells(section.plates, model.settings.spacing_um, cache))
    shipped = regressor.ViabilityRegressor.load()
    net = load_regressor_net(shipped.weights)
    settings = ViabilitySettings(section.alpha, section.steps, section.learning_rate, section.seed)
    tune_with_viability(model, net, wells, loss, settings)
    regressor.save(
        out / "regressor.safetensors",
        net.weights(),
        shipped.quantile,
        description="Tuned together with its network; the interval is the one it came with",
        command=command,
        seeds={"tuning": section.seed},
        metrics={},
    )


def viability_wells(plates: Sequence[EmulatedPlates], spacing_um: Spacing, cache: Path) -> Iterator[ViabilityWell]:
    """Every well of the plates with its plate's untreated wells and its emulated MTT."""
    for part in plates:
        for seed in range(part.first_seed, part.first_seed + part.plates):
            plate = TrainingPlate(part.kind, seed)
            stacks = {stack.name: stack for stack in cached_stacks(part.kind, seed, spacing_um, cache)}
            mtt_percent = emulated_mtt(plate.source, plate.wells())
            controls = tuple(
                stacks[plate.stack_name(well)]
                for well in plate.wells()
                if plate.source.plate_map[well].treatment.role is WellRole.NEGATIVE_CONTROL
            )
            for well in plate.wells():
                yield ViabilityWell(stacks[plate.stack_name(well)], controls, mtt_percent[str(well)])
