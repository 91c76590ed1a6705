"""What the fake LAS X does when it scans: an experiment's folder, plane after plane, with the faults it is told."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import SliceIndex, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.faults import PICTURE_FAULTS, halve
from spheroidd.sim_emulator.leica.faults import LeicaFault
from spheroidd.sim_emulator.leica.tree import ScreenerField
from spheroidd.sim_emulator.look import PLAIN, Specimen
from spheroidd.sim_emulator.source import EmulatorSource
from spheroidd.sim_emulator.stage import stage_um

DARK_ADU = 100
TICK_S = 0.05


class Place(NamedTuple):
    """A field of a well, counted from 0."""

    well: WellId
    x: int
    y: int


class LeicaScanner:
    """One scan at a time, in a thread. `announce` tells the clients; `hang_up` is called for a fault of that name."""

    def __init__(
        self,
        plate: EmulatorSource,
        out: Path,
        faults: Sequence[LeicaFault],
        announce: Callable[..., None],
        *,
        real: bool,
    ) -> None:
        self._plate, self._out, self._faults, self._announce, self._real = plate, out, faults, announce, real
        self.hang_up: Callable[[], None] = lambda: None
        self._fired: dict[LeicaFault, int] = {}
        self._n_scans = 0
        self._experiment = out
        self._stop, self._paused = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._late: list[tuple[float, ScreenerField, SliceIndex, Pixels]] = []
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()
        self.stage_um = (0.0, 0.0)
        self.failure: SpheroiddError | None = None  # of the recording that it images: no instrument's, and told apart

    @property
    def scanning(self) -> bool:
        """Whether a scan goes on."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, places: Sequence[Place], *, cam: bool) -> None:
        """Scan these places into a new experiment, or from the CAM list into a folder of the last one."""
        if self.scanning:
            return  # as LAS X does, which is busy
        self._n_scans += 1
        if cam and self._experiment != self._out:
            folder = self._experiment / f"CAM{self._n_scans}"
        else:
            self._experiment = folder = self._new_experiment()
        self._stop.clear()
        self._paused.clear()
        self._thread = threading.Thread(target=self._scan, args=(places, folder), name="fake-las-x-scan", daemon=True)
        self._thread.start()

    def _new_experiment(self) -> Path:
        number = 1
        while (folder := self._out / f"experiment--{self._plate.plate_map.name}_{number:03d}").exists():
            number += 1
        return folder

    def pause(self) -> None:
        """Pause, or go on."""
        if self._paused.is_set():
            self._paused.clear()
        else:
            self._paused.set()

    def stop(self) -> None:
        """End the scan."""
        self._stop.set()

    def close(self) -> None:
        """End everything."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        for timer in self._timers:
            timer.cancel()
            timer.join()

    def fault_at_command(self, command: str) -> str | None:
        """What goes wrong at this command now."""
        return next((f.kind for f in self._faults if f.command == command and self._fires(f)), None)

    def _fires(self, fault: LeicaFault) -> bool:
        with self._lock:
            self._fired[fault] = self._fired.get(fault, 0) + 1
            return self._fired[fault] <= fault.times

    def _scan(self, places: Sequence[Place], folder: Path) -> None:
        self._say("scanstart")
        try:
            for place in _serpentine(places):
                if not self._image(place, folder):
                    break
        except SpheroiddError as error:
            self.failure = error
        self._say("scanfinished")
        for seconds, field, index, image in self._late:
            self._timers.append(threading.Timer(seconds, field.write, (*index, image)))
            self._timers[-1].start()
        self._late.clear()

    def _say(self, word: str) -> None:
        self._announce(f"/app:matrix /sys:0 /inf:{word}", at_once=True)

    def _image(self, place: Place, folder: Path) -> bool:
        """One field; False where the scan ends in it."""
        plan = self._plate.plan(place.well)
        field = ScreenerField(folder, plan, partial(self._plate.taken, plan), place.x, place.y)
        field.make()
        self.stage_um = stage_um(self._plate.preset, place.well)
        specimen, told = self._specimen(place, plan), None
        period_s = (plan.slice_period_s or 0.0) / len(plan.channels) if self._real else 0.0
        due_s = time.monotonic()
        for index in plan.indices():
            kind = self._fault_at(place.well, index)
            look = PLAIN if kind is None else kind.look
            image = (
                specimen.image(*index, look) if specimen else np.full((plan.height, plan.width), DARK_ADU, np.uint16)
            )
            due_s = max(due_s + period_s, time.monotonic())
            if self._stop.wait(max(0.0, due_s - time.monotonic())) or self._is_held():
                return False
            if kind is not None and not self._suffer(kind, field, index, image):
                return False
            if kind is None or kind.kind in ("duplicate", "hang-up", *PICTURE_FAULTS):
                field.write(*index, image)
            told = field.path(*index)
            if kind is not None and kind.kind == "duplicate":
                self._tell_of(told)
        field.write_metadata()
        if told is not None:
            self._tell_of(told)
        return True

    def _is_held(self) -> bool:
        """Wait while the scan is paused; whether it was stopped."""
        while self._paused.is_set() and not self._stop.wait(TICK_S):
            pass
        return self._stop.is_set()

    def _specimen(self, place: Place, plan: StackPlan) -> Specimen | None:
        """What lies there; nothing where the plate has no such well. A recording's fields lie side by side."""
        plate, stack = self._plate, place.x + 100 * place.y
        if plate.recording is not None:
            x_um, y_um = place.x * plan.width * plan.pixel_um, place.y * plan.height * plan.pixel_um
            return plate.specimen(place.well, stack, x_um=x_um, y_um=y_um)
        if place.well not in {entry.well for entry in plate.plate_map.imaged()}:
            return None
        return plate.specimen(place.well, stack)

    def _fault_at(self, well: WellId, index: SliceIndex) -> LeicaFault | None:
        for fault in self._faults:
            here = fault.well == str(well) and fault.channel in ("both", index.channel) and fault.z == index.z
            if here and self._fires(fault):
                return fault
        return None

    def _suffer(self, fault: LeicaFault, field: ScreenerField, index: SliceIndex, image: Pixels) -> bool:
        """Let a fault happen; False where the scan ends of it."""
        match fault.kind:
            case "end":
                return False
            case "halt":
                self._stop.wait()
                return False
            case "hang-up":
                self.hang_up()
            case "cut":
                halve(field.write(*index, image))
            case "late":
                self._late.append((fault.seconds, field, index, image))
            case "duplicate":
                field.write(*index, image)
            case _:
                pass  # missing
        return True

    def _tell_of(self, path: Path) -> None:
        """Once for a field and job, as LAS X does, with Windows' separators."""
        relative = "\\".join(path.relative_to(self._out).parts)
        self._announce(f"/relpath:{relative}")


def _serpentine(places: Sequence[Place]) -> list[Place]:
    """Row by row, every second one backwards."""
    return sorted(places, key=lambda p: (p.well.row, p.well.column * (1 if p.well.row % 2 == 0 else -1), p.y, p.x))
