"""The app with all of its commands: each file of commands registers its own."""

from importlib import import_module

from spheroidd.daemon.cli.app import app

__all__ = ["app"]

# The order of `--help`.
SUBJECTS = (
    "run",
    "look",
    "evaluate",
    "config",
    "plan",
    "map",
    "plate",
    "fit",
    "report",
    "audit",
    "verify",
    "backup",
    "control",
    "queue",
    "logs",
    "service",
    "page",
    "train",
    "study",
    "reference",
    "model",
    "sim",
)

for _subject in SUBJECTS:
    import_module(f"{__package__}.{_subject}")
