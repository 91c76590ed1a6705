"""Orders on their way: taken or withdrawn, never both."""

import threading

import pytest

from spheroidd.daemon.pipeline.orders import ORDERS_CAPACITY, Done, Inbox, Pause, Ticket
from spheroidd.protocols.errors import BusyError, LateError, RefusedError

PAUSE = Pause(who="ann")


def test_an_order_is_carried_out_and_answered() -> None:
    inbox = Inbox()

    def main() -> None:
        ticket = inbox.take(5.0)
        assert ticket is not None
        assert ticket.order is PAUSE
        ticket.answer(Done("paused", "paused"))

    thread = threading.Thread(target=main)
    thread.start()
    assert inbox.submit(PAUSE, 5.0) == Done("paused", "paused")
    thread.join()


def test_an_order_whose_caller_gave_up_is_not_carried_out_later() -> None:
    inbox = Inbox()
    with pytest.raises(LateError, match="withdrawn"):
        inbox.submit(PAUSE, 0.01)
    assert inbox.take() is None


def test_an_order_that_was_begun_cannot_be_withdrawn() -> None:
    ticket = Ticket(PAUSE)
    assert ticket.settle()
    threading.Timer(0.05, ticket.answer, [Done("paused", "paused")]).start()
    assert ticket.wait(0.0) == Done("paused", "paused")


def test_a_flood_of_orders_is_refused() -> None:
    inbox = Inbox()
    for _ in range(ORDERS_CAPACITY):
        with pytest.raises(LateError):
            inbox.submit(PAUSE, 0.0)
    with pytest.raises(BusyError):
        inbox.submit(PAUSE, 0.01)
    assert inbox.take() is None  # all were withdrawn, and there is room again
    with pytest.raises(LateError):
        inbox.submit(PAUSE, 0.0)


def test_a_daemon_that_ends_refuses_what_waits_and_what_comes() -> None:
    inbox, errors = Inbox(), []

    def order() -> None:
        try:
            inbox.submit(PAUSE, 5.0)
        except RefusedError as error:
            errors.append(error)

    thread = threading.Thread(target=order)
    thread.start()
    while not len(inbox):
        pass
    inbox.close()
    thread.join()
    with pytest.raises(RefusedError, match="ending"):
        inbox.submit(PAUSE, 5.0)
    assert len(errors) == 1
