"""`spheroidd regressor train`: the viability regressor from plates that were scored here and have MTT references."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.references import known_references, references_of
from spheroidd.daemon.catalog.rows import MeasurementRow, dump
from spheroidd.inference.training.regressor_crossval import CrossValidated, cross_validate
from spheroidd.inference.training.regressor_training import RegressorRow
from spheroidd.inference.viability.regressor import ViabilityRegressor, save
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate import WellRole


@dataclass(frozen=True, slots=True)
class LearningWells:
    """What there is to learn from, each row with its patient; `models`: the networks that measured it."""

    rows: tuple[RegressorRow, ...]
    patients: tuple[str, ...]
    plates: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The hash of everything that the regressor learns from."""
        return hashlib.sha256(dump([[list(row) for row in self.rows], list(self.patients)]).encode()).hexdigest()


def learning_wells(data_dirs: Sequence[Path], plates: Sequence[str] = ()) -> LearningWells:
    """The wells of every plate with references in these data directories, or of the named plates.

    Of each plate its newest network counts; excluded wells do not. ConfigError where there is nothing to learn from.
    """
    rows: list[RegressorRow] = []
    patients: list[str] = []
    used: list[str] = []
    models: list[str] = []
    for data_dir in data_dirs:
        with CatalogReader.read_only(data_dir) as catalog:
            for plate in catalog.plates():
                if (plates and plate not in plates) or (not plates and not references_of(catalog, plate)):
                    continue
                found = _of_plate(catalog, plate)
                rows += [row for row, _ in found]
                patients += [patient or f"{plate}, no patient" for _, patient in found]
                used.append(plate)
                models += catalog.models(plate)[:1]
    missing = sorted(set(plates) - set(used))
    where = ", ".join(map(str, data_dirs))
    if missing:
        raise ConfigError(f"there is no plate {missing[0]!r}", where=where, do="`spheroidd results DATA` names them")
    if not rows:
        do = "import a plate reader's file of a scored plate: spheroidd reference import DATA FILE"
        raise ConfigError("no scored well has an MTT reference", where=where, do=do)
    return LearningWells(tuple(rows), tuple(patients), tuple(used), tuple(dict.fromkeys(models)))


def _of_plate(catalog: CatalogReader, plate: str) -> list[tuple[RegressorRow, str | None]]:
    references, excluded = known_references(catalog, plate), catalog.wells_left_out(plate)
    models = catalog.models(plate)
    measured = catalog.measurements(plate, models[0]) if models else []
    usable = [row for row in measured if str(row.key.well) not in excluded and row.measurement.live_um3 is not None]
    untreated = [row for row in usable if row.treatment.role is WellRole.NEGATIVE_CONTROL]
    controls = [row.measurement.live_um3_by_z for row in untreated]
    if usable and not any((row.measurement.live_um3 or 0) > 0 for row in untreated):
        do = "include an untreated well again, or leave the plate out with --plate"
        raise ConfigError(f"plate {plate} has no untreated well with live volume", where=str(catalog.path), do=do)
    return [
        (_row(catalog, row, controls, references[str(row.key.well)]), row.treatment.patient)
        for row in usable
        if str(row.key.well) in references
    ]


def _row(
    catalog: CatalogReader, row: MeasurementRow, controls: list[tuple[float, ...]], percent: float
) -> RegressorRow:
    step_um = catalog.plan(row.key).z_step_um
    return RegressorRow(row.measurement.live_um3_by_z, step_um, controls, percent)


def train(
    wells: LearningWells, out: Path, *, folds: int, seed: int, from_scratch: bool, command: str
) -> tuple[ViabilityRegressor, CrossValidated]:
    """Cross-validate by patient, train on all wells, and write weights and card; StorageError where it cannot."""
    start = None if from_scratch else ViabilityRegressor.load()
    found = cross_validate(wells.rows, wells.patients, folds=folds, seed=seed, start=start)
    told: dict[str, Any] = {
        "description": f"MTT viability (percent of the untreated controls) from slicewise live volumes of "
        f"{len(wells.rows)} wells of {len(set(wells.patients))} patients with measured references"
        + ("" if from_scratch else ", tuned from the weights that ship"),
        "command": command,
        "seeds": {"network": seed},
        "metrics": metrics(found),
        "data_sha256": wells.sha256,
        "plates": list(wells.plates),
        "measured_by": list(wells.models),
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = save(out, *found.trained, **told)
        out.with_suffix(".md").write_text(card_text(out.stem, written, told), encoding="utf-8")
    except OSError as error:
        do = "give --out a file that you may write"
        raise StorageError(f"cannot write the regressor: {error.strerror}", where=str(out), do=do) from error
    return written, found


def metrics(found: CrossValidated) -> dict[str, Any]:
    """The figures out of fold, of the regressor and of V_control alone, for the card."""
    return {
        "out of fold": asdict(found.figures),
        "v_control alone": asdict(found.v_control),
        "coverage_90": found.coverage,
        "folds": found.n_folds,
    }


def card_text(name: str, written: ViabilityRegressor, told: dict[str, Any]) -> str:
    """The card as a page to read."""
    lines = [f"# {name}", "", told["description"] + ".", "", "| | regressor | V_control alone |", "| --- | --- | --- |"]
    ours, plain = (told["metrics"][key] for key in ("out of fold", "v_control alone"))
    for key, unit in (("pearson_r", ""), ("mae", " points"), ("r2", ""), ("bias", " points")):
        cells = ("unknown" if one[key] is None else f"{one[key]:.3f}{unit}" for one in (ours, plain))
        lines.append(f"| {key} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Out of fold: each patient was predicted by a network that did not see it ({told['metrics']['folds']} folds). "
        f"The 90 % interval held {100 * told['metrics']['coverage_90']:.0f} % of the references, "
        "each fold's interval calibrated on the others.",
        "",
        f"- made by `{told['command']}`, seed {told['seeds']['network']}",
        f"- plates: {', '.join(told['plates'])}; measured by {', '.join(m[:12] for m in told['measured_by'])}",
        f"- data sha256 `{told['data_sha256']}`, weights sha256 `{written.sha256}`, quantile {written.quantile:.3f}",
        "",
    ]
    return "\n".join(lines)
