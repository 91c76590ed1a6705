"""What a result was measured from: one hash over the ledger's checksums of its images, and one of each label.

A row without it was scored by an older program, which did not keep it.
"""

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spheroidd.daemon.catalog.rows import dump, parameters, stack_key
from spheroidd.protocols.stack import SliceIndex, StackKey


@dataclass(frozen=True, slots=True)
class ScoredFrom:
    """`images_sha256` is `images_digest` of the slices, `labels` {name: LabelWriter.sha256} of the masks."""

    images_sha256: str
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __reduce__(self) -> tuple[object, ...]:
        return ScoredFrom, (self.images_sha256, dict(self.labels))


def images_digest(slices: Mapping[SliceIndex, int]) -> str:
    """One hash of a stack's images: sha256 over lines "channel z crc32c" (eight hexadecimal digits), by channel and z.

    >>> images_digest({SliceIndex("488", 0): 0xE3069283})[:12]
    '9f6cd22366d8'
    """
    lines = (f"{index.channel} {index.z} {slices[index]:08x}\n" for index in sorted(slices))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def put(connection: sqlite3.Connection, key: StackKey, model_sha256: str, origin: ScoredFrom) -> None:
    """Write it down beside the result, inside the caller's transaction."""
    values = {"model": model_sha256, "images": origin.images_sha256, "labels": dump(dict(origin.labels))}
    connection.execute(_PUT, {**parameters(key), **values})


def of_plate(connection: sqlite3.Connection, plate: str) -> dict[tuple[StackKey, str], ScoredFrom]:
    """A plate's, by stack and model."""
    rows = connection.execute("SELECT * FROM scored_from WHERE plate = ?", (plate,))
    return {
        (stack_key(row), row["model_sha256"]): ScoredFrom(row["images_sha256"], json.loads(row["labels_json"]))
        for row in rows
    }


_PUT = """
INSERT INTO scored_from (plate, well, stack, model_sha256, images_sha256, labels_json)
VALUES (:plate, :well, :stack, :model, :images, :labels)
ON CONFLICT DO UPDATE SET images_sha256 = excluded.images_sha256, labels_json = excluded.labels_json
"""
