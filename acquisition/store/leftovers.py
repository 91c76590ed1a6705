"""What a killed daemon left of its work: found by its own names alone, and removed while nobody else is at it.

Nothing here follows a link, and nothing that a run could still need is touched: a ring goes only where every stack of
its plate is sealed, a mask that was being replaced is put back.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.protocols.durable import PARTIAL, replace_path
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

PLATE_END, RING_END, LABELS_END = ".ome.zarr", ".ring", ".labels-in-work"
_PARTIAL = re.compile(rf".+\.([0-9a-f]{{8}}|\d+){re.escape(PARTIAL)}")  # of `durable.replacing`, of `write_durably`
_LABEL = re.compile(r"([A-Z]+\d+)-(\d+)-([A-Za-z_]\w*)-(older|[0-9a-f]{8})")
_LEVELS = ("*", "*/*", "*/*/*", "*/*/*/*", "*/*/*/labels/*")  # a plate's own files; images are swept when opened


def sweep_files(folder: Path, *levels: str) -> Iterator[Path]:
    """Remove what interrupted writes left in a folder, at these levels below it; each that was removed."""
    for level in levels or ("*",):
        for path in folder.glob(level + PARTIAL):
            if _PARTIAL.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError):  # it is no more than untidy
                    path.unlink()
                    yield path


def sweep_plates(root: Path) -> Iterator[Path]:
    """Remove what interrupted runs left of the plates in a data directory; each file or folder that was removed."""
    images = images_root(root)
    for plate in sorted(images.glob("*" + PLATE_END)):
        yield from sweep_files(plate, *_LEVELS)
    for scratch in sorted(images.glob("*" + LABELS_END)):
        yield from _sweep_labels(root, scratch)
    for ring in sorted(root.glob("*" + RING_END)):
        if _is_folder(ring) and _all_sealed(root, ring.name.removesuffix(RING_END)):
            yield from _remove(ring)


def _sweep_labels(root: Path, scratch: Path) -> Iterator[Path]:
    if not _is_folder(scratch):
        return
    plate = scratch.name.removesuffix(LABELS_END)
    for folder in sorted(scratch.iterdir()):
        said = _LABEL.fullmatch(folder.name)
        if said is None or not _is_folder(folder):
            continue
        well, stack, name, kind = said.groups()
        target = ngff.label_path(root, StackKey(plate, WellId.parse(well), int(stack)), name)
        if kind == "older" and not target.exists():  # stopped between the two renames of a commit
            with contextlib.suppress(OSError):
                target.parent.mkdir(parents=True, exist_ok=True)
                replace_path(folder, target)
        else:
            yield from _remove(folder)
    with contextlib.suppress(OSError):  # not empty: somebody else's
        scratch.rmdir()
        yield scratch


def _all_sealed(root: Path, plate: str) -> bool:
    """Whether Zarr has everything that ever lay in the plate's ring; not where that cannot be told."""
    try:
        for node in ngff.plate_path(root, plate).glob("*/*/*/zarr.json"):
            if ngff.read_attributes(node.parent).get(ngff.OWN, {}).get("sealed") is not True:
                return False
    except (SpheroiddError, OSError):
        return False
    return ngff.plate_path(root, plate).is_dir()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
        yield folder
