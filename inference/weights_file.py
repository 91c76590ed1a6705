"""Networks on disk: `<name>.safetensors` and, beside it, `<name>.json`, the card that says what they are.

The only module that knows these files. Weights whose bytes or shapes are not what the card and the code say are refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from spheroidd.inference.unet import ResidualUNet, UNetSettings
from spheroidd.protocols.errors import ModelError

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DEFAULT_MODEL = "untrained"

_CARD_FORMAT = 1
_MAX_CARD_BYTES = 1 << 20
_MAX_WEIGHTS_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a set of weights is, how it came about and how good it was; the JSON beside the weights.

    `background`: a region whose normalised voxels all stay below it holds no cell (None: never skip). `halo`: voxels of
    context a tile needs on each side. `normalisation`: the kinds of limits it saw in training. `command`, `seeds`: what
    made it. `metrics`: what the validation printed. `sha256`: of the safetensors file.
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

    def as_json(self) -> dict[str, Any]:
        """The card as a JSON object."""
        content = {item: getattr(self, item) for item in self.__dataclass_fields__}
        return {"format": _CARD_FORMAT, "architecture": "ResidualUNet", **content, "settings": asdict(self.settings)}


def save_model(model: ResidualUNet, folder: Path, card: ModelCard) -> ModelCard:
    """Write `<folder>/<card.name>.safetensors` and `.json`; returns the card with the digest of what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    data = safetensors.torch.save(state)
    content = {name: getattr(card, name) for name in card.__dataclass_fields__}
    written = ModelCard(**{**content, "settings": model.settings, "sha256": hashlib.sha256(data).hexdigest()})
    (folder / f"{card.name}.safetensors").write_bytes(data)
    text = json.dumps(written.as_json(), indent=2) + "\n"
    (folder / f"{card.name}.json").write_text(text, encoding="utf-8")
    return written


def load_model(name_or_path: str | Path | None = None, device: str = "cpu") -> tuple[ResidualUNet, ModelCard]:
    """The network on `device`, in evaluation mode, and its card; ModelError where the files are not what they claim.

    `name_or_path` is a name that ships with the package, a path to a .safetensors or .json file, or None: the default.
    """
    path = find_weights(DEFAULT_MODEL if name_or_path is None else name_or_path)
    card = read_card(path.with_suffix(".json"))
    data = _read(path, _MAX_WEIGHTS_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if digest != card.sha256:
        what = f"the weights' sha256 is {digest[:16]}..., their card says {card.sha256[:16]}..."
        raise ModelError(
            what, where=str(path), do="fetch both files again; they were altered or do not belong together"
        )
    try:
        state = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ModelError(f"not a safetensors file: {error}", where=str(path), do="fetch the file again") from error
    model = ResidualUNet(card.settings)
    _check_shapes(path, model.state_dict(), state)
    model.load_state_dict(state)
    return model.to(device).eval(), card


def find_weights(name_or_path: str | Path) -> Path:
    """The .safetensors file that a name or a path means; ModelError where there is none."""
    path = Path(name_or_path)
    if path.suffix not in (".safetensors", ".json"):
        path = WEIGHTS_FOLDER / f"{name_or_path}.safetensors"
    path = path.with_suffix(".safetensors")
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in WEIGHTS_FOLDER.glob("*.safetensors"))) or "none"
        raise ModelError("there are no such weights", where=str(path), do=f"give a path, or one of: {shipped}")
    return path


def read_card(path: Path) -> ModelCard:
    """Read a card; ModelError names what is wrong with it."""
    try:
        content = json.loads(_read(path, _MAX_CARD_BYTES))
        if content.pop("format") != _CARD_FORMAT or content.pop("architecture") != "ResidualUNet":
            raise ValueError("it is for another network or of another format")
        content["settings"] = UNetSettings(**content["settings"])
        content["normalisation"] = tuple(content["normalisation"])
        return ModelCard(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        do = "use the card that came with the weights"
        raise ModelError(f"not a model card of this version: {error!r}", where=str(path), do=do) from error


def _read(path: Path, longest: int) -> bytes:
    try:
        if path.stat().st_size > longest:
            raise ModelError(f"larger than {longest} bytes", where=str(path), do="check that it is the right file")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path), do="check the path") from error


def _check_shapes(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    do = "use weights that were made with this version"
    for key in wanted.keys() ^ found.keys():
        where = "the network wants" if key in wanted else "the file has, and the network does not want,"
        raise ModelError(f"{where} {key}", where=str(path), do=do)
    for key, tensor in wanted.items():
        if tensor.shape != found[key].shape or tensor.dtype != found[key].dtype:
            what = f"{key} is {found[key].dtype} {tuple(found[key].shape)}, not {tensor.dtype} {tuple(tensor.shape)}"
            raise ModelError(what, where=str(path), do=do)
