"""When a plate's rows are related anew, and how far that has come: wishes are gathered, the work is done in portions.

On a small plate a sweep is over within the turn that wished for it. On a large one each portion ends after its time,
and sweeps rest between them, so that results that come in quick succession share one; where nothing else is to be done
they do not wait.
"""

import time
from collections.abc import Callable, Iterator

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.messages import Scored
from spheroidd.daemon.scoring.plate_relations import PlateRelations, Standing
from spheroidd.daemon.scoring.plate_stacks import PlateStacks
from spheroidd.daemon.system.garbage import settle_memory
from spheroidd.inference.viability.related_viability import Regressor
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import StackKey

REST = 20.0  # times as long as a sweep took: main has its hands free for 95 % of the time
LONGEST_REST_S = 60.0  # a person who watches sees rows that are no older than that
LONG_S = 0.25  # a sweep of so many rows that to search what is remembered of them for garbage would take a turn


class Sweeps:
    """The sweeps of one plate, of all models that have rows; `standing` says how it stands for a model's rows."""

    def __init__(
        self,
        catalog: Catalog,
        plate_map: PlateMap,
        stacks: PlateStacks,
        regressor: Regressor,
        standing: Callable[[str], Standing],
    ) -> None:
        self._catalog, self._map, self._stacks, self._regressor = catalog, plate_map, stacks, regressor
        self._standing = standing
        self._relations: dict[str, PlateRelations] = {}
        self._wanted: dict[str, str] = {}  # model to reason
        self._under_way: tuple[str, str, Iterator[None]] | None = None
        self._took_s, self._not_before_s = 0.0, 0.0

    @property
    def pending(self) -> bool:
        """Whether some row may have to be related anew."""
        return bool(self._wanted) or self._under_way is not None

    def due(self, *, quiet: bool) -> bool:
        """Whether it is time for some of it; `quiet` says that nothing else is to be done."""
        return self.pending and (quiet or self._under_way is not None or time.monotonic() >= self._not_before_s)

    def want(self, model_sha256: str, reason: str) -> None:
        """Relate the rows of a model before long. The reason of before stays where it still waits for its sweep."""
        self._wanted.setdefault(model_sha256, reason)

    def measured(self, model_sha256: str, key: StackKey, reason: str, answer: Scored | None = None) -> None:
        """A stack has a new measurement: its row is related soon, and at once where a sweep will take its time."""
        relations = self._of(model_sha256)
        relations.measured(key, answer)
        self.want(model_sha256, reason)
        if not self.due(quiet=False) or self._under_way is not None:
            relations.relate_alone(key, self._standing(model_sha256), reason)

    def forget(self) -> None:
        """Something that was written was taken back."""
        if self._under_way is not None:
            self._wanted.setdefault(*self._under_way[:2])
            self._under_way = None
        for model, relations in self._relations.items():
            relations.forget()
            self._wanted.setdefault(model, "related once more, after the catalog could not be written")
        self._not_before_s = 0.0

    def run(self, budget_s: float | None, *, quiet: bool) -> None:
        """Go on for so many seconds, or with None until nothing is left. Inside main's transaction."""
        began_s = time.monotonic()
        while self._next(quiet=quiet or budget_s is None):
            if self._under_way is None:
                return
            for _ in self._under_way[2]:
                if budget_s is not None and time.monotonic() >= began_s + budget_s:
                    self._took_s += time.monotonic() - began_s
                    return
            self._took_s += time.monotonic() - began_s
            self._not_before_s = time.monotonic() + min(REST * self._took_s, LONGEST_REST_S)
            if self._took_s > LONG_S:
                settle_memory()
            self._took_s, self._under_way = 0.0, None

    def _next(self, *, quiet: bool) -> bool:
        if not self.due(quiet=quiet):
            return False
        if self._under_way is None:
            model = next(iter(self._wanted))
            reason = self._wanted.pop(model)
            self._under_way = model, reason, self._of(model).sweep(self._standing(model), reason)
        return True

    def _of(self, model_sha256: str) -> PlateRelations:
        if model_sha256 not in self._relations:
            self._relations[model_sha256] = PlateRelations(
                self._catalog, self._map, self._stacks, model_sha256, self._regressor
            )
        return self._relations[model_sha256]
