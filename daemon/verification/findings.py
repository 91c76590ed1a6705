"""What can be wrong with a data directory, what to do about each, and a report of what was found."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from spheroidd.protocols.faults import FaultCode

INTACT, LOOK, DAMAGED = 0, 1, 3  # exit codes of `spheroidd verify`


class Kind(StrEnum):
    """A kind of finding; `docs/verify.md` shows this table, and a test compares the two."""

    is_damage: bool
    meaning: str
    do: str

    def __new__(cls, name: str, is_damage: bool, meaning: str, do: str) -> Self:
        """A row of the table."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.is_damage, member.meaning, member.do = is_damage, meaning, do
        return member

    CATALOG = (
        "catalog",
        True,
        "the catalog is missing, cut short, or SQLite finds its file damaged",
        "restore catalog.sqlite from a backup; the images are not touched by it",
    )
    ROW = (
        "row",
        True,
        "a row of the catalog has other values than the daemon wrote, is missing, or was added by another program",
        "restore catalog.sqlite from a backup, or compare the row with a copy from before",
    )
    AUDIT = (
        "audit",
        True,
        "the audit trail, or a figure that it vouches for, was changed",
        "compare the catalog with a copy from before: `spheroidd audit verify` says more",
    )
    LEDGER = (
        "ledger",
        True,
        "the ledger breaks its own rules: a stored stack lacks slices, a slice is in no plan",
        "restore catalog.sqlite from a backup",
    )
    MISSING_SHARD = (
        "missing-shard",
        True,
        "a file with acknowledged slices, a coarser level of them, or masks is gone",
        "restore the file from a backup; without one take the stack again, or score it again where masks are missing",
    )
    DAMAGED_SHARD = (
        FaultCode.DAMAGED_SHARD.value,  # the same damage that a run meets while it reads
        True,
        "a file of images or masks does not decode: cut short, zeroed, a flipped bit",
        "restore the file from a backup; without one take the stack again, or score it again where masks are damaged",
    )
    OTHER_PIXELS = (
        "other-pixels",
        True,
        "slices read well and have other pixels than were acknowledged: the file was replaced or changed",
        "restore the file from a backup; without one take the stack again",
    )
    SWAPPED = (
        "swapped",
        True,
        "a stack's folder holds the images of another stack: wells were exchanged or copied over",
        "move the folder back to where it belongs, or restore both from a backup",
    )
    METADATA = (
        "metadata",
        True,
        "a zarr.json (voxel size, shape, channels, treatments) is missing or says other than the catalog",
        "restore the zarr.json from a backup; the figures in the catalog were made with the catalog's values",
    )
    PYRAMID = (
        "pyramid",
        True,
        "a coarser level is not the one that follows from the full resolution",
        "restore the file from a backup; figures are not affected, pictures are",
    )
    LABEL = (
        "label",
        True,
        "masks are not those that the row was measured from",
        "restore the label from a backup, or score the stack again",
    )
    ORIGIN = (
        "origin",
        True,
        "a row was measured from other images than the ledger has, or its volume is not that of its masks",
        "score the stack again",
    )
    UNREADABLE = (
        "unreadable",
        True,
        "the disk refuses to give a file",
        "copy what can be read to another disk, then restore the rest from a backup",
    )
    WAITING = (
        "waiting",
        False,
        "acknowledged slices lie in the ring and not yet in Zarr, or a stack is still being taken",
        "let `spheroidd run` go on: it brings them to Zarr; then verify again",
    )
    SET_ASIDE = (
        "set-aside",
        False,
        "a damaged file was set aside by the daemon, and its slices were taken again",
        "nothing is lost; delete the file when it was looked at",
    )
    STRANGER = (
        "stranger",
        False,
        "a stack on disk of which the catalog knows nothing",
        "move it elsewhere if it does not belong to this plate",
    )
    UNSEALED = (
        "unsealed",
        False,
        "the catalog is from before rows had digests: an altered row does not show",
        "`spheroidd run`, `score` or `export` with this program adds them",
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `z` are the first and the last slice; level 0 is the full resolution."""

    kind: Kind
    what: str
    plate: str | None = None
    well: str | None = None
    stack: int | None = None
    channel: str | None = None
    z: tuple[int, int] | None = None
    level: int | None = None
    path: str | None = None  # within the data directory

    @property
    def place(self) -> str:
        """Where it is, in words."""
        parts = ["/".join(str(part) for part in (self.plate, self.well, self.stack) if part is not None)]
        if self.channel is not None:
            parts.append(f"channel {self.channel}")
        if self.z is not None:
            parts.append(f"z {self.z[0]}" if self.z[0] == self.z[1] else f"z {self.z[0]}-{self.z[1]}")
        if self.level is not None:
            parts.append(f"level {self.level}")
        return " ".join(part for part in parts if part) or "catalog.sqlite"

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"

    def values(self) -> dict[str, Any]:
        """As plain values, with what to do."""
        return {**asdict(self), "kind": self.kind.value, "damage": self.kind.is_damage, "do": self.kind.do}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `values`."""
        known = {name: values[name] for name in cls.__slots__}
        return cls(**{**known, "kind": _KINDS[values["kind"]], "z": tuple(values["z"]) if values["z"] else None})


_KINDS = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Report:
    """What a whole pass found. Bytes are of decoded full-resolution pixels, and of files; seconds since 1970."""

    data_dir: str
    findings: tuple[Finding, ...]
    stacks: int
    slices: int
    rows: int
    events: int
    shards: int
    pixel_bytes: int
    file_bytes: int
    started_s: float
    seconds: float
    deep: bool
    resumed: int = 0  # stacks that an interrupted pass had done
    notes: tuple[str, ...] = ()

    @property
    def damage(self) -> int:
        """How many findings are damage."""
        return sum(finding.kind.is_damage for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 intact, 1 something to look at, 3 damage."""
        return DAMAGED if self.damage else LOOK if self.findings else INTACT

    @property
    def mb_per_s(self) -> float | None:
        """Megabytes of full-resolution pixels that were checked in a second; None where there were none."""
        return self.pixel_bytes / 1e6 / self.seconds if self.pixel_bytes and self.seconds > 0 else None

    def kinds(self) -> dict[str, int]:
        """How many findings of each kind."""
        return dict(Counter(finding.kind.value for finding in self.findings))

    def to_json(self) -> str:
        """One JSON object."""
        verdict = {DAMAGED: "damaged", LOOK: "look", INTACT: "intact"}[self.exit_code]
        values = {**asdict(self), "findings": [finding.values() for finding in self.findings]}
        return json.dumps({"verdict": verdict, "kinds": self.kinds(), "mb_per_s": self.mb_per_s, **values}, indent=1)
