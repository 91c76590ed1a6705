"""The plate as the page draws it, kept from one look to the next: a well that did not change is not made again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from spheroidd.daemon.catalog.kept_standings import KeptStandings
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import Exclusion, ResultRow
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.daemon.web.plate_view import cell, flags_by_well, focus_of, latencies_of, surroundings, top_of
from spheroidd.protocols.plate import PlateWell, WellRole
from spheroidd.protocols.quality import PlateQuality, QualityFlag
from spheroidd.protocols.well import WellId


@dataclass(slots=True)
class _Well:
    """An entry, and what the view needs of it."""

    entry: WellEntry
    volume_um3: float | None
    latencies_s: tuple[float, ...]
    drawn: str = ""  # JSON


class KeptPlate:
    """What `plate_view` gives of one plate, as JSON. `kept` is shared by all plates of the catalog."""

    def __init__(self, kept: KeptStandings, plate: str) -> None:
        self._kept, self._plate = kept, plate
        self._readings, self._cursor = -1, 0
        self._map: dict[str, PlateWell] = {}  # the wells that are imaged, by name
        self._places: list[WellId] = []
        self._excluded: Mapping[str, Exclusion] = {}
        self._flags: dict[str, list[QualityFlag]] = {}
        self._rows: dict[str, dict[int, ResultRow]] = {}  # by well and stack, in the map's order
        self._wells: dict[str, _Well] = {}
        self._scale: tuple[float, dict[WellId, float]] | None = None

    def view(self, catalog: CatalogReader, quality: PlateQuality | None) -> bytes:
        """The view now; `quality` may be that of a moment ago. ConfigError for a plate there is not."""
        self._look(catalog, quality)
        focus, wells = focus_of(catalog, self._plate), self._wells.values()
        scale = top_of(one.volume_um3 for one in wells), focus
        if scale != self._scale:  # the colours of all wells are others
            self._scale = scale
            for one in wells:
                one.drawn = ""
        for one in wells:
            if not one.drawn:
                one.drawn = json.dumps(cell(one.entry, *scale), allow_nan=False)
        latencies = [each for one in wells for each in one.latencies_s]
        around = surroundings(self._plate, self._places, *scale, latencies, quality)
        text = json.dumps(around, allow_nan=False)
        return f'{text[:-1]}, "wells": [{", ".join(one.drawn for one in wells)}]}}'.encode()

    def _look(self, catalog: CatalogReader, quality: PlateQuality | None) -> None:
        """Make the entries anew of which something changed."""
        self._kept.look(catalog)
        flags = flags_by_well(quality.flags if quality else ())
        if not self._map or self._kept.readings != self._readings:
            self._flags = flags
            self._read(catalog)
        else:
            self._cursor, rows = self._kept.rows_of_plate(catalog, self._plate, self._cursor)
            self._put(rows)
            changed = {row.result.well for row in rows}
            changed |= {name for name in self._flags.keys() | flags.keys() if self._flags.get(name) != flags.get(name)}
            self._flags = flags
            for name in changed & self._map.keys():
                self._make(name)

    def _read(self, catalog: CatalogReader) -> None:
        """A map, an exclusion or which stacks count may be others: everything is read."""
        self._readings, plate_map = -1, catalog.plate_map(self._plate)
        self._map = {str(one.well): one for one in plate_map if one.treatment.role is not WellRole.EMPTY}
        self._places = [one.well for one in plate_map]
        self._excluded = catalog.wells_left_out(self._plate)
        self._rows, self._wells = {}, {}
        self._cursor, rows = self._kept.rows_of_plate(catalog, self._plate)
        self._put(rows)
        for name in self._map:
            self._make(name)
        self._readings = self._kept.readings

    def _put(self, rows: list[ResultRow]) -> None:
        for row in rows:
            self._rows.setdefault(row.result.well, {})[row.result.stack] = row

    def _make(self, name: str) -> None:
        well, rows = self._map[name], self._rows.get(name, {})
        entry = WellEntry(
            well.well,
            well.treatment,
            tuple(row.result for row in rows.values()),
            tuple(self._flags.get(name, ())),
            self._excluded.get(name),
            well.annotations,
        )
        self._wells[name] = _Well(entry, entry.figure("live_um3"), latencies_of(entry))
