"""What a run knows of its plate's patterns: asks stacks for them, says what is in doubt, has blind stacks remade."""

from collections.abc import Callable, Sequence

from spheroidd.acquisition.store.kept_raw import is_dropped
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.given_patterns import not_there
from spheroidd.daemon.scoring.plate_patterns import Asked, doubts, made_without, plate_patterns
from spheroidd.daemon.scoring.plate_stacks import PlateStacks
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.sim_pattern import PatternEstimate, SliceModulation
from spheroidd.protocols.stack import StackKey


class RunPatterns:
    """The patterns of one plate's raw stacks. Its rows are written inside the caller's transaction."""

    def __init__(self, catalog: Catalog, plate: str, stacks: PlateStacks, source_finished: Callable[[], bool]) -> None:
        self._catalog, self._plate, self._stacks = catalog, plate, stacks
        self._source_finished = source_finished
        self._given = catalog.given_patterns(plate)
        self._blind = True  # an earlier run may have gone on without a pattern

    def known(self, channels: Sequence[str]) -> dict[str, PatternEstimate | None] | None:
        """The pattern of each colour, None for one that goes on in widefield; None as long as that is open."""
        return self._found(self._asked(), channels)

    def may_ask(self, key: StackKey) -> bool:
        """Whether a stack, which is whole, has not said yet what its pattern is."""
        return key not in self._asked()

    def record(self, channels: Sequence[str]) -> set[StackKey]:
        """Report colours that go on in widefield. The stacks that are to be made once more, with what is known now."""
        asked = self._asked()
        found = self._found(asked, channels)
        for error in doubts(found, asked, self._plate):
            self._catalog.raise_fault(FaultCode.SIM_PATTERN, error)
        if found is None or not self._blind:
            return set()
        self._blind = False  # whatever this run makes, it makes with these patterns
        left = made_without(self._catalog.sim_slices(self._plate), found)
        return {key for key in left if not is_dropped(self._catalog.path.parent, key)}

    def record_given(self, key: StackKey, slices: Sequence[SliceModulation]) -> None:
        """Report a given pattern that is in no slice of a stack."""
        lost = not_there(self._given, slices)
        if lost:
            what = f"the given pattern of {' and '.join(lost)} is in no slice, and the stack is widefield"
            do = "calibrate anew, or leave [sim] out; `spheroidd sim estimate DATA` says which pattern there is"
            self._catalog.raise_fault(FaultCode.SIM_PATTERN, StackError(what, where=str(key), do=do))

    def _asked(self) -> Asked:
        return self._catalog.sim_patterns(self._plate)

    def _found(self, asked: Asked, channels: Sequence[str]) -> dict[str, PatternEstimate | None] | None:
        return plate_patterns(asked, channels, lambda: self._no_more_raw(asked), self._given)

    def _no_more_raw(self, asked: Asked) -> bool:
        """Whether every stack that could say something of the plate's pattern was asked."""
        rows = (row for row in self._stacks.rows.values() if row.plan.raw is not None)
        return self._source_finished() and not any(row.complete and row.key not in asked for row in rows)
