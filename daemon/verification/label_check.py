"""The masks of a stack: whole, those that its row was measured from, with the volume that the row says."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import mask_digest
from spheroidd.acquisition.store.shard import SLAB_Z, ShardGrid, crc32c, decode_shard, halve_mask
from spheroidd.daemon.catalog.scored_from import ScoredFrom
from spheroidd.daemon.verification.findings import Finding, Kind
from spheroidd.daemon.verification.stack_check import Checked, StackOnDisk, Work
from spheroidd.protocols.errors import StorageError

VOLUMES = {"live": "live_um3", "dead": "dead_um3"}
COUNTS = {f"live{ngff.OBJECTS}": "n_live", f"dead{ngff.OBJECTS}": "n_dead"}


@dataclass(frozen=True, slots=True)
class Rows:
    """A stack's rows by model: what each was measured from, where that is known, its volumes and counts by label."""

    origins: Mapping[str, ScoredFrom]
    volumes: Mapping[str, Mapping[str, float | None]]
    counts: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)


def label_work(stack: StackOnDisk, rows: Rows) -> Iterator[Work]:
    """The pieces of work, a label each."""
    wanted = {name for origin in rows.origins.values() for name in origin.labels}
    folder = ngff.image_path(stack.data_dir, stack.key) / "labels"
    there = {path.parent.name for path in folder.glob("*/zarr.json")} if folder.is_dir() else set()
    for name in sorted(wanted | there):
        yield _ObjectsWork(stack, name, rows) if name in COUNTS else _LabelWork(stack, name, rows)


@dataclass(frozen=True, slots=True)
class _ObjectsWork:
    """Numbered objects: as many as the row counted, each there, and a row of the table for each."""

    stack: StackOnDisk
    name: str
    rows: Rows

    def __call__(self) -> Checked:
        import zarr

        found = Checked()
        folder = ngff.label_path(self.stack.data_dir, self.stack.key, self.name)
        try:
            model = str(ngff.read_attributes(folder).get(ngff.OWN, {}).get("model_sha256"))
            array = zarr.open_array(folder / "0", mode="r")
            ids = np.unique(np.asarray(array[...]))
        except (OSError, StorageError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            what = f"the objects {self.name!r} cannot be read: {getattr(error, 'what', None) or error}"
            found.findings.append(self.stack.finding(Kind.DAMAGED_SHARD, what, folder, channel=self.name))
            return found
        n = int(np.count_nonzero(ids))
        said = self.rows.counts.get(model, {}).get(self.name)
        if said is not None and (n != said or ids.max(initial=0) != n):
            what = f"the row counts {said} of {self.name!r}, the label image holds {n}"
            found.findings.append(self.stack.finding(Kind.ORIGIN, what, folder, channel=self.name))
        return found


@dataclass(frozen=True, slots=True)
class _LabelWork:
    stack: StackOnDisk
    name: str
    rows: Rows

    def __call__(self) -> Checked:
        found = Checked()
        folder = ngff.image_path(self.stack.data_dir, self.stack.key) / "labels" / self.name
        try:
            attributes = ngff.read_attributes(folder)
        except (OSError, StorageError) as error:
            what = f"the label {self.name!r} has no metadata: {getattr(error, 'what', error)}"
            found.findings.append(self.stack.finding(Kind.MISSING_SHARD, what, folder))
            return found
        self._metadata(folder, attributes, found)
        crcs, voxels = self._planes(folder, found)
        if crcs is not None:
            self._row(folder, attributes, mask_digest(crcs), voxels, found)
        return found

    def _metadata(self, folder: Path, attributes: Mapping[str, Any], found: Checked) -> None:
        expected = ngff.label_attributes(self.stack.plan, self.name, {})["ome"]
        ome = attributes.get("ome", {})
        if not isinstance(ome, dict) or ome.get("multiscales") != expected["multiscales"]:
            what = f"the label {self.name!r} has other voxels or axes than the catalog's plan"
            found.findings.append(self.stack.finding(Kind.METADATA, what, folder / "zarr.json"))

    def _planes(self, folder: Path, found: Checked) -> tuple[list[int] | None, int]:
        """The crc32c of every plane, None where one cannot be had, and how many voxels are set."""
        plan, n_before = self.stack.plan, len(found.findings)
        shapes = ngff.level_shapes(plan.height, plan.width)
        grids = [ShardGrid.fit(y, x, np.dtype(np.uint8), SLAB_Z) for y, x in shapes]
        crcs: list[int] = []
        voxels = 0
        for number in range(-(-plan.n_z // SLAB_Z)):
            masks = None
            zs = range(number * SLAB_Z, min((number + 1) * SLAB_Z, plan.n_z))
            for level, grid in enumerate(grids):
                path = ngff.shard_path(folder / str(level), number)
                place = {"channel": self.name, "z": (zs[0], zs[-1]), "level": level}
                try:
                    header, planes = decode_shard(path, grid)
                    found.file_bytes += path.stat().st_size
                    found.shards += 1
                except FileNotFoundError:
                    what = "the file of the masks is gone"
                    found.findings.append(self.stack.finding(Kind.MISSING_SHARD, what, path, **place))
                    masks = None
                    continue
                except (OSError, StorageError, ValueError, MemoryError) as error:
                    what = f"the masks: {getattr(error, 'what', None) or error}"
                    found.findings.append(self.stack.finding(Kind.DAMAGED_SHARD, what, path, **place))
                    masks = None
                    continue
                if level == 0:
                    seen = [crc32c(plane) for plane in planes[: len(zs)]]
                    if seen != [header.crcs.get(z) for z in zs]:
                        what = "the masks are not those that were written: bits have changed"
                        found.findings.append(self.stack.finding(Kind.DAMAGED_SHARD, what, path, **place))
                        continue
                    crcs += seen
                    voxels += int(np.count_nonzero(planes[: len(zs)]))
                elif masks is not None and not np.array_equal(planes, masks):
                    what = "a coarser level of the masks is not what follows from the full resolution"
                    found.findings.append(self.stack.finding(Kind.PYRAMID, what, path, **place))
                masks = halve_mask(planes)
        whole = len(crcs) == plan.n_z
        if not whole and len(found.findings) == n_before:
            raise AssertionError("a plane of a label was neither read nor missed")
        return (crcs if whole else None), voxels

    def _row(self, folder: Path, attributes: Mapping[str, Any], digest: str, voxels: int, found: Checked) -> None:
        """The masks against the row that was measured from them."""
        own = attributes.get(ngff.OWN, {})
        model = str(own.get("model_sha256")) if isinstance(own, dict) else ""
        if model not in self.rows.volumes:
            what = f"the masks {self.name!r} are of model {model[:12]}, which has no row for this stack"
            found.findings.append(self._of_label(folder, Kind.LABEL, what))
            return
        origin = self.rows.origins.get(model)
        if origin is not None and origin.labels.get(self.name) != digest:
            what = f"the masks {self.name!r} are not those that the row was measured from"
            found.findings.append(self._of_label(folder, Kind.LABEL, what))
            return
        said = self.rows.volumes[model].get(self.name)
        volume = voxels * self.stack.plan.voxel_um3
        if said is not None and not math.isclose(said, volume, rel_tol=1e-6, abs_tol=self.stack.plan.voxel_um3 / 2):
            what = f"the row says {VOLUMES[self.name]} {said:g}, its masks have {volume:g}"
            found.findings.append(self._of_label(folder, Kind.ORIGIN, what))

    def _of_label(self, folder: Path, kind: Kind, what: str) -> Finding:
        return self.stack.finding(kind, what, folder, channel=self.name)
