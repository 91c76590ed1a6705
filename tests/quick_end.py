"""The end of a process that was forked: it does all that it has to do, and does not take apart what was loaded for it.

That would copy every page that it shares with the process it was forked from, for a tenth of a short run's processor
time; multiprocessing ends what it forks in the same way. What is started cold runs to its interpreter's end.
"""

import atexit
import os
import sys
import weakref
from collections.abc import Mapping
from typing import Any

_code: int | None = None


@atexit.register  # what is registered first is called last: this module is imported before all others that register
def _end() -> None:
    if _code is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_code)


def _leave_what_was_loaded() -> None:
    """What is to be done at the end of the process that was forked is done there: torch takes 134 libraries apart."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_what_was_loaded)


def run(program: str, names: Mapping[str, Any]) -> None:
    """Execute what a new interpreter would be given; one that ends by an exception ends as an interpreter does."""
    global _code
    try:
        exec(program, dict(names))
        _code = 0
    except SystemExit as end:
        _code = 0 if end.code is None else end.code if isinstance(end.code, int) else None
        raise
