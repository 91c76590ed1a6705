"""The Java end of an acquisition: its events come over one socket, its images and its notices go over two others.

As Micro-Manager's engine does it for single images: everything that an event names is set, an image is snapped, and
sent with its tags. An exception of the core ends the acquisition, and is told to whoever asks for exceptions.
"""

import contextlib
import json
import random
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import zmq

if TYPE_CHECKING:
    from tests.acquisition.sources.micromanager.java_server import JavaCore, Signatures

TEXT, FLAG, WHOLE, REMOTE = "java.lang.String", "boolean", "int", "org.micromanager.remote"


def free_port() -> int:
    """One that nobody has: the Python side binds two of its sockets itself.

    None of those that a system gives to whoever connects: there a socket can connect to itself until another one binds.
    Drawn by the system, because workers that were forked from one process draw alike, and free again at once, as one of
    ZeroMQ's sockets is not.
    """
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise OSError("none of a hundred ports is free")


class JavaFactory:
    """Makes acquisitions."""

    classpath, takes = f"{REMOTE}.RemoteAcquisitionFactory", ("mmcorej.CMMCore",)
    signatures: ClassVar["Signatures"] = {"createAcquisition": ((TEXT, TEXT, FLAG, WHOLE, FLAG),)}

    def __init__(self, context: Any, core: "JavaCore") -> None:
        self._context, self._core = context, core

    def call(self, name: str, given: list[Any]) -> "JavaAcquisition":
        """Carry out its method."""
        return JavaAcquisition(self._context, self._core)


class JavaProcessor:
    """The way of images to Python."""

    classpath, takes = f"{REMOTE}.RemoteImageProcessor", ()
    signatures: ClassVar["Signatures"] = dict.fromkeys(("startPull", "startPush", "getPullPort", "getPushPort"), ((),))

    def __init__(self, context: Any, core: "JavaCore") -> None:
        self.back = context.socket(zmq.PULL)
        self.out = context.socket(zmq.PUSH)
        self._ports = {
            "getPullPort": free_port(),
            "getPushPort": self.out.bind_to_random_port("tcp://127.0.0.1"),
        }
        self.back.connect(f"tcp://127.0.0.1:{self._ports['getPullPort']}")

    def call(self, name: str, given: list[Any]) -> int | None:
        """Carry out a method."""
        return self._ports.get(name)

    def send(self, pixels: Any, tags: dict[str, Any]) -> None:
        """An image."""
        key = 0x1A
        message = {"metadata": tags, "pixels": {"type": "short-array", "value": f"@{key:x}"}}
        self.out.send_multipart([json.dumps(message).encode(), key.to_bytes(4, sys.byteorder), pixels.tobytes()])


class JavaNotices:
    """The way of notices to Python."""

    classpath, takes = f"{REMOTE}.RemoteNotificationHandler", ("org.micromanager.acqj.main.Acquisition",)
    signatures: ClassVar["Signatures"] = dict.fromkeys(("getPort", "start", "notificationHandlingComplete"), ((),))

    def __init__(self, context: Any, core: "JavaCore", acquisition: "JavaAcquisition") -> None:
        self.out = context.socket(zmq.PUSH)
        self._port = self.out.bind_to_random_port("tcp://127.0.0.1")
        acquisition.notices = self

    def call(self, name: str, given: list[Any]) -> int | None:
        """Carry out a method."""
        return self._port if name == "getPort" else None

    def send(self, kind: str, milestone: str) -> None:
        """A notice."""
        self.out.send_json({"type": kind, "milestone": milestone})


class JavaStorage:
    """Where images are kept, and who shows them: no image is kept that a processor took."""

    classpath, takes = "org.micromanager.ndtiffstorage.Storage", ()
    signatures: ClassVar["Signatures"] = dict.fromkeys(
        ("getStorage", "getViewer", "getDiskLocation", "getSummaryMetadata", "isFinished"), ((),)
    )

    def __init__(self, acquisition: "JavaAcquisition") -> None:
        self._acquisition = acquisition

    def call(self, name: str, given: list[Any]) -> Any:
        """Carry out a method."""
        answers = {"getStorage": self, "getSummaryMetadata": "{}", "isFinished": self._acquisition.over.is_set()}
        return answers.get(name)


class JavaAcquisition:
    """One acquisition, in a thread of its own."""

    classpath = "org.micromanager.acqj.main.Acquisition"
    signatures: ClassVar["Signatures"] = {
        **dict.fromkeys(("getEventPort", "getDataSink", "checkForExceptions", "isFinished"), ((),)),
        **dict.fromkeys(("areEventsFinished", "waitForCompletion", "abort"), ((),)),
        "addImageProcessor": ((f"{REMOTE}.RemoteImageProcessor",),),
        "blockUntilEventsFinished": (("double",),),
    }

    def __init__(self, context: Any, core: "JavaCore") -> None:
        self._core, self.over, self._aborted = core, threading.Event(), threading.Event()
        self.processor: JavaProcessor
        self.notices: JavaNotices
        self._failure: Exception | None = None
        self._began_s, self._events = time.monotonic(), context.socket(zmq.PULL)
        self._port = free_port()
        self._events.connect(f"tcp://127.0.0.1:{self._port}")
        threading.Thread(target=self._run, name="java-acquisition", daemon=True).start()

    def call(self, name: str, given: list[Any]) -> Any:
        """Carry out a method."""
        if name == "addImageProcessor":
            (self.processor,) = given
        elif name == "blockUntilEventsFinished":
            self.over.wait(given[0])
        elif name == "abort":
            self._aborted.set()
        elif name == "checkForExceptions" and self._failure is not None:
            raise self._failure
        elif name == "getDataSink":
            return JavaStorage(self)
        elif name == "getEventPort":
            return self._port
        return self.over.is_set() if name in ("isFinished", "areEventsFinished") else None

    def _run(self) -> None:
        with contextlib.suppress(zmq.ZMQError):  # the server has ended, and its sockets with it
            while not self._aborted.is_set():
                if self._events.poll(20) and not self._taken(self._events.recv_json()["events"]):
                    break
            self._end()

    def _taken(self, events: list[dict[str, Any]]) -> bool:
        for event in events:
            if event.get("special") == "acquisition-end":
                return False
            try:
                self._take(event)
            except RuntimeError as error:
                self._failure = error
                return False
        return True

    def _take(self, event: dict[str, Any]) -> None:
        core = self._core
        core.call("setXYPosition", ["XY", event["x"], event["y"]])
        core.call("setConfig", event["config_group"])
        core.call("setExposure", [event["exposure"]])
        core.call("setPosition", ["Z", event["z"]])
        core.call("snapImage", [])
        pixels = core.call("getImage", [])
        if pixels is not None:
            elapsed_ms = 1000 * (time.monotonic() - self._began_s)
            size = {"PixelType": "GRAY16", "Height": 96, "Width": len(pixels.ravel()) // 96}
            tags = {"Axes": event["axes"], "Camera": "Camera", "ElapsedTime-ms": elapsed_ms, "ImageNumber": "0"}
            self.processor.send(pixels, tags | size | core.tags)

    def _end(self) -> None:
        self.processor.out.send_json({"special": "finished"})
        if self.processor.back.poll(5000):
            self.processor.back.recv()
        self.notices.send("global", "acq_events_finished")
        self.notices.send("image", "data_sink_finished")
        self.over.set()
        for end in (self._events, self.processor.out, self.processor.back, self.notices.out):
            end.close(1000)
