"""Commands of the audit trail: look at it, verify it, leave a well out and take it in again."""

from pathlib import Path
from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DataArgument, JsonOption, app, console, sub_app
from spheroidd.protocols.errors import ConfigError

audit_app = sub_app("audit", "Who did what to the numbers, when and why.")

WellOption = Annotated[str, typer.Option(help='The well, such as "B03".')]
ReasonOption = Annotated[str, typer.Option(help="Why, in a sentence: it stands beside the well for good.")]
PlateOption = Annotated[str | None, typer.Option(help="The plate, where there are several.")]
WhoOption = Annotated[str | None, typer.Option(help="Who decides; without it $SPHEROIDD_USER or this account.")]


StackOption = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Only this stack of a well that was imaged more than once.")
]


@app.command()
def exclude(
    data: DataArgument,
    well: WellOption,
    reason: ReasonOption,
    stack: StackOption = None,
    plate: PlateOption = None,
    who: WhoOption = None,
) -> int:
    """Leave a well, or one of its stacks, out of curves, summaries and the control median. It stays visible."""
    from spheroidd.daemon.catalog.audit_chain import Action
    from spheroidd.daemon.scoring.exclusions import exclude_well
    from spheroidd.daemon.scoring.stack_choice import decide_on_stack

    if stack is None:
        decision = exclude_well(data, well, reason, plate=plate, who=who)
    else:
        decision = decide_on_stack(data, Action.STACK_EXCLUDED, well, stack, reason, plate=plate, who=who)
    _say(decision.event.well, "excluded", decision.related, stack)
    return 0


@app.command()
def include(
    data: DataArgument,
    well: WellOption,
    reason: ReasonOption,
    stack: StackOption = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="With --stack: this one counts, though a newer one is there.")
    ] = False,
    plate: PlateOption = None,
    who: WhoOption = None,
) -> int:
    """Take an excluded well or stack in again; with --choose, say which stack of a well counts."""
    from spheroidd.daemon.catalog.audit_chain import Action
    from spheroidd.daemon.scoring.exclusions import include_well
    from spheroidd.daemon.scoring.stack_choice import decide_on_stack

    if stack is not None:
        action = Action.STACK_CHOSEN if choose else Action.STACK_INCLUDED
        decision = decide_on_stack(data, action, well, stack, reason, plate=plate, who=who)
    elif choose:
        raise ConfigError("--choose says which stack counts", where="--stack", do="add --stack N")
    else:
        decision = include_well(data, well, reason, plate=plate, who=who)
    _say(decision.event.well, "chosen" if choose else "included again", decision.related, stack)
    return 0


@app.command()
def relabel(
    data: DataArgument,
    plate_map: Annotated[Path, typer.Argument(metavar="MAP", help="The corrected plate map, all wells of it.")],
    reason: ReasonOption,
    plate: PlateOption = None,
    who: WhoOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> int:
    """Correct a plate map after the run: rows, curves and controls follow, old labels stay in the audit trail."""
    from spheroidd.daemon.scoring.relabelling import relabel as relabel_plate

    done = relabel_plate(data, plate_map, reason, plate=plate, who=who, dry_run=dry_run)
    for change in done.changes:
        typer.echo(change)
    for note in done.notes:
        typer.echo(f"Note: {note}.")
    ends = "nothing is changed" if done.event is None else f"audit event {done.event.seq}; its rows are up to date"
    typer.echo(f"Plate {done.plate}: {len(done.changes)} changes; {ends}")
    return 0


def _say(well: str | None, what: str, related: bool, stack: int | None = None) -> None:
    then = "the plate's rows are up to date" if related else "the running daemon will bring the plate's rows up to date"
    named = f"{well}, stack {stack}," if stack is not None else well
    typer.echo(f"{named} {what}; {then}")


@audit_app.command("show")
def audit_show(
    data: DataArgument,
    as_json: JsonOption = False,
    plate: Annotated[str | None, typer.Option(help="Only this plate's events.")] = None,
    well: Annotated[str | None, typer.Option(help="Only this well's events.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
) -> int:
    """Print the events, oldest first."""
    from spheroidd.daemon.catalog import audit_trail
    from spheroidd.daemon.catalog.writer import Catalog

    with Catalog.read_only(data) as catalog:
        events = audit_trail.events(catalog, plate=plate, well=well, last=last)
    if as_json:
        typer.echo(audit_trail.to_json(events))
    else:
        console().print(audit_trail.to_screen(events))
    return 0


@audit_app.command("verify")
def audit_verify(
    data: DataArgument,
    as_json: JsonOption = False,
    head: Annotated[
        str | None, typer.Option(metavar="HEAD", help="The anchor in an export or report: number:hash, or the hash.")
    ] = None,
) -> int:
    """Check every hash, and every number that the trail vouches for. Exit code 0: intact, 1: it is not."""
    from spheroidd.daemon.catalog import audit_verification as audit_check
    from spheroidd.daemon.catalog.writer import Catalog

    with Catalog.read_only(data) as catalog:
        check = audit_check.verify(catalog, anchor=head)
    if as_json:
        typer.echo(audit_check.to_json(check))
    else:
        console().print(audit_check.to_screen(check, Path(data)), highlight=False)
    return 0 if check.intact else 1
