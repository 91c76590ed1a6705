"""What a run has loaded, and what it remembers of a large plate, stays: no place to search for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_before_settled() -> Iterator[None]:
    """No search for garbage in here until `settle_memory`: a tenth of a start's time, in which hardly any is made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def settle_memory() -> None:
    """Collect what is garbage now, unless this ends a start, and leave all that is left out of later searches.

    Modules and their functions are some hundred thousand objects, the rows of 1,536 wells forty thousand: a full search
    through them takes 0.1 s, in which no slice is acknowledged.
    """
    if gc.isenabled():
        gc.collect()
    gc.freeze()
    gc.enable()
