"""Plates that were handed in to be run: each a configuration and, where one came with it, a plate map."""

import shutil
import tempfile
import threading
import tomllib
from pathlib import Path
from typing import Any

from spheroidd.daemon.config.model import Config, build_config
from spheroidd.daemon.config.named_models import check_models
from spheroidd.daemon.config.source_registry import check_map
from spheroidd.protocols.errors import ConfigError, MissingError, StorageError
from spheroidd.protocols.plate import check_plate_name
from spheroidd.protocols.toml_text import parse_toml

FOLDER = "plans"
DRAFT = ".draft-"  # what a plate is checked in before it is kept
MAX_BYTES = 1 << 20
MAX_PLATES = 1000  # that are kept; each is at most 2 MB
CONFIG_NAME, MAP_NAME = "plate.toml", "map.csv"
_DAEMONS_OWN = ("alarms", "data", "service", "verification")


class SubmittedPlates:
    """`data_dir/plans/<plate>/` holds one plate. Safe for the threads of one process."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()  # a plate's configuration lies elsewhere, and its paths begin there
        self._folder = self._data_dir / FOLDER
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The plates that can be started."""
        found = (path.parent.name for path in self._folder.glob(f"*/{CONFIG_NAME}"))
        return sorted(name for name in found if not name.startswith(DRAFT))

    def submit(self, config_toml: str, plate_map_csv: str) -> Config:
        """Check a plate and keep it, in place of one of the same name; ConfigError says what is wrong with it."""
        if max(len(config_toml), len(plate_map_csv)) > MAX_BYTES:
            raise ConfigError(f"more than {MAX_BYTES} characters", where="submitted plate", do="send less")
        with self._lock:
            try:
                self._folder.mkdir(exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=DRAFT, dir=self._folder) as draft:
                    return self._keep(Path(draft), config_toml, plate_map_csv)
            except OSError as error:
                what, do = f"cannot keep the plate: {error.strerror}", "make room, or see to the directory's rights"
                raise StorageError(what, where=str(self._folder), do=do) from error

    def load(self, plate: str) -> Config:
        """The configuration of a plate that was handed in; MissingError where none was."""
        folder = self._folder / check_plate_name(plate)
        with self._lock:
            self._known(plate)
            return self._read(folder)

    def texts(self, plate: str) -> tuple[str, str]:
        """The configuration and the plate map ("" where none came with it) as they were handed in; MissingError."""
        folder = self._folder / check_plate_name(plate)
        with self._lock:
            self._known(plate)
            map_file = folder / MAP_NAME
            plate_map = map_file.read_text(encoding="utf-8") if map_file.exists() else ""
            return (folder / CONFIG_NAME).read_text(encoding="utf-8"), plate_map

    def remove(self, plate: str) -> None:
        """Forget what was handed in; MissingError where nothing was. Images and rows are not touched."""
        folder = self._folder / check_plate_name(plate)
        with self._lock:
            self._known(plate)
            try:
                shutil.rmtree(folder)
            except OSError as error:
                what, do = f"cannot remove the plate: {error.strerror}", "see to the directory's rights"
                raise StorageError(what, where=str(folder), do=do) from error

    def _known(self, plate: str) -> None:
        if not (self._folder / plate / CONFIG_NAME).is_file():
            known = ", ".join(self.names()) or "none"
            raise MissingError(f"plate {plate} was not submitted", do=f"submit it first; there are: {known}")

    def _keep(self, draft: Path, config_toml: str, plate_map_csv: str) -> Config:
        (draft / CONFIG_NAME).write_text(config_toml, encoding="utf-8")
        if plate_map_csv:
            (draft / MAP_NAME).write_text(plate_map_csv, encoding="utf-8")
        try:
            config = self._read(draft)
            plate_map = config.plate_map()
            # Refused now, and not at night when its turn has come.
            check_models(config.inference)
            if plate_map is not None:
                check_map(config.source, plate_map)
        except ConfigError as error:
            raise ConfigError(error.what, where=error.where.replace(str(draft), "submitted"), do=error.do) from error
        final = self._folder / config.plate_name
        self._check_place(config.plate_name)
        final.mkdir(exist_ok=True)
        for name in (MAP_NAME, CONFIG_NAME):
            if (draft / name).exists():
                shutil.move(draft / name, final / name)
            else:
                (final / name).unlink(missing_ok=True)
        return self._read(final)

    def _check_place(self, plate: str) -> None:
        names = [path.name for path in self._folder.iterdir() if not path.name.startswith(".")]
        if plate in names:
            return
        twin = next((name for name in names if name.casefold() == plate.casefold()), None)
        if twin is not None:  # one folder on Windows and macOS
            what = f"{plate!r} differs from the plate {twin!r} by capital letters alone"
            raise ConfigError(what, where="submitted plate", do="choose another name")
        if len(names) >= MAX_PLATES:
            what = f"{MAX_PLATES} submitted plates are kept already"
            raise ConfigError(what, where=str(self._folder), do="remove folders of plates that are done")

    def _read(self, folder: Path) -> Config:
        text = (folder / CONFIG_NAME).read_text(encoding="utf-8")
        try:
            table: dict[str, Any] = parse_toml(text)
        except tomllib.TOMLDecodeError as error:
            do = "send it as for `spheroidd run`"
            raise ConfigError(f"not TOML: {error}", where="submitted plate", do=do) from error
        own = [name for name in _DAEMONS_OWN if name in table]
        if own:
            raise ConfigError(f"[{own[0]}] is the daemon's own", where="submitted plate", do="leave that table out")
        plate = table.get("plate")
        if not isinstance(plate, dict) or not isinstance(plate.get("name"), str):
            raise ConfigError("plate.name is missing", where="submitted plate", do="write [plate] with a name")
        check_plate_name(plate["name"])
        if (folder / MAP_NAME).exists():
            plate["map"] = str(folder / MAP_NAME)
        elif "map" in plate:  # whoever submits may not have the daemon's files read, not even by an error's words
            do = "send the map's own text as plate_map_csv (`spheroidd submit --map FILE`)"
            raise ConfigError("plate.map names a file of the daemon's computer", where="submitted plate", do=do)
        table["data"] = {"dir": str(self._data_dir)}
        config = build_config(table, base=folder, where="submitted plate", text=text)
        self._check_folder(config)
        return config

    def _check_folder(self, config: Config) -> None:
        """A source that looks through a folder may not look through the whole computer, nor at what the daemon keeps:
        there it would meet other plates' images, and its own.
        """
        watched = getattr(config.source, "folder", None)
        if not isinstance(watched, Path):
            return
        folder, own = watched.resolve(), self._data_dir.resolve()
        what = None
        if folder == Path(folder.anchor):
            what = "is a whole disk"
        elif folder == own or own in folder.parents:
            what = "lies in the data directory"
        elif folder in own.parents:
            what = "holds the data directory"
        if what is not None:
            do = "give the full path of the folder that the microscope writes this plate to, and nothing above it"
            raise ConfigError(f"source.folder = {str(watched)!r} {what}", where="submitted plate", do=do)
