"""The commands that back a data directory up and bring it back."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, app, console, told_when_interrupted

if TYPE_CHECKING:
    from spheroidd.daemon.backup.backup import Pass
    from spheroidd.daemon.backup.index import Moment


@app.command()
def backup(
    data: DataArgument = DEFAULT_DATA,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the backup, best on another disk.")] = ...,  # type: ignore[assignment]
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the daemon ends, or Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1, max=86_400, metavar="S", help="With --follow: seconds between.")] = 60,
    check: Annotated[
        bool, typer.Option("--check", help="Read all that was copied before, and mend what is not it.")
    ] = False,
) -> int:
    """Copy what changed since the last time to another place, beside a run, and check it there. Exit code 3: damage.

    docs/backup.md says what is copied and how long which moment is kept.
    """
    from spheroidd.daemon.backup.backup import back_up, backup_folder
    from spheroidd.daemon.backup.follow import followed
    from spheroidd.daemon.catalog.reader import CatalogReader
    from spheroidd.daemon.system.privacy import readable_by, readers_of

    with CatalogReader.read_only(data):  # refused before a folder is made
        pass
    mode = data.stat().st_mode
    screen, worst = console(), 0
    kept = "The moments before stay; the next backup goes on."
    with readable_by(readers_of(mode)), told_when_interrupted(kept), backup_folder(to) as index:
        for _ in followed(data, every, say=screen.print) if follow else (0,):
            done = back_up(data, to, index, check=check)
            worst = max(worst, done.exit_code)
            _say(done)
    return worst


@app.command()
def restore(
    backup_dir: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder that `spheroidd backup` wrote.")],
    to: Annotated[
        Path | None, typer.Option(metavar="DATA", help="New data directory; it must be empty or not there.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="A moment's number, or a time such as 2026-03-01T12:00.")] = None,
    list_moments: Annotated[bool, typer.Option("--list", help="Say which moments there are.")] = False,
) -> int:
    """Bring a backup's newest moment, or an earlier one, back as a data directory; `run` goes on there."""
    from spheroidd.daemon.backup.index import BackupIndex
    from spheroidd.daemon.backup.restore import restore as bring_back
    from spheroidd.daemon.system.privacy import readable_by, readers_of
    from spheroidd.daemon.verification import report_text
    from spheroidd.protocols.errors import ConfigError

    screen = console()
    if list_moments:
        with BackupIndex(backup_dir) as index:
            for moment in index.moments():
                screen.print(_words(moment), highlight=False)
        return 0
    if to is None:
        raise ConfigError("it is not said where to", where="restore", do="write --to and a new directory")
    mode = backup_dir.stat().st_mode if backup_dir.is_dir() else 0o700
    with readable_by(readers_of(mode)), told_when_interrupted("Nothing was left at the new place."):
        done = bring_back(backup_dir, to, at)
    screen.print(f"{_words(done.moment)}\n{done.files} files are back in {to}", highlight=False)
    for path in done.damaged:
        screen.print(f"damaged in the backup and left out: {path}", style="red", highlight=False)
    screen.print(report_text.to_screen(done.report), highlight=False)
    if done.unrecorded:
        screen.print(f"Note: {done.unrecorded}.", highlight=False)
    return done.exit_code


def _words(moment: "Moment") -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment.at_s))
    state = f"{moment.damage} findings of damage" if moment.damage else "as it was written"
    return f"moment {moment.number} of {at}: {moment.files} files, {moment.file_bytes / 1e6:.1f} MB, {state}"


def _say(done: "Pass") -> None:
    screen = console()
    work = f"{done.copied} files, {done.copied_bytes / 1e6:.1f} MB copied, {done.checked} slices checked"
    screen.print(f"{_words(done.moment)}; {work} in {done.seconds:.1f} s", highlight=False)
    for path in done.mended:
        screen.print(f"damaged in the backup, and copied again: {path}", style="yellow", highlight=False)
    for digest in done.lost:
        screen.print(f"damaged in the backup, and only earlier moments have it: {digest}", style="red", highlight=False)
    for finding in done.findings:
        screen.print(f"{finding.kind}: {finding}; {finding.kind.do}", style="yellow", highlight=False)
