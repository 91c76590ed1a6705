"""The words of CAM, the wire to Leica's LAS X: what a command looks like, and what a line from LAS X says.

A message is one line of ASCII, `/cli:spheroidd /app:matrix /cmd:startscan`: a token begins at a "/" after a blank, its
value after the first ":". Lines from LAS X end in NUL, CR or LF, or in several of them; what is sent ends in nothing.
TCP cuts and joins lines as it likes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spheroidd.protocols.errors import ConfigError

MAX_LINE_BYTES = 2**16  # a path of Windows is at most 2**15 letters long; what is longer is no message
SCAN_STARTED, SCAN_FINISHED = "scanstart", "scanfinished"  # the key before them varies with the version
_END = re.compile(rb"[\x00\r\n]+")
_TOKEN = re.compile(r"(?:^|(?<=\s))/([A-Za-z_]\w*):")
_NOT_COMPARED = {"app", "fil", "sys"}  # LAS X answers with a number and a path of its own


@dataclass(frozen=True, slots=True)
class CamMessage:
    """One line of LAS X. `fields` has each token's value by its key in small letters; a greeting has none.

    >>> read_message(r"/app:matrix /sys:1 /relpath:exp 1\\slide--S00\\image--Z00.ome.tif").relpath
    'exp 1/slide--S00/image--Z00.ome.tif'
    """

    text: str
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def command(self) -> str | None:
        """The command that it echoes."""
        return self.fields.get("cmd")

    @property
    def relpath(self) -> str | None:
        """The image that it tells of, relative to LAS X's media folder, folders separated by "/"."""
        path = self.fields.get("relpath")
        return path.replace("\\", "/").lstrip("/") if path else None

    @property
    def scan(self) -> str | None:
        """SCAN_STARTED or SCAN_FINISHED, where it says that a scan has."""
        if "cmd" in self.fields or "relpath" in self.fields:
            return None
        said = {value.lower() for value in self.fields.values()}
        return next((word for word in (SCAN_FINISHED, SCAN_STARTED) if word in said), None)

    @property
    def complaint(self) -> str | None:
        """The error that it tells of."""
        return next((value or key for key, value in self.fields.items() if key in ("err", "error")), None)

    def echoes(self, command: "CamCommand") -> bool:
        """Whether it is LAS X's echo of a command: the same command, and no value that contradicts it."""
        sent = dict(command.fields)
        if (self.command or "").lower() != sent["cmd"].lower():
            return False
        shared = (self.fields.keys() & sent.keys()) - _NOT_COMPARED
        return all(self.fields[key].strip().lower() == sent[key].lower() for key in shared)


def read_message(text: str) -> CamMessage:
    """Read one line; where a key comes again its first value counts."""
    starts = list(_TOKEN.finditer(text))
    fields: dict[str, str] = {}
    ends = [*(token.start() for token in starts[1:]), len(text)]
    for token, end in zip(starts, ends, strict=False):
        fields.setdefault(token[1].lower(), text[token.end() : end].strip())
    return CamMessage(text, MappingProxyType(fields))


@dataclass(frozen=True, slots=True)
class CamCommand:
    """What LAS X is told. ConfigError where a value would be read as another message."""

    fields: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for key, value in self.fields:
            if not value or not value.isascii() or not value.isprintable() or " /" in f" {value}":
                do = "use ASCII without line breaks and without a '/' at the beginning of a word"
                raise ConfigError(f"{value!r} cannot be sent to LAS X as {key}", do=do)

    @classmethod
    def of(cls, cmd: str, **values: object) -> "CamCommand":
        """A command with its values, in their order; true and false as LAS X writes them.

        >>> CamCommand.of("enable", slide=0, wellx=1, value=True).line("me")
        b'/cli:me /app:matrix /cmd:enable /slide:0 /wellx:1 /value:true'
        """
        told = ((key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in values.items())
        return cls((("cmd", cmd), *told))

    @property
    def name(self) -> str:
        """The command without its values."""
        return self.fields[0][1]

    def line(self, client: str) -> bytes:
        """The bytes to send; the system's number stands before the command, as LAS X wants it."""
        first = [(key, value) for key, value in self.fields if key == "sys"]
        rest = [(key, value) for key, value in self.fields if key != "sys"]
        tokens = [("cli", client), ("app", "matrix"), *first, *rest]
        return " ".join(f"/{key}:{value}" for key, value in tokens).encode("ascii")


class CamReader:
    """Puts lines together from what TCP brings, however it is cut. Never fails, and holds one line at most."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._too_long = False
        self.n_dropped = 0  # lines longer than any message

    def feed(self, data: bytes) -> list[CamMessage]:
        """The messages that these bytes complete."""
        messages: list[CamMessage] = []
        *lines, rest = _END.split(data)
        for line in lines:
            self._take(line)
            whole, too_long = bytes(self._tail), self._too_long
            self._tail.clear()
            self._too_long = False
            if whole.strip() and not too_long:
                messages.append(read_message(_text(whole)))
        self._take(rest)
        return messages

    def unended(self) -> CamMessage | None:
        """The line that has begun and not ended, as far as it came."""
        return read_message(_text(bytes(self._tail))) if self._tail.strip() else None

    def end_line(self) -> None:
        """What has come of a line is known and not wanted again."""
        self._tail.clear()

    def _take(self, part: bytes) -> None:
        if self._too_long:
            return
        self._tail += part
        if len(self._tail) > MAX_LINE_BYTES:
            self._tail.clear()
            self._too_long = True
            self.n_dropped += 1


def _text(line: bytes) -> str:
    """A path may hold letters of the computer's own code page: anything is read, nothing refused."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")
