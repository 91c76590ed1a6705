"""What a person drew or labelled, as one integer volume: which voxels are which object, and what the objects are.

Three formats, each in a file of its own: TrakEM2 projects (`annotations_trakem2`), label TIFFs and OME-Zarr labels
(`annotations_images`). Here are the noun they all end in and the rule by which a name means "live" or "dead".
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.resample import Spacing
from spheroidd.protocols.errors import ConfigError

LABELS = ("live", "dead")
MAX_VOXELS = 1 << 31  # 16 times a screen stack: a larger volume is a wrong number in a file
_WORDS = {
    "live": ("live", "alive", "viable", "calcein", "488"),
    "dead": ("dead", "nonviable", "pi", "propidium", "561"),
}


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Which words mean which class, in lower case: by default live, calcein, 488, ... and dead, pi, 561, ...

    A name means a class where one of its words is the class's: "Live cell 12" is live, "olive" is nothing. Whole names
    that were given (`exactly`) go before words.

    >>> ClassNames().of("Live cell 12"), ClassNames().of("olive"), ClassNames.given(live=["tumour"]).of("Tumour")
    ('live', None, 'live')
    """

    words: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType(_WORDS))
    exactly: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def given(cls, live: Iterable[str] = (), dead: Iterable[str] = ()) -> "ClassNames":
        """The usual words and these names; ConfigError where one name is given to both classes."""
        names = {
            label: {name.strip().lower() for name in given} for label, given in zip(LABELS, (live, dead), strict=True)
        }
        both = names["live"] & names["dead"]
        if both:
            raise ConfigError(f"{sorted(both)[0]!r} is given as live and as dead", do="give each name to one class")
        return cls(exactly=MappingProxyType({name: label for label in LABELS for name in names[label]}))

    def of(self, name: str) -> str | None:
        """ "live", "dead", or None where the name means neither; ConfigError where it means both."""
        known = self.exactly.get(name.strip().lower())
        if known is not None:
            return known
        words = set(re.findall(r"[^\W_]+", name.lower()))
        found = [label for label in LABELS if words & set(self.words[label])]
        if len(found) > 1:
            do = f"rename it, or say with --live or --dead which of the two {name!r} is"
            raise ConfigError(f"the name {name!r} means live and dead", do=do)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Annotation:
    """Labels (z, y, x) of whole numbers, 0 for background; the voxel size where the file tells it; names of labels.

    A label that the file does not name is called by its number ("7"). `overlap_voxels`: how many voxels two objects
    both claimed; the later object has them.
    """

    labels: NDArray[np.unsignedinteger]
    spacing_um: Spacing | None
    names: Mapping[int, str]
    where: str = ""
    overlap_voxels: int = 0

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or not np.issubdtype(self.labels.dtype, np.unsignedinteger):
            what = f"labels are {self.labels.dtype} {self.labels.shape}"
            raise ConfigError(what, where=self.where, do="give one volume (z, y, x) of whole numbers from 0")
        check_spacing(self.spacing_um, self.where)

    def classes(self, names: ClassNames | None = None) -> dict[str, tuple[int, ...]]:
        """The labels that are live and those that are dead; ConfigError where no name means either."""
        chosen = names or ClassNames()
        try:
            found = {label: chosen.of(name) for label, name in self.names.items()}
        except ConfigError as error:
            raise ConfigError(error.what, where=self.where, do=error.do) from error
        if not any(found.values()):
            known = ", ".join(sorted(set(self.names.values()))[:12]) or "none: it is empty"
            do = f"say with --live and --dead which is which; the names are: {known}"
            raise ConfigError("no name in it means live or dead", where=self.where, do=do)
        return {kind: tuple(label for label, one in found.items() if one == kind) for kind in LABELS}

    def masks(self, names: ClassNames | None = None) -> dict[str, NDArray[np.bool_]]:
        """A bool mask (z, y, x) for each class ("live", "dead") that has a label; see `classes`."""
        return {kind: np.isin(self.labels, labels) for kind, labels in self.classes(names).items() if labels}


def check_spacing(spacing_um: Spacing | None, where: str) -> None:
    """ConfigError for a voxel size (z, y, x) that cannot be one."""
    if spacing_um is not None and not all(math.isfinite(v) and 0 < v < 1e4 for v in spacing_um):
        raise ConfigError(f"its voxel size is {spacing_um}", where=where, do="give micrometres (z, y, x) above 0")


def smallest_type(n_labels: int) -> type[np.unsignedinteger]:
    """The smallest unsigned type that holds labels up to `n_labels`."""
    return np.uint8 if n_labels < 256 else np.uint16 if n_labels < 65536 else np.uint32


def micrometres(unit: str) -> float | None:
    """How many micrometres a unit is, as image programs write it; None for pixels and for what is no length.

    >>> micrometres("micron"), micrometres("nm"), micrometres("pixel")
    (1.0, 0.001, None)
    """
    plain = unit.strip().lower().replace("\\u00b5", "u").replace("µ", "u").replace("μ", "u")
    return _UNITS.get(plain)


_UNITS = (
    dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1.0)
    | dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-3)
    | dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3)
    | dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e4)
)
