"""A training's state on disk, whole or not at all, and taken up only by a training of the same settings."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from spheroidd.protocols.errors import ConfigError

if TYPE_CHECKING:
    from spheroidd.inference.train import TrainSettings

_MAY_DIFFER = ("every",)  # reports change nothing


def save_checkpoint(path: Path, settings: "TrainSettings", data: str, parts: Mapping[str, Any], step: int) -> None:
    """Write every part's state after `step` steps; `data` is the digest of what is learnt from."""
    states = {name: part.state_dict() for name, part in parts.items()}
    partial = path.with_suffix(".partial")
    torch.save({"step": step, "settings": _decisive(settings), "data": data, **states}, partial)
    partial.replace(path)


def resume(path: Path, settings: "TrainSettings", data: str, parts: Mapping[str, Any]) -> int:
    """Load a checkpoint if there is one; the step it was written after. ConfigError for another training's."""
    if not path.exists():
        return 0
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
        step, theirs = int(found["step"]), {"settings": found["settings"], "data": found["data"]}
    except (OSError, RuntimeError, UnpicklingError, KeyError, TypeError, EOFError) as error:
        what = f"not a checkpoint: {error!r:.200}"
        raise ConfigError(what, where=str(path), do="remove it, or train in another folder") from error
    for name, ours in (("settings", _decisive(settings)), ("data", data)):
        if theirs[name] != ours:
            do = "go on with the same file and data, remove the checkpoint, or train in another folder"
            raise ConfigError(f"it was written with other {name}", where=str(path), do=do)
    for name, part in parts.items():
        part.load_state_dict(found[name])
    return step


def _decisive(settings: "TrainSettings") -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if name not in _MAY_DIFFER}
