"""Hands a data directory's numbers out as files that other programs read, and enters every file in the audit trail.

What is handed out is read in one snapshot, then fitted and written without holding the catalog, so a run beside it goes
on. A file appears under its name only when it is whole. `manifest.json` lists the files with their hashes and the
audit trail's head after the export, the anchor to give to `spheroidd audit verify --head`.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spheroidd.daemon.analysis.curves import CurveOfPlate, CurvePoints, curve_points, fit_points
from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent, Head, given_who
from spheroidd.daemon.catalog.audit_trail import head, record_files
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.export.csv_parquet import write_csv, write_parquet
from spheroidd.daemon.export.mihcsme import Sheets, plate_sheets, write_mihcsme
from spheroidd.daemon.export.prism import write_pzfx
from spheroidd.daemon.export.tables import Table, curve_points_table, curves_table, wells_table
from spheroidd.daemon.verification.read_check import rows_read
from spheroidd.protocols.durable import replacing
from spheroidd.protocols.errors import ConfigError, StorageError

MANIFEST = "manifest.json"


class Format(StrEnum):
    """What can be written."""

    CSV = "csv"
    PARQUET = "parquet"
    PZFX = "pzfx"
    MIHCSME = "mihcsme"


_NEEDS = {Format.PARQUET: "pyarrow", Format.MIHCSME: "openpyxl"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and the event that says so."""

    files: tuple[Path, ...]
    event: AuditEvent
    altered: tuple[str, ...] = ()  # rows that are not as they were written; every file with facts says so

    @property
    def head(self) -> Head:
        """The anchor."""
        return Head(self.event.seq, self.event.sha256)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Everything that is handed out, as it was at one moment."""

    plates: tuple[str, ...]
    facts: dict[str, str]
    wells: Table
    points: tuple[CurvePoints, ...]
    sheets: dict[str, Sheets]
    models: tuple[str, ...]
    seq: int
    altered: tuple[str, ...]


def export(
    data_dir: Path,
    out_dir: Path,
    *,
    formats: Sequence[Format] = (Format.CSV,),
    plate: str | None = None,
    metric: str = "v_control",
    who: str | None = None,
) -> Exported:
    """Write the numbers of a plate, or of all, in these formats, and enter the files in the audit trail.

    ConfigError for a plate or metric there is not, and where a format needs a package that is missing; StorageError
    where the disk refuses. Nothing is entered unless all was written.
    """
    for one in formats:
        if one in _NEEDS and importlib.util.find_spec(_NEEDS[one]) is None:
            what = f"the format {one} needs the package {_NEEDS[one]}, which is not installed"
            raise ConfigError(what, where="spheroidd export", do='pip install "spheroidd[export]"')
    who = given_who(who)
    Catalog.read_only(data_dir).close()  # says so where nothing was ever run here: opening to write would make one
    with Catalog.create_or_open(data_dir) as catalog:
        numbers = _read(catalog, plate, metric, who)
        curves = fit_points(numbers.points)
        with _disk(out_dir):
            out_dir.mkdir(parents=True, exist_ok=True)
            files = [_write(out_dir / name, write) for name, write in _jobs(formats, numbers, curves)]
            with catalog.transaction():
                facts = {"formats": [one.value for one in formats], "metric": metric, "as_of": numbers.seq}
                event = record_files(catalog, Action.EXPORT_WRITTEN, files, plates=numbers.plates, facts=facts, who=who)
                _keep_fits(catalog, numbers, curves, metric)
            files.append(_write(out_dir / MANIFEST, partial(_write_manifest, numbers, event)))
    return Exported(tuple(files), event, numbers.altered)


def _read(catalog: Catalog, plate: str | None, metric: str, who: str) -> _Numbers:
    known = catalog.plates()
    if plate is not None and plate not in known:
        do = f"the plates are: {', '.join(known) or 'none'}"
        raise ConfigError(f"there is no plate {plate!r}", where=str(catalog.path), do=do)
    with catalog.snapshot():
        plates = known if plate is None else [plate]
        now = head(catalog)
        read = {name: rows_read(catalog, name) for name in plates}
        facts = {
            "program": "spheroidd",
            "version": version("spheroidd"),
            "exported_at_utc": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "exported_by": who,
            "audit_head": str(now),
            "rows_checked": _each({name: one.rows for name, one in read.items()}),
            "images_verified": _each({name: one.images for name, one in read.items()}),
        }
        return _Numbers(
            plates=tuple(plates),
            facts=facts,
            wells=wells_table(catalog, plates),
            points=tuple(curve_points(catalog, plates, metric)),
            sheets={name: plate_sheets(catalog, name, facts) for name in plates},
            models=tuple(catalog.models(plate)),
            seq=now.seq,
            altered=tuple(line for one in read.values() for line in one.altered),
        )


def _each(words: Mapping[str, str]) -> str:
    """The same of all plates once, else of each by its name."""
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{plate}: {text}" for plate, text in words.items())


def _jobs(
    formats: Sequence[Format], numbers: _Numbers, curves: Sequence[CurveOfPlate]
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The files by name, each with what writes it."""
    tables = (numbers.wells, curves_table(curves), curve_points_table(curves))
    for table in tables:
        if Format.CSV in formats:
            yield f"{table.name}.csv", partial(write_csv, table)
        if Format.PARQUET in formats:
            yield f"{table.name}.parquet", partial(write_parquet, table, facts=numbers.facts)
    for plate in numbers.plates:
        if Format.PZFX in formats:
            mine = [curve for curve in curves if curve.plate == plate]
            yield f"{plate}.pzfx", partial(write_pzfx, mine, facts=numbers.facts)
        if Format.MIHCSME in formats:
            yield f"{plate}.mihcsme.xlsx", partial(write_mihcsme, numbers.sheets[plate])


def _write(path: Path, write: Callable[[Path], None]) -> Path:
    """Write beside the name, then take the name: nobody meets half a file, and a failure leaves the old one."""
    with replacing(path) as partial_path:
        write(partial_path)
    return path


@contextmanager
def _disk(out_dir: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        what, do = f"cannot write: {error.strerror}", "close what has the file open, or choose another directory"
        raise StorageError(what, where=str(error.filename2 or error.filename or out_dir), do=do) from error
    except OSError as error:
        what, do = f"cannot write: {error.strerror}", "make room, or choose another directory"
        raise StorageError(what, where=str(error.filename or out_dir), do=do) from error


def _write_manifest(numbers: _Numbers, event: AuditEvent, path: Path) -> None:
    entered: dict[str, Any] = json.loads(event.new_json or "{}")
    manifest = {
        **numbers.facts,
        "exported_by": event.who,
        "audit_head": str(Head(event.seq, event.sha256)),
        "plates": list(numbers.plates),
        "models_sha256": list(numbers.models),
        "metric": entered["metric"],
        "files": entered["files"],
    }
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _keep_fits(catalog: Catalog, numbers: _Numbers, curves: Sequence[CurveOfPlate], metric: str) -> None:
    """Put the fits where SQL can see them, with the event up to which they know the catalog."""
    for plate in numbers.plates:
        catalog.connection.execute("DELETE FROM curve_fits WHERE plate = ? AND metric = ?", (plate, metric))
    slots = ", ".join(f":{name}" for name in _FIT_COLUMNS)
    rows = [{**row, "model": row["model"] or "", "audit_seq": numbers.seq} for row in curves_table(curves).rows]
    catalog.connection.executemany(f"INSERT INTO curve_fits ({', '.join(_FIT_COLUMNS)}) VALUES ({slots})", rows)


_FIT_COLUMNS = (
    "plate",
    "patient",
    "compound",
    "metric",
    "status",
    "reason",
    "model",
    "ic50_rel_um",
    "ic50_rel_lo_um",
    "ic50_rel_hi_um",
    "ic50_abs_um",
    "ic50_abs_lo_um",
    "ic50_abs_hi_um",
    "hill",
    "top",
    "bottom",
    "auc",
    "e_max",
    "n",
    "p_effect",
    "audit_seq",
)
