"""`spheroidd report`: one self-contained HTML file, and a PDF of the same, that say what a plate showed and how well.

The HTML asks nothing of the network, runs no script, and escapes every name. Both files are written whole or not at
all, and are entered in the audit trail with their hashes.
"""

import contextlib
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spheroidd.daemon.analysis.curves import CurveOfPlate
from spheroidd.daemon.catalog import audit_chain as audit
from spheroidd.daemon.catalog import audit_trail
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.report import captions as report_captions
from spheroidd.daemon.report import patients as report_patients
from spheroidd.daemon.report import tables as report_tables
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.content import PlateContent, plate_content
from spheroidd.daemon.report.controls import controls_strip
from spheroidd.daemon.report.curves import curve_plot
from spheroidd.daemon.report.drawing import Drawing
from spheroidd.daemon.report.forest import forest
from spheroidd.daemon.report.heatmap import plate_maps
from spheroidd.daemon.report.patients import PatientsRow, patients_rows
from spheroidd.daemon.report.provenance import Facts, own_version, program_facts
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StorageError

TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is written, in HTML as in PDF."""

    title: str
    byline: str
    version: str
    plates: tuple[PlateContent, ...]
    facts: Facts

    @property
    def curves(self) -> list[CurveOfPlate]:
        """The curves of all its plates."""
        return [curve for plate in self.plates for curve in plate.curves]


@dataclass(frozen=True, slots=True)
class Written:
    """The files, and why they could not be entered in the audit trail, where they could not."""

    files: tuple[Path, ...]
    not_recorded: str | None


def write_report(
    data_dir: Path,
    html: Path,
    pdf: Path | None = None,
    *,
    plate: str | None = None,
    command: str = "",
    who: str | None = None,
    now_s: float | None = None,
) -> Written:
    """Write the report of one plate, or of all of a data directory.

    ConfigError where there is no such plate; StorageError where a file cannot be written. What cannot be read of the
    images is said in the report.
    """
    with Catalog.read_only(data_dir) as catalog, catalog.snapshot():
        found = gather(catalog, data_dir, plate=plate, command=command, who=who, now_s=now_s)
    _write(html, to_html(found).encode("utf-8"))
    files = [html]
    if pdf is not None:
        from spheroidd.daemon.report.pdf import to_pdf

        _write(pdf, to_pdf(found))
        files.append(pdf)
    return Written(tuple(files), _record(data_dir, files, [one.name for one in found.plates], who))


def gather(
    catalog: CatalogReader,
    data_dir: Path,
    *,
    plate: str | None = None,
    command: str = "",
    who: str | None = None,
    now_s: float | None = None,
) -> Report:
    """All that the report says; ConfigError where there is no plate, or none of that name."""
    names = [plate] if plate is not None else catalog.plates()
    if not names:
        raise ConfigError("no plate was registered here yet", where=str(data_dir), do="run one: `spheroidd run`")
    plates = tuple(plate_content(catalog, data_dir, name) for name in names)
    who = who or audit.whoami()
    written = words.moment(time.time() if now_s is None else now_s)
    run = catalog.run_state()
    facts = (
        ("Written", f"{written} by {who} on {platform.node() or 'an unnamed computer'}"),
        *program_facts(run.version if run else None),
        ("Data directory", str(data_dir.absolute())),
        ("Audit trail", f"head {audit_trail.head(catalog)}"),
        *((("Command", command),) if command else ()),
        *(("Open fault", f"{fault.what}; {fault.do}") for fault in catalog.faults()),
    )
    title = f"Plate {names[0]}" if len(names) == 1 else f"{len(names)} plates"
    byline = f"Reported {written} by {who}, spheroidd {own_version()}"
    return Report(title, byline, own_version(), plates, facts)


class Figures:
    """The figures a template asks for."""

    @staticmethod
    def plate_maps(plate: PlateContent) -> list[Drawing]:
        """Heatmaps of the plate."""
        return plate_maps(plate.entries)

    @staticmethod
    def controls_strip(plate: PlateContent) -> Drawing | None:
        """The controls, where there are any."""
        return controls_strip(plate.imaged, plate.quality)

    @staticmethod
    def forest(plate: PlateContent) -> list[Drawing]:
        """All IC50s on one axis, where there are enough to compare."""
        return forest(plate.curves) if len(plate.curves) > 2 else []

    @staticmethod
    def screen(plates: Sequence[PlateContent]) -> list[Drawing]:
        """All IC50s of all plates on one axis."""
        return forest([curve for plate in plates for curve in plate.curves], with_plate=True)

    @staticmethod
    def patients(report: Report) -> list[PatientsRow]:
        """Compounds across patients, where there are several."""
        return patients_rows(report.curves)

    curve_plot = staticmethod(curve_plot)


def to_html(report: Report) -> str:
    """The report as one HTML document."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.get_template(TEMPLATE)
    return template.render(
        report=report,
        words=words,
        tables=report_tables,
        across=report_patients,
        captions=report_captions,
        figures=Figures,
    )


def _write(path: Path, data: bytes) -> None:
    """Put a file in its place in one step, so that an older report stays whole where this one cannot be written."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        do = "close the file where it is open, or choose another place"
        raise StorageError(f"cannot write the report: {error.strerror or error}", where=str(path), do=do) from error


def _record(data_dir: Path, files: Sequence[Path], plates: Sequence[str], who: str | None) -> str | None:
    """Enter the files in the audit trail; the report itself stands, whether or not the catalog can be written."""
    try:
        with Catalog.create_or_open(data_dir) as catalog:
            audit_trail.record_files(catalog, audit.Action.REPORT_WRITTEN, files, plates=plates, who=who)
    except SpheroiddError as error:
        return str(error)
    return None
