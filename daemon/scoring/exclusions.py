"""Wells that a person leaves out: excluded and taken in again, each with a reason, and never deleted.

An excluded well keeps its row, its images and its figures; it is marked wherever it is shown, enters no curve and no
summary, and an excluded untreated control no longer counts for the controls' median. The exclusion is an event of the
audit trail and stands nowhere else (`excluded_wells` is a view of the trail), so the two cannot disagree.

While no daemon runs, the command takes the data directory's lock and relates the plate's rows at once, in the same
transaction. While one runs this plate, the event is appended beside it: a single short transaction that SQLite's own
lock keeps apart from the daemon's, which sees it with its next heartbeat and relates the rows itself.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent, given_reason
from spheroidd.daemon.catalog.found_widths import AUTO, found_width
from spheroidd.daemon.catalog.lookup import the_plate, the_well
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import Exclusion
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.system.lock import acquire_lock, is_locked
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.results import Normalisation, WellStatus

if TYPE_CHECKING:
    from spheroidd.daemon.scoring.cell_width import Width
    from spheroidd.daemon.scoring.scheduler import ScoringScheduler

PATIENCE_S = 10.0  # a running daemon beats once a second; a bad disk may hold a commit up for longer
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of it: the event, and whether the plate's rows are related anew already (else a run will do it)."""

    event: AuditEvent
    related: bool


def excluded_wells(catalog: CatalogReader, plate: str) -> dict[str, Exclusion]:
    """The wells of a plate that a person excluded, by name ("B03")."""
    return catalog.excluded_wells(plate)


def exclude_well(
    data_dir: Path, well: str, reason: str, *, plate: str | None = None, who: str | None = None
) -> Decision:
    """Leave a well out of its plate's curves, summaries and control median.

    ConfigError where there is no such well, no reason, or it is excluded already with the same reason.
    """
    return _decide(data_dir, Action.WELL_EXCLUDED, well, reason, plate, who)


def include_well(
    data_dir: Path, well: str, reason: str, *, plate: str | None = None, who: str | None = None
) -> Decision:
    """Take an excluded well in again; ConfigError where it is not excluded or there is no reason."""
    return _decide(data_dir, Action.WELL_INCLUDED, well, reason, plate, who)


def _decide(data_dir: Path, action: Action, well: str, reason: str, plate: str | None, who: str | None) -> Decision:
    Catalog.read_only(data_dir).close()  # says so where nothing was ever run here: opening to write would make one
    with contextlib.ExitStack() as held:
        is_alone = alone(held, data_dir)
        catalog = held.enter_context(Catalog.create_or_open(data_dir))
        plate = the_plate(catalog, plate)
        before = catalog.excluded_wells(plate)

        def relate() -> None:
            _relate(catalog, plate, before)

        with catalog.transaction():
            before = catalog.excluded_wells(plate)
            event = record_decision(catalog, action, plate=plate, well=well, reason=reason, who=who)
            if is_alone:
                relate()
        return Decision(event, is_alone or taken_up(data_dir, catalog, plate, relate))


def alone(held: contextlib.ExitStack, data_dir: Path) -> bool:
    """Take the data directory's lock; False where a daemon has it. ConfigError where the lock cannot be had at all."""
    try:
        held.enter_context(acquire_lock(data_dir))
    except ConfigError:
        if is_locked(data_dir):
            return False
        held.enter_context(acquire_lock(data_dir))  # let go in this very moment, or not to be had: then it says why
    return True


def record_decision(
    catalog: Catalog, action: Action, *, plate: str, well: str, reason: str, who: str | None = None
) -> AuditEvent:
    """Write WELL_EXCLUDED or WELL_INCLUDED down, and no more: a run relates the rows at its next heartbeat.

    ConfigError where there is no such well, no reason, or nothing to change.
    """
    out, reason, name = action is Action.WELL_EXCLUDED, given_reason(reason), the_well(catalog, plate, well)
    with catalog.transaction():
        now = catalog.excluded_wells(plate).get(name)
        if out and now is not None and now.reason == reason:
            what = f"{name} is excluded already, by {now.who} at {now.at_utc}: {now.reason}"
            raise ConfigError(what, where=plate, do="give another reason, or leave it as it is")
        if not out and now is None:
            raise ConfigError(f"{name} is not excluded", where=plate, do="`spheroidd results` shows which wells are")
        old = {"excluded": now is not None, "reason": now.reason if now else None}
        new = {"excluded": out, "reason": reason if out else None}
        return catalog.append_event(action, plate=plate, well=name, old=old, new=new, reason=reason, who=who)


def _relate(catalog: Catalog, plate: str, before: Mapping[str, Exclusion]) -> None:
    """Relate the plate's rows to the controls that are left, with the code that a run relates them with."""
    scheduler = relating(catalog, plate)
    if scheduler is not None:
        scheduler.related_without(before)
        scheduler.record_exclusions()


def relating(catalog: Catalog, plate: str) -> "ScoringScheduler | None":
    """What relates a plate's rows while no run does; None where nothing was measured yet."""
    from spheroidd.daemon.config.model import InferenceConfig
    from spheroidd.daemon.config.named_models import chosen_regressor
    from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings

    models = catalog.models(plate)
    if not models:
        return None
    # Where this model's rows are left to find their cells' width, those that were made with another are provisional.
    width: Width = AUTO if found_width(catalog, plate, models[0]).sought else None
    settings = ScoringSettings(models[0], Normalisation.STACK, None, tolerance=0.0, max_attempts=1, cell_um=width)
    inference = InferenceConfig.model_validate(catalog.plate_inference(plate))
    scheduler = ScoringScheduler(catalog, catalog.plate_map(plate), settings, chosen_regressor(inference))
    # Rows that were final stay so: whoever wrote them knew that the source had nothing more to give.
    scheduler.source_finished = any(result.status is WellStatus.FINAL for result in catalog.results(plate))
    return scheduler


def taken_up(data_dir: Path, catalog: Catalog, plate: str, relate: Callable[[], None]) -> bool:
    """Wait until the daemon that runs this plate has seen the event; where it does not run this plate, relate here."""
    written_s, until_s = time.time(), time.monotonic() + PATIENCE_S
    beats: list[float] = []
    while time.monotonic() < until_s:
        state = catalog.run_state()
        if state is not None and state.heartbeat_s not in beats:
            beats.append(state.heartbeat_s)
        ended = not is_locked(data_dir)
        # A transaction of its began after ours; where the clock was set back, the second new beat shows that.
        if ended or (state is not None and state.heartbeat_s > written_s) or len(beats) > 2:
            if ended or state is None or state.plate != plate:
                # It waits for orders or runs another plate. Should it start this one now, it relates it once more.
                with catalog.transaction():
                    relate()
            return True
        time.sleep(_LOOK_AGAIN_S)
    return False
