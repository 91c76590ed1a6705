"""Where a report's figures come from: what was imaged and when, by which model, out of which bytes."""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import version

from spheroidd.daemon.catalog import audit_trail
from spheroidd.daemon.catalog.audit_chain import Action, sha256_of
from spheroidd.daemon.catalog.found_widths import found_width
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import dump
from spheroidd.daemon.catalog.transaction import translated
from spheroidd.daemon.report import wording as words
from spheroidd.daemon.verification.read_check import rows_read
from spheroidd.protocols.results import WellResult
from spheroidd.protocols.stack import StackPlan

Facts = tuple[tuple[str, str], ...]


def plate_facts(catalog: CatalogReader, plate: str) -> Facts:
    """What a plate's figures rest on, name and value."""
    stacks = catalog.stacks(plate)
    began = [row.opened_s for row in stacks if row.opened_s is not None]
    ended = [row.last_acked_s for row in stacks if row.last_acked_s is not None]
    results = [row.result for row in catalog.result_rows(plate)]
    limits = catalog.locked_limits(plate)
    n_slices, raw = raw_digest(catalog, plate)
    checked = rows_read(catalog, plate)
    return (
        ("Imaged", words.span(min(began), max(ended)) if began and ended else words.UNKNOWN),
        ("Runs", _runs(catalog, plate)),
        ("Stacks", f"{len(stacks)}; {', '.join(geometries(row.plan for row in stacks)) or words.UNKNOWN}"),
        ("Model, SHA-256", _each(result.model_sha256 for result in results)),
        ("Model's precision", _each(result.precision for result in results)),
        ("Width of a cell", _widths(catalog, plate, results)),
        ("Intensity normalisation", _each(result.normalisation for result in results)),
        (
            "Locked intensity limits",
            "; ".join(f"{channel} nm: {limit.low:g} to {limit.high:g}" for channel, limit in limits.items())
            if limits
            else "none",
        ),
        ("Configuration, SHA-256", sha256_of(catalog.plate_config(plate))),
        ("Plate map, SHA-256", map_digest(catalog, plate)),
        (f"Raw data, SHA-256 over {n_slices} slices", raw),
        ("Rows of the catalog", checked.rows),
        ("Images and masks verified", checked.images),
    )


def _runs(catalog: CatalogReader, plate: str) -> str:
    """Who started, resumed and re-scored the plate, and when; "not known" for a plate older than the audit trail."""
    actions = (Action.RUN_STARTED, Action.RUN_RESUMED, Action.RESCORE_STARTED)
    found = [event for event in audit_trail.events(catalog, plate=plate) if event.action in actions]
    return "; ".join(f"{event.action} {event.at_utc} by {event.who}" for event in found) or "not known"


def _widths(catalog: CatalogReader, plate: str, results: Iterable[WellResult]) -> str:
    """How wide cells were taken to be, and who said so."""
    found_um = found_width(catalog, plate, "").um
    taken = sorted({result.cell_diameter_um for result in results if result.cell_diameter_um is not None})
    return (
        "; ".join(f"{um:g} µm, {'found by its own rows' if um == found_um else 'stated'}" for um in taken) or "as usual"
    )


def geometries(plans: Iterable[StackPlan]) -> list[str]:
    """The different shapes of stacks, in words."""
    shapes = (
        f"{' + '.join(plan.channels)} nm, {plan.n_z} slices of {plan.width} × {plan.height} pixels, voxel "
        f"{plan.pixel_um:g} × {plan.pixel_um:g} × {plan.z_step_um:g} µm, {plan.dtype}"
        for plan in plans
    )
    return list(dict.fromkeys(shapes))


def map_digest(catalog: CatalogReader, plate: str) -> str:
    """The hash of the plate map as the audit trail takes it."""
    columns = "well, role, compound, dose_um, patient, pixel_um, z_step_um"
    rows = catalog.query(f"SELECT {columns} FROM wells WHERE plate = :plate ORDER BY ordinal", {"plate": plate})
    return sha256_of(dump([list(row.values()) for row in rows]))


def raw_digest(catalog: CatalogReader, plate: str) -> tuple[int, str]:
    """How many slices of a plate are acknowledged, and one hash of all their bytes.

    sha256 over lines "well stack channel z crc32c" (crc32c in eight hexadecimal digits), each with a line feed, sorted
    by well, stack, channel and z: the ledger's own checksums, taken when each slice arrived.
    """
    sql = """SELECT well || ' ' || stack || ' ' || channel || ' ' || z || ' ' || printf('%08x', crc32c)
             FROM slices WHERE plate = :plate ORDER BY well, stack, channel, z"""
    n_slices, hashed = 0, hashlib.sha256()
    with translated(catalog.path):
        for (line,) in catalog.connection.execute(sql, {"plate": plate}):  # one at a time: a plate has a million
            n_slices += 1
            hashed.update(f"{line}\n".encode())
    return n_slices, hashed.hexdigest()


def program_facts(run_version: str | None) -> Facts:
    """The programs that made the figures."""
    own = own_version()
    ran = f"; the last run was by spheroidd {run_version}" if run_version not in (None, own) else ""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "torch", "zarr"))
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return (("Software", f"spheroidd {own}{ran}"), ("Libraries", f"{libraries}; {system}"))


def _each(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value)) or "none"


def own_version() -> str:
    """The version of this program."""
    return version("spheroidd")
