"""Ctrl-C and its kin: the first stops in good order, the second ends the program within seconds, hung or not.

Python runs a signal's handler in main alone, between two of its steps; a main that waits for a disk never gets there.
The system writes every signal's number into a socket as well, and a thread that reads it sees to the second one.
"""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from spheroidd.daemon.system.last_resort import LastResort

INTERRUPTED = 130  # the shell's own code for Ctrl-C
PATIENCE_S = 4.0  # after a second Ctrl-C: a person counts to five
_NAMES = tuple(name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
_stops: list[Callable[[], None]] = []  # main's own; the innermost is the one that is called


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None], say: Callable[[str], None]) -> Iterator[None]:
    """The first signal calls `stop`, in main; the second raises KeyboardInterrupt there, and ends all a little later.

    Inside another one it only takes that one's place as to what is called: the signals of both are counted together.
    """
    _stops.append(stop)
    try:
        if len(_stops) > 1:
            yield
        else:
            with _handled(say), _counted():
                yield
    finally:
        _stops.pop()


def interrupt() -> None:
    """What stops a program that has nothing in flight."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(say: Callable[[str], None]) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        for name in _NAMES:
            signal.signal(getattr(signal, name), signal.default_int_handler)
        say("Stopping: slices in flight are being kept. Ctrl-C again to stop at once.")
        _stops[-1]()

    before = {name: signal.signal(getattr(signal, name), handle) for name in _NAMES}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    """Have a thread see to the second signal."""
    numbers = {int(getattr(signal, name)) for name in _NAMES}
    ours, systems = socket.socketpair()
    systems.setblocking(False)
    before = signal.set_wakeup_fd(systems.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_see_to_the_second, args=(ours, numbers), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        systems.close()  # ends the thread
        thread.join()
        ours.close()


def _see_to_the_second(from_system: socket.socket, numbers: set[int]) -> None:
    came, last_resort = 0, LastResort()  # which nobody leaves: Python itself waits for threads at its end
    while data := from_system.recv(64):
        came += sum(number in numbers for number in data)
        if came >= 2:
            last_resort.end_within(PATIENCE_S, INTERRUPTED)
