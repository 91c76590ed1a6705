"""Trains the viability regressor on measured references, and says how good it is on patients that it did not see.

Patients are split into folds (scikit-learn's StratifiedGroupKFold over binned viability). Each fold's wells are
predicted by a network that learnt from the other patients; those predictions give the figures and, as |error| / sigma,
the quantile of the interval (cross-conformal, Vovk 2015). The network that is kept learns from every well.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.agreement.method_comparison import PairedFigures, paired_figures
from spheroidd.inference.training.regressor_training import (
    LEAST_CALIBRATION,
    RegressorRow,
    Trained,
    arrays,
    conformal_quantile,
    fit,
)
from spheroidd.inference.viability.regressor import ViabilityRegressor, forward
from spheroidd.protocols.errors import ConfigError

FOLDS = 5
_BIN_EDGES = (25.0, 50.0, 75.0)  # percent
_TUNING_RATE, _TUNING_STEPS = 2e-3, 200  # from weights that fit already: a fifth of the rate, a third of the time


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """The network that is kept, and the figures out of fold (percent) of it and of V_control alone.

    `coverage`: the part of references that the 90 % interval held, each fold's calibrated on the other folds.
    """

    trained: Trained
    figures: PairedFigures
    v_control: PairedFigures
    coverage: float
    n_folds: int


def cross_validate(
    rows: Sequence[RegressorRow],
    patients: Sequence[str],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    start: ViabilityRegressor | None = None,
    steps: int | None = None,
) -> CrossValidated:
    """Fit and judge; `patients` names each row's patient, `start` is tuned instead of starting from V_control.

    ConfigError for fewer than 2 patients or `LEAST_CALIBRATION` wells, or wells without live controls.
    """
    given, truth = arrays(rows)
    if len(given) != len(rows):
        raise ConfigError(
            f"{len(rows) - len(given)} wells have no live control", do="leave out plates without controls"
        )
    n_patients = len(set(patients))
    if n_patients < 2 or len(rows) < LEAST_CALIBRATION:
        what = f"{len(rows)} wells of {n_patients} patients"
        do = f"give 2 patients or more and {LEAST_CALIBRATION} wells or more: otherwise nobody knows how good it is"
        raise ConfigError(what, do=do)
    weights, rate, usual = (None, 1e-2, 600) if start is None else (start.weights, _TUNING_RATE, _TUNING_STEPS)
    options = {"steps": steps or usual, "seed": seed}
    mean, sigma = np.empty_like(truth), np.empty_like(truth)
    fold_of = assign_folds(truth, patients, min(folds, n_patients), seed)
    for fold in np.unique(fold_of):
        seen, unseen = fold_of != fold, fold_of == fold
        fitted = fit(given[seen], truth[seen], start=weights, learning_rate=rate, **options)
        mean[unseen], sigma[unseen] = forward(fitted, given[unseen])
    scores = np.abs(truth - mean) / sigma
    ratio = given[:, 0].mean(1)
    return CrossValidated(
        Trained(fit(given, truth, start=weights, learning_rate=rate, **options), conformal_quantile(scores)),
        paired_figures(100.0 * mean, 100.0 * truth, patients, seed=seed),  # type: ignore[arg-type]
        paired_figures(100.0 * ratio, 100.0 * truth, patients, seed=seed),  # type: ignore[arg-type]
        _coverage(scores, fold_of),
        int(fold_of.max()) + 1,
    )


def assign_folds(truth: NDArray[np.float32], patients: Sequence[str], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Each well's fold, all wells of a patient in one, folds alike in viability; ConfigError without scikit-learn."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        do = 'pip install "spheroidd[train]"'
        raise ConfigError("folds by patient need scikit-learn, which is not installed", do=do) from error
    bins = np.digitize(100 * truth, _BIN_EDGES)
    while n_folds > np.bincount(bins).max():
        n_folds -= 1
    fold_of = np.zeros(len(truth), np.int64)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A kind of viability that few wells have cannot be in every fold; folds by patient matter more.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, unseen) in enumerate(splitter.split(np.zeros((len(truth), 1)), bins, list(patients))):
            fold_of[unseen] = fold
    _, packed = np.unique(fold_of, return_inverse=True)  # a fold may have got no patient
    return packed.astype(np.int64)


def _coverage(scores: NDArray[np.float32], fold_of: NDArray[np.int64]) -> float:
    """How often the interval that the other folds calibrate holds the truth."""
    held = [
        scores[fold_of == fold] <= conformal_quantile(scores[fold_of != fold])
        for fold in np.unique(fold_of)
        if (fold_of != fold).any()
    ]
    return float(np.concatenate(held).mean())
