"""File systems of a test's own: one whose power can be cut, and one that is soon full. Linux, root."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HELD_S = 30
EXT4_SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, 2


class NoDiskError(Exception):
    """This environment does not let anybody make or mount a file system."""


class Disk:
    """An ext4 file system in a file, whose power can be cut. NoDiskError where that cannot be."""

    def __init__(self, folder: Path, size_mb: int = 96) -> None:
        if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            raise NoDiskError("only root on Linux with mkfs.ext4 can cut the power of a file system")
        self.image, self.mount = folder / "image", folder / "mount"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(size_mb << 20)
        _run("mkfs.ext4", "-q", "-F", self.image)
        self.plug_in()

    def plug_in(self) -> None:
        """Mount it, and let its journal be replayed. NoDiskError where it stays dead: a container that another program
        started meanwhile may hold the old mount, and what is mounted then is the same file system once more.
        """
        for _ in range(HELD_S):
            _run("mount", "-o", "loop", self.image, self.mount)
            try:
                (self.mount / "alive").touch()
                (self.mount / "alive").unlink()
                return
            except OSError:
                self.unplug()
                time.sleep(1.0)
        raise NoDiskError("another program holds the file system whose power was cut")

    def cut_power(self) -> None:
        """Nothing that was not synced reaches the disk any more, and every call fails."""
        fd = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(fd, EXT4_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        os.close(fd)

    def unplug(self) -> None:
        """Unmount it; what its cache held is gone."""
        _run("umount", self.mount)

    def discard(self) -> None:
        """Unmount it whoever uses it."""
        subprocess.run(["umount", "--lazy", str(self.mount)], capture_output=True, check=False)


@contextlib.contextmanager
def small_disk(folder: Path, size_mb: int = 24) -> Iterator[Path]:
    """A folder on a file system of that size. NoDiskError where that cannot be."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NoDiskError("only root on Linux can mount a small disk")
    disk = folder / "disk"
    disk.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", disk)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoDiskError(f"this environment cannot do it: {done.stderr.strip()}")
