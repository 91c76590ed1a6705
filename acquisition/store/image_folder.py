"""Where a data directory keeps its plates: in itself, or in a folder that other computers see too.

The catalog requires a local disk and the images may want a shared one. Then a file in the data directory names the
folder, and a file in the folder names its data directory: two daemons that swept and wrote one folder would take each
other's scratch files for leftovers.
"""

import json
import platform
import secrets
from pathlib import Path
from typing import Any

from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.protocols.durable import replacing
from spheroidd.protocols.errors import ConfigError, StorageError

POINTER, OWNER = "images-folder.json", "images-of.json"


def images_root(data_dir: Path) -> Path:
    """The folder with the plates of a data directory; a folder of plates is its own."""
    said = _read(data_dir / POINTER)
    return Path(said["images"]) if said else data_dir


def within(data_dir: Path, path: Path) -> str:
    """A path of a plate, as words that do not depend on where the plates lie."""
    root = images_root(data_dir)
    return path.relative_to(root if path.is_relative_to(root) else data_dir).as_posix()


def data_directory_of(images: Path) -> Path:
    """The data directory whose plates lie in this folder: the folder itself, or the one that took it."""
    said = _read(images / OWNER)
    return Path(said["data_dir"]) if said and said.get("host") == platform.node() else images


def take_images_folder(data_dir: Path, images: Path | None) -> None:
    """Have the plates of a data directory kept in `images` from now on; None leaves it as it is.

    ConfigError where it has plates elsewhere already, or the folder belongs to another data directory.
    """
    if images is None or images.absolute() == images_root(data_dir).absolute():
        return
    images = images.absolute()
    where = f"data.images = {images}"
    if (data_dir / POINTER).exists() or any(data_dir.glob("*.ome.zarr")):
        do = f"leave it, or begin a new data directory; the plates lie in {images_root(data_dir)}"
        raise ConfigError("this data directory keeps its plates elsewhere", where=where, do=do)
    mine = {"images": str(images), "id": secrets.token_hex(8)}
    try:
        images.mkdir(parents=True, exist_ok=True)
        with (images / OWNER).open("x", encoding="utf-8") as file:
            json.dump({"data_dir": str(data_dir.absolute()), "host": platform.node(), "id": mine["id"]}, file)
    except FileExistsError:
        owner = _read(images / OWNER) or {}
        if owner.get("data_dir") != str(data_dir.absolute()) or owner.get("host") != platform.node():
            what = f"it holds the plates of {owner.get('data_dir')} on {owner.get('host')}"
            raise ConfigError(what, where=where, do="give each data directory a folder of its own") from None
        mine["id"] = owner["id"]  # stopped between the two files
    except OSError as error:
        do = "choose a folder that you may write to"
        raise ConfigError(f"cannot be made: {error.strerror}", where=where, do=do) from error
    with replacing(data_dir / POINTER) as path:
        path.write_text(json.dumps(mine), encoding="utf-8")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with storage_errors(path):
            text = path.read_text(encoding="utf-8")
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        if not isinstance(error.__cause__, PermissionError):
            raise  # too many files are open, a disk fails: that passes, and whoever stores waits for it
        do = "give the account that runs this the right to read it"
        raise ConfigError("cannot be read: Permission denied", where=str(path), do=do) from error
    try:
        said = json.loads(text)
    except ValueError as error:
        raise ConfigError("it is not what spheroidd wrote", where=str(path), do="restore it from a backup") from error
    return said if isinstance(said, dict) else None
