"""The pieces of work that a whole data directory comes to, stack by stack, and what the pieces of a stack amount to."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.image_folder import images_root
from spheroidd.acquisition.store.kept_raw import is_dropped
from spheroidd.daemon.catalog import scored_from
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import OF_STACK, StackRow, parameters, stack_key
from spheroidd.daemon.verification.findings import Finding, Kind
from spheroidd.daemon.verification.label_check import COUNTS, VOLUMES, Rows, label_work
from spheroidd.daemon.verification.metadata_check import plate_metadata, stack_metadata
from spheroidd.daemon.verification.stack_check import Checked, StackOnDisk, Work, finding_of, image_work
from spheroidd.protocols.stack import SliceIndex, StackKey

_MODELS = f"SELECT model_sha256, live_um3, dead_um3, n_live, n_dead FROM results WHERE {OF_STACK}"
_SAME_SLICE = """SELECT plate, well, stack FROM slices
WHERE channel = :channel AND z = :z AND crc32c = :crc AND NOT (plate = :plate AND well = :well AND stack = :stack)"""
_PIXELS_OF_ANOTHER = (Kind.OTHER_PIXELS, Kind.METADATA, Kind.LABEL, Kind.ORIGIN, Kind.PYRAMID)


@dataclass(frozen=True, slots=True)
class StackWork:
    """One stack's pieces. `digest` is that of its ledger: what a pass that is resumed knows it by."""

    key: StackKey
    digest: str
    n_bytes: int
    n_slices: int
    ledger: Mapping[SliceIndex, int]
    pieces: tuple[Work, ...]


def stack_work(catalog: CatalogReader, data_dir: Path, row: StackRow) -> StackWork:
    """What there is to check of a stack; of one without acknowledged slices, nothing."""
    ledger = catalog.acknowledged(row.key)
    pieces: tuple[Work, ...] = ()
    if ledger:
        if ngff.stored_path(data_dir, row.plan).is_dir():
            stack = StackOnDisk(data_dir, row.plan)
            rows = _rows(catalog, row.key)
            dropped = row.plan.raw is not None and is_dropped(data_dir, row.key)
            pieces = (
                lambda: Checked(list(stack_metadata(stack))),
                *(() if dropped else image_work(stack, ledger)),
                *label_work(stack, rows),
            )
        else:
            pieces = (lambda: _gone(data_dir, row, len(ledger)),)
    n_bytes = row.plan.n_bytes // row.plan.n_slices * len(ledger)
    return StackWork(row.key, scored_from.images_digest(ledger), n_bytes, len(ledger), ledger, pieces)


def _rows(catalog: CatalogReader, key: StackKey) -> Rows:
    found = scored_from.of_plate(catalog.connection, key.plate)
    rows = {row["model_sha256"]: row for row in catalog.query(_MODELS, parameters(key))}
    volumes, counts = (
        {model: {name: row[column] for name, column in columns.items()} for model, row in rows.items()}
        for columns in (VOLUMES, COUNTS)
    )
    return Rows({model: origin for (of, model), origin in found.items() if of == key}, volumes, counts)


def _gone(data_dir: Path, row: StackRow, n_slices: int) -> Checked:
    path = ngff.stored_path(data_dir, row.plan)
    what = f"the stack's folder is gone, with {n_slices} acknowledged slices"
    return Checked([finding_of(row.key, data_dir, Kind.MISSING_SHARD, what, path)], slices=n_slices)


def conclude(catalog: CatalogReader, data_dir: Path, work: StackWork, done: Iterable[Checked]) -> Checked:
    """The pieces of a stack together. A stack that is another one is one finding, and not one a shard."""
    whole = Checked()
    for piece in done:
        whole.findings += piece.findings
        whole.seen |= piece.seen
        for name in ("slices", "shards", "pixel_bytes", "file_bytes"):
            setattr(whole, name, getattr(whole, name) + getattr(piece, name))
    if whole.seen and all(work.ledger.get(index) != crc for index, crc in whole.seen.items()):
        other = _whose(catalog, work.key, whole.seen)
        if other is not None:
            path = ngff.image_path(data_dir, work.key)
            what = f"its folder holds the images of {other}"
            rest = [finding for finding in whole.findings if finding.kind not in _PIXELS_OF_ANOTHER]
            whole.findings = [finding_of(work.key, data_dir, Kind.SWAPPED, what, path), *rest]
    return whole


def _whose(catalog: CatalogReader, key: StackKey, seen: Mapping[SliceIndex, int]) -> StackKey | None:
    """The stack whose ledger has these slices."""
    index = min(seen)
    asked = {**parameters(key), "channel": index.channel, "z": index.z, "crc": seen[index]}
    for row in catalog.query(_SAME_SLICE, asked):
        other = stack_key(row)
        ledger = catalog.acknowledged(other)
        if all(ledger.get(one) == crc for one, crc in seen.items()):
            return other
    return None


def directory_findings(catalog: CatalogReader, data_dir: Path) -> Iterator[Finding]:
    """What is wrong beside the stacks: the plates' own metadata, and plates and stacks that only the disk knows."""
    plates = catalog.plates()
    for plate in plates:
        yield from plate_metadata(catalog, data_dir, plate)
    for folder in sorted(images_root(data_dir).glob("*.ome.zarr")):
        if folder.name.removesuffix(".ome.zarr") not in plates:
            yield Finding(Kind.STRANGER, f"{folder.name} belongs to no plate of the catalog", path=folder.name)
