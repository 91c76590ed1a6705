"""The newest view of each plate, made once for all who look at the same time, and only where something changed."""

import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.web.kept_plate import KeptPlate
from spheroidd.protocols.quality import PlateQuality

REST = 20.0  # judging takes at most a twentieth of one processor: a plate of 1536 wells takes half a second
KEPT_PLATES = 8


class PlateViews:
    """Views and what is said of the plates' quality."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()
        self._views: dict[str, tuple[str, bytes]] = {}
        self._kept, self._plates = KeptStandings(), dict[str, KeptPlate]()
        self._qualities: dict[str, tuple[float, str, PlateQuality]] = {}

    def of(self, catalog: CatalogReader, plate: str) -> tuple[str, bytes]:
        """The view in JSON, made anew where anything in it changed, and a name for it that changes as well."""
        with self._lock:
            standing = fingerprint(catalog, plate)
            quality = self._quality(catalog, plate, standing)
            newest = f"{standing}-{zlib.crc32(self._qualities[plate][1].encode()):08x}"
            tag, view = self._views.get(plate, ("", b""))
            if tag != newest:
                if plate not in self._plates:
                    _put(self._plates, plate, KeptPlate(self._kept, plate))
                view = self._plates[plate].view(catalog, quality)
                _put(self._views, plate, (newest, view))
            return newest, view

    def quality(self, catalog: CatalogReader, plate: str) -> PlateQuality:
        """What is said of the plate; judged anew where one of its rows has changed, and not too often."""
        with self._lock:
            return self._quality(catalog, plate, fingerprint(catalog, plate))

    def _quality(self, catalog: CatalogReader, plate: str, standing: str) -> PlateQuality:
        next_s, judged, quality = self._qualities.get(plate, (0.0, "", None))
        if quality is None or (judged != standing and self._now() >= next_s):
            from spheroidd.daemon.analysis.plate_quality import (
                plate_quality,  # needs scipy, which the page's document does not
            )

            began_s = self._now()
            quality = plate_quality(catalog, plate)
            ended_s = self._now()
            _put(self._qualities, plate, (ended_s + REST * (ended_s - began_s), standing, quality))
        return quality


def fingerprint(catalog: CatalogReader, plate: str) -> str:
    """Of all that a view is made of: rows, states with their reasons, exclusions."""
    sql = """SELECT (SELECT coalesce(max(id), 0) FROM result_changes WHERE plate = :plate) AS change,
        (SELECT coalesce(max(seq), 0) FROM audit WHERE plate = :plate) AS entry,
        (SELECT group_concat(well || stack || state || coalesce(ended, '') || coalesce(reason, '')
          || coalesce(todo, ''))
          FROM stacks WHERE plate = :plate) AS states"""
    (row,) = catalog.query(sql, {"plate": plate})
    return f"{row['change']}-{row['entry']}-{zlib.crc32((row['states'] or '').encode()):08x}"


def _put(kept: dict[str, Any], plate: str, value: Any) -> None:
    kept[plate] = value
    while len(kept) > KEPT_PLATES:
        kept.pop(next(iter(kept)))
