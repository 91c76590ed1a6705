"""`spheroidd evaluate --model NAME --held-out`: a network on emulated plates that it never saw, as its card tells it.

Each well is rendered, segmented and counted under its own limits and under the plate's, by the code that a run uses.
A line for each is kept in a file of the work folder as soon as it is known, so an interrupted evaluation goes on where
it stopped; the file is named after the weights, the precision and the emulator's code, so that none of them can change
unseen.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import spheroidd.sim_emulator
from spheroidd.daemon.emulation.emulated_mtt import MTT_CV, MTT_NOISE_PERCENT
from spheroidd.daemon.evaluation.plate import Evaluation, LabelFigures, WellFigures, label_figures
from spheroidd.daemon.training.emulated_plates import TrainingPlate
from spheroidd.inference.agreement.overlap_metrics import Agreement
from spheroidd.inference.preprocessing.resample import MaskResampler, Spacing
from spheroidd.inference.segmentation.objects import StackCounter
from spheroidd.inference.segmentation.streaming import StreamingSegmentation
from spheroidd.inference.training.stack import filter_stack
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.errors import StorageError
from spheroidd.protocols.json_text import parse_json
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.ports import Segmenter
from spheroidd.protocols.results import Limits, Normalisation
from spheroidd.protocols.stack import CHANNELS, LIVE_CHANNEL, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.phantom import count_states, grow
from spheroidd.sim_emulator.truth import Truth

Plates = Mapping[str, Iterable[int]]
Tell = Callable[[str, float, int], None]  # what is done now; plates done, in all
Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class HeldOutWell:
    """One well under one normalisation, before it is related to its plate's controls."""

    kind: str
    seed: int
    well: str
    normalisation: str
    role: str
    compound: str | None
    dose_um: float | None
    patient: str | None
    labels: dict[str, dict[str, float | None]]
    v_count: float | None
    v_count_true: float | None
    n_live_whole: int  # in the field or not: what an assay of the well sees
    live_um3_by_z: tuple[float, ...]
    z_step_um: float

    @property
    def group(self) -> str:
        """The table that it belongs to: "demo plate"."""
        return f"{self.kind} {self.normalisation}"


def evaluate_held_out(
    segmenter: Segmenter,
    plates: Plates,
    work: Path,
    *,
    tolerance_um: float | None,
    regressor: ViabilityRegressor | None = None,
    tell: Tell = lambda name, done, total: None,
) -> dict[str, Evaluation]:
    """The evaluation of each kind of plate and normalisation ("demo stack"); `work` keeps what is known already."""
    regressor = regressor or ViabilityRegressor.load()
    journal = _Journal(work, segmenter, tolerance_um)
    chosen = [(kind, seed) for kind, seeds in plates.items() for seed in seeds]
    rows: list[HeldOutWell] = []
    for number, (kind, seed) in enumerate(chosen):
        for row in _plate(segmenter, kind, seed, journal, tolerance_um, tell, (number, len(chosen))):
            rows.append(row)
    groups = dict.fromkeys(row.group for row in rows)
    return {
        group: Evaluation(
            f"held-out plates, {group} limits",
            segmenter.sha256,
            tolerance_um,
            "emulated",
            tuple(_figures([row for row in rows if row.group == group], regressor)),
            {},
            segmenter.precision.value,
        )
        for group in groups
    }


def _plate(
    segmenter: Segmenter,
    kind: str,
    seed: int,
    journal: "_Journal",
    tolerance_um: float | None,
    tell: Tell,
    place: tuple[int, int],
) -> Iterator[HeldOutWell]:
    plate = TrainingPlate(kind, seed)
    wells = plate.wells()
    wanted = [(well, how) for well in wells for how in Normalisation]
    missing = [(well, how) for well, how in wanted if (kind, seed, str(well), how.value) not in journal.known]
    if missing:  # the controls' limits need every control, so the plate is rendered whole
        rendered = {}
        for well in wells:
            tell(f"{plate.name}: rendering {well}", place[0], place[1])
            rendered[well] = plate.render(well)
        limits = plate.limits(segmenter.spacing_um, {well: stack for well, (stack, _) in rendered.items()})
        for done, (well, how) in enumerate(missing):
            part = place[0] + done / len(missing)
            tell(f"{plate.name}/{well}, {how.value} limits", part, place[1])
            stack, truth = rendered[well]
            chosen = limits if how is Normalisation.PLATE else None
            n_live = count_states(grow(plate.source.spec(well)).cells.state)[0]
            journal.add(_well(segmenter, kind, seed, how, stack, truth, n_live, plate.own_um, chosen, tolerance_um))
    for well, how in wanted:
        yield journal.known[kind, seed, str(well), how.value]
    tell(plate.name, place[0] + 1, place[1])


def _well(
    segmenter: Segmenter,
    kind: str,
    seed: int,
    how: Normalisation,
    stack: Pixels,
    truth: Truth,
    n_live_whole: int,
    own_um: Spacing,
    limits: Mapping[str, Limits] | None,
    tolerance_um: float | None,
) -> HeldOutWell:
    masks, counter = segment_stack(segmenter, stack, own_um, limits)
    measured = counter.volumes_by_z(LIVE_CHANNEL)
    n_live, n_dead = (counter.count(channel) or 0 for channel in CHANNELS)
    figures = {
        label: label_figures(masks[label], true, own_um, tolerance_um)
        for label, true in (("live", truth.live), ("dead", truth.dead))
    }
    row = truth.well
    return HeldOutWell(
        kind,
        seed,
        row.well,
        how.value,
        row.role,
        row.compound,
        row.dose_um,
        row.patient,
        {label: _plain(one) for label, one in figures.items()},
        n_live / (n_live + n_dead) if n_live + n_dead else None,
        row.v_true_fov if np.isfinite(row.v_true_fov) else None,
        n_live_whole,
        tuple(float(v) for v in (measured if measured is not None else ())),
        own_um[0],
    )


def segment_stack(
    segmenter: Segmenter, stack: Pixels, own_um: Spacing, limits: Mapping[str, Limits] | None
) -> tuple[Masks, StackCounter]:
    """A raw stack (2, z, y, x) to its masks at its own sampling and its counter; `limits` None: the stack's own."""
    _, n_z, height, width = stack.shape
    plan = StackPlan(StackKey("held-out", WellId(0, 0)), CHANNELS, n_z, height, width, own_um[2], own_um[0])
    preprocessor = filter_stack(stack, own_um, segmenter.spacing_um)
    counter = StackCounter(plan, model_shape=preprocessor.shape, model_spacing_um=segmenter.spacing_um)
    resampler = MaskResampler(preprocessor.shape, segmenter.spacing_um, (n_z, height, width), own_um)
    masks: Masks = {label: np.zeros((n_z, height, width), np.bool_) for label in ("live", "dead")}
    for slab in StreamingSegmentation(preprocessor, segmenter, limits=limits).finish():
        counter.add_density(slab.z_start, slab.prediction)
        for found in resampler.feed(slab.z_start, slab.prediction.live, slab.prediction.dead):
            counter.add_masks(found.z_start, found.live, found.dead)
            masks["live"][found.z_start : found.z_start + len(found.live)] = found.live
            masks["dead"][found.z_start : found.z_start + len(found.dead)] = found.dead
    return masks, counter


def _figures(rows: list[HeldOutWell], regressor: ViabilityRegressor) -> Iterator[WellFigures]:
    """Wells related to the controls of their own plate, as a run relates them, and beside an emulated assay."""
    for row in rows:
        controls = [
            other
            for other in rows
            if other.seed == row.seed and other.kind == row.kind and other.role == WellRole.NEGATIVE_CONTROL
        ]
        score = regressor.predict(row.live_um3_by_z, row.z_step_um, [control.live_um3_by_z for control in controls])
        median_um3 = np.median([sum(control.live_um3_by_z) for control in controls]) if controls else 0.0
        low, high = (None, None) if score is None else score[1:]
        plate = f"{row.kind}-{row.seed}"
        treatment = Treatment(WellRole(row.role), row.compound, row.dose_um, f"{plate}/{row.patient}")
        yield WellFigures(
            plate,
            row.well,
            0,
            treatment,
            {label: _figures_of(values) for label, values in row.labels.items()},
            v_count=None if row.v_count is None else 100 * row.v_count,
            v_count_true=None if row.v_count_true is None else 100 * row.v_count_true,
            v_score=None if score is None else score[0],
            v_score_lo=low,
            v_score_hi=high,
            v_control=float(100 * sum(row.live_um3_by_z) / median_um3) if median_um3 > 0 else None,
            mtt=_mtt(row, controls),
        )


def _mtt(row: HeldOutWell, controls: list[HeldOutWell]) -> float | None:
    """What an assay of the whole well would say, with the noise of `emulated_mtt`."""
    reference = float(np.median([control.n_live_whole for control in controls])) if controls else 0.0
    if not reference > 0:
        return None
    well = WellId.parse(row.well)
    rng = np.random.default_rng([row.seed, well.row, well.column, 0x4D5454])
    return float(100 * row.n_live_whole / reference * (1 + MTT_CV * rng.normal()) + MTT_NOISE_PERCENT * rng.normal())


def _plain(figures: LabelFigures) -> dict[str, float | None]:
    one = figures.overlap
    return {
        "dice": one.dice,
        "iou": one.iou,
        "precision": one.precision,
        "recall": one.recall,
        "surface_dice": figures.surface_dice,
    }


def _figures_of(values: Mapping[str, Any]) -> LabelFigures:
    overlap = Agreement(*(float(values[name]) for name in ("dice", "iou", "precision", "recall")))
    return LabelFigures(overlap, values["surface_dice"])


class _Journal:
    """What is known of held-out wells, a line each; one that a crash cut short is dropped and measured again."""

    def __init__(self, work: Path, segmenter: Segmenter, tolerance_um: float | None) -> None:
        tolerance = "none" if tolerance_um is None else f"{tolerance_um:g}"
        network = f"{segmenter.sha256[:12]}-{segmenter.precision}"
        self._path = work / f"held-out-{network}-{emulator_digest()[:8]}-surface-{tolerance}.jsonl"
        self.known: dict[tuple[str, int, str, str], HeldOutWell] = {}
        try:
            work.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise self._refused(error) from error
        whole = []
        for line in lines:
            try:
                found = parse_json(line)
                self._know(HeldOutWell(**{**found, "live_um3_by_z": tuple(found["live_um3_by_z"])}))
            except (ValueError, TypeError, KeyError):
                continue  # cut short by a crash: it is measured again
            whole.append(line)
        if len(whole) < len(lines):
            self._write("w", "".join(f"{line}\n" for line in whole))

    def add(self, row: HeldOutWell) -> None:
        """Keep a row; StorageError where the disk refuses."""
        self._write("a", json.dumps({name: getattr(row, name) for name in HeldOutWell.__slots__}) + "\n")
        self._know(row)

    def _know(self, row: HeldOutWell) -> None:
        self.known[row.kind, row.seed, row.well, row.normalisation] = row

    def _write(self, mode: str, text: str) -> None:
        try:
            with self._path.open(mode, encoding="utf-8", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> StorageError:
        do = "give --work a folder that you may write to"
        return StorageError(f"cannot keep what was evaluated: {error}", where=str(self._path), do=do)


def emulator_digest() -> str:
    """The hash of the emulator's code and of how plates are made of it: another one makes other stacks."""
    folder = Path(spheroidd.sim_emulator.__path__[0])
    files = [*sorted(folder.glob("*.py")), Path(__file__).parents[1] / "training" / "emulated_plates.py"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def card_figures(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """The figures by the names that a model's card has for them: what the card's table is made of."""
    found: dict[str, dict[str, float]] = {}
    for group, evaluation in evaluations.items():
        figures: dict[str, float] = {"wells": len(evaluation.wells)}
        for label in ("live", "dead"):
            dice = [well.labels[label].overlap.dice for well in evaluation.wells]
            for name, statistic in (("mean", np.mean), ("sd", np.std), ("median", np.median)):
                figures[f"{label}_dice_{name}"] = round(float(statistic(dice)), 4)
        found[group] = figures
    return found


def only(plates: Plates, kinds: Iterable[str]) -> dict[str, list[int]]:
    """The plates of these kinds; all of them where none is named."""
    chosen = set(kinds) or set(plates)
    return {kind: list(seeds) for kind, seeds in plates.items() if kind in chosen}
