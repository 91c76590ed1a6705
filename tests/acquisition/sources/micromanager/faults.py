"""A core that misbehaves when told to: what is attached to Micro-Manager's real core, in its own process.

A test arms a fault by writing it to a file; the core's process looks there at every call, and counts from then on.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

HANG_S = 120.0
# the engine tries again: these fail until they are disarmed
LASTING = ("stage raises", "get_image raises", "stage is under way")


def arm(path: Path, kind: str = "", at: int = 0) -> None:
    """Let `kind` happen at the call number `at`, counted from 0 and from now on; without a kind nothing happens."""
    path.write_text(json.dumps({"kind": kind, "at": at, "armed": time.time_ns()}), encoding="utf-8")


def painted(z_um: float, preset: str, x_um: float, y_um: float) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """What the attached camera shows: every place and channel differs."""
    base = round(z_um * 8) + (30_000 if preset == "561" else 0) + 7 * round(x_um / 1000) + 11 * round(y_um / 1000)
    return (np.arange(96 * 96, dtype=np.uint16).reshape(96, 96) // 16) + np.uint16(base)


class Faults:
    """The faults' file, as the core's process sees it."""

    def __init__(self, path: Path) -> None:
        self._path, self._armed, self._calls = path, 0, 0
        self.kind = ""

    def due(self, *kinds: str) -> bool:
        """Whether one of these faults happens at this call."""
        told = json.loads(self._path.read_text(encoding="utf-8"))
        if told["armed"] != self._armed:
            self._armed, self._calls = told["armed"], 0
        self.kind = told["kind"]
        if self.kind not in kinds:
            return False
        self._calls += 1
        return self._calls > told["at"] if self.kind in LASTING else self._calls == told["at"] + 1


def attach_faulty(path: Path, core: Any) -> None:
    """A camera that paints, and every fault that FACTS and imagination know."""
    faults = Faults(path)
    _faulty_camera(core, faults)
    _faulty_stages(core, faults)
    _faulty_engine(faults)


def attach_hanging(core: Any) -> None:
    """A core that is never loaded: it hangs before it can say that it is."""
    time.sleep(HANG_S)


def attach_painted(core: Any) -> None:
    """A camera that paints and never fails; in hardware sequences by the stage's loaded positions."""
    sequence_um: list[float] = []
    load, pop = core.load_stage_sequence, core.pop_next_tagged_image

    def paint(z_um: float) -> Any:
        return painted(z_um, core.get_current_config("Channel"), core.get_x_position(), core.get_y_position())

    def loaded(stage: str, positions_um: Any) -> None:
        sequence_um[:] = [float(z_um) for z_um in positions_um]
        load(stage, positions_um)

    def popped() -> Any:
        image = pop()
        image.pix = paint(sequence_um[int(image.tags["ImageNumber"])])
        return image

    core.get_image = lambda *_: paint(core.get_position())
    core.load_stage_sequence, core.pop_next_tagged_image = loaded, popped


def attach_lossy(core: Any) -> None:
    """As `attach_painted`, but the camera loses its image number 2 of every hardware sequence."""
    attach_painted(core)
    pop = core.pop_next_tagged_image

    def popped() -> Any:
        image = pop()
        return pop() if image.tags["ImageNumber"] == "2" else image

    core.pop_next_tagged_image = popped


def _faulty_camera(core: Any, faults: Faults) -> None:
    snap = core.snap_image

    def snapped() -> None:
        if faults.due("camera raises", "camera hangs", "camera holds the interpreter", "adapter crashes"):
            if faults.kind == "camera raises":
                raise RuntimeError("the camera was set to fail")
            if faults.kind == "camera hangs":
                time.sleep(HANG_S)
            if faults.kind == "camera holds the interpreter":
                _hang_with_the_lock()
            core.set_property("Camera", "SimulateCrash", "Dereference Null Pointer")
        snap()

    def got(*_: Any) -> Any:
        if faults.due("get_image raises"):
            raise RuntimeError("no image was told to come")
        pixels = painted(
            core.get_position(), core.get_current_config("Channel"), core.get_x_position(), core.get_y_position()
        )
        if faults.due("image of another size"):
            return pixels[:48]
        if faults.due("image of another depth"):
            return pixels.astype(np.uint8)
        return pixels

    core.snap_image, core.get_image = snapped, got


def _hang_with_the_lock() -> None:
    """No thread of the process runs any more: only the parent can notice."""
    if sys.platform == "win32":
        ctypes.PyDLL("kernel32.dll").Sleep(int(HANG_S * 1000))
    else:
        ctypes.PyDLL(None).sleep(int(HANG_S))


def _faulty_stages(core: Any, faults: Faults) -> None:
    set_z, get_x, set_config, set_xy = core.set_position, core.get_x_position, core.set_config, core.set_xy_position
    busy = core.device_busy

    def moved(*given: Any) -> None:
        if faults.due("stage raises"):
            raise RuntimeError("the stage was told to fail")
        if not faults.due("stage stays"):
            set_z(*given)

    def configured(*given: Any) -> None:
        if not faults.due("laser stays"):
            set_config(*given)

    core.set_position, core.set_config = moved, configured
    core.get_x_position = lambda *_: get_x() + (50.0 if faults.due("xy drifts") else 0.0)
    core.set_xy_position = lambda *given: None if faults.due("xy stage stays") else set_xy(*given)
    core.device_busy = lambda label: faults.due("stage is under way") or busy(label)


def _faulty_engine(faults: Faults) -> None:
    """Replace pycromanager's Acquisition with one that has the fault built in, where one is armed."""
    import pycromanager

    real = pycromanager.Acquisition

    def made(image_process_fn: Callable[[Any, Any], Any], **given: Any) -> Any:
        process = image_process_fn
        if faults.due("hook raises"):
            given["pre_hardware_hook_fn"] = _raising
        if faults.due("hook returns nothing"):
            given["post_hardware_hook_fn"] = lambda event: None
        if faults.due("notified callback raises"):
            given["notification_callback_fn"] = _raising
        if faults.due("images come twice"):
            process = _twice(image_process_fn)
        if faults.due("images of another place"):
            process = _elsewhere(image_process_fn)
        acquisition = real(image_process_fn=process, **given)
        for kind, spoil in SPOILT_EVENTS.items():
            if faults.due(kind):
                acquisition.acquire = partial(_spoilt, acquisition.acquire, spoil)
        return acquisition

    pycromanager.Acquisition = made


def _spoilt(acquire: Callable[[Any], Any], spoil: Callable[[Any], Any], events: list[dict[str, Any]]) -> Any:
    return acquire([spoil(event) for event in events])


def _raising(*_: Any) -> None:
    raise RuntimeError("a callback was told to fail")


def _twice(process: Callable[[Any, Any], Any]) -> Callable[[Any, Any], None]:
    def called(pixels: Any, tags: Any) -> None:
        process(pixels, tags)
        process(pixels, tags)

    return called


def _elsewhere(process: Callable[[Any, Any], Any]) -> Callable[[Any, Any], None]:
    def called(pixels: Any, tags: Any) -> None:
        process(pixels, {**tags, "Axes": {"channel": "488", "z": 99}})

    return called


SPOILT_EVENTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "events with tags": lambda event: {**event, "tags": {"a": "b"}},
    "malformed events": lambda event: {**event, "x": "somewhere"},
    "events beyond the limits": lambda event: {**event, "z": 1e9},
    "events for another place": lambda event: {**event, "x": event["x"] + 4500.0},
    "events without z": lambda event: {k: v for k, v in event.items() if k != "z"},
    "events without a channel": lambda event: {k: v for k, v in event.items() if k != "config_group"},
}


def fake_java(state: dict[str, Any]) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Stand-ins for the modules `pycromanager` and `mmpycorex` with a Micro-Manager at the other end of a port."""

    class Core:
        def __init__(self, **given: Any) -> None:
            state.update(core=given, x=0.0, y=0.0, z=0.0, preset="488", exposure=5.0, moves=[])

        def __getattr__(self, name: str) -> Any:
            answers: dict[str, Any] = {
                "get_camera_device": "Cam",
                "get_focus_device": "Z",
                "get_xy_stage_device": "XY",
                "get_shutter_device": "",
                "get_image_width": 96,
                "get_image_height": 96,
                "get_bytes_per_pixel": 2,
                "get_pixel_size_um": 0.5,
                "get_version_info": "MMCore",
                "get_api_version_info": "Device API",
                "is_config_defined": True,
                "device_busy": False,
                "load_stage_sequence": None,
            }
            places = {"get_x_position": "x", "get_y_position": "y", "get_position": "z"}
            answers |= state.get("answers", {})
            if name in answers:
                return lambda *_: answers[name]
            if name in places:
                return lambda *_: state[places[name]]
            if name in ("get_current_config", "get_exposure"):
                return lambda *_: state["preset" if name == "get_current_config" else "exposure"]
            raise AttributeError(name)

        def set_position(self, stage: str, z_um: float) -> None:
            state["moves"].append(("z", z_um))
            state["z"] = z_um

        def set_xy_position(self, stage: str, x_um: float, y_um: float) -> None:
            state["moves"].append(("xy", x_um, y_um))
            state["x"], state["y"] = x_um, y_um

    class Acquisition:
        def __init__(self, image_process_fn: Callable[[Any, Any], Any], **given: Any) -> None:
            state["acquisition"], self._process = given, image_process_fn

        def acquire(self, events: list[dict[str, Any]]) -> None:
            for event in events:
                state["x"], state["y"], state["z"] = event["x"], event["y"], event["z"]
                state["preset"], state["exposure"] = event["config_group"][1], event["exposure"]
                pixels = painted(event["z"], state["preset"], event["x"], event["y"])
                self._process(pixels, {"Axes": event["axes"], "ElapsedTime-ms": 4})

        def abort(self, reason: Exception) -> None:
            state["aborted"] = reason

        def mark_finished(self) -> None:
            state["finished"] = True

        def await_completion(self) -> None:
            pass

    return SimpleNamespace(Acquisition=Acquisition), SimpleNamespace(Core=Core)
