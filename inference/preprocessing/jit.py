"""How a function becomes a compiled kernel here. The only module that knows numba's cache."""

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., object]) -> Any:
    """Compile a function at its first call: without the GIL, without reordering of floats, kept on disk.

    A division by zero gives what numpy gives: asked for at every pixel, an exception would leave no loop its vectors.

    numba writes the machine code beside the source or, where that is read-only, into the user's cache folder; with
    neither, each process compiles anew (about 7 s of CPU for all kernels). The kept code is renewed when the function's
    own file changes, and only then: a kernel may call kernels and use constants of its own file, never another's.
    """
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder that it may write to
        return njit(nogil=True, error_model="numpy")(function)
