"""The command line's frame: the app, how a failure becomes words and an exit code, options that commands share.

The commands themselves stand beside it, one file a subject (`console.SUBJECTS`). A command imports what it needs when
it is called, so that `status` and `--help` answer at once.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from spheroidd.protocols.errors import SpheroiddError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_DATA = Path("spheroidd-data")
WIDTH = 140  # columns of what goes into a file or a pipe
INTERRUPTED = 130  # the shell's own code for Ctrl-C


_ROOM = "check that the path is right, that you may write there and that the disk has room"


@contextmanager
def told_when_interrupted(kept: str) -> Iterator[None]:
    """Ctrl-C in here says what of this command's work is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(kept) from error


class _Commands(TyperGroup):
    """The one place where a failure becomes words and an exit code. A command returns its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command and end the program."""
        try:
            code = super().invoke(ctx)
        except SpheroiddError as error:
            typer.echo(describe(error), err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt as error:
            kept = str(error) or "Every acknowledged slice and every committed row is kept."
            typer.echo(f"Interrupted. {kept}", err=True)
            sys.exit(INTERRUPTED)
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # the reader of a pipe went away: click knows what to do
                raise
            refused = StorageError(error.strerror or str(error), where=str(error.filename or ""), do=_ROOM)
            typer.echo(describe(refused), err=True)
            sys.exit(refused.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def describe(error: SpheroiddError) -> str:
    """An error in one or two lines: where and what, then what to do."""
    head = f"{error.where}: {error.what}" if error.where else error.what
    return f"spheroidd: {head}" + (f"\n  To do: {error.do}{'' if error.do.endswith('?') else '.'}" if error.do else "")


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
)

DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Data directory of a run.", envvar="SPHEROIDD_DATA")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback(invoke_without_command=True)
def _spheroidd(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False
) -> None:
    """Images of tumour spheroids in, viability per well out, while the microscope is still at it."""
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"spheroidd {installed_version('spheroidd')}")
        sys.exit(0)


def sub_app(name: str, help_text: str) -> typer.Typer:
    """A group of commands below `spheroidd NAME`."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
    app.add_typer(group, name=name, help=help_text)
    return group


def console() -> "Console":
    """Where tables go: as wide as the terminal, or WIDTH columns in a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH)
