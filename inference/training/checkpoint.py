"""A training's state on disk, whole or not at all, and taken up only by a training of the same settings."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from spheroidd.inference.training.settings import TrainSettings
from spheroidd.protocols.durable import replacing
from spheroidd.protocols.errors import ConfigError, StorageError

_MAY_DIFFER = ("every",)  # reports change nothing
_WORDS = {"start_from": "weights to start from"}


@dataclass(frozen=True, slots=True)
class Origin:
    """All that decides a training's end: its settings, the digest of what is learnt from, that of the first weights.

    `start_from` is empty where the weights were drawn from the seed.
    """

    settings: TrainSettings
    data: str
    start_from: str = ""

    def as_dict(self) -> dict[str, Any]:
        """By the names that a message calls them; what changes reports only is left out."""
        decisive = {name: value for name, value in asdict(self.settings).items() if name not in _MAY_DIFFER}
        return {"settings": decisive, "data": self.data, "start_from": self.start_from}


def weights_digest(model: nn.Module) -> str:
    """A digest of a network's weights and statistics, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, origin: Origin, parts: Mapping[str, Any], step: int) -> None:
    """Write every part's state after `step` steps, and what the training is; StorageError where the disk refuses."""
    states = {name: part.state_dict() for name, part in parts.items()}
    try:
        with replacing(path) as partial, partial.open("wb") as file:  # a path's name would go into the file
            torch.save({"step": step, **origin.as_dict(), **states}, file)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        what = f"the checkpoint after step {step} cannot be written: {error!s:.200}"
        do = "make room or give --out; the same command goes on from the checkpoint before, where there is one"
        raise StorageError(what, where=str(path), do=do) from error


def resume(path: Path, origin: Origin, parts: Mapping[str, Any]) -> int:
    """Load a checkpoint if there is one; the step it was written after. ConfigError for another training's, or one
    whose parts have other arrays: another version wrote it.
    """
    if not path.exists():
        return 0
    ours = origin.as_dict()
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
        step, theirs = int(found["step"]), {name: found[name] for name in ours}
    except (OSError, RuntimeError, UnpicklingError, LookupError, TypeError, ValueError, EOFError) as error:
        what = f"not a checkpoint: {error!r:.200}"
        raise ConfigError(what, where=str(path), do="remove it, or train in another folder") from error
    for name, value in ours.items():
        if theirs[name] != value:
            do = "go on with the same file and data, remove the checkpoint, or train in another folder"
            raise ConfigError(f"it was written with other {_WORDS.get(name, name)}", where=str(path), do=do)
    try:
        for name, part in parts.items():
            part.load_state_dict(found[name])
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        do = "remove it, or train in another folder"
        raise ConfigError(f"another version wrote it: {error!s:.200}", where=str(path), do=do) from error
    return step
