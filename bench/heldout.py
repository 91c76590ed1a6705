"""A held-out plate of the emulator through the whole daemon: `python -m bench.heldout [SEED]` prints JSON.

Its seed, and so its patients, compounds and doses' effects, were used neither in training nor for choosing anything.
Dice is that of the stored masks at the stacks' own sampling; "plate" pools the voxels of all wells, "per well" weighs a
well with three live cells as much as one with three hundred.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from spheroidd.acquisition.labels import read_label
from spheroidd.daemon.catalog import Catalog
from spheroidd.daemon.config import build_config
from spheroidd.daemon.run import run_plate
from spheroidd.daemon.sources import build_source
from spheroidd.inference.evaluate import agreement
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.plate import DrugMode
from spheroidd.sim_emulator.source import EmulatorSource

SEED = 20261122
DESIGN = {"compounds": 4, "doses": 6, "negative_controls": 4, "positive_controls": 2}


def figures(seed: int, normalisation: str) -> dict[str, Any]:
    """Run the plate and compare every well with its truth."""
    with tempfile.TemporaryDirectory(prefix="spheroidd-heldout-") as place:
        data = Path(place) / "data"
        tables = {
            "data": {"dir": str(data)},
            "plate": {"name": "heldout"},
            "source": {"kind": "emulator", "preset": "demo", "seed": seed, "pace": "fast", **DESIGN},
            "inference": {"normalisation": normalisation},
        }
        config = build_config(tables, base=Path.cwd())
        code = run_plate(config, console=Console(file=StringIO()), live=False)
        source = build_source(config.source, None, "heldout")
        if not isinstance(source, EmulatorSource):
            raise TypeError("only the emulator knows the truth")
        with Catalog.read_only(data) as catalog:
            results = catalog.results("heldout")
        dice: dict[str, list[float]] = {"live": [], "dead": []}
        both: dict[str, list[int]] = {"live": [0, 0], "dead": [0, 0]}
        truths = []
        for result in results:
            truth = source.truth(result.well)
            truths.append(truth.well)
            for name, true in (("live", truth.live), ("dead", truth.dead)):
                mask = read_label(data, StackKey("heldout", WellId.parse(result.well)), name)
                dice[name].append(agreement(mask, true).dice)
                both[name][0] += 2 * int(np.count_nonzero(mask & true))
                both[name][1] += int(np.count_nonzero(mask)) + int(np.count_nonzero(true))
    found: dict[str, Any] = {"exit_code": code, "wells": len(results)}
    for name in ("live", "dead"):
        found[f"{name}_dice_plate"] = round(both[name][0] / both[name][1], 4)
        found[f"{name}_dice_per_well_mean"] = round(statistics.mean(dice[name]), 4)
        found[f"{name}_dice_per_well_median"] = round(statistics.median(dice[name]), 4)
        found[f"{name}_dice_per_well_lowest"] = round(min(dice[name]), 4)
    true_v = [truth.v_true_fov for truth in truths]
    true_um3 = [truth.live_um3_true for truth in truths]
    controls, counted = [r.v_control for r in results], [r.v_count for r in results]
    found["spearman"] = {
        "v_control, true viability of the field": _spearman(controls, true_v),
        "v_control, true live volume": _spearman(controls, true_um3),
        "true live volume, true viability: the most that v_control can reach": _spearman(true_um3, true_v),
        "v_count, true viability of the field": _spearman(counted, true_v),
    }
    kill = [truth.mode != DrugMode.CYTOSTATIC for truth in truths]  # that one shrinks spheroids: all cells stay alive
    found["spearman_without_the_compound_that_does_not_kill"] = {
        "wells": sum(kill),
        "v_control, true viability of the field": _spearman(_only(controls, kill), _only(true_v, kill)),
        "v_control, true live volume": _spearman(_only(controls, kill), _only(true_um3, kill)),
        "true live volume, true viability: the most that v_control can reach": _spearman(
            _only(true_um3, kill), _only(true_v, kill)
        ),
    }
    errors = [abs(100 * (v - true)) for v, true in zip(counted, true_v, strict=True) if v is not None]
    found["v_count_mean_absolute_error_points"] = round(statistics.mean(errors), 2)
    return found


def _only(values: Sequence[Any], chosen: Sequence[bool]) -> list[Any]:
    return [value for value, keep in zip(values, chosen, strict=True) if keep]


def _spearman(one: Sequence[float | None], other: Sequence[float | None]) -> float:
    return round(float(stats.spearmanr(one, other).statistic), 4)


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    by_kind = {kind: figures(seed, kind) for kind in ("plate", "stack")}
    print(json.dumps({"bench": "heldout", "preset": "demo", "seed": seed, **by_kind}, indent=1))


if __name__ == "__main__":
    main()
