"""Writes docs/cli.md from the commands themselves: `python -m tests.daemon.cli.command_document` (`make docs`)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from spheroidd.daemon.cli.console import app
from tests.places import DOCS

PATH = DOCS / "cli.md"

_HEAD = """# Commands

This page is made from the commands (`make docs`); `spheroidd COMMAND --help` prints the same. A command ends with exit
code 0 where all is well; 1: somebody should look; 2: the request is wrong; 3: the instrument or work left; 4: the disk;
130: interrupted.

"""


def command_page() -> str:
    """The whole page: a section for each command, groups after the single ones, in the order of `--help`."""
    root = typer.main.get_command(app)
    return _HEAD + "\n".join(_sections(root, "spheroidd"))


def _sections(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        full = f"{path} {name}"
        if hasattr(command, "commands"):
            yield f"## {full}\n\n{_prose(command.help)}\n"
            yield from (text.replace("## ", "### ", 1) for text in _sections(command, full))
        else:
            yield _section(full, command)


def _section(path: str, command: Any) -> str:
    context = command.make_context(path, [], resilient_parsing=True)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    rows = [_row(parameter, context) for parameter in command.get_params(context) if parameter.name != "help"]
    table = "| argument or option | default | meaning |\n|---|---|---|\n" + "".join(rows) if rows else ""
    return f"## {path}\n\n{_prose(command.help)}\n\n```text\n{usage}\n```\n\n{table}"


def _row(parameter: Any, context: Any) -> str:
    metavar = parameter.make_metavar(context)
    if parameter.param_type_name == "argument":
        name = f"`{metavar.strip('[]{}')}`"
    else:
        name = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
        name += "" if parameter.is_flag else f" `{metavar.replace('|', ' or ')}`"  # a bar would end the table's cell
    default = "required" if parameter.required else _default(parameter.default)
    meaning = (parameter.help or "") + (f" (environment: `{parameter.envvar}`)" if parameter.envvar else "")
    return f"| {name} | {default} | {meaning} |\n"


def _default(value: Any) -> str:
    if value is None or value is False or value == "" or value == () or callable(value):
        return ""
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def _prose(text: str | None) -> str:
    return re.sub(r"[ \t]*\n[ \t]*(?!\n)", "\n", (text or "").strip())


if __name__ == "__main__":
    PATH.write_text(command_page(), encoding="utf-8")
