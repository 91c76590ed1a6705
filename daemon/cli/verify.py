"""The command that verifies a data directory."""

from typing import Annotated

import typer

from spheroidd.daemon.cli.app import DEFAULT_DATA, DataArgument, JsonOption, app, console, told_when_interrupted


@app.command()
def verify(
    data: DataArgument = DEFAULT_DATA,
    deep: Annotated[bool, typer.Option("--deep", help="Read every stack with zarr-python too, as others do.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a pass that was interrupted.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="How many files at a time; without it, the cores.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Check images, masks, rows and the audit trail against what was written. Exit code 0: intact, 1: look, 3: damage.

    A daemon may run beside it. docs/verify.md lists what is checked and every kind of finding.
    """
    from dataclasses import replace

    from spheroidd.daemon.verification import report_text
    from spheroidd.daemon.verification.last_verified import record_beside
    from spheroidd.daemon.verification.verifier import verify as verify_directory

    with told_when_interrupted("What was checked is kept: `spheroidd verify --resume` goes on."), _Bar() as bar:
        report = verify_directory(data, deep=deep, resume=resume, threads=threads, progress=bar.show)
    refused = record_beside(data, report)
    report = replace(report, notes=(*report.notes, *filter(None, (refused,))))
    if as_json:
        typer.echo(report.to_json())
    else:
        console().print(report_text.to_screen(report), highlight=False)
    return report.exit_code


class _Bar:
    """How far it is, on stderr where that is a terminal: JSON on stdout stays JSON."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        screen = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=screen,
            disable=not screen.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("verifying", total=None)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, where: str) -> None:
        """One more stack is done."""
        self._bar.update(self._task, completed=done, total=total, description=where)
