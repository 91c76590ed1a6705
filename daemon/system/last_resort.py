"""An end that does not depend on any thread that may hang: in so many seconds, come what may."""

import faulthandler
import os
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil


class LastResort:
    """A context manager around what may hang. Left in good time, it does nothing."""

    def __init__(self) -> None:
        self._left = threading.Event()
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()

    def end_within(self, seconds: float, exit_code: int) -> None:
        """Kill this process and its children unless this is left in that time. From any thread, more than once."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._wait, args=(seconds, exit_code), name="last-resort", daemon=True).start()

    def _wait(self, seconds: float, exit_code: int) -> None:
        if self._left.wait(seconds):
            return
        with suppress(Exception):
            sys.stderr.write("spheroidd: it does not end by itself and is ended; what its threads were at:\n")
            sys.stderr.flush()
            faulthandler.dump_traceback(all_threads=True)
        with suppress(psutil.Error):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
        os._exit(exit_code)
