"""Which flags a row gets, and what they do to it: asked whenever the plate is related.

The rules are in `rules`; each flag's words and weight stand in `protocols.trust`. Flags are stored, exported,
shown and counted wherever they come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from spheroidd.inference.quality.trust.evidence import RowEvidence, Seen
from spheroidd.inference.quality.trust.rules import flags_of, own_flags
from spheroidd.inference.viability.related_viability import PlateStack, Regressor, relate
from spheroidd.protocols.results import Related
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import TrustFlag, in_order, trust_of

HIGHEST_V_CONTROL = 300.0  # percent of the controls; no compound makes three times the cells
_NOTHING: Mapping[StackKey, Seen] = MappingProxyType({})


def judge(row: RowEvidence) -> tuple[TrustFlag, ...]:
    """The flags of one row by itself, in the order in which they are told; empty where nothing was found."""
    return in_order(own_flags(row))


def judge_rows(rows: Sequence[RowEvidence]) -> dict[StackKey, tuple[TrustFlag, ...]]:
    """The flags of every scored row of a plate by one model."""
    return {key: in_order(flags) for key, flags in flags_of(rows).items()}


def judge_related(related: Related) -> tuple[TrustFlag, ...]:
    """What shows only beside the controls."""
    high = related.v_control is not None and related.v_control > HIGHEST_V_CONTROL
    return (TrustFlag.V_CONTROL_HIGH,) if high else ()


def relate_judged(
    stacks: Sequence[PlateStack], regressor: Regressor | None = None, seen: Mapping[StackKey, Seen] = _NOTHING
) -> dict[StackKey, Related]:
    """Judge every scored stack of a plate, then relate it to the controls whose images did not fail; see `relate`.

    `seen` is what was measured of the stacks besides their counts; without it a stack is judged by those alone.
    """
    evidence = [
        RowEvidence(stack.key, stack.role, stack.measurement, seen.get(stack.key, Seen()), stack.excluded)
        for stack in stacks
        if stack.measurement is not None
    ]
    flags = judge_rows(evidence)
    found = relate([replace(stack, flags=flags.get(stack.key)) for stack in stacks], regressor)
    return {key: with_flags(related, flags[key]) for key, related in found.items()}


def with_flags(related: Related, flags: tuple[TrustFlag, ...]) -> Related:
    """A relation with the flags of its row, and those that show in the relation itself."""
    together = in_order((*flags, *judge_related(related)))
    return replace(related, trust=trust_of(together), trust_flags=together)
