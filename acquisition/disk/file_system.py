"""What a folder's file system can be trusted with: telling of changes, and keeping the times of folders."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

FileSystem = Literal["auto", "local", "network"]
# Those whose folders' times change with every name that comes, goes or is renamed. FAT's do not.
_KEEP_TIMES = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "apfs", "hfs", "ntfs", "refs"}
_TELL = _KEEP_TIMES | {"vfat", "fat32", "exfat", "fuseblk", "ntfs3", "msdos"}


@dataclass(frozen=True, slots=True)
class Mount:
    """Whether the operating system tells of changes here, and whether an unchanged folder time means the same names."""

    kind: str
    tells: bool
    keeps_times: bool


def mount_of(folder: Path, said: FileSystem = "auto") -> Mount:
    """The mount a folder lies on. Unknown ones count as network shares: nothing is told, no time is trusted."""
    if said == "network":
        return Mount("network", tells=False, keeps_times=False)
    kind = _file_system(folder)
    if said == "local":
        return Mount(kind or "local", tells=True, keeps_times=kind in _KEEP_TIMES)
    return Mount(kind or "unknown", tells=kind in _TELL, keeps_times=kind in _KEEP_TIMES)


def _file_system(folder: Path) -> str:
    """The file system's name in small letters; "" where it is not known, or lies on another machine."""
    place = os.path.normcase(folder.resolve())
    best, kind = "", ""
    for partition in psutil.disk_partitions(all=True):
        point = os.path.normcase(partition.mountpoint)
        inside = place == point or place.startswith(point.rstrip("\\/") + os.sep)
        if inside and len(point) >= len(best):
            remote = "remote" in partition.opts.split(",") or partition.device.startswith(("\\\\", "//"))
            best, kind = point, "" if remote else partition.fstype.lower()
    return kind
