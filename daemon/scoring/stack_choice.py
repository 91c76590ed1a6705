"""Which stack of a well counts, decided by a person: excluded, taken in again, or chosen. Audited, nothing is deleted.

See `catalog.current_stacks` for what holds where nobody decided. The decision is an event of the audit trail and stands
nowhere else; the plate's rows are related anew at once, or by the daemon that runs the plate at its next heartbeat.
"""

import contextlib
from pathlib import Path

from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent, given_reason
from spheroidd.daemon.catalog.lookup import the_plate, the_well
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import StackRow, StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.exclusions import Decision, alone, relating, taken_up
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

_COMPLETE = (StackState.STORED, StackState.SCORING, StackState.SCORED)
_WORDS = {
    Action.STACK_EXCLUDED: "excluded",
    Action.STACK_INCLUDED: "included again",
    Action.STACK_CHOSEN: "chosen",
}


def decide_on_stack(
    data_dir: Path,
    action: Action,
    well: str,
    stack: int,
    reason: str,
    *,
    plate: str | None = None,
    who: str | None = None,
) -> Decision:
    """STACK_EXCLUDED, STACK_INCLUDED or STACK_CHOSEN: write it down and relate the plate's rows anew.

    ConfigError where there is no such stack, no reason, nothing to change, or the chosen one lacks slices.
    """
    CatalogReader.read_only(data_dir).close()  # says so where nothing was ever run here: opening to write makes one
    with contextlib.ExitStack() as held:
        is_alone = alone(held, data_dir)
        catalog = held.enter_context(Catalog.create_or_open(data_dir))
        name = the_plate(catalog, plate)
        at, why = the_well(catalog, name, well), given_reason(reason)

        def relate() -> None:
            scheduler = relating(catalog, name)
            if scheduler is not None:
                scheduler.relate_again(f"stack {stack} of {at} {_WORDS[action]}: {why}")

        with catalog.transaction():
            event = _record(catalog, action, name, at, stack, why, who)
            if is_alone:
                relate()
        return Decision(event, is_alone or taken_up(data_dir, catalog, name, relate))


def _record(
    catalog: Catalog, action: Action, plate: str, well: str, stack: int, reason: str, who: str | None
) -> AuditEvent:
    key = StackKey(plate, WellId.parse(well), stack)
    rows = {row.key: row for row in catalog.stacks(plate) if row.key.well == key.well}
    if key not in rows:
        known = ", ".join(str(other.stack) for other in rows) or "none yet"
        raise ConfigError(f"{well} has no stack {stack}", where=plate, do=f"its stacks are: {known}")
    excluded, current = catalog.excluded_stacks(plate), catalog.current_stacks(plate)
    _check(action, rows[key], is_out=key in excluded, counts=key in current - excluded.keys())
    old = {"stack": stack, "counts": key in current - excluded.keys(), "excluded": key in excluded}
    new = {"stack": stack, "newest": max(other.stack for other in rows)}
    return catalog.append_event(action, plate=plate, well=well, old=old, new=new, reason=reason, who=who)


def _check(action: Action, row: StackRow, *, is_out: bool, counts: bool) -> None:
    where = str(row.key)
    if action is Action.STACK_EXCLUDED and is_out:
        raise ConfigError("this stack is excluded already", where=where, do="leave it as it is")
    if action is Action.STACK_INCLUDED and not is_out:
        do = "`spheroidd results --all-stacks` shows which are; --choose makes an earlier one count"
        raise ConfigError("this stack is not excluded", where=where, do=do)
    if action is not Action.STACK_CHOSEN:
        return
    if is_out:
        raise ConfigError("this stack is excluded", where=where, do="include it first")
    if row.state not in _COMPLETE:
        raise ConfigError(f"this stack is {row.state}", where=where, do="choose one that has all of its slices")
    if counts:
        raise ConfigError("this stack counts already", where=where, do="leave it as it is")
