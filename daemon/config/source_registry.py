"""Which sources there are: one row each. A module is imported only when its kind is chosen.

Others register theirs under the entry-point group "spheroidd.sources" (name = kind, value = "module:Class"). The class
is a StackSource with a class attribute `Settings`, a frozen pydantic model with `kind: Literal[...]`, and is built as
`Source(settings, plate_map, plate_name, clock)`.
"""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import ChecksItsMap, Clock, ImagesWellsTheirWay, StackSource

if TYPE_CHECKING:
    pass

_BUILT_IN = {
    "emulator": "spheroidd.daemon.emulation.emulated_plate:EmulatorRun",
    "leica-cam": "spheroidd.acquisition.sources.leica.source:LeicaCamSource",
    "matrix-screener": "spheroidd.acquisition.sources.watched_folder.source:MatrixScreenerSource",
    "micromanager": "spheroidd.daemon.emulation.emulated_camera:MicroManagerRun",
    "push": "spheroidd.acquisition.sources.push:PushSource",
    "replay": "spheroidd.acquisition.sources.replay:ReplaySource",
    "watch": "spheroidd.acquisition.sources.watched_folder.source:WatchSource",
}


class _Sources(Mapping[str, str]):
    """Kind -> "module:Class": the built-in ones first, then what is installed beside them."""

    def _table(self) -> dict[str, str]:
        installed = {entry.name: entry.value for entry in entry_points(group="spheroidd.sources")}
        return _BUILT_IN | {kind: place for kind, place in installed.items() if kind not in _BUILT_IN}

    def __getitem__(self, kind: str) -> str:
        return _BUILT_IN.get(kind) or self._table()[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())


SOURCES: Mapping[str, str] = _Sources()


def source_class(kind: str, *, where: str = "") -> Any:
    """Import the class of a kind of source; ConfigError for an unknown kind or one that cannot be imported."""
    if kind not in SOURCES:
        near = difflib.get_close_matches(kind, SOURCES, n=1)
        do = f"write {near[0]!r}" if near else f"write one of {', '.join(SOURCES)}"
        raise ConfigError(f"source.kind: there is no source {kind!r}", where=where, do=do)
    module, _, name = SOURCES[kind].partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        do = "install what it needs, or choose another kind"
        raise ConfigError(f"source.kind: {kind!r} cannot be loaded: {error}", where=where, do=do) from error


def settings_class(kind: str, *, where: str = "") -> type[BaseModel]:
    """The settings model of a kind of source; ConfigError as `source_class`."""
    return cast(type[BaseModel], source_class(kind, where=where).Settings)


def build_source(
    settings: BaseModel, plate_map: PlateMap | None, plate_name: str, clock: Clock | None = None
) -> StackSource:
    """The source of one plate with its settings; without a clock it keeps the system's time."""
    kind = str(settings.model_dump(include={"kind"})["kind"])
    chosen = source_class(kind)
    _check_imaging(kind, chosen, plate_map)
    return cast(StackSource, chosen(settings, plate_map, plate_name, clock or SystemClock()))


def check_map(settings: BaseModel, plate_map: PlateMap) -> None:
    """ConfigError where the source with these settings cannot image a plate as its map says; nothing is opened."""
    kind = str(settings.model_dump(include={"kind"})["kind"])
    chosen = source_class(kind)
    _check_imaging(kind, chosen, plate_map)
    if isinstance(chosen, ChecksItsMap):
        chosen.check_map(settings, plate_map)


def _check_imaging(kind: str, source: Any, plate_map: PlateMap | None) -> None:
    """ConfigError where the plate map says how wells are imaged, and the source would not do it."""
    given = {column for entry in plate_map or () for column in entry.imaging.columns}
    followed = source.imaging_columns if isinstance(source, ImagesWellsTheirWay) else frozenset()
    if left := sorted(given - followed):
        what = f"the plate map says {' and '.join(left)}, and a {kind} source does not follow that well by well"
        do = "take the column out, and set it in the instrument's own program"
        raise ConfigError(what, where="plate.map", do=do)
