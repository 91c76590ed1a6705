"""Which flags a row gets: pure rules over what was measured of its stack, asked whenever the plate is related.

A rule takes the evidence of one row and yields flags of `protocols.trust`, where each flag's words and weight stand. A
rule that needs its plate is in `judge_rows`. What a rule needs that is not measured yet becomes a field of
`RowEvidence`; nothing else has to change: flags are stored, exported, shown and counted wherever they come from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from spheroidd.inference.viability.related_viability import PlateStack, Regressor, relate
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import Related, StackMeasurement
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import TrustFlag, in_order, trust_of

CLIPPED_ABOVE = 1.5  # a well's own 98th percentile over the upper limit it was scored with
HIGHEST_V_CONTROL = 300.0  # percent of the controls; no compound makes three times the cells


@dataclass(frozen=True, slots=True)
class RowEvidence:
    """What is known of one scored stack when it is judged."""

    key: StackKey
    role: WellRole
    measurement: StackMeasurement


Rule = Callable[[RowEvidence], Iterator[TrustFlag]]


def clipped(row: RowEvidence) -> Iterator[TrustFlag]:
    """A channel is brighter than the limits it was scored with: what lies above them was cut off."""
    limits, quantiles = row.measurement.limits, row.measurement.quantiles
    bright = {channel: found["0.98"] for channel, found in quantiles.items() if "0.98" in found}
    if any(bright.get(channel, 0.0) > CLIPPED_ABOVE * one.high for channel, one in limits.items()):
        yield TrustFlag.CLIPPED


RULES: tuple[Rule, ...] = (clipped,)


def judge(row: RowEvidence, rules: Sequence[Rule] = RULES) -> tuple[TrustFlag, ...]:
    """The flags of one row by itself, in the order in which they are told; empty where nothing was found."""
    return in_order(flag for rule in rules for flag in rule(row))


def judge_rows(rows: Sequence[RowEvidence]) -> dict[StackKey, tuple[TrustFlag, ...]]:
    """The flags of every scored row of a plate by one model."""
    return {row.key: judge(row) for row in rows}


def judge_related(related: Related) -> tuple[TrustFlag, ...]:
    """What shows only beside the controls."""
    high = related.v_control is not None and related.v_control > HIGHEST_V_CONTROL
    return (TrustFlag.V_CONTROL_HIGH,) if high else ()


def relate_judged(stacks: Sequence[PlateStack], regressor: Regressor | None = None) -> dict[StackKey, Related]:
    """Judge every scored stack of a plate, then relate it to the controls whose images did not fail; see `relate`."""
    evidence = [
        RowEvidence(stack.key, stack.role, stack.measurement) for stack in stacks if stack.measurement is not None
    ]
    flags = judge_rows(evidence)
    found = relate([replace(stack, flags=flags.get(stack.key)) for stack in stacks], regressor)
    return {key: _with(related, flags[key]) for key, related in found.items()}


def _with(related: Related, flags: tuple[TrustFlag, ...]) -> Related:
    together = in_order((*flags, *judge_related(related)))
    return replace(related, trust=trust_of(together), trust_flags=together)
