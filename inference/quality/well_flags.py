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
from spheroidd.protocols.phrase import phrase
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
        yield QualityFlag("outliers-unknown", Verdict.UNKNOWN, (), phrase("replicates-few"), phrase("do-replicates"))
    for one in found or ():
        entry = entries[one.well]
        control = entry.treatment.role in (NEGATIVE, POSITIVE)
        code = "bad-control" if control else "replicates-differ" if one.n == 2 else "outlier"
        what = phrase(
            "unlike-replicates-edge" if entry.well in edge else "unlike-replicates",
            well=one.well,
            value=f"{entry.value:.3g}",
            n=str(one.n),
            median=f"{one.median:.3g}",
            z=f"{one.z:+.1f}",
        )
        yield QualityFlag(code, Verdict.WARN, (one.well,), what, phrase("do-exclude-by-hand"))


def excluded_wells(wells: Sequence[WellValue], excluded: frozenset[str]) -> Iterator[QualityFlag]:
    """That wells were left out by hand stays visible."""
    names = names_of(entry.well for entry in wells if str(entry.well) in excluded)
    if names:
        what = phrase("wells-excluded", n=str(len(names)))
        yield QualityFlag("excluded", Verdict.PASS, names, what, phrase("do-see-trail"))


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
        what = phrase("wells-lost", n=str(len(failed)), total=str(n_wells))
        yield QualityFlag("lost-wells", Verdict.WARN, tuple(sorted(failed)), what, phrase("do-image-or-exclude"))
    if len(doubted) > limits.flagged_share * n_wells:
        what = phrase("wells-flagged", n=str(len(doubted)), total=str(n_wells))
        yield QualityFlag("many-flagged-wells", Verdict.WARN, tuple(sorted(doubted)), what, phrase("do-one-cause"))
