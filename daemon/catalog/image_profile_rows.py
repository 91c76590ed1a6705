"""The catalog's rows of what stacks' images say of themselves: written once a stack is measured, read for its plate.

`Catalog.put_stack_profile`, `CatalogReader.stack_profiles` and `CatalogReader.repeated_slices` are their callers.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from spheroidd.daemon.catalog.rows import OF_STACK, dump, parameters, stack_key
from spheroidd.protocols.results import ChannelProfile, StackProfile
from spheroidd.protocols.stack import SliceIndex, StackKey


def put(connection: sqlite3.Connection, key: StackKey, profile: StackProfile, now_s: float) -> None:
    """Write a stack's profile down inside the caller's transaction; the same again is harmless, another replaces it."""
    stack = parameters(key)
    own = {"drift_um": profile.drift_um, "jump_um": profile.jump_um, "jump_z": profile.jump_z}
    connection.execute(_STACK, {**stack, **own, "now": now_s})
    for channel, seen in profile.channels.items():
        figures = {name: getattr(seen, name) for name in _FIGURES}
        means = dump(list(seen.mean_adu_by_z))
        connection.execute(_CHANNEL, {**stack, "channel": channel, **figures, "means": means})


def profiles(connection: sqlite3.Connection, plate: str, only: StackKey | None = None) -> dict[StackKey, StackProfile]:
    """The profiles of a plate's stacks, or of one of them; a stack that was not measured is not among them."""
    where = OF_STACK if only is not None else "plate = :plate"
    values = parameters(only) if only is not None else {"plate": plate}
    channels: dict[StackKey, dict[str, ChannelProfile]] = {}
    for row in connection.execute(f"SELECT * FROM channel_quality WHERE {where} ORDER BY channel", values):
        channels.setdefault(stack_key(row), {})[row["channel"]] = _channel(row)
    return {
        key: StackProfile(channels.get(key, {}), row["drift_um"], row["jump_um"], row["jump_z"])
        for row in connection.execute(f"SELECT * FROM stack_quality WHERE {where}", values)
        for key in [stack_key(row)]
    }


def repeated(connection: sqlite3.Connection, plate: str) -> dict[StackKey, tuple[SliceIndex, ...]]:
    """The slices whose bytes are those of the slice below them or of the other channel, by the ledger's checksums.

    Two different images have the same crc32c once in four thousand million pairs; a camera's noise never repeats.
    """
    found: dict[StackKey, list[SliceIndex]] = {}
    for row in connection.execute(_REPEATED, {"plate": plate}):
        found.setdefault(stack_key(row), []).append(SliceIndex(row["channel"], row["z"]))
    return {key: tuple(slices) for key, slices in found.items()}


def _channel(row: Mapping[str, Any]) -> ChannelProfile:
    return ChannelProfile(tuple(json.loads(row["mean_adu_by_z_json"])), **{name: row[name] for name in _FIGURES})


_FIGURES = ("floor_adu", "contrast_adu", "sharpness", "saturated_share", "hot_share", "detail")
_STACK = """
INSERT INTO stack_quality (plate, well, stack, drift_um, jump_um, jump_z, measured_s)
VALUES (:plate, :well, :stack, :drift_um, :jump_um, :jump_z, :now)
ON CONFLICT DO UPDATE SET drift_um = excluded.drift_um, jump_um = excluded.jump_um, jump_z = excluded.jump_z,
  measured_s = excluded.measured_s
"""
_CHANNEL = """
REPLACE INTO channel_quality (plate, well, stack, channel, floor_adu, contrast_adu, sharpness, saturated_share,
  hot_share, detail, mean_adu_by_z_json)
VALUES (:plate, :well, :stack, :channel, :floor_adu, :contrast_adu, :sharpness, :saturated_share, :hot_share, :detail,
  :means)
"""
# The checksums that a stack has twice are few or none: found first, so that no slice is compared with all others.
_REPEATED = """
WITH twice AS (
  SELECT plate, well, stack, crc32c FROM slices WHERE plate = :plate
  GROUP BY plate, well, stack, crc32c HAVING count(*) > 1)
SELECT plate, well, stack, later.channel AS channel, later.z AS z
FROM twice JOIN slices AS later USING (plate, well, stack, crc32c)
  JOIN slices AS other USING (plate, well, stack, crc32c)
WHERE (other.channel = later.channel AND other.z = later.z - 1)
  OR (other.channel < later.channel AND other.z = later.z)
GROUP BY plate, well, stack, later.channel, later.z ORDER BY well, stack, later.z, later.channel
"""
