"""Spheroids from a notebook: `spheroidd.open("demo-data")` gives a plate, `spheroidd.watch` one that runs.

Importing it costs nothing: what a call needs is imported by the call, and neither of the two loads torch.
"""

if __name__ != "spheroidd":
    raise ImportError("import spheroidd, not api: the bare folder would make a second copy of every class")

from collections.abc import Iterator as _Iterator
from os import PathLike as _PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spheroidd.daemon.notebook.plate import Plate
    from spheroidd.daemon.notebook.stack import Stack

__all__ = ["Plate", "Stack", "open", "watch"]


def open(data: "str | _PathLike[str]", plate: str | None = None) -> "Plate":
    """Open a plate of a data directory to read, whether a daemon runs on it or not.

    `plate` is its name, needed only where there are several. ConfigError where no plate was ever run there, or for a
    plate that there is not.
    """
    from spheroidd.daemon.notebook.plate import Plate

    return Plate(data, plate)


def watch(
    data: "str | _PathLike[str]", plate: str | None = None, *, interval_s: float = 1.0, timeout_s: float | None = None
) -> "_Iterator[Plate]":
    """Give the plate now and each time anything of it changed; `plate.changed` names the wells.

    Ends when nothing more comes of any well by itself, when no daemon runs on the directory, or after `timeout_s`
    seconds. It looks every `interval_s` seconds, at the catalog alone. Errors as `open`.
    """
    from spheroidd.daemon.notebook.watching import watch_plate

    return watch_plate(open(data, plate), interval_s=interval_s, timeout_s=timeout_s)


def __getattr__(name: str) -> object:
    if name == "Plate":
        from spheroidd.daemon.notebook.plate import Plate

        return Plate
    if name == "Stack":
        from spheroidd.daemon.notebook.stack import Stack

        return Stack
    raise AttributeError(f"module 'spheroidd' has no attribute {name!r}")
