"""The catalog's rows of evidence: how bright stacks are, and what masks look like beside them. JSON, because only rules
read it, all of it at once.

`Catalog.put_stack_light` and `put_mask_evidence`, `CatalogReader.stack_lights` and `mask_evidence` call them.
"""

import json
import sqlite3

from spheroidd.daemon.catalog.rows import OF_STACK, dump, parameters, stack_key
from spheroidd.protocols.evidence import MaskEvidence, StackLight
from spheroidd.protocols.stack import StackKey


def put_light(connection: sqlite3.Connection, key: StackKey, light: StackLight, now_s: float) -> None:
    """Write a stack's light down inside the caller's transaction; another replaces it."""
    connection.execute(_LIGHT, {**parameters(key), "light": dump(light.to_json()), "now": now_s})


def lights(connection: sqlite3.Connection, plate: str, only: StackKey | None = None) -> dict[StackKey, StackLight]:
    """The light of a plate's stacks, or of one of them."""
    where, values = _where(plate, only)
    rows = connection.execute(f"SELECT * FROM stack_light WHERE {where}", values)
    return {stack_key(row): StackLight.from_json(json.loads(row["light_json"])) for row in rows}


def put_masks(
    connection: sqlite3.Connection, key: StackKey, model_sha256: str, found: MaskEvidence, now_s: float
) -> None:
    """Write down what one model's masks look like, inside the caller's transaction; another replaces it."""
    values = {**parameters(key), "model": model_sha256, "evidence": dump(found.to_json()), "now": now_s}
    connection.execute(_MASKS, values)


def masks(
    connection: sqlite3.Connection, plate: str, model_sha256: str, only: StackKey | None = None
) -> dict[StackKey, MaskEvidence]:
    """What one model's masks of a plate's stacks look like, or of one of them."""
    where, values = _where(plate, only)
    sql = f"SELECT * FROM mask_evidence WHERE {where} AND model_sha256 = :model"
    rows = connection.execute(sql, {**values, "model": model_sha256})
    return {stack_key(row): MaskEvidence.from_json(json.loads(row["evidence_json"])) for row in rows}


def _where(plate: str, only: StackKey | None) -> tuple[str, dict[str, str | int]]:
    return (OF_STACK, parameters(only)) if only is not None else ("plate = :plate", {"plate": plate})


_MASKS = """
REPLACE INTO mask_evidence (plate, well, stack, model_sha256, evidence_json, measured_s)
VALUES (:plate, :well, :stack, :model, :evidence, :now)
"""
_LIGHT = """
REPLACE INTO stack_light (plate, well, stack, light_json, measured_s) VALUES (:plate, :well, :stack, :light, :now)
"""
