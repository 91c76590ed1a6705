"""Who may use the disk: slices go first, everything else goes in small pieces between them.

A disk answers a sync only when it has written all that was given to it before, whoever gave it. A shard of 5 MB that is
written at once holds the next slice up for ten milliseconds; in pieces, each begun while no slice is on its way and
each synced by itself, it holds up none for longer than one piece takes.
"""

import contextlib
import threading
from collections.abc import Iterator

PATIENCE_S = 0.5  # nobody gives way for longer than this, whatever went wrong with those who come first


class RightOfWay:
    """Between one that writes slices and calls `signal`, and several that write all else and take a `turn` a piece.

    Before the first `signal` nobody has to give way. Thread-safe; no lock is held while a piece is written.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._slices = self._piece = False  # on their way to the disk
        self._hurry = True
        self._change = threading.Condition()

    def signal(self, *, slices: bool, hurry: bool) -> None:
        """Say whether slices are on their way to the disk, and whether to `hurry`: then nobody gives way."""
        with self._change:
            if (slices, hurry) != (self._slices, self._hurry):
                self._slices, self._hurry = slices, hurry
                self._change.notify_all()

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Write one piece in this context; waits until it may begin: no slice and no other piece is on its way.

        Gives whether the piece is to be synced before the turn ends, so that no slice pays for it later.
        """
        with self._change:
            self._change.wait_for(self._is_clear, self._patience_s)
            gives_way = not self._hurry
            first = gives_way and not self._piece  # not so where the patience ran out
            self._piece |= first
        try:
            yield gives_way
        finally:
            if first:
                with self._change:
                    self._piece = False
                    self._change.notify_all()

    def _is_clear(self) -> bool:
        return self._hurry or not (self._slices or self._piece)
