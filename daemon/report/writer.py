"""`spheroidd report`: one self-contained HTML file, and a PDF of the same, that say what a plate showed and how well.

The HTML asks nothing of the network, runs no script, and escapes every name. Both files are written whole or not at
all, and are entered in the audit trail with their hashes.
"""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spheroidd.daemon.catalog import audit_chain as audit
from spheroidd.daemon.catalog import audit_trail
from spheroidd.daemon.catalog.lookup import the_plate
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.report.content import is_screen, plate_content, well_entries
from spheroidd.daemon.report.document import Report
from spheroidd.daemon.report.drawing import svg_file
from spheroidd.daemon.report.heatmap import metric_map
from spheroidd.daemon.report.html import to_html
from spheroidd.daemon.report.provenance import own_version, program_facts
from spheroidd.daemon.verification.read_check import rows_read
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StorageError


@dataclass(frozen=True, slots=True)
class Written:
    """The files, and why they could not be entered in the audit trail, where they could not."""

    files: tuple[Path, ...]
    not_recorded: str | None
    altered: tuple[str, ...] = ()  # rows that are not as they were written; the report says so


def write_report(
    data_dir: Path,
    html: Path,
    pdf: Path | None = None,
    *,
    plate: str | None = None,
    command: str = "",
    who: str | None = None,
    now_s: float | None = None,
    compound_pages: bool | None = None,
) -> Written:
    """Write the report of one plate, or of all of a data directory.

    With `compound_pages` each compound has a page, over all patients and plates; None is where some plate is a screen.
    ConfigError where there is no such plate; StorageError where a file cannot be written. What cannot be read of the
    images is said in the report.
    """
    with Catalog.read_only(data_dir) as catalog, catalog.snapshot():
        found = gather(
            catalog, data_dir, plate=plate, command=command, who=who, now_s=now_s, compound_pages=compound_pages
        )
        altered = tuple(line for one in found.plates for line in rows_read(catalog, one.name).altered)
    _write(html, to_html(found).encode("utf-8"))
    files = [html]
    if pdf is not None:
        from spheroidd.daemon.report.pdf import to_pdf

        _write(pdf, to_pdf(found))
        files.append(pdf)
    return Written(tuple(files), _record(data_dir, files, [one.name for one in found.plates], who), altered)


def write_heatmap(
    data_dir: Path, out: Path, *, plate: str | None = None, metric: str = "v_control", who: str | None = None
) -> Written:
    """Write one figure of every well of a plate as a picture, SVG or PNG by the file's ending.

    ConfigError for another ending, and for a plate or a metric there is not; StorageError where the disk refuses.
    """
    if out.suffix.lower() not in (".svg", ".png"):
        raise ConfigError("a heatmap is SVG or PNG", where=str(out), do="end the file's name with .svg or .png")
    with Catalog.read_only(data_dir) as catalog, catalog.snapshot():
        name = the_plate(catalog, plate)
        drawn = metric_map(name, well_entries(catalog, name, catalog.wells_left_out(name)), metric)
        altered = rows_read(catalog, name).altered
    if out.suffix.lower() == ".svg":
        _write(out, svg_file(drawn).encode("utf-8"))
    else:
        from spheroidd.daemon.report.raster import to_png

        _write(out, to_png(drawn))
    action, facts = audit.Action.EXPORT_WRITTEN, {"metric": metric}
    return Written((out,), _record(data_dir, [out], [name], who, action, facts), tuple(altered))


def gather(
    catalog: CatalogReader,
    data_dir: Path,
    *,
    plate: str | None = None,
    command: str = "",
    who: str | None = None,
    now_s: float | None = None,
    compound_pages: bool | None = None,
) -> Report:
    """All that the report says; ConfigError where there is no plate, or none of that name."""
    names = [plate] if plate is not None else catalog.plates()
    if not names:
        raise ConfigError("no plate was registered here yet", where=str(data_dir), do="run one: `spheroidd run`")
    plates = tuple(plate_content(catalog, data_dir, name, every_series=compound_pages) for name in names)
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
    with_pages = any(is_screen(one.curves) for one in plates) if compound_pages is None else compound_pages
    return Report(title, byline, own_version(), plates, facts, with_pages)


def _write(path: Path, data: bytes) -> None:
    """Put a file in its place in one step, so that an older report stays whole where this one cannot be written."""
    try:
        write_atomically(path, data)
    except OSError as error:
        do = "close the file where it is open, or choose another place"
        raise StorageError(f"cannot write it: {error.strerror or error}", where=str(path), do=do) from error


def _record(
    data_dir: Path,
    files: Sequence[Path],
    plates: Sequence[str],
    who: str | None,
    action: audit.Action = audit.Action.REPORT_WRITTEN,
    facts: Mapping[str, str] | None = None,
) -> str | None:
    """Enter the files in the audit trail; the files themselves stand, whether or not the catalog can be written."""
    try:
        with Catalog.create_or_open(data_dir) as catalog:
            audit_trail.record_files(catalog, action, files, plates=plates, facts=facts, who=who)
    except SpheroiddError as error:
        return str(error)
    return None
