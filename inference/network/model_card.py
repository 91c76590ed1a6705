"""What a network is: its shape, and the card beside its weights. Needs no torch, so that any process can ask."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path
from typing import Any

from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.json_text import parse_json

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
DEFAULT_MODEL = "emulator"

DEFAULT_ARCHITECTURE = "ResidualUNet"

_CARD_FORMAT = 1
_BY_DIMENSIONS = {3: DEFAULT_ARCHITECTURE, 2: "SlicewiseUNet"}
_MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class UNetSettings:
    """All that decides the network's shape, and the voxel size (z, y, x) it was made for.

    Level i works at 1 / 2**i of the input's resolution with base * 2**i features, at most `max_features`. The density
    branch ends at `density_level`: a density has no edges, and its full-resolution half would double the time.
    `architecture` names a network of `build.ARCHITECTURES`, which says what these numbers mean to it; the slicewise
    2-D U-Net has none of the parts that `residual`, `deep_supervision` and `density` switch off. `dimensions` is how
    files from before `architecture` chose between the first two.
    """

    base: int = 8
    levels: int = 3
    spacing_um: tuple[float, float, float] = (1.0, 1.0, 1.0)
    in_channels: int = 2
    max_features: int = 128
    density_level: int = 1
    architecture: str = DEFAULT_ARCHITECTURE
    residual: bool = True
    deep_supervision: bool = True
    density: bool = True
    dimensions: InitVar[int | None] = None

    def __post_init__(self, dimensions: int | None) -> None:
        if dimensions is not None:
            object.__setattr__(self, "architecture", _older_choice(dimensions, self.architecture))
        object.__setattr__(self, "spacing_um", tuple(float(v) for v in self.spacing_um))  # JSON knows lists only
        if self.base < 1 or not 2 <= self.levels <= 4 or not 0 <= self.density_level < self.levels - 1:
            what = f"a U-Net of base {self.base}, {self.levels} levels and density level {self.density_level}"
            raise ModelError(f"{what} cannot be built", do="use base >= 1, levels 2 to 4, density_level < levels - 1")
        if min(self.in_channels, self.max_features) < 1:
            what = f"a U-Net of {self.in_channels} channels and at most {self.max_features} features cannot be built"
            raise ModelError(what, do="use 1 or more of each")
        if len(self.spacing_um) != 3 or not all(0 < v < math.inf for v in self.spacing_um):
            raise ModelError(f"spacing_um is {self.spacing_um}", do="give three lengths in micrometres above 0")

    @property
    def multiple(self) -> int:
        """Every side of an input, and every tile's origin, is a multiple of this, so that the pooling grids agree."""
        return 1 << (self.levels - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Features at each level, finest first."""
        return tuple(min(self.base * 2**level, self.max_features) for level in range(self.levels))


def _older_choice(dimensions: int, architecture: str) -> str:
    """The architecture that a file without one means; ModelError where it has one too, and another."""
    if dimensions not in _BY_DIMENSIONS:
        what = f"a U-Net of {dimensions} dimensions cannot be built"
        raise ModelError(what, do="leave `dimensions` out and name the `architecture`")
    chosen = _BY_DIMENSIONS[dimensions]
    if architecture not in (DEFAULT_ARCHITECTURE, chosen):
        what = f"`dimensions` {dimensions} means {chosen}, and `architecture` is {architecture}"
        raise ModelError(what, do="leave `dimensions` out")
    return chosen


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a set of weights is, how it came about and how good it was; the JSON beside the weights.

    `background`: a region in which no channel varies by as much holds no cell (None: never skip). `halo`: voxels of
    context a tile needs on each side. `normalisation`: the kinds of limits it saw in training. `command`, `seeds`: what
    made it. `metrics`: what the validation printed. `sha256`: of the safetensors file. `data_sha256`: of what it learnt
    from. `probe`: what it answers to a known input (`model_probe`). `tradeoff`: its rivals, one mapping each with
    spacing_um, base, levels, live_dice, dead_dice and cpu_s. Cards from before a field existed lack it.
    """

    name: str
    settings: UNetSettings
    halo: int
    sha256: str
    background: float | None = None
    normalisation: tuple[str, ...] = ("stack", "plate")
    command: str = ""
    seeds: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    data_sha256: str = ""
    probe: Mapping[str, Any] = field(default_factory=dict)
    tradeoff: Sequence[Mapping[str, Any]] = ()

    def as_json(self) -> dict[str, Any]:
        """The card as a JSON object."""
        content = {item: getattr(self, item) for item in self.__dataclass_fields__}
        about = {"format": _CARD_FORMAT, "architecture": self.settings.architecture}
        return {**about, **content, "settings": asdict(self.settings)}


def find_weights(name_or_path: str | Path | None = None) -> Path:
    """The .safetensors file meant: a path to it or its card, a name that ships here, or "default", as None, for that.

    ModelError where there is none.
    """
    name_or_path = DEFAULT_MODEL if name_or_path in (None, "default") else name_or_path
    path = Path(name_or_path)
    if path.suffix not in (".safetensors", ".json"):
        path = WEIGHTS_FOLDER / f"{name_or_path}.safetensors"
    path = path.with_suffix(".safetensors")
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        shipped = ", ".join(sorted(_shipped())) or "none"
        raise ModelError("there are no such weights", where=str(path), do=f"give a path, or one of: {shipped}")
    return path


def ships(name: str) -> bool:
    """Whether it is the bare name of a network that ships here."""
    return name in _shipped()


def _shipped() -> set[str]:
    return {file.stem for file in WEIGHTS_FOLDER.glob("*.safetensors")} - {"regressor"}


def read_card(name_or_path: str | Path | None = None) -> ModelCard:
    """The card of a model, named as in `find_weights`; ModelError names what is wrong with it."""
    path = find_weights(name_or_path).with_suffix(".json")
    try:
        content = parse_json(read_bounded(path, _MAX_CARD_BYTES))
    except ValueError as error:
        raise _not_a_card(error, str(path)) from error
    return card_from(content, str(path))


def card_from(content: Mapping[str, Any], where: str) -> ModelCard:
    """The card in a JSON object; ModelError where it is none, or of another version."""
    try:
        fields = dict(content)
        version, architecture = fields.pop("format"), fields.pop("architecture")
        _check_kinds(fields["settings"], _SETTINGS_KINDS)
        fields["settings"] = UNetSettings(**fields["settings"])
        if version != _CARD_FORMAT or architecture != fields["settings"].architecture:
            raise ValueError("it is for another network or of another format")
        _check_kinds(fields, _KINDS)
        fields["normalisation"] = tuple(fields["normalisation"])
        card = ModelCard(**fields)
        check_model_name(card.name)
        if card.halo < 0:
            raise ValueError(f"halo is {card.halo}")
        return card
    except ModelError as error:
        raise ModelError(error.what, where=where, do="use the card that belongs to the weights") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _not_a_card(error, where) from error


_SETTINGS_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("base", "levels", "in_channels", "max_features", "density_level", "dimensions"), (int,)),
    "architecture": (str,),
    "spacing_um": (list, tuple),
}
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "sha256", "command", "description", "data_sha256"), (str,)),
    **dict.fromkeys(("seeds", "metrics", "probe"), (Mapping,)),
    **dict.fromkeys(("normalisation", "tradeoff"), (list, tuple)),
    "halo": (int,),
    "background": (int, float, type(None)),
}


def _check_kinds(fields: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse what JSON can hold and a card cannot: a dataclass takes whatever it is given."""
    for name, value in fields.items():
        if not isinstance(value, kinds.get(name, object)) or (isinstance(value, bool) and name in kinds):
            raise TypeError(f"{name} is {value!r:.60}")
    if any(not isinstance(row, Mapping) for row in fields.get("tradeoff", ())):
        raise TypeError("tradeoff holds what is no row")


def _not_a_card(error: Exception, where: str) -> ModelError:
    return ModelError(
        f"not a model card of this version: {error!r}", where=where, do="use the card that belongs to the weights"
    )


def check_model_name(name: str) -> str:
    """Return a name that is a safe file name on every system; ValueError otherwise."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", name) or name.endswith("."):
        raise ValueError(f"{name!r} is no model's name")
    return name


def read_bounded(path: Path, longest: int) -> bytes:
    """A file's bytes, unless it is larger than any that could be meant; ModelError then, or where it is unreadable."""
    try:
        if path.stat().st_size > longest:
            raise ModelError(f"larger than {longest} bytes", where=str(path), do="check that it is the right file")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path), do="check the path") from error
