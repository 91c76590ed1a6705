import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.acquisition.channel import Channel, ChannelClosedError


@settings(max_examples=50, deadline=None)
@given(items=st.lists(st.integers(), max_size=30), capacity=st.integers(1, 5))
def test_everything_arrives_in_order_and_never_more_waits_than_there_is_room_for(items, capacity):
    channel = Channel[int](capacity)
    most = 0

    def produce():
        nonlocal most
        for item in items:
            channel.put(item)
            most = max(most, len(channel))
        channel.close()

    producer = threading.Thread(target=produce)
    producer.start()
    assert list(channel) == items
    producer.join()
    assert most <= capacity


def test_failure_arrives_after_what_was_queued():
    channel = Channel[int](capacity=3)
    channel.put(1)
    channel.put(2)
    channel.fail(OSError("camera gone"))
    items = iter(channel)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="camera gone"):
        next(items)


def test_first_ending_stays():
    channel = Channel[int](capacity=1)
    channel.close()
    channel.fail(OSError("too late"))
    assert list(channel) == []


@pytest.mark.parametrize("end", [Channel.close, lambda channel: channel.fail(OSError("x"))], ids=["close", "fail"])
def test_put_into_an_ended_channel_is_refused(end):
    channel = Channel[int](capacity=1)
    end(channel)
    with pytest.raises(ChannelClosedError):
        channel.put(1)


@pytest.mark.parametrize("waiting", ["put", "get"])
def test_close_wakes_whoever_waits(waiting):
    channel = Channel[int](capacity=1)
    if waiting == "put":
        channel.put(0)
    raised = []

    def wait():
        try:
            channel.put(1) if waiting == "put" else channel.get()
        except ChannelClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    channel.close()
    thread.join(10)
    assert len(raised) == 1


def test_get_after_the_end_says_so():
    channel = Channel[int](capacity=1)
    channel.put(7)
    channel.close()
    assert channel.get() == 7
    with pytest.raises(ChannelClosedError, match="ended"):
        channel.get()


def test_timeouts():
    channel = Channel[int](capacity=1)
    with pytest.raises(TimeoutError, match="empty"):
        channel.get(timeout=0.01)
    channel.put(1)
    with pytest.raises(TimeoutError, match="full"):
        channel.put(2, timeout=0.01)
    assert channel.get(timeout=0) == 1


def test_capacity_must_hold_an_item():
    with pytest.raises(ValueError, match="at least one"):
        Channel[int](capacity=0)


def test_many_producers_and_consumers_lose_nothing():
    channel = Channel[int](capacity=2)
    taken, lock = [], threading.Lock()

    def consume():
        for item in channel:
            with lock:
                taken.append(item)

    consumers = [threading.Thread(target=consume) for _ in range(3)]
    producers = [threading.Thread(target=lambda k=k: [channel.put(k * 100 + n) for n in range(100)]) for k in range(3)]
    for thread in (*consumers, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    channel.close()
    for thread in consumers:
        thread.join()
    assert sorted(taken) == list(range(300))
