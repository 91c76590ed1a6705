"""The only queue between threads: bounded, and it carries the end and the failure as well as the items."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from spheroidd.protocols.errors import SpheroiddError

T = TypeVar("T")


class ChannelClosedError(SpheroiddError):
    """Something was put into a channel that had been closed, or taken from one that has ended."""


class Channel(Generic[T]):
    """A bounded queue from one thread to another that ends, or fails, when its producer does.

    A full channel blocks `put`, an empty one blocks `get`; both take a timeout in seconds and raise TimeoutError.
    What was queued before `close` or `fail` still arrives; then iteration ends, or the failure is raised.

    >>> channel = Channel[int](capacity=2)
    >>> channel.put(1); channel.put(2); channel.close()
    >>> list(channel)
    [1, 2]
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a channel needs room for at least one item, not {capacity}")
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._ended = False
        self._failure: BaseException | None = None
        lock = threading.Lock()
        self._not_full = threading.Condition(lock)
        self._not_empty = threading.Condition(lock)

    def __len__(self) -> int:
        """How many items wait now."""
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether the producer has closed or failed it; items may still wait."""
        return self._ended

    def put(self, item: T, timeout: float | None = None) -> None:
        """Queue an item; blocks while the channel is full. Raises ChannelClosedError or TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._not_full:
            while len(self._items) >= self.capacity and not self._ended:
                if not _wait(self._not_full, deadline):
                    raise TimeoutError(f"the channel stayed full ({self.capacity} items) for {timeout} s")
            if self._ended:
                raise ChannelClosedError("the channel is closed", do="stop producing once its consumer has gone")
            self._items.append(item)
            self._not_empty.notify()

    def get(self, timeout: float | None = None) -> T:
        """Take the oldest item; blocks while there is none.

        Raises the producer's failure, ChannelClosedError at the end, or TimeoutError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._not_empty:
            while not self._items and not self._ended:
                if not _wait(self._not_empty, deadline):
                    raise TimeoutError(f"the channel stayed empty for {timeout} s")
            if self._items:
                item = self._items.popleft()
                self._not_full.notify()
                return item
            if self._failure is not None:
                raise self._failure
            raise ChannelClosedError("the channel has ended", do="iterate over it instead of calling get")

    def close(self) -> None:
        """Nothing more will come. May be called twice, and by the consumer too, to stop the producer."""
        self._end(None)

    def fail(self, failure: BaseException) -> None:
        """Nothing more will come, because of this; raised at the consumer after what is queued. The first one stays."""
        self._end(failure)

    def _end(self, failure: BaseException | None) -> None:
        with self._not_empty:
            if not self._ended:
                self._ended, self._failure = True, failure
            self._not_empty.notify_all()
            self._not_full.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Items until the channel ends; raises the producer's failure."""
        while True:
            try:
                item = self.get()
            except ChannelClosedError as error:
                if error is self._failure:
                    raise
                return
            yield item


def _wait(condition: threading.Condition, deadline: float | None) -> bool:
    """Wait to be notified; False once the deadline has passed."""
    if deadline is None:
        return condition.wait()
    remaining = deadline - time.monotonic()
    return remaining > 0 and (condition.wait(remaining) or time.monotonic() < deadline)
