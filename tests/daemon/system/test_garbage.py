"""What a run has loaded is searched for garbage once, and what comes later as before."""

import subprocess
import sys

START = """
import gc
from spheroidd.daemon.system.garbage import not_before_settled, settle_memory
said = []
with not_before_settled():
    said.append(gc.isenabled())
    settle_memory()
    said.append(gc.isenabled())
with not_before_settled():
    pass
said.append(gc.isenabled())
gc.disable()
with not_before_settled():
    pass
print(*said, gc.isenabled())
"""


def test_a_start_is_not_searched_and_what_follows_it_is() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "True", "True", "False"]


CODE = """
import gc
from spheroidd.daemon.system.garbage import settle_memory
class Ring:
    alive = 0
    def __init__(self):
        Ring.alive += 1
        self.me = self
    def __del__(self):
        Ring.alive -= 1
Ring()
settle_memory()
before, left = Ring.alive, len(gc.get_objects())
Ring()
gc.collect()
print(before, left < gc.get_freeze_count() / 100, Ring.alive)
"""


def test_what_is_loaded_is_left_out_of_later_searches_and_garbage_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "True", "0"]
