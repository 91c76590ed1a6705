"""A file that takes too long is left, its reader ends where it can, and the others are read."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spheroidd.acquisition.images.reading_time import MAX_LEFT, ReadingTime, _Job
from spheroidd.protocols.errors import InstrumentError, StackError

BUDGET_S = 0.3


@pytest.fixture
def gone() -> Callable[[], bool]:
    """Whether the readers that this test began have ended; one that hangs in another test's file is not its own."""
    before = set(threading.enumerate())
    return lambda: not any(one.name == "file-reader" for one in set(threading.enumerate()) - before)


def until(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def for_ever() -> None:
    while True:
        pass


def test_a_reader_that_goes_round_in_a_circle_is_left_and_ends(tmp_path: Path, gone: Callable[[], bool]) -> None:
    reading = ReadingTime(BUDGET_S)
    with pytest.raises(StackError, match=r"could not be read within 0\.3 s") as refused:
        reading.read(for_ever, tmp_path / "a.tif")
    assert refused.value.where == str(tmp_path / "a.tif")
    assert reading.read(lambda: 7, tmp_path / "b.tif") == 7
    reading.close()
    until(gone)


def test_a_file_that_was_too_slow_is_not_tried_again_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"1")
    reading, calls = ReadingTime(BUDGET_S), []

    def read() -> None:
        calls.append(1)
        for_ever()

    for _ in range(3):
        with pytest.raises(StackError, match="could not be read"):
            reading.read(read, path)
    assert len(calls) == 1
    path.write_bytes(b"22")
    assert reading.read(lambda: "read", path) == "read"
    reading.close()


class Opened:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_readers_that_hang_in_the_system_are_counted_and_the_share_is_named(
    tmp_path: Path, gone: Callable[[], bool]
) -> None:
    if sys.gettrace() is not None:
        pytest.skip("CPython 3.11 goes round for ever where a tracer meets an exception that waits for another thread")
    reading = ReadingTime(0.05)
    locks = [threading.Lock() for _ in range(MAX_LEFT)]
    for number, lock in enumerate(locks):
        lock.acquire()
        with pytest.raises(StackError, match="could not be read"):
            reading.read(lock.acquire, tmp_path / f"{number}.tif")
    with pytest.raises(InstrumentError, match=f"{MAX_LEFT} files could not be read"):
        reading.read(lambda: 7, tmp_path / "sound.tif")
    for lock in locks:
        lock.release()
    until(gone)
    assert reading.read(lambda: 7, tmp_path / "sound.tif") == 7
    reading.close()


def test_what_comes_after_all_is_closed() -> None:
    opened = Opened()
    job = _Job(lambda: opened)
    job.given_up = True
    job.carry_out()
    assert opened.closed


@pytest.mark.parametrize("error", [RecursionError("deep"), MemoryError(), KeyError("x"), AssertionError()], ids=repr)
def test_whatever_a_reader_raises_is_the_stacks_failure(tmp_path: Path, error: Exception) -> None:
    def read() -> None:
        raise error

    reading = ReadingTime(BUDGET_S)
    with pytest.raises(StackError, match=type(error).__name__):
        reading.read(read, tmp_path / "a.tif")
    with pytest.raises(FileNotFoundError):
        reading.read((tmp_path / "none").read_bytes, tmp_path / "none")
    reading.close()


def test_a_large_file_is_given_more_time(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    with path.open("wb") as file:
        file.truncate(5_000_000_000)
    assert ReadingTime(60.0)._seconds(path, whole=True) == pytest.approx(1060.0)
    assert ReadingTime(60.0)._seconds(path / "series", whole=True) == pytest.approx(1060.0)
    assert ReadingTime(60.0)._seconds(path, whole=False) == 60.0
