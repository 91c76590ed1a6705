"""The console script: each file of commands registers its own with the app. The order here is that of `--help`."""

from spheroidd.daemon import commands_run  # isort: skip
from spheroidd.daemon import commands_look  # isort: skip
from spheroidd.daemon import commands_evaluate  # isort: skip
from spheroidd.daemon import commands_config  # isort: skip
from spheroidd.daemon import commands_plan  # isort: skip
from spheroidd.daemon import commands_answer  # isort: skip
from spheroidd.daemon import commands_report  # isort: skip
from spheroidd.daemon import commands_audit  # isort: skip
from spheroidd.daemon import commands_quality  # isort: skip
from spheroidd.daemon import commands_focus  # isort: skip
from spheroidd.daemon import commands_export  # isort: skip
from spheroidd.daemon import commands_frames  # isort: skip
from spheroidd.daemon import commands_control  # isort: skip
from spheroidd.daemon import commands_logs  # isort: skip
from spheroidd.daemon import commands_service  # isort: skip
from spheroidd.daemon import commands_page  # isort: skip
from spheroidd.daemon import commands_train  # isort: skip
from spheroidd.daemon import commands_study  # isort: skip
from spheroidd.daemon import commands_reference  # isort: skip
from spheroidd.daemon import commands_model  # isort: skip
from spheroidd.daemon import commands_regressor  # isort: skip
from spheroidd.daemon.command_line import app, describe

__all__ = [
    "app",
    "commands_answer",
    "commands_audit",
    "commands_config",
    "commands_control",
    "commands_evaluate",
    "commands_export",
    "commands_focus",
    "commands_frames",
    "commands_logs",
    "commands_look",
    "commands_model",
    "commands_page",
    "commands_plan",
    "commands_quality",
    "commands_reference",
    "commands_regressor",
    "commands_report",
    "commands_run",
    "commands_service",
    "commands_study",
    "commands_train",
    "describe",
    "main",
]


def main() -> None:
    """The console script's entry."""
    app()
