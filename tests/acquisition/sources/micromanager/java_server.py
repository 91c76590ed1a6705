"""The Java end of Micro-Manager's bridge: a real ZMQ server that speaks what pyjavaz speaks, and a core behind it.

Micro-Manager's own jars cannot be installed from a registry. What goes over the wire here is what its server sends:
objects as their methods' signatures, images as one long array of shorts, exceptions as texts.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import zmq

from tests.acquisition.sources.micromanager.faults import painted
from tests.acquisition.sources.micromanager.java_acquisition import JavaFactory, JavaNotices, JavaProcessor

VERSION = "5.1.0"  # of the protocol, as pyjavaz expects it
PRESETS = {"488": (("Laser", "Label", "488"),), "561": (("Laser", "Label", "561"),)}
STRING, REAL = "java.lang.String", "double"
Signatures = dict[str, tuple[tuple[str, ...], ...]]
SIGNATURES: Signatures = {
    **dict.fromkeys(("getCameraDevice", "getFocusDevice", "getXYStageDevice", "getShutterDevice"), ((),)),
    **dict.fromkeys(("getImageWidth", "getImageHeight", "getBytesPerPixel", "getImageBitDepth"), ((),)),
    **dict.fromkeys(("getPixelSizeUm", "getVersionInfo", "getAPIVersionInfo"), ((),)),
    **dict.fromkeys(("getPosition", "getXPosition", "getYPosition"), ((), (STRING,))),
    **dict.fromkeys(("getConfigData", "setConfig", "waitForConfig", "isConfigDefined"), ((STRING, STRING),)),
    "getCurrentConfig": ((STRING,),),
    "getStageSequenceMaxLength": ((STRING,),),
    "isStageSequenceable": ((STRING,),),
    "getProperty": ((STRING, STRING),),
    "setProperty": ((STRING, STRING, STRING), (STRING, STRING, REAL)),
    "getExposure": ((), (STRING,)),
    "setExposure": ((REAL,), (STRING, REAL)),
    "setPosition": ((REAL,), (STRING, REAL)),
    "setXYPosition": ((REAL, REAL), (STRING, REAL, REAL)),
    "loadStageSequence": ((STRING, "mmcorej.DoubleVector"),),
    "deviceBusy": ((STRING,),),
    "stop": ((STRING,),),
    "setShutterOpen": ((("boolean",)), (STRING, "boolean")),
    "snapImage": ((),),
    "getImage": ((), ("long",)),
}
_WORTH_NOTING = ("setPosition", "setXYPosition", "setConfig", "setExposure", "setProperty", "snapImage", "getImage")


class JavaCore:
    """A microscope as `mmcorej.CMMCore` shows it. `faults` holds what a method does instead, the next time only."""

    classpath, signatures, takes = "mmcorej.CMMCore", SIGNATURES, ()

    def __init__(self) -> None:
        self.tags: dict[str, Any] = {}  # of an acquisition's images, in place of their own
        self.x_um, self.y_um, self.z_um, self.exposure_ms, self.laser = 0.0, 0.0, 100.0, 5.0, "dark"
        self.calls: list[tuple[Any, ...]] = []
        self.faults: dict[str, Callable[[], Any]] = {}
        self._seen: Any = None

    def call(self, name: str, given: list[Any]) -> Any:
        """Carry out a method."""
        if name in _WORTH_NOTING:
            self.calls.append((name, *given))
        if name in self.faults:
            return self.faults.pop(name)()
        return getattr(self, f"_{name}", lambda *_: _CONSTANTS[name])(*given)

    def _getPosition(self, *_: str) -> float:  # noqa: N802 - Java's name, as all of these
        return self.z_um

    def _getXPosition(self, *_: str) -> float:  # noqa: N802
        return self.x_um

    def _getYPosition(self, *_: str) -> float:  # noqa: N802
        return self.y_um

    def _setPosition(self, *given: Any) -> None:  # noqa: N802
        self.z_um = given[-1]

    def _setXYPosition(self, *given: Any) -> None:  # noqa: N802
        self.x_um, self.y_um = given[-2:]

    def _getExposure(self, *_: str) -> float:  # noqa: N802
        return self.exposure_ms

    def _setExposure(self, *given: Any) -> None:  # noqa: N802
        self.exposure_ms = given[-1]

    def _setConfig(self, _: str, preset: str) -> None:  # noqa: N802
        for device in PRESETS[preset]:
            self._setProperty(*device)

    def _getConfigData(self, _: str, preset: str) -> "JavaList":  # noqa: N802
        return JavaList(PRESETS[preset])

    def _isConfigDefined(self, _: str, preset: str) -> bool:  # noqa: N802
        return preset in PRESETS

    def _getCurrentConfig(self, _: str) -> str:  # noqa: N802
        return self.laser

    def _getProperty(self, *_: str) -> str:  # noqa: N802
        return self.laser

    def _setProperty(self, device: str, name: str, value: str) -> None:  # noqa: N802
        self.laser = value

    def _snapImage(self) -> None:  # noqa: N802
        self._seen = painted(self.z_um, self.laser, self.x_um, self.y_um) + np.uint16(10_000)

    def _getImage(self, *_: int) -> Any:  # noqa: N802
        return self._seen


_CONSTANTS: dict[str, Any] = {
    "getCameraDevice": "Camera",
    "getFocusDevice": "Z",
    "getXYStageDevice": "XY",
    "getShutterDevice": "",
    "getImageWidth": 96,
    "getImageHeight": 96,
    "getBytesPerPixel": 2,
    "getImageBitDepth": 16,
    "getPixelSizeUm": 0.5,
    "getVersionInfo": "MMCore version 11.2.1",
    "getAPIVersionInfo": "Device API version 73",
    "deviceBusy": False,
    "waitForConfig": None,
    "stop": None,
}


class JavaList:
    """A `mmcorej.Configuration`: the settings of a preset."""

    classpath = "mmcorej.Configuration"
    signatures: ClassVar[Signatures] = {"size": ((),), "getSetting": (("long",),)}

    def __init__(self, settings: tuple[tuple[str, ...], ...]) -> None:
        self._settings = settings

    def call(self, name: str, given: list[Any]) -> Any:
        """Carry out a method."""
        return len(self._settings) if name == "size" else JavaSetting(self._settings[given[0]])


class JavaSetting:
    """A `mmcorej.PropertySetting`."""

    classpath = "mmcorej.PropertySetting"
    signatures: ClassVar[Signatures] = dict.fromkeys(("getDeviceLabel", "getPropertyName"), ((),))

    def __init__(self, setting: tuple[str, ...]) -> None:
        self._setting = setting

    def call(self, name: str, _: list[Any]) -> Any:
        """Carry out a method."""
        return self._setting[0 if name == "getDeviceLabel" else 1]


class JavaServer:
    """Answers one bridge after another, in the order in which they ask."""

    def __init__(self, core: JavaCore, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._core, self._context = core, context
        self._objects: dict[int, Any] = {}
        self._next = 0
        self.sockets: list[zmq.Socket[bytes]] = []

    def open_port(self) -> int:
        """One more port under which the same objects are reached."""
        # Each bridge waits for its own answer; one that was killed waits for none.
        self.sockets.append(self._context.socket(zmq.ROUTER))
        return self.sockets[-1].bind_to_random_port("tcp://127.0.0.1")

    def serve(self, over: threading.Event) -> None:
        """Answer until it is over."""
        poller = zmq.Poller()
        for known in iter(lambda: len(self.sockets), None):
            for socket in self.sockets[:known]:
                poller.register(socket, zmq.POLLIN)
            for socket, _ in poller.poll(50):
                who, empty, asked, *_ = socket.recv_multipart()
                answer, rest = self.answer(json.loads(asked.decode("iso-8859-1")))
                socket.send_multipart([who, empty, json.dumps(answer).encode("iso-8859-1"), *rest])
            if over.is_set():
                break
        for socket in self.sockets:
            socket.close(0)

    def answer(self, asked: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """The answer to a message, and the bytes that follow it."""
        match asked["command"]:
            case "connect":
                return {"type": "none", "version": VERSION}, []
            case "get-constructors":
                takes = next(kind.takes for kind in _KINDS if kind.classpath == asked["classpath"])
                return {"type": "none", "api": [_method(asked["classpath"], takes)]}, []
            case "constructor":
                found, rest = self._encoded(self._made(asked["classpath"], self._given(asked)))
                return found | ({"port": self.open_port()} if asked.get("new-port") else {}), rest
            case "run-method":
                try:
                    return self._encoded(self._objects[asked["hash-code"]].call(asked["name"], self._given(asked)))
                except RuntimeError as error:
                    return {"type": "exception", "value": f"java.lang.Exception: {error}"}, []
            case "destructor":
                self._objects.pop(asked["hash-code"], None)
                return {"type": "none"}, []
            case other:
                return {"type": "exception", "value": f"no such command: {other}"}, []

    def _given(self, asked: dict[str, Any]) -> list[Any]:
        return [self._objects[one["hash-code"]] if isinstance(one, dict) else one for one in asked["arguments"]]

    def _made(self, classpath: str, given: list[Any]) -> Any:
        if classpath == JavaCore.classpath:
            return self._core
        kind = next(kind for kind in _KINDS if kind.classpath == classpath)
        return kind(self._context, self._core, *given[kind is JavaFactory :])

    def _encoded(self, value: Any) -> tuple[dict[str, Any], list[bytes]]:
        if value is None:
            return {"type": "null"}, []
        if isinstance(value, str) and value == "{}":
            return {"type": "object", "class": "JSONObject", "value": value}, []
        if isinstance(value, str):
            return {"type": "string", "value": value}, []
        if isinstance(value, np.ndarray):
            key = 0x5EED
            return {"type": "short-array", "value": f"@{key:x}"}, [key.to_bytes(4, sys.byteorder), value.tobytes()]
        if isinstance(value, bool | int | float):
            return {"type": "primitive", "value": value}, []
        self._next += 1
        self._objects[self._next] = value
        api = [_method(name, given) for name, overloads in value.signatures.items() for given in overloads]
        found = {"class": value.classpath, "interfaces": [value.classpath], "fields": [], "api": api}
        return {"type": "unserialized-object", "hash-code": self._next, **found}, []


def _method(name: str, given: tuple[str, ...]) -> dict[str, Any]:
    return {"name": name, "arguments": list(given), "return-type": "java.lang.Object"}


_KINDS: tuple[Any, ...] = (JavaCore, JavaFactory, JavaProcessor, JavaNotices)


@contextmanager
def micromanager() -> Iterator[tuple[JavaCore, int]]:
    """A Micro-Manager that serves its core on a port, until the block ends."""
    core, over, context = JavaCore(), threading.Event(), zmq.Context()
    server = JavaServer(core, context)
    port = server.open_port()
    thread = threading.Thread(target=server.serve, args=(over,), name="java-server")
    thread.start()
    try:
        yield core, port
    finally:
        over.set()
        thread.join()
        context.destroy(0)
