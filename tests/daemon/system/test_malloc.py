"""The allocator's settings: heard where there is glibc, and never in the way."""

import sys

import numpy as np
import psutil
import pytest

from spheroidd.daemon.system import malloc as allocator


def test_it_may_be_told_again():
    first = allocator.keep_freed_memory()
    assert allocator.keep_freed_memory() is first
    assert np.ones(allocator.KEPT_BYTES, np.uint8).sum() == allocator.KEPT_BYTES


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("asked"))
    assert not allocator.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_what_is_kept_is_bounded():
    """Memory of many messages, freed, goes back to the system but for what may be kept."""
    allocator.keep_freed_memory()
    before = psutil.Process().memory_info().rss
    held = [bytes(3 << 20) for _ in range(60)]
    del held
    assert psutil.Process().memory_info().rss - before <= 2 * allocator.KEPT_BYTES
