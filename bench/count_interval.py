"""Whether the interval of V count holds the truth: `python -m bench.count_interval [SEEDS]` prints JSON.

Plates that are as hard as real ones, every one with its own tissue, stain, voxel and lens, and easy ones: one untreated
well, the killed one where there is one, two samples. Limits, masks, counts, flags and intervals are made by the code
that a run uses. `--calibrate 8005-8017,8024-8039` finds the constants of `inference.viability.count_interval` by plates
of other seeds than those that are then judged; wells are kept in bench/out/count-interval.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy import optimize

from bench.study import OUT, keep_row, kept_row, reference_digest, say
from bench.trust import look, score
from spheroidd.daemon.evaluation.held_out import emulator_digest
from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.network.model_card import DEFAULT_MODEL
from spheroidd.inference.preprocessing.plate_limits import plate_limits
from spheroidd.inference.quality.trust.rules import flags_of
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.viability.count_interval import MEASURED, CountErrors, count_interval
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Normalisation, StackMeasurement
from spheroidd.protocols.trust import Trust, TrustFlag, trust_of
from spheroidd.protocols.well import WellId

KINDS = {"real": 1, "demo": 8}  # of the easy ones those whose seed is a multiple of it: they are much alike
JUDGED = "8040-8055"
SAMPLES = 2
COVERED = 0.9


@dataclass(frozen=True, slots=True)
class Counted:
    """One well: what was counted, what there is, and what its row says of itself."""

    kind: str
    seed: int
    n_live: int
    n_dead: int
    true_live: int
    true_dead: int
    foreign_score: float | None
    flags: tuple[str, ...]

    @property
    def true_share(self) -> float:
        """Of the cells in the field, the living ones."""
        return self.true_live / (self.true_live + self.true_dead)

    @property
    def usable(self) -> bool:
        """Whether its row has a V count, and there is a truth."""
        failed = trust_of(self.flags) is Trust.FAIL
        return not failed and self.n_live + self.n_dead > 0 and self.true_live + self.true_dead > 0

    def measurement(self, sha256: str) -> StackMeasurement:
        """What an interval is made of."""
        made = StackMeasurement(0.0, 0.0, self.n_live, self.n_dead, (), {}, Normalisation.PLATE, sha256, 0.0, {})
        return replace(made, foreign_score=self.foreign_score)


def wells_of(plate: TrainingPlate) -> dict[WellId, WellRole]:
    """The wells that are imaged of a plate."""
    roles = {entry.well: entry.treatment.role for entry in plate.source.plate_map.imaged()}
    by_role = {role: [well for well in plate.wells() if roles[well] is role] for role in WellRole}
    chosen = by_role[WellRole.NEGATIVE_CONTROL][:1] + by_role[WellRole.POSITIVE_CONTROL]
    return {well: roles[well] for well in chosen + by_role[WellRole.SAMPLE][:SAMPLES]}


def counted(kind: str, seed: int, segmenter: UNetSegmenter) -> list[Counted]:
    """The wells of a plate, imaged and scored, or as they are kept."""
    place, kept = kept_row(
        OUT / "count-interval" / f"{kind}-{seed}",
        (segmenter.sha256, reference_digest(segmenter.card.name), emulator_digest()),
    )
    if kept is None:
        say(f"{kind} {seed}")
        plate = TrainingPlate(kind, seed)
        looks = {
            well: look(plate.pixels(well), plate.own_um, role, segmenter, str(well))
            for well, role in wells_of(plate).items()
        }
        limits = plate_limits(one.well for one in looks.values())
        rows = {well: score(looks.pop(well), limits, segmenter) for well in list(looks)}
        flags = flags_of(list(rows.values()))
        found = []
        for well, row in rows.items():
            true, measured = plate.source.truth(well).well, row.measurement
            codes = tuple(sorted(flag.value for flag in flags[row.key]))
            n = measured.n_live or 0, measured.n_dead or 0, true.n_live, true.n_dead
            found.append(Counted(kind, seed, *n, measured.foreign_score, codes))
        kept = {"wells": [asdict(one) for one in found]}
        keep_row(place, kept)
    return [Counted(**{**one, "flags": tuple(one["flags"])}) for one in kept["wells"]]


def calibrated(wells: Sequence[Counted]) -> CountErrors:
    """The errors of some wells: likeliest under heavy tails, then as wide that nine in ten are held."""
    scores = [one.foreign_score for one in wells if one.foreign_score is not None]
    true = np.array([math.log((one.true_live + 0.5) / (one.true_dead + 0.5)) for one in wells])
    said = np.array([math.log((one.n_live + 0.5) / (one.n_dead + 0.5)) for one in wells])
    per_cell = np.array([math.sqrt(1 / (one.n_live + 0.5) + 1 / (one.n_dead + 0.5)) for one in wells])
    unknown = median(scores)
    score = np.array([unknown if one.foreign_score is None else one.foreign_score for one in wells])

    def sds(at: Sequence[float]) -> Any:
        return np.hypot(at[1] * per_cell, at[2] * score)

    def unlikely(at: Sequence[float]) -> float:
        sd = sds(at)
        return float(np.sum(np.log(sd) + 2.5 * np.log1p(((true - said - at[0]) / sd) ** 2 / 4)))

    found = optimize.minimize(unlikely, (0.0, 0.5, 0.1), method="Nelder-Mead", options={"maxiter": 4000}).x
    off = np.sort(np.abs(true - said - found[0]) / sds(found))
    nine = off[min(len(off) - 1, math.ceil((len(off) + 1) * COVERED) - 1)]
    mean, counting, foreign = float(found[0]), *(abs(float(part)) * float(nine) / 1.645 for part in found[1:])
    rounded = (round(value, 3) for value in (mean, counting, foreign, max(scores), unknown))
    return CountErrors(*rounded)


def coverage(wells: Iterable[Counted], sha256: str) -> dict[str, Any]:
    """How many intervals hold the share of living cells in the field, and how wide they are."""
    held, widths, without = [], [], 0
    for one in wells:
        sure = count_interval(one.measurement(sha256), [TrustFlag(flag) for flag in one.flags])
        if sure.low is None or sure.high is None:
            without += 1
            continue
        held.append(sure.low <= one.true_share <= sure.high)
        widths.append(sure.high - sure.low)
    told = {"intervals": len(held), "without": without}
    return told | ({"held": round(fmean(held), 3), "median width": round(median(widths), 3)} if held else {})


def seeds_of(text: str) -> list[int]:
    """The seeds of "8000-8002,8005"."""
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    return [seed for part in ends for seed in range(part[0], part[-1] + 1)]


def gathered(seeds: Sequence[int], segmenter: UNetSegmenter) -> dict[str, list[Counted]]:
    """The wells that have a V count, by kind of plate."""
    return {
        kind: [one for seed in seeds if seed % every == 0 for one in counted(kind, seed, segmenter) if one.usable]
        for kind, every in KINDS.items()
    }


def main(
    seeds: Annotated[str, typer.Argument(help="Of the plates that are judged.")] = JUDGED,
    model: Annotated[str, typer.Option(help="A model that ships.")] = DEFAULT_MODEL,
    calibrate: Annotated[str, typer.Option(help="Seeds of plates to find the constants by.")] = "",
) -> None:
    """Print coverage and widths, by kind of plate and by whether somebody is asked to look."""
    torch.set_num_threads(1)
    segmenter = load_segmenter(model, "cpu", precision="fp32")
    found: dict[str, Any] = {"bench": "count_interval", "model": model, "seeds": seeds}
    if calibrate:
        wells = [one for part in gathered(seeds_of(calibrate), segmenter).values() for one in part]
        errors = calibrated(wells)
        MEASURED[segmenter.sha256] = errors
        found["calibrated on"] = {"seeds": calibrate, "wells": len(wells), **errors._asdict()}
    by_kind: Mapping[str, list[Counted]] = gathered(seeds_of(seeds), segmenter)
    for kind, wells in by_kind.items():
        found[kind] = coverage(wells, segmenter.sha256)
        for trust in (Trust.OK, Trust.CHECK):
            some = [one for one in wells if trust_of(one.flags) is trust]
            found[f"{kind}, {trust.value}"] = coverage(some, segmenter.sha256)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
