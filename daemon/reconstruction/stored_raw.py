"""The patterns in the raw frames of a run: found anew in its stored stacks, whatever the run found in them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group

from spheroidd.acquisition.store.kept_raw import is_dropped
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import StackRow
from spheroidd.daemon.reconstruction.words import estimate_fields, estimate_screen
from spheroidd.daemon.scoring.plate_patterns import MAX_ASKED
from spheroidd.daemon.scoring.raw_stack import find_patterns
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.sim_pattern import PatternEstimate
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId


@dataclass(frozen=True, slots=True)
class FoundInStack:
    """What one stack's frames say of one colour's pattern."""

    key: StackKey
    estimate: PatternEstimate

    @property
    def title(self) -> str:
        """Where it was found."""
        return f"{self.key}, channel {self.estimate.channel}: {self.estimate.n_slices} slices looked at"


def estimate_stored(data_dir: Path, well: WellId | None = None) -> list[FoundInStack]:
    """The pattern of each colour, in the stacks of one well, or in the first ones of each plate.

    ConfigError where there is no whole stack with raw frames that were kept.
    """
    with CatalogReader.read_only(data_dir) as catalog:
        chosen = list(_chosen(catalog, data_dir, well))
        if not chosen:
            do = "give a directory whose plate was imaged with raw frames, and that has kept those of a whole stack"
            of = f" of well {well}" if well is not None else ""
            raise ConfigError(f"there are no raw frames{of} to look at", where=str(data_dir), do=do)
        return [
            FoundInStack(row.key, estimate)
            for row in chosen
            for estimate in find_patterns(row.key, data_dir, catalog, lambda: None).values()
        ]


def _chosen(catalog: CatalogReader, data_dir: Path, well: WellId | None) -> Iterator[StackRow]:
    for plate in catalog.plates():
        rows = [row for row in catalog.stacks(plate) if row.plan.raw is not None and row.complete]
        wanted = [row for row in rows if well in (None, row.key.well) and not is_dropped(data_dir, row.key)]
        yield from wanted if well is not None else wanted[:MAX_ASKED]


def all_known(found: Sequence[FoundInStack]) -> bool:
    """Whether each colour of each plate has a usable pattern in one of the stacks."""
    usable: dict[tuple[str, str], bool] = {}
    for one in found:
        place = one.key.plate, one.estimate.channel
        usable[place] = usable.get(place, False) or one.estimate.usable
    return all(usable.values())


def stored_json(found: Sequence[FoundInStack]) -> str:
    """A list, an object for each stack and colour."""
    each = [{"found_in": str(one.key), **estimate_fields(one.estimate)} for one in found]
    return json.dumps(each, indent=1, allow_nan=False)


def stored_screen(found: Sequence[FoundInStack]) -> Group:
    """A table for each stack and colour."""
    return Group(*(estimate_screen(one.title, one.estimate) for one in found))
