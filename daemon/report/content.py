"""Gathers what a report says from the catalog and the Zarr plate. Reads only; draws and writes nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spheroidd.daemon.analysis.curves import CurveOfPlate, curves
from spheroidd.daemon.analysis.plate_quality import plate_quality
from spheroidd.daemon.analysis.sim_depth import ChannelDepth, depth_of_plate
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import Exclusion
from spheroidd.daemon.report import images as report_images
from spheroidd.daemon.report import provenance as report_provenance
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.drawing import Drawing
from spheroidd.daemon.report.series import Series, Views, series_of
from spheroidd.daemon.report.sim_pictures import widefield_beside_sim
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.daemon.system.lock import is_locked
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.quality import PlateQuality, QualityFlag
from spheroidd.protocols.results import WellResult
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

METRIC = "v_control"
MOST_SERIES = 8  # curves of a plate whose doses are shown in pictures there; of more they are on the compounds' pages


@dataclass(frozen=True, slots=True)
class PlateContent:
    """One plate as the report tells it.

    `provisional` says why its figures may still change, and is None for a finished plate. `unread` names pictures that
    should be there and why they are not. `facts` are the provenance, name and value.
    """

    name: str
    patients: tuple[str, ...]
    entries: dict[WellId, WellEntry]
    quality: PlateQuality
    curves: tuple[CurveOfPlate, ...]
    pictures: tuple[Drawing, ...]
    series: tuple[Series, ...]
    stripes: tuple[ChannelDepth, ...]
    sim_pictures: tuple[Drawing, ...]
    display: dict[str, tuple[float, float]]
    unread: tuple[str, ...]
    provisional: str | None
    facts: tuple[tuple[str, str], ...]

    @property
    def imaged(self) -> list[WellEntry]:
        """The wells that are not empty, in the order of the plate."""
        return [self.entries[well] for well in sorted(self.entries) if self.entries[well].results]

    @property
    def tally(self) -> str:
        """How many wells stand how, in words: "93 final, 2 failed, 1 excluded"."""
        counts = Counter(words.WELL_STATES[result.status] for entry in self.imaged for result in entry.results[:1])
        excluded = sum(entry.excluded is not None for entry in self.imaged)
        parts = [f"{n} {state}" for state, n in counts.items()]
        return ", ".join([*parts, *([f"{excluded} excluded"] if excluded else [])])


def plate_content(
    catalog: CatalogReader, data_dir: Path, plate: str, *, with_images: bool = True, every_series: bool | None = None
) -> PlateContent:
    """Everything a report says of one plate; ConfigError for a plate there is not.

    The doses of each curve are shown in pictures where there are few curves, and of a screen (`is_screen`); of more
    curves as `every_series` says.
    """
    excluded = catalog.wells_left_out(plate)
    quality = plate_quality(catalog, plate, METRIC, excluded=frozenset(excluded))
    entries = well_entries(catalog, plate, excluded, quality.flags)
    imaged = [entry for entry in entries.values() if entry.treatment.role is not WellRole.EMPTY]
    display, pictures, unread = _pictures(catalog, data_dir, plate, imaged) if with_images else ({}, (), ())
    fitted = tuple(curves(catalog, plate))
    all_of_many = is_screen(fitted) if every_series is None else every_series
    shown = fitted if with_images and (all_of_many or len(fitted) <= MOST_SERIES) else ()
    sim_pictures, unread_raw = widefield_beside_sim(catalog, data_dir, plate, imaged) if with_images else ((), ())
    return PlateContent(
        name=plate,
        patients=tuple(sorted({e.treatment.patient for e in imaged if e.treatment.patient})),
        entries=entries,
        quality=quality,
        curves=fitted,
        pictures=pictures,
        series=series_of(shown, entries, _looking(catalog, data_dir, plate, display)),
        stripes=depth_of_plate(catalog, plate),
        sim_pictures=sim_pictures,
        display=display,
        unread=(*unread, *unread_raw),
        provisional=_provisional(data_dir, imaged),
        facts=report_provenance.plate_facts(catalog, plate),
    )


def is_screen(curves: Sequence[CurveOfPlate]) -> bool:
    """More curves than a plate's own section shows in pictures; a compound at one dose is none to look at by dose."""
    return sum(len({dose for dose in curve.doses_um if dose > 0}) > 1 for curve in curves) > MOST_SERIES


def well_entries(
    catalog: CatalogReader, plate: str, excluded: Mapping[str, Exclusion], flags: Sequence[QualityFlag] = ()
) -> dict[WellId, WellEntry]:
    """Every well of the map, with its results, the flags that name it, and its exclusion."""
    results: dict[str, list[WellResult]] = {}
    for row in catalog.result_rows(plate):
        results.setdefault(row.result.well, []).append(row.result)
    entries = {}
    for one in catalog.plate_map(plate):
        name = str(one.well)
        entries[one.well] = WellEntry(
            one.well,
            one.treatment,
            tuple(results.get(name, ())),
            tuple(flag for flag in flags if name in flag.wells),
            excluded.get(name),
            one.annotations,
        )
    return entries


def _provisional(data_dir: Path, imaged: Sequence[WellEntry]) -> str | None:
    """Why figures may still change; None where every well has come to its end."""
    states = Counter(result.status for entry in imaged for result in entry.results)
    waiting = {state: n for state, n in states.items() if not state.is_over}
    if not waiting:
        return None
    counts = ", ".join(f"{n} {words.WELL_STATES[state]}" for state, n in waiting.items())
    run = "The run is still going" if is_locked(data_dir) else "The run was stopped before its end"
    return f"{run}: of {states.total()} wells {counts}. Every figure here may still change."


def _pictures(
    catalog: CatalogReader, data_dir: Path, plate: str, imaged: Sequence[WellEntry]
) -> tuple[dict[str, tuple[float, float]], tuple[Drawing, ...], tuple[str, ...]]:
    models = catalog.models(plate)
    measurements = [row.measurement for row in catalog.measurements(plate, models[0])] if models else []
    display = report_images.display_limits(measurements)
    pictures: list[Drawing] = []
    unread: dict[str, list[str]] = {}
    for entry in report_images.choose(imaged):
        try:
            seen = _projections(catalog, data_dir, StackKey(plate, entry.well, entry.results[0].stack), display)
        except SpheroiddError as error:
            unread.setdefault(error.what, []).append(str(entry.well))
        else:
            pictures.append(report_images.picture(*_picture_words(entry), seen))
    return display, tuple(pictures), tuple(f"{', '.join(wells)}: {why}" for why, wells in unread.items())


def _projections(
    catalog: CatalogReader,
    data_dir: Path,
    key: StackKey,
    display: Mapping[str, tuple[float, float]],
    *,
    outlined: bool = True,
) -> list[report_images.Projection]:
    """A stack's channels from above; SpheroiddError where they cannot be read, or are not what was acknowledged."""
    plan, crcs = catalog.plan(key), catalog.acknowledged(key)
    ledger = {c: {one.z: crc for one, crc in crcs.items() if one.channel == c} for c in plan.channels}
    return [
        # images that were made of raw frames are not in the ledger, which holds those
        report_images.project(data_dir, plan, channel, display, None if plan.raw else held, outlined=outlined)
        for channel, held in ledger.items()
    ]


def _looking(catalog: CatalogReader, data_dir: Path, plate: str, display: Mapping[str, tuple[float, float]]) -> Views:
    """What shows a well's channels, and nothing where they cannot be read: a series has a field for that."""

    def look(entry: WellEntry) -> tuple[report_images.Projection, ...]:
        key = StackKey(plate, entry.well, entry.results[0].stack)
        try:
            return tuple(_projections(catalog, data_dir, key, display, outlined=False))
        except SpheroiddError:
            return ()

    return look


def _picture_words(entry: WellEntry) -> tuple[str, str]:
    count, viability = entry.figure("v_count"), entry.figure("v_control")
    figures = [
        f"viability {words.fixed(viability)} %" if viability is not None else "",
        f"live cells {words.fixed(100 * count)} %" if count is not None else "",
    ]
    return f"{entry.well}  {words.treatment(entry.treatment)}", ", ".join(part for part in figures if part)
