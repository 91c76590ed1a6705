"""Small files that a person names, read whole: with a bound, and without waiting for a pipe that nobody writes to."""

import errno
import stat
from pathlib import Path

MAX_BYTES = 1 << 26  # of a table or a configuration; nothing that a person writes comes near
_OF_A_SHELL = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # `<(...)` and `|`: somebody writes to these


def read_regular(path: Path, most_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file of `most_bytes` at most.

    OSError, whose `strerror` says it in words, where it is larger, is a device, a socket or a pipe, or cannot be read.
    """
    is_regular = stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)  # a folder's own error is better
    if not (is_regular or str(path).startswith(_OF_A_SHELL)):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, and no file", str(path))
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes >> 20} MB", str(path))
    return content


def read_regular_text(path: Path) -> str:
    """The same as text in UTF-8, with or without its mark; UnicodeDecodeError where it is none."""
    return read_regular(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
