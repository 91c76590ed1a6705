"""What a person orders of the daemon, and how an order travels: from a service thread to main, and its answer back.

Service threads submit; only main takes orders and carries them out. An order that was not taken before its caller's
deadline is withdrawn: what was told to have failed does not happen later.
"""

import threading
import time
from dataclasses import dataclass

from spheroidd.acquisition.channel import Channel, ChannelClosedError
from spheroidd.protocols.errors import BusyError, LateError, RefusedError, SpheroiddError
from spheroidd.protocols.plate import Treatment
from spheroidd.protocols.well import WellId

ORDERS_CAPACITY = 16  # a person gives one at a time; a program that floods the daemon is told so
GRACE_S = 5.0  # for an order that main had begun with when its deadline passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What all orders have: whose it is, and the plate it is meant for ("" for the one that is being run)."""

    who: str
    plate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPlate(Order):
    """Begin, or take up again, a plate that was submitted; "": the queue's first, and then one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOrder(Order):
    """What is ordered of the queue, whether a plate is run or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlate(QueueOrder):
    """A plate was submitted: it waits for its turn, behind the others."""

    n_wells: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrangeQueue(QueueOrder):
    """These plates are the next, in this order; the others follow."""

    plates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlate(QueueOrder):
    """Pass a plate over until it is released."""

    held: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePlate(QueueOrder):
    """Take a plate out of the queue, and forget what was submitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn(QueueOrder):
    """Start the next plate when this one has ended, or no more."""

    goes_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Order):
    """Take no further slice; with `after_well` once the stack under way is whole."""

    after_well: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Order):
    """Go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort(Order):
    """Take no further slice of this plate; score what is stored."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipWell(Order):
    """Leave a well out."""

    well: WellId
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatWell(Order):
    """Image a well once more, as a further stack."""

    well: WellId
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelWell(Order):
    """Say anew what a well holds."""

    well: WellId
    treatment: Treatment
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReorderWells(Order):
    """Image these wells next, in this order; the others follow as they were planned."""

    wells: tuple[WellId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescore(Order):
    """Score stored stacks again; no wells: all of the plate. Model and normalisation "": as before."""

    wells: tuple[WellId, ...] = ()
    model: str = ""
    normalisation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishPush(Order):
    """No further stack will be pushed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Order):
    """End the daemon in good order."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, in a sentence, and the daemon's state then."""

    what: str
    state: str


class Ticket:
    """An order on its way: taken by main or withdrawn by its caller, never both; then answered once."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._lock = threading.Lock()
        self._settled = False  # taken or withdrawn
        self._left = False  # its caller has given up waiting for the answer
        self._answered = threading.Event()
        self._answer: Done | SpheroiddError | None = None

    def settle(self) -> bool:
        """Take it, or withdraw it; False where the other side was quicker."""
        with self._lock:
            first, self._settled = not self._settled, True
            return first

    def answer(self, answer: Done | SpheroiddError) -> bool:
        """Say what was done, or why it was not; False where nobody waits for it any more."""
        with self._lock:
            self._answer = answer
            self._answered.set()
            return not self._left

    @property
    def answered(self) -> bool:
        """Whether it was said what came of it."""
        return self._answered.is_set()

    def wait(self, timeout_s: float) -> Done:
        """What was done. Raises why it was not; LateError where nobody took the order in that time."""
        if not self._answered.wait(timeout_s):
            name = type(self.order).__name__
            if self.settle():
                do = "look at the status, which says what the daemon is busy with, and ask again"
                raise LateError(f"{name} was not taken within {timeout_s:.1f} s and is withdrawn", do=do)
            self._answered.wait(GRACE_S)
            with self._lock:
                self._left = not self._answered.is_set()
            if self._left:
                raise LateError(f"{name} is under way and not done yet", do="look at the status for what comes of it")
        if isinstance(self._answer, Done):
            return self._answer
        raise self._answer or RuntimeError("the order was answered with nothing")


class Inbox:
    """The bounded way of orders from service threads to main."""

    def __init__(self) -> None:
        self._tickets: Channel[Ticket] = Channel(capacity=ORDERS_CAPACITY)

    def __len__(self) -> int:
        return len(self._tickets)

    def submit(self, order: Order, timeout_s: float) -> Done:
        """Give an order and wait for main: what was done. Raises what main refused it with.

        BusyError where too many wait, LateError where main did not take it in time, RefusedError where main is gone.
        """
        ticket, start_s = Ticket(order), time.monotonic()
        try:
            self._tickets.put(ticket, timeout=min(timeout_s, 1.0))
        except TimeoutError:
            raise BusyError(f"{ORDERS_CAPACITY} orders wait already", do="wait for their answers") from None
        except ChannelClosedError:
            raise RefusedError("the daemon is ending", do="start it again with `spheroidd run`") from None
        return ticket.wait(max(0.0, timeout_s - (time.monotonic() - start_s)))

    def take(self, timeout_s: float = 0.0) -> Ticket | None:
        """The next order that still stands, for main; None where none came in that time."""
        while True:
            try:
                ticket = self._tickets.get(timeout=timeout_s)
            except (TimeoutError, ChannelClosedError):
                return None
            if ticket.settle():
                return ticket

    def close(self) -> None:
        """Refuse what waits and what comes: main takes no more orders."""
        self._tickets.close()
        while ticket := self.take():
            ticket.answer(RefusedError("the daemon is ending", do="start it again with `spheroidd run`"))
