"""Flags on single wells of a plate, and what they come to together. Nothing is deleted: a flag says what to look at."""

from collections.abc import Iterator, Mapping, Sequence

from spheroidd.inference.quality.plate_series import (
    NEGATIVE,
    POSITIVE,
    QualityLimits,
    Series,
    WellValue,
    names_of,
    treated_alike,
)
from spheroidd.inference.quality.replicate_outliers import deviants
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.quality import QualityFlag, Verdict
from spheroidd.protocols.well import WellId


def outliers(
    wells: Sequence[WellValue], series: Sequence[Series], edge: Mapping[WellId, float], limits: QualityLimits
) -> Iterator[QualityFlag]:
    """Wells unlike their replicates; `edge` holds what an edge effect leaves of a well's value, and is allowed for."""
    entries = {str(entry.well): entry for entry in wells}
    groups = [{str(e.well): v / edge.get(e.well, 1.0) for e, v in group} for group in treated_alike(wells)]
    level = max((one.figures.negative_median or 0.0 for one in series), default=0.0)
    found = deviants(groups, limits.smallest_spread * max(level, 0.0), limits.outlier_z)
    if found is None:
        what = "no well has enough replicates on this plate to tell an outlier"
        yield QualityFlag("outliers-unknown", Verdict.UNKNOWN, (), what, "give each dose 3 replicates")
    for one in found or ():
        entry = entries[one.well]
        control = entry.treatment.role in (NEGATIVE, POSITIVE)
        code = "bad-control" if control else "replicates-differ" if one.n == 2 else "outlier"
        what = (
            f"{one.well} is at {entry.value:.3g}, its {one.n} replicates' median at {one.median:.3g} (z {one.z:+.1f})"
        )
        what += ", the edge effect allowed for" if entry.well in edge else ""
        do = "look at its images; exclude it by hand with a reason if they show why"
        yield QualityFlag(code, Verdict.WARN, (one.well,), what, do)


def excluded_wells(wells: Sequence[WellValue], excluded: frozenset[str]) -> Iterator[QualityFlag]:
    """That wells were left out by hand stays visible."""
    names = names_of(entry.well for entry in wells if str(entry.well) in excluded)
    if names:
        what = f"{len(names)} wells were excluded by hand and enter no figure"
        yield QualityFlag("excluded", Verdict.PASS, names, what, "see the audit trail for who and why")


def doubted_wells(
    well_flags: Sequence[QualityFlag], wells: Sequence[WellValue], limits: QualityLimits
) -> Iterator[QualityFlag]:
    """What flags on single wells come to for the plate: some wells are lost, or so many are doubtful that all are.

    Only of the `wells` given: one that was left out by hand troubles nobody any more.
    """
    names = {str(entry.well) for entry in wells if entry.treatment.role is not WellRole.EMPTY}
    failed = names & {well for flag in well_flags if flag.verdict is Verdict.FAIL for well in flag.wells}
    doubted = failed | names & {well for flag in well_flags if flag.verdict is Verdict.WARN for well in flag.wells}
    n_wells = len(names)
    if failed:
        what = f"the images of {len(failed)} of {n_wells} wells cannot be trusted"
        yield QualityFlag("lost-wells", Verdict.WARN, tuple(sorted(failed)), what, "image them again, or exclude them")
    if len(doubted) > limits.flagged_share * n_wells:
        what = f"{len(doubted)} of {n_wells} wells carry a flag of their own"
        do = "look for one cause: stain, focus, seeding"
        yield QualityFlag("many-flagged-wells", Verdict.WARN, tuple(sorted(doubted)), what, do)
