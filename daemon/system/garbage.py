"""What a run has loaded, and what it remembers of a large plate, stays: no place to search for garbage."""

import gc


def settle_memory() -> None:
    """Collect what is garbage now, and leave all that is left out of later searches.

    Modules and their functions are some hundred thousand objects, the rows of 1,536 wells forty thousand: a full search
    through them takes 0.1 s, in which no slice is acknowledged.
    """
    if gc.isenabled():
        gc.collect()
    gc.freeze()
