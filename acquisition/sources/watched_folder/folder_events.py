"""What the operating system tells of a folder: hints that make a rescan sooner, never facts.

Events are lost in new sub-folders, when a queue overflows, and on every network share.
"""

import os
import threading
import warnings
from pathlib import Path

from watchdog.events import DirModifiedEvent, FileClosedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

MAX_CLOSED = 10_000  # hints kept; what is beyond is found by the rescan


class FolderEvents(FileSystemEventHandler):
    """Collects which files were closed or moved, until `take`."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._lock = threading.Lock()
        self._closed: set[str] = set()
        self.stirred = threading.Event()  # something happened since the last `take`
        self._observer = Observer()
        self.fault: str | None = None

    def start(self) -> bool:
        """Begin to listen; False where the operating system lets us have no further watches, which is no error."""
        # watchdog meets a folder twice, in its parent's listing and by its event, and says so; nothing is lost by it.
        warnings.filterwarnings("ignore", message="Callback with id .* already exists", category=RuntimeWarning)
        try:
            self._observer.schedule(self, self._root, recursive=True)
            self._observer.start()
        except OSError as error:
            self.fault = f"{error.strerror or error}"
            return False
        return True

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called in the observer's thread."""
        if isinstance(event, DirModifiedEvent) or event.event_type in ("opened", "closed_no_write"):
            return
        done = event.dest_path if isinstance(event, FileMovedEvent) else event.src_path
        if isinstance(event, FileClosedEvent | FileMovedEvent):
            with self._lock:
                if len(self._closed) < MAX_CLOSED:
                    self._closed.add(os.path.relpath(os.fsdecode(done), self._root).replace(os.sep, "/"))
        self.stirred.set()

    def take(self) -> set[str]:
        """The relative paths that were closed or moved here since the last call."""
        with self._lock:
            self.stirred.clear()
            closed, self._closed = self._closed, set()
            return closed

    def stop(self) -> None:
        """Stop listening; may be called twice."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
