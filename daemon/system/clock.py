"""The computer's own clock, at the true pace."""

import time


class SystemClock:
    """Implements Clock with the system's time."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def elapsed(self) -> float:
        """Seconds since some moment, by a clock that nobody sets."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after that long."""
        time.sleep(max(0.0, seconds))
