"""The console script: each file of commands registers its own with the app. The order here is that of `--help`."""

from spheroidd.daemon.cli import run as commands_run  # isort: skip
from spheroidd.daemon.cli import look as commands_look  # isort: skip
from spheroidd.daemon.cli import evaluate as commands_evaluate  # isort: skip
from spheroidd.daemon.cli import config as commands_config  # isort: skip
from spheroidd.daemon.cli import plan as commands_plan  # isort: skip
from spheroidd.daemon.cli import fit as commands_answer  # isort: skip
from spheroidd.daemon.cli import report as commands_report  # isort: skip
from spheroidd.daemon.cli import audit as commands_audit  # isort: skip
from spheroidd.daemon.cli import quality as commands_quality  # isort: skip
from spheroidd.daemon.cli import focus as commands_focus  # isort: skip
from spheroidd.daemon.cli import export as commands_export  # isort: skip
from spheroidd.daemon.cli import frames as commands_frames  # isort: skip
from spheroidd.daemon.cli import control as commands_control  # isort: skip
from spheroidd.daemon.cli import logs as commands_logs  # isort: skip
from spheroidd.daemon.cli import service as commands_service  # isort: skip
from spheroidd.daemon.cli import page as commands_page  # isort: skip
from spheroidd.daemon.cli import train as commands_train  # isort: skip
from spheroidd.daemon.cli import study as commands_study  # isort: skip
from spheroidd.daemon.cli import reference as commands_reference  # isort: skip
from spheroidd.daemon.cli import model as commands_model  # isort: skip
from spheroidd.daemon.cli import regressor as commands_regressor  # isort: skip
from spheroidd.daemon.cli.app import app, describe

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
