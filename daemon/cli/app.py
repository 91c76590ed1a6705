"""The command line's frame: the app, how a failure becomes words and an exit code, options that commands share.

The commands themselves stand beside it, one file a subject (`console.SUBJECTS`). A command imports what it needs when
it is called, so that `status` and `--help` answer at once.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from spheroidd.protocols.errors import SpheroiddError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_DATA = Path("spheroidd-data")
WIDTH = 140  # columns of what goes into a file or a pipe
INTERRUPTED = 130  # the shell's own code for Ctrl-C

# The panels of `spheroidd --help`, in the order in which a plate needs them.
PANELS = {
    "Run a plate": ("demo", "doctor", "config", "map", "plate", "plan", "run", "replay", "emulate", "sim"),
    "See how it goes": ("status", "results", "quality", "focus-map", "cell-width", "frames", "alarms", "logs", "page"),
    "Answers": ("fit", "report", "heatmap", "export", "evaluate", "reference"),
    "Correct and prove": ("score", "exclude", "include", "relabel", "verify", "audit", "backup", "restore"),
    "Drive a daemon": (
        *("serve", "submit", "queue", "start", "pause", "resume", "skip", "repeat", "next", "abort", "stop"),
        *("control", "token", "service", "support-bundle"),
    ),
    "Networks": ("model", "train", "crossval", "tune", "regressor"),
}

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

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of PANELS; a command that stands in none comes last."""
        ordered = [name for names in PANELS.values() for name in names if name in self.commands]
        return ordered + [name for name in self.commands if name not in ordered]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A panel for each part of the work. As plain text: rich would double the time until help appears."""
        width = max(len(name) for name in self.commands)
        for panel, rows in self._panels():
            limit = formatter.width - 6 - width
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(width), command.get_short_help_str(limit)) for name, command in rows])

    def _panels(self) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
        left = {name: command for name, command in self.commands.items() if not command.hidden}
        for panel, names in PANELS.items():
            yield panel, [(name, left.pop(name)) for name in names if name in left]
        if left:
            yield "Others", list(left.items())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--data DATA`, as scripts may still say it, for the argument that it is: the last one of its command."""
        if "--data" in args[:-1] and args[0] != "run":  # which has an option of that name
            at = args.index("--data")
            args = [*args[:at], *args[at + 2 :], args[at + 1]]
        return list(super().parse_args(ctx, args))

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
        except Exception as error:
            if type(error).__module__ != "sqlite3":  # which is not imported for a command that reads no catalog
                raise
            do = "`spheroidd verify` says which part; restore it from a copy"
            refused = StorageError(f"the catalog cannot be read: {error}", where="catalog.sqlite", do=do)
            typer.echo(describe(refused), err=True)
            sys.exit(refused.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def describe(error: SpheroiddError) -> str:
    """An error in one or two lines: where and what, then what to do."""
    head = f"{error.where}: {error.what}" if error.where else error.what
    return f"spheroidd: {head}" + (f"\n  To do: {error.do}{'' if error.do.endswith('?') else '.'}" if error.do else "")


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _known_directory(ctx: typer.Context, param: typer.CallbackParam, value: Path) -> Path:
    """The directory that was named; where none was, `spheroidd-data` here, or else that of the last run."""
    source = ctx.get_parameter_source(param.name or "")
    if ctx.resilient_parsing or source is None or source.name != "DEFAULT":
        return value
    from spheroidd.daemon.system.last_data import last_data

    last = None if value.is_dir() else last_data()
    if last is None:
        return value
    typer.echo(f"spheroidd: no DATA was given; the last run's is {last}", err=True)
    return last


DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="Data directory of a run; without it the last run's, where there is no spheroidd-data.",
        envvar="SPHEROIDD_DATA",
        callback=_known_directory,
    ),
]
NewDataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Data directory to write.")]
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
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, help=help_text)
    return group


def console(*, lasting: bool = False) -> "Console":
    """Where tables go: as wide as the terminal, or WIDTH columns in a file.

    A `lasting` one is for what must not end because a log's disk is full or a terminal was closed.
    """
    from rich.console import Console

    from spheroidd.daemon.system.lasting_output import LastingOutput

    file = cast("IO[str]", LastingOutput()) if lasting else None
    return Console(file=file, width=None if sys.stdout.isatty() else WIDTH)
