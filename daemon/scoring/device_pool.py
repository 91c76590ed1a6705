"""The pool of one machine with several devices: a worker process for each, which see nothing of each other.

A job goes to whichever worker is free. A worker that dies costs its stack one attempt, and the others go on.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from spheroidd.daemon.scoring.messages import ScoreJob
from spheroidd.daemon.scoring.pool import WorkerEvent, WorkerLost, WorkerReady
from spheroidd.daemon.scoring.worker import Worker, WorkerSettings
from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.stack import StackKey

_COUNT = "import torch; print(torch.cuda.device_count())"


def named_devices(devices: Literal["all"] | Sequence[int | str]) -> tuple[str, ...]:
    """Devices as torch names them: every GPU, or those with these numbers. ModelError where there is none.

    Torch is asked in a process of its own: the daemon's main process has no use for its memory.
    """
    if devices != "all":
        return tuple(f"cuda:{one}" if isinstance(one, int) else one for one in devices)
    answer = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=False)
    count = int(answer.stdout) if answer.returncode == 0 else 0
    if not count:
        do = 'remove devices, or set device = "auto"'
        raise ModelError('devices is "all", but torch sees no GPU', where="[inference] devices", do=do)
    return tuple(f"cuda:{number}" for number in range(count))


class DevicePool:
    """A ScoringPool of one `Worker` for each device; `emit` is called from their threads."""

    follows_growing = True
    ahead = 0

    def __init__(self, settings: WorkerSettings, devices: Sequence[str], emit: Callable[[WorkerEvent], None]) -> None:
        self._emit = emit
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._doing: dict[StackKey, int] = {}
        self.workers = [
            Worker(replace(settings, device=device), lambda event, number=number: self._told(number, event))  # type: ignore[misc]
            for number, device in enumerate(devices)
        ]

    def start(self) -> None:
        """Start the workers; WorkerReady follows for each."""
        for worker in self.workers:
            worker.start()

    def submit(self, job: ScoreJob) -> None:
        """Hand a job to a free worker."""
        with self._lock:
            number = self._free.pop(0)
            self._doing[job.key] = number
        self.workers[number].submit(job)

    def stop(self) -> None:
        """End the processes now."""
        for worker in self.workers:
            worker.stop()

    def _told(self, number: int, event: WorkerEvent) -> None:
        """Note which worker is free before main learns of it, and tell it with the worker's number."""
        with self._lock:
            match event:
                case WorkerReady():
                    self._free.append(number)
                    event = replace(event, worker=number)
                case WorkerLost(key):
                    self._free = [one for one in self._free if one != number]
                    self._doing = {one: by for one, by in self._doing.items() if one != key}
                    event = replace(event, worker=number)
                case _:
                    key = getattr(event, "key", None)
                    if key is not None and self._doing.pop(key, None) is not None:
                        self._free.append(number)
        self._emit(event)
