"""What a report is made of: everything known of a plate, gathered, before anything is drawn or written."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from spheroidd.daemon.catalog.rows import Exclusion
from spheroidd.daemon.report import wording as words
from spheroidd.protocols.phrase import phrase
from spheroidd.protocols.plate import Treatment
from spheroidd.protocols.quality import QualityFlag, Verdict
from spheroidd.protocols.results import WellResult
from spheroidd.protocols.trust import Trust, doubts
from spheroidd.protocols.well import WellId


@dataclass(frozen=True, slots=True)
class WellEntry:
    """One well: its treatment, one result for each stack, the flags that name it, its exclusion, and further columns
    of the plate map.
    """

    well: WellId
    treatment: Treatment
    results: tuple[WellResult, ...] = ()
    flags: tuple[QualityFlag, ...] = ()
    excluded: Exclusion | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def median(self, figure: Callable[[WellResult], float | None]) -> float | None:
        """The median of a figure over the well's stacks; None where no stack has it."""
        values = [value for result in self.results if (value := figure(result)) is not None]
        return statistics.median(values) if values else None

    def figure(self, name: str) -> float | None:
        """The median of one column of the results."""
        return self.median(lambda result: getattr(result, name))

    @property
    def own_flags(self) -> tuple[QualityFlag, ...]:
        """The flags about this well alone; those about the plate name every well that they were drawn from."""
        weighty = (Verdict.WARN, Verdict.FAIL)
        return tuple(flag for flag in self.flags if len(flag.wells) == 1 and flag.verdict in weighty)

    @property
    def trust(self) -> Trust | None:
        """The gravest of the well's stacks; None where none was judged."""
        found = {result.trust for result in self.results}
        return next((trust for trust in (Trust.FAIL, Trust.CHECK, Trust.OK) if trust in found), None)

    @property
    def state_in_words(self) -> str:
        """How the well stands, and why."""
        return "; ".join(self.told)

    @property
    def told(self) -> list[str]:
        """The same, each thing for itself."""
        parts: list[str] = []
        if self.excluded:
            parts.append(phrase("excluded-by", who=self.excluded.who, why=self.excluded.reason))
        for result in self.results:
            state = words.WELL_STATES[result.status]
            said = (
                phrase("standing", state=state, why=result.why) if result.reason and result.reason != state else state
            )
            parts.append(result.standing if result.status.was_ordered else said)
            parts += [phrase("check", what=doubt) for doubt in doubts(result.trust_flags)]
        return [*dict.fromkeys(parts), *(flag.what for flag in self.own_flags)]
