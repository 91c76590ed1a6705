"""What a plate that is taken up has on disk already, and whether the map and the settings still mean that.

Images are stored once. A map that names another file for a well, or settings that take its channels the other way
round, would change nothing of it: the old numbers would stand beside the new words.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spheroidd.daemon.catalog.map_files import other_files
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.config.model import Config
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.well import WellId

_MEANING = ("channel_order", "channels", "first_z")  # of a source's settings: which plane of a file is which
_FILES = ("replay", "watch", "matrix-screener")  # the sources whose files those settings read
_STORED = "SELECT DISTINCT well FROM stacks WHERE plate = :plate AND n_acked > 0"
_SAME_LIMITS = (
    "one plate, one set of limits: write them as they were, or replay the plate with the new ones into a new directory"
)
_KEPT = "what is stored stays as it is: to read the files anew, give the plate another name or a new directory"


def check_stored(catalog: CatalogReader, plate_map: PlateMap, config: Config) -> None:
    """ConfigError where a well has images from another file, or by other settings, than are given now."""
    if plate_map.name not in catalog.plates():
        return
    rows = catalog.query(_STORED, {"plate": plate_map.name})
    stored = {WellId.parse(row["well"]) for row in rows}
    if not stored:
        return
    if any(entry.paths for entry in plate_map):
        for well, before, path in other_files(catalog.plate_map(plate_map.name), plate_map, stored):
            what = f"its images are from {before}, and the map now names {path}"
            raise ConfigError(what, where=f"plate {plate_map.name}, well {well}", do=_KEPT)
    where, settings = f"plate {plate_map.name}", json.loads(catalog.plate_config(plate_map.name))
    was, now = settings["source"], config.source.model_dump(mode="json")
    if was.get("kind") == now.get("kind") and now.get("kind") in _FILES:
        for changed in _changes(_MEANING, was, now):
            raise ConfigError(f"its images were read with {changed}", where=where, do=_KEPT)
    used = "SELECT DISTINCT normalisation FROM results WHERE plate = :plate"
    rows = catalog.query(used, {"plate": plate_map.name})
    if any(row["normalisation"] != str(config.inference.normalisation) for row in rows):
        for changed in _changes(("normalisation",), settings["inference"], config.inference.model_dump(mode="json")):
            do = f"`spheroidd score --normalisation {config.inference.normalisation}` scores all of them anew"
            raise ConfigError(f"its rows rest on {changed}", where=where, do=do)
    if rows:
        for changed in _changes(("limits",), settings["inference"], config.inference.model_dump(mode="json")):
            raise ConfigError(f"its rows rest on {changed}", where=f"{where}, [inference.limits]", do=_SAME_LIMITS)


def _changes(names: Sequence[str], was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        if was.get(name) != now.get(name):
            old, new = ("none" if one.get(name) is None else json.dumps(one[name]) for one in (was, now))
            yield f"{name} = {old}, and it is {new} now"
