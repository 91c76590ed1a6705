"""Cross-validation by patient: every stack is judged by a network that has seen no stack of its patient.

The folds are scikit-learn's StratifiedGroupKFold: groups are patients, strata the stacks' viability. A finished fold is
kept, an interrupted one goes on from its checkpoint.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.inference.agreement.method_comparison import Spread, spread
from spheroidd.inference.network.model_card import ModelCard
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.network.weights import save_model
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.checkpoint import weights_digest
from spheroidd.inference.training.history import Progress
from spheroidd.inference.training.overlap_counts import NORMALISATIONS, Overlap, stack_overlaps
from spheroidd.inference.training.settings import TrainSettings
from spheroidd.inference.training.stack import TrainingStack, stacks_digest
from spheroidd.inference.training.trainer import train
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.json_text import parse_json

FOLDS = 5
LABELS = ("live", "dead")
RESULT_NAME = "result.json"
_MOST_STRATA = 4
_OTHER = "this fold was made with other settings, stacks or folds, or began with other weights"


@dataclass(frozen=True, slots=True)
class Case:
    """A stack and whose it is."""

    stack: TrainingStack
    patient: str

    @property
    def viability(self) -> float:
        """Live cells of all, from the truth; 0 for a stack without cells."""
        live, dead = len(self.stack.live_points_um), len(self.stack.dead_points_um)
        return live / (live + dead) if live + dead else 0.0


@dataclass(frozen=True, slots=True)
class Fold:
    """Which cases are learnt from, and which are judged."""

    train: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """One stack under one normalisation, judged by the network of a fold that did not have its patient."""

    fold: int
    patient: str
    stack: str
    normalisation: str
    live: Overlap
    dead: Overlap


@dataclass(frozen=True, slots=True)
class Progressed:
    """Where a cross-validation is: a report of the training of fold `fold` (from 1) of `folds`."""

    fold: int
    folds: int
    training: Progress


def patient_folds(cases: Sequence[Case], n_folds: int = FOLDS, seed: int = 0) -> list[Fold]:
    """Split by patient, each part with about the same viabilities; ConfigError where there are too few patients."""
    from sklearn.model_selection import StratifiedGroupKFold

    patients = [case.patient for case in cases]
    if n_folds < 2 or len(set(patients)) < n_folds:
        what = f"{len(set(patients))} patients ({_named(patients)}) cannot make {n_folds} folds"
        do = "add plates or recordings of other patients, or ask for fewer folds, 2 at least"
        raise ConfigError(what, where="cross-validation", do=do)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    strata = viability_strata([case.viability for case in cases], min(_MOST_STRATA, len(cases) // n_folds))
    found = splitter.split(np.zeros(len(cases)), strata, patients)
    folds = [Fold(tuple(map(int, learnt)), tuple(map(int, judged))) for learnt, judged in found]
    for fold in folds:
        check_apart(cases, fold)
    return folds


def viability_strata(viabilities: Sequence[float], strata: int) -> list[int]:
    """The number of each one's stratum, all of about equal size, by rank."""
    ranks = np.argsort(np.argsort(viabilities, kind="stable"), kind="stable")
    return [int(rank) * strata // len(viabilities) for rank in ranks]


def check_apart(cases: Sequence[Case], fold: Fold) -> None:
    """Refuse a fold that would judge a network by a patient, or a stack, that it was trained on."""
    learnt, judged = ({cases[number].patient for number in part} for part in (fold.train, fold.test))
    names = [{cases[number].stack.name for number in part} for part in (fold.train, fold.test)]
    both = sorted(learnt & judged) or sorted(names[0] & names[1])
    if both or not learnt or not judged:
        what = f"{both[0]} is both learnt from and judged" if both else "a part of a fold is empty"
        raise ConfigError(what, where="cross-validation", do="give each stack a name, and each patient one name")


def cross_validate(
    cases: Sequence[Case],
    settings: TrainSettings,
    out: Path,
    *,
    validation: Sequence[TrainingStack] = (),
    n_folds: int = FOLDS,
    report: Callable[[Progressed], None] = lambda progress: None,
    start_from: UNet | None = None,
    device: str = "cpu",
) -> list[Scores]:
    """Train once a fold and judge what was left out; every case once under each of its normalisations.

    `out/fold-1` and so on get the weights, the training's log, and the fold's figures. `validation` is watched while
    training and decides nothing; `start_from` must know nothing of these patients. ConfigError where `out` holds the
    folds of other data or settings.
    """
    folds = patient_folds(cases, n_folds, settings.seed)
    decisive = _decisive(cases, settings, folds, start_from)
    found: list[Scores] = []
    for number, fold in enumerate(folds, 1):
        place = out / f"fold-{number}"
        scores = _kept(place / RESULT_NAME, decisive)
        if scores is None:

            def told(progress: Progress, number: int = number) -> None:
                report(Progressed(number, len(folds), progress))

            learnt = [cases[n].stack for n in fold.train]
            model = train(learnt, validation, settings, place, report=told, start_from=start_from, device=device).cpu()
            card = ModelCard(f"fold-{number}", settings.network, halo=16, sha256="", seeds={"training": settings.seed})
            segmenter = UNetSegmenter(model, save_model(model, place, card), "cpu")
            scores = [score for n in fold.test for score in judge(segmenter, cases[n], number)]
            _keep(place / RESULT_NAME, decisive, scores)
        found += scores
    return found


def judge(segmenter: UNetSegmenter, case: Case, fold: int) -> list[Scores]:
    """A case under the stack's own limits and, where there are any, its plate's."""
    return [
        Scores(fold, case.patient, case.stack.name, str(kind), *stack_overlaps(segmenter, case.stack, variant))
        for variant, kind in enumerate(NORMALISATIONS)
        if variant < len(case.stack.variants)
    ]


def summary(scores: Sequence[Scores]) -> dict[str, Any]:
    """By normalisation, what was left out, all folds together: pooled over stacks, by patient, and by fold.

    Dice is a stack's, then the mean and sd over stacks; `voxels` is of all voxels together, in which a well with three
    live cells weighs less than one with three hundred.
    """
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(score.normalisation for score in scores):
        of_kind = [score for score in scores if score.normalisation == kind]
        patients = list(dict.fromkeys(sorted(score.patient for score in of_kind)))
        numbers = sorted({score.fold for score in of_kind})
        found[kind] = {
            "pooled": _figures(of_kind),
            "by_patient": {name: _figures([s for s in of_kind if s.patient == name]) for name in patients},
            "by_fold": {str(number): _figures([s for s in of_kind if s.fold == number]) for number in numbers},
        }
    return found


def _figures(scores: Sequence[Scores]) -> dict[str, Any]:
    found: dict[str, Any] = {"stacks": len(scores), "patients": len({score.patient for score in scores})}
    for label in LABELS:
        overlaps: list[Overlap] = [getattr(score, label) for score in scores]
        over_stacks: Spread = spread([one.dice for one in overlaps], [score.patient for score in scores])
        together = sum(overlaps, Overlap())
        voxels = {name: getattr(together, name) for name in ("dice", "precision", "recall")}
        found[label] = {**asdict(over_stacks), "voxels": voxels}
    return found


def _named(patients: Sequence[str]) -> str:
    names = sorted(set(patients))
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "none"


def _decisive(cases: Sequence[Case], settings: TrainSettings, folds: Sequence[Fold], start_from: UNet | None) -> str:
    """A digest of all that decides the folds' figures."""
    told = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name != "every"}
    first = () if start_from is None else (weights_digest(start_from),)
    text = repr((told, [case.patient for case in cases], folds, stacks_digest([case.stack for case in cases]), *first))
    return hashlib.sha256(text.encode()).hexdigest()


def _keep(path: Path, decisive: str, scores: Sequence[Scores]) -> None:
    content = {"decisive": decisive, "scores": [asdict(score) for score in scores]}
    write_atomically(path, json.dumps(content, indent=1).encode())


def _kept(path: Path, decisive: str) -> list[Scores] | None:
    """A fold's figures if it is finished; ConfigError for those of something else."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        theirs, scores = content["decisive"], [_scores(row) for row in content["scores"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot be read: {error!r:.200}", where=str(path), do="remove it") from error
    if theirs != decisive:
        do = "go on with the same file and data, or give another folder with --out"
        raise ConfigError(_OTHER, where=str(path), do=do)
    return scores


def _scores(row: Mapping[str, Any]) -> Scores:
    return Scores(**{**row, **{label: Overlap(**row[label]) for label in LABELS}})
