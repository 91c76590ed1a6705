"""Opens a recording for an emulated instrument: whatever `replay` can read, as what `sim_emulator` images.

A recording is named by one path:

    a plate map (.csv, .xlsx, ...)        as `replay` takes it, or a folder with a `map.csv`
    the data directory of a plate         each well's last whole stack
    a configuration of `replay` (.toml)   with its channel order, voxel sizes and plate map
    anything else                         one stack, as in a map's `path`; it lies in every well
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

from spheroidd.acquisition.images.metadata.voxel_size import DisagreementError
from spheroidd.acquisition.images.reading_time import ReadingTime
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.sources.replay import ReplaySettings, settled_length
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.config.model import load_config
from spheroidd.daemon.emulation.replayed_plate import recorded_map
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.recorded.recording import Recording
from spheroidd.sim_emulator.recorded.volume import OpenVolume

MAP_NAME = "map.csv"
_MAP_KINDS = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")


class ReadVolume:
    """A recorded stack with its voxel's size settled; every plane that has a checksum is compared with it."""

    def __init__(self, entry: PlateWell, settings: ReplaySettings) -> None:
        self._reading, self._path = ReadingTime(settings.read_budget_s), max(entry.paths.values(), key=str)
        with ExitStack() as opened:
            opened.callback(self._reading.close)
            self._stack = self._reading.read(
                lambda: RecordedStack(entry.paths, channel_order=settings.channel_order), self._path, whole=True
            )
            opened.callback(self._stack.close)
            self.voxel_um = (
                settled_length("z_step_um", entry, self._stack, settings),
                settled_length("pixel_um", entry, self._stack, settings),
            )
            self._opened = opened.pop_all()
        self.channels, self.dtype = self._stack.channels, self._stack.dtype
        self.shape = self._stack.n_z, self._stack.height, self._stack.width

    def plane(self, index: SliceIndex) -> Pixels:
        """Read the pixels (y, x) of one slice; StackError where they are not as they were recorded."""
        pixels = self._reading.read(lambda: self._stack.plane(index), self._path)
        if self._stack.crc32c(index) not in (None, crc32c(pixels)):
            what = f"channel {index.channel} z {index.z} is not as it was recorded (crc32c)"
            raise StackError(what, where=self._stack.where, do="restore the recording from a copy")
        return pixels

    def metadata(self, index: SliceIndex) -> Mapping[str, float | str]:
        """What the files say of how a slice was taken."""
        return self._stack.metadata(index)

    def close(self) -> None:
        """Let the files go."""
        self._opened.close()


def open_recording(path: Path) -> Recording:
    """The recording that a path names; see the module. ConfigError where it is none or its first stack not sound."""
    plate_map, settings = recording_map(path)
    if plate_map is None:
        entry = PlateWell(WellId(0, 0), Treatment(WellRole.SAMPLE), MappingProxyType({"": path}))
        recording = Recording({}, everywhere=_opener(entry, settings))
    else:
        wells = {entry.well: _opener(entry, settings) for entry in plate_map if entry.paths}
        if not wells:
            do = "fill the column path, or path_488 and path_561"
            raise ConfigError("its plate map names no file of any well", where=str(path), do=do)
        recording = Recording(wells, plate_map)
    with _told(path):
        _ = recording.geometry
    return recording


def recording_map(path: Path) -> tuple[PlateMap | None, ReplaySettings]:
    """A recording's plate map with the paths of its stacks, None of a single stack; and how its files are read."""
    if path.is_dir():
        if (path / CATALOG_NAME).exists():
            return recorded_map(path), ReplaySettings()
        if (path / MAP_NAME).is_file():
            return read_plate_map(path / MAP_NAME), ReplaySettings()
    elif path.suffix.lower() in _MAP_KINDS:
        return read_plate_map(path), ReplaySettings()
    elif path.suffix.lower() == ".toml":
        return _of_replay(path)
    return None, ReplaySettings()


def _of_replay(path: Path) -> tuple[PlateMap, ReplaySettings]:
    config = load_config(path)
    if not isinstance(config.source, ReplaySettings):
        do = "name a configuration whose source is of the kind 'replay'"
        raise ConfigError(f"its source is of the kind {config.source_kind!r}", where=str(path), do=do)
    settings = config.source
    plate_map = config.plate_map() or (read_plate_map(settings.map) if settings.map else None)
    if plate_map is None:
        raise ConfigError("it names no plate map", where=str(path), do="write plate.map")
    return plate_map, settings


def _opener(entry: PlateWell, settings: ReplaySettings) -> OpenVolume:
    return lambda: _opened(entry, settings)


def _opened(entry: PlateWell, settings: ReplaySettings) -> ReadVolume:
    try:
        return ReadVolume(entry, settings)
    except (ConfigError, DisagreementError) as error:
        where = ", ".join(str(path) for path in entry.paths.values())
        raise StackError(error.what, where=where, do=error.do) from error


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except StackError as error:
        where = error.where if str(path) in error.where else f"recording {path}: {error.where}"
        raise ConfigError(error.what, where=where, do=error.do) from error
