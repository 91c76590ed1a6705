"""The files of the plates' OME-Zarr for readers elsewhere: nothing else of the disk, and nothing can be changed."""

from pathlib import Path
from urllib.parse import unquote_to_bytes

from starlette.responses import FileResponse, Response

from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.daemon.web.problems import RequestError

SUFFIX = ".ome.zarr"
MAX_DEPTH = 16
_NOT_IN_NAMES = set('/\\:*?"<>|') | {chr(n) for n in range(32)} | {"\x7f"}


class ZarrFiles:
    """Answers for `<plate>.ome.zarr/...` of one data directory; Range requests too, which sharded arrays need."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def answer(self, raw_path: str) -> Response:
        """The file of a path that is still percent-encoded; RequestError 404 where there is none to be had."""
        path = self.find(raw_path)
        kind = "application/json" if path.suffix == ".json" else "application/octet-stream"
        return FileResponse(path, media_type=kind, headers={"cache-control": "no-cache"})

    def find(self, raw_path: str) -> Path:
        """The file; every name on the way is checked, and so is where links lead."""
        names = [_name(part, raw_path) for part in raw_path.split("/")]
        if len(names) < 2 or len(names) > MAX_DEPTH or not names[0].endswith(SUFFIX):
            raise _missing(raw_path)
        root = images_root(self._data_dir)
        plate = (root / names[0]).resolve()
        path = plate.joinpath(*names[1:]).resolve()
        if plate.parent != root.resolve() or not path.is_relative_to(plate) or not path.is_file():
            raise _missing(raw_path)
        return path


def _name(part: str, raw_path: str) -> str:
    try:
        name = unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        raise _missing(raw_path) from None
    if not name or name.startswith(".") or name.endswith((".", " ")) or _NOT_IN_NAMES & set(name) or len(name) > 128:
        raise _missing(raw_path)
    return name


def _missing(raw_path: str) -> RequestError:
    do = f"ask for PLATE{SUFFIX}/zarr.json and what it names"
    return RequestError(404, "there is no such file of a plate", where=raw_path[:200], do=do)
