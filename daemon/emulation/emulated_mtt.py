"""What an MTT assay would say of emulated wells: all live cells of the spheroid, with the assay's own noise."""

import statistics
from collections.abc import Iterable

import numpy as np

from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.phantom import count_states
from spheroidd.sim_emulator.source import EmulatorSource

MTT_CV, MTT_NOISE_PERCENT = 0.05, 1.5  # the assay's own spread: relative, and of its background


def emulated_mtt(source: EmulatorSource, wells: Iterable[WellId]) -> dict[str, float]:
    """Percent of the untreated wells' median number of live cells in the whole spheroid, with noise for each well.

    Empty where none of the wells is untreated. The field of view has no part in it: the assay sees the whole well.
    """
    n_live: dict[WellId, int] = {}
    controls: list[int] = []
    for well in wells:
        n_live[well] = count_states(source.scene(well).phantom.cells.state)[0]
        if source.plate_map[well].treatment.role is WellRole.NEGATIVE_CONTROL:
            controls.append(n_live[well])
    if not controls:
        return {}
    reference = statistics.median(controls)
    found = {}
    for well, n in n_live.items():
        rng = np.random.default_rng([source.settings.seed, well.row, well.column, 0x4D5454])
        noisy = 100 * n / reference * (1 + MTT_CV * rng.normal()) + MTT_NOISE_PERCENT * rng.normal()
        found[str(well)] = float(noisy)
    return found
