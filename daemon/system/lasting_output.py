"""Standard output for a run: a full disk below its log file, or a terminal that was closed, does not end the plate."""

import io
import logging
import sys
from typing import TextIO

_log = logging.getLogger(__name__)


class LastingOutput(io.TextIOBase):
    """Hands text on to another stream and outlives its refusals; the first one of each row of them is logged.

    What the stream itself still holds in its buffer appears once it takes text again.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._refused = False

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has it as an attribute
        """The encoding of the stream below."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's own descriptor."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """All of it is taken, even where the stream below refuses it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._say(error)
            return len(text)

    def flush(self) -> None:
        """As far as the stream below lets it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._say(error)
        else:
            self._refused = False

    def _say(self, error: OSError) -> None:
        if not self._refused:
            self._refused = True
            _log.warning("what the run prints cannot be written (%s); the run goes on", error.strerror or error)
