"""Dose-response curves out of the catalog: which wells make a curve, and what becomes of the others.

A curve is one compound on the cells of one patient on one plate: plates and patients are never pooled here. A well is
one point, the median of its stacks. Untreated wells of the same plate and the same patient (or of no named patient,
where that patient has none of their own) stand at dose 0. Wells that a person excluded are kept beside the points that
are fitted; wells without a figure are named with the reason, and are never a 0. Wells whose images failed (`trust`
`fail`) have no figure, treated or untreated; the curve's warnings count and name them.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import ResultRow
from spheroidd.protocols.dose import DoseResponseFit
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.phrase import all_of, phrase
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.trust import Trust, failed_reason

METRICS = ("v_control", "v_count", "v_score")
MODEL = "LL.4"
_NAMED = 8  # wells that a warning names
_SCORED = (WellStatus.PROVISIONAL, WellStatus.FINAL)
# What the plate's untreated wells are by definition; v_count is a fraction of its own, so there they are measured.
_LEVEL_OF_CONTROLS = {"v_control": 100.0, "v_score": 100.0}


@dataclass(frozen=True, slots=True)
class MissingWell:
    """A treated well without a figure: why, and why a person excluded it, where one did."""

    well: str
    dose_um: float
    reason: str
    excluded: str | None


@dataclass(frozen=True, slots=True)
class FailedWell:
    """A well, treated or untreated, that takes no part in a curve because its images failed."""

    well: str
    reason: str


@dataclass(frozen=True, slots=True)
class CurvePoints:
    """The data of one curve, before any fit.

    `doses_um`, `responses`, `wells` and `excluded` run in parallel, by rising dose, one entry a treated well that has
    a figure; `excluded` holds a person's reason, and None for the wells that are fitted. Responses are in the metric's
    unit: v_control and v_score percent of the untreated median, v_count 0 to 1. `excluded_controls` are (well,
    response, reason), `missing` the treated wells without a figure, `failed` those of all wells whose images failed and
    that nobody excluded. `provisional` says that a figure here may still
    change.
    """

    plate: str
    patient: str | None
    compound: str
    metric: str
    doses_um: tuple[float, ...]
    responses: tuple[float, ...]
    wells: tuple[str, ...]
    excluded: tuple[str | None, ...]
    control_responses: tuple[float, ...]
    control_wells: tuple[str, ...]
    excluded_controls: tuple[tuple[str, float, str], ...]
    missing: tuple[MissingWell, ...]
    provisional: bool
    failed: tuple[FailedWell, ...] = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """ "P1 / pt7 / drug", without the patient where none is named."""
        return " / ".join(part for part in (self.plate, self.patient, self.compound) if part)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the curve must know of its wells, before any fit."""
        if not self.failed:
            return ()
        n, wells = len(self.failed), ", ".join(one.well for one in self.failed[:_NAMED])
        if n > _NAMED:
            wells = phrase("wells-and-more", wells=wells, n=str(n - _NAMED))
        why = all_of(one.reason for one in self.failed)
        return (phrase("images-left-out" if n > 1 else "image-left-out", n=str(n), wells=wells, why=why),)

    @property
    def full_response(self) -> float | None:
        """What an untreated well shows: 100 by definition, and for v_count the median of those there are."""
        level = _LEVEL_OF_CONTROLS.get(self.metric)
        if level is None and self.control_responses:
            level = statistics.median(self.control_responses)
        return level if level is not None and level > 0 else None

    def fitted(self) -> tuple[list[float], list[float]]:
        """Doses and responses as they enter the fit: untreated wells at dose 0, excluded wells left out."""
        kept = [(d, r) for d, r, out in zip(self.doses_um, self.responses, self.excluded, strict=True) if out is None]
        points = [*((0.0, response) for response in self.control_responses), *kept]
        return [dose for dose, _ in points], [response for _, response in points]


@dataclass(frozen=True, slots=True)
class CurveOfPlate(CurvePoints):
    """One curve: its data and what is said of it."""

    fit: DoseResponseFit


def curves(
    catalog: CatalogReader,
    plates: str | Sequence[str] | None = None,
    metric: str = "v_control",
    *,
    model_sha256: str | None = None,
    model: str = MODEL,
) -> list[CurveOfPlate]:
    """Fit every curve of a plate, of several, or of all, in the plate map's order of compounds and patients.

    `model_sha256` asks for one network's rows instead of each stack's latest; `model` is LL.3, LL.4 or LL.5.
    ConfigError for a metric or a plate that there is not.
    """
    return fit_points(curve_points(catalog, plates, metric, model_sha256=model_sha256), model)


def fit_points(points: Iterable[CurvePoints], model: str = MODEL) -> list[CurveOfPlate]:
    """Fit curves that were read before."""
    from spheroidd.inference.dose_response.fit import (  # scipy takes its time, and reading needs none of it
        Curve,
        fit_many,
    )

    points = list(points)
    found = []
    for plate in dict.fromkeys(one.plate for one in points):  # each by itself: its curves share a range for the AUC
        mine = [one for one in points if one.plate == plate]
        data = [Curve(one.name, *one.fitted(), control=one.full_response) for one in mine]
        fits = fit_many(data, model=model)
        values = [{f.name: getattr(one, f.name) for f in fields(CurvePoints)} for one in mine]
        told = [replace(fit, warnings=(*fit.warnings, *one.warnings)) for one, fit in zip(mine, fits, strict=True)]
        found += [CurveOfPlate(**kept, fit=fit) for kept, fit in zip(values, told, strict=True)]
    return found


def curve_points(
    catalog: CatalogReader,
    plates: str | Sequence[str] | None = None,
    metric: str = "v_control",
    *,
    model_sha256: str | None = None,
) -> list[CurvePoints]:
    """The data of every curve, without fitting; see `curves`."""
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}", do=f"use one of {', '.join(METRICS)}")
    known = catalog.plates()
    asked = known if plates is None else [plates] if isinstance(plates, str) else list(plates)
    for plate in asked:
        if plate not in known:
            do = f"the plates are: {', '.join(known) or 'none'}"
            raise ConfigError(f"there is no plate {plate!r}", where=str(catalog.path), do=do)
    return [
        one for plate in asked for one in _of_plate(plate, metric, _wells(catalog.result_rows(plate, model_sha256)))
    ]


def _wells(rows: Iterable[ResultRow]) -> list[list[ResultRow]]:
    """The rows of each well together, in the map's order."""
    wells: dict[str, list[ResultRow]] = {}
    for row in rows:
        wells.setdefault(row.result.well, []).append(row)
    return list(wells.values())


def _of_plate(plate: str, metric: str, wells: Sequence[Sequence[ResultRow]]) -> list[CurvePoints]:
    untreated = [rows for rows in wells if rows[0].treatment.role is WellRole.NEGATIVE_CONTROL]
    groups: dict[tuple[str | None, str], list[Sequence[ResultRow]]] = {}
    for rows in wells:
        treatment = rows[0].treatment
        if treatment.role is WellRole.SAMPLE and treatment.compound is not None and treatment.dose_um is not None:
            groups.setdefault((treatment.patient, treatment.compound), []).append(rows)
    return [
        _points(plate, patient, compound, metric, treated, _controls_of(patient, untreated))
        for (patient, compound), treated in groups.items()
    ]


def _controls_of(patient: str | None, untreated: Sequence[Sequence[ResultRow]]) -> list[Sequence[ResultRow]]:
    """The untreated wells with this patient's cells; where there are none, those that name no patient."""
    own = [rows for rows in untreated if rows[0].treatment.patient == patient]
    return own or [rows for rows in untreated if rows[0].treatment.patient is None]


def _points(
    plate: str,
    patient: str | None,
    compound: str,
    metric: str,
    treated: Sequence[Sequence[ResultRow]],
    untreated: Sequence[Sequence[ResultRow]],
) -> CurvePoints:
    seen = [(rows, _response(rows, metric)) for rows in treated]
    seen.sort(key=lambda one: one[0][0].treatment.dose_um or 0.0)
    points = [(rows, value) for rows, value in seen if value is not None]
    controls = [(rows[0], value) for rows in untreated for value in [_response(rows, metric)] if value is not None]
    counted = [(row.result.well, value) for row, value in controls if row.exclusion is None]
    left_out = [(row.result.well, value, row.exclusion.reason) for row, value in controls if row.exclusion is not None]
    in_use = [rows for rows in (*treated, *untreated) if rows[0].exclusion is None]
    return CurvePoints(
        plate=plate,
        patient=patient,
        compound=compound,
        metric=metric,
        doses_um=tuple(rows[0].treatment.dose_um or 0.0 for rows, _ in points),
        responses=tuple(value for _, value in points),
        wells=tuple(rows[0].result.well for rows, _ in points),
        excluded=tuple(rows[0].exclusion.reason if rows[0].exclusion else None for rows, _ in points),
        control_responses=tuple(value for _, value in counted),
        control_wells=tuple(well for well, _ in counted),
        excluded_controls=tuple(left_out),
        missing=tuple(_missing(rows, metric) for rows, value in seen if value is None),
        failed=tuple(one for rows in (*treated, *untreated) for one in _failed(rows, metric)),
        provisional=any(not row.result.status.is_over for rows in in_use for row in rows),
    )


def _response(rows: Sequence[ResultRow], metric: str) -> float | None:
    """A well's figure: the median of its fields."""
    values: list[float] = []
    for row in rows:
        value = getattr(row.result, metric)
        if value is not None and row.result.status in _SCORED:
            values.append(value)
    return statistics.median(values) if values else None


def _failed(rows: Sequence[ResultRow], metric: str) -> Iterator[FailedWell]:
    """A well without a figure because its images failed; one that a person excluded is told with the excluded ones."""
    failed = [row.result for row in rows if row.result.trust is Trust.FAIL]
    if failed and rows[0].exclusion is None and _response(rows, metric) is None:
        yield FailedWell(failed[0].well, failed_reason(failed[0].trust_flags or ()))


def _missing(rows: Sequence[ResultRow], metric: str) -> MissingWell:
    """A well without a figure, with the reason in the words of its row."""
    result, treatment, exclusion = rows[0].result, rows[0].treatment, rows[0].exclusion
    scored = result.status in _SCORED
    reason = result.why or phrase("no-metric", metric=metric) if scored else result.standing
    return MissingWell(result.well, treatment.dose_um or 0.0, reason, exclusion.reason if exclusion else None)
