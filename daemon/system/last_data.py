"""Which data directory was run last, for commands that are given none."""

import os
from pathlib import Path

VARIABLE = "SPHEROIDD_STATE"
_NAME = "last-data"


def _folder() -> Path | None:
    """Where it is noted; None where the environment says that nothing shall be."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return Path(given) if given else None
    from platformdirs import user_state_path

    return user_state_path("spheroidd", appauthor=False)


def remember_data(data_dir: Path) -> None:
    """Note that a plate runs there. Where it cannot be noted, commands go on asking for the directory."""
    folder = _folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _NAME).write_text(f"{data_dir.absolute()}\n", encoding="utf-8")
    except OSError:
        return  # a service's account may have no home; a convenience must not keep a plate from running


def last_data() -> Path | None:
    """The directory of the last run, while it is there."""
    folder = _folder()
    try:
        text = (folder / _NAME).read_text(encoding="utf-8").strip() if folder is not None else ""
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text) if text and Path(text).is_dir() else None
