"""Who may read what a daemon writes: patients' data are its owner's alone, unless the configuration says otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Readers(StrEnum):
    """Whom new files and folders of a data directory are for."""

    OWNER = "owner"
    GROUP = "group"  # its members read, and do not write
    EVERYBODY = "everybody"  # as the process's own umask says


_WITHHELD = {Readers.OWNER: 0o077, Readers.GROUP: 0o027, Readers.EVERYBODY: 0}


@contextmanager
def readable_by(readers: Readers) -> Iterator[None]:
    """New files and folders of this process, and of those that it starts, are for `readers` at most.

    What the process's umask withholds already stays withheld. On Windows nothing is done: files take the rights of the
    folder that they are made in.
    """
    if os.name == "nt":
        yield
        return
    before = os.umask(0o077)
    os.umask(before | _WITHHELD[readers])
    try:
        yield
    finally:
        os.umask(before)


def readers_of(mode: int) -> Readers:
    """Whom a folder with this mode is for."""
    return Readers.EVERYBODY if mode & 0o007 else Readers.GROUP if mode & 0o070 else Readers.OWNER
