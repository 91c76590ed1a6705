"""From the catalog to the quality of a plate: which rows are asked, and what is known of their images."""

import statistics
from collections.abc import Sequence

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import ResultRow
from spheroidd.inference.quality.plate_verdict import LIMITS, QualityLimits, WellValue, judge_plate
from spheroidd.inference.quality.stack_quality import StackEvidence, judge_stacks
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.phrase import phrase
from spheroidd.protocols.quality import PlateQuality, QualityFlag, Verdict
from spheroidd.protocols.results import WellResult, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

METRICS = ("v_control", "v_count", "v_score")


def plate_quality(
    catalog: CatalogReader,
    plate: str,
    metric: str = "v_control",
    *,
    model_sha256: str | None = None,
    excluded: frozenset[str] | None = None,
    limits: QualityLimits = LIMITS,
) -> PlateQuality:
    """The quality of one plate by one metric, from rows of one model or each stack's latest.

    Figures are in the metric's own unit: v_control and v_score in percent, v_count 0 to 1. `excluded` names wells
    ("A01") that enter no figure: those that a person excluded, unless others are given. ConfigError for a metric or
    plate there is not.
    """
    if metric not in METRICS:
        raise ConfigError(f"there is no metric {metric!r}", do=f"use one of {', '.join(METRICS)}")
    wells = well_values(catalog, plate, metric, model_sha256)
    given = catalog.wells_left_out(plate) if excluded is None else excluded
    names = frozenset(str(WellId.parse(well)) for well in given)
    flags = stack_flags(catalog, plate)
    return judge_plate(plate, metric, wells, excluded=names, limits=limits, stack_flags=flags)


def stack_flags(catalog: CatalogReader, plate: str) -> tuple[QualityFlag, ...]:
    """What the images of a plate's stacks say of themselves: out of focus, bleached, clipped, moved, dark, repeated."""
    repeated = catalog.repeated_slices(plate)
    current = catalog.current_stacks(plate)
    profiles = {key: profile for key, profile in catalog.stack_profiles(plate).items() if key in current}
    plans = {row.key: row.plan for row in catalog.stacks(plate)}
    flags = judge_stacks(
        [
            StackEvidence(key, one, plans[key].n_z * plans[key].z_step_um, repeated.get(key, ()))
            for key, one in profiles.items()
        ]
    )
    scored = {StackKey(row.plate, WellId.parse(row.well), row.stack) for row in catalog.results(plate) if _scored(row)}
    unmeasured = tuple(dict.fromkeys(str(key.well) for key in sorted(scored - profiles.keys())))
    if unmeasured:
        what = phrase("images-not-measured", n=str(len(unmeasured)))
        flags += (QualityFlag("images-not-measured", Verdict.UNKNOWN, unmeasured, what, phrase("do-score")),)
    return flags


_UNDER_WAY = (
    WellStatus.QUEUED,
    WellStatus.ACQUIRING,
    WellStatus.STOPPED,
    WellStatus.STORED,
    WellStatus.SCORING,
)


def _scored(result: WellResult) -> bool:
    return result.status in (WellStatus.PROVISIONAL, WellStatus.FINAL)


def well_values(catalog: CatalogReader, plate: str, metric: str, model_sha256: str | None = None) -> list[WellValue]:
    """One value for each imaged well: the median of its fields. Their order is that in which acquisition began."""
    catalog.plate_map(plate)  # ConfigError for a plate there is not
    opened = [(row.opened_s, row.key.well) for row in catalog.stacks(plate) if row.opened_s is not None]
    order = {well: turn for turn, well in reversed(list(enumerate(dict.fromkeys(well for _, well in sorted(opened)))))}
    rows: dict[str, list[ResultRow]] = {}
    for row in catalog.result_rows(plate, model_sha256):
        rows.setdefault(row.result.well, []).append(row)
    return [_well_value(WellId.parse(well), found, metric, order) for well, found in rows.items()]


def _well_value(well: WellId, rows: Sequence[ResultRow], metric: str, order: dict[WellId, int]) -> WellValue:
    scored = [row.result for row in rows if _scored(row.result)]
    values = [value for result in scored if (value := getattr(result, metric)) is not None]
    reason = next((row.result.reason for row in rows if row.result.reason), None)
    value = statistics.median(values) if values else None
    pending = not values and any(row.result.status in _UNDER_WAY for row in rows)
    return WellValue(well, rows[0].treatment, value, order.get(well), None if values else reason, pending)
