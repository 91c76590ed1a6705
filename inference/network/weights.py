"""Weights on disk: `<name>.safetensors` beside its card. The only module that knows what the files' bytes mean.

Weights whose bytes or shapes are not what the card and the code say are refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.card_text import card_text
from spheroidd.inference.network.known_answer import probe
from spheroidd.inference.network.model_card import ModelCard, UNetSettings, find_weights, read_bounded, read_card
from spheroidd.inference.network.unet import UNet
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ModelError, StorageError

_MAX_WEIGHTS_BYTES = 1 << 30
_MAX_HEADER_BYTES = 1 << 20


def save_model(model: UNet, folder: Path, card: ModelCard) -> ModelCard:
    """Write `<folder>/<card.name>.safetensors`, `.json` and `.md`; returns the card with what was written.

    That is its digest, its settings, and what the network answers to the known input. StorageError where the disk
    refuses.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    data = safetensors.torch.save(state)
    digest = hashlib.sha256(data).hexdigest()
    written = replace(card, settings=model.settings, sha256=digest, probe=probe(model))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{card.name}.safetensors", data)
        write_card(written, folder)
    except OSError as error:
        do = "make room or give a folder that you may write to; the same command goes on from the last checkpoint"
        what = f"the weights {card.name} cannot be written: {error.strerror}"
        raise StorageError(what, where=str(error.filename or folder), do=do) from error
    return written


def write_card(card: ModelCard, folder: Path) -> None:
    """Write the card beside its weights, as JSON for programs and as Markdown for people."""
    text = json.dumps(card.as_json(), indent=2) + "\n"
    write_atomically(folder / f"{card.name}.json", text.encode())
    write_atomically(folder / f"{card.name}.md", card_text(card).encode())


def renew_card(name_or_path: str | Path | None = None, *, tradeoff: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """Write a model's card anew beside its weights, with the answer to the known input; the Markdown's path.

    `tradeoff` replaces the card's table of spacing, width and time.
    """
    model, card = load_model(name_or_path)
    path = find_weights(name_or_path)
    rows = card.tradeoff if tradeoff is None else tuple(tradeoff)
    try:
        write_card(replace(card, name=path.stem, probe=probe(model), tradeoff=rows), path.parent)
    except OSError as error:
        do = "copy the weights and their card to a folder that you may write to"
        raise StorageError(f"cannot write the card: {error.strerror}", where=str(path.parent), do=do) from error
    return path.with_suffix(".md")


def load_model(name_or_path: str | Path | None = None, device: str = "cpu") -> tuple[UNet, ModelCard]:
    """The network on `device`, in evaluation mode, and its card; ModelError where the files are not what they claim.

    The name or path is as in `model_card.find_weights`.
    """
    path = find_weights(name_or_path)
    card = read_card(path)
    data = read_bounded(path, _MAX_WEIGHTS_BYTES)
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
    _check_shapes(path, _arrays(card.settings), state)
    model = build_network(card.settings)
    model.load_state_dict(state)
    return model.to(device).eval(), card


def weights_bytes(settings: UNetSettings) -> int:
    """The largest a file of weights of such a network can be; ModelError for a network that nobody can hold."""
    return sum(array.numel() * array.element_size() for array in _arrays(settings).values()) + _MAX_HEADER_BYTES


def _arrays(settings: UNetSettings) -> dict[str, Tensor]:
    """The network's arrays without memory: a card by hand may ask for more than there is."""
    try:
        with torch.device("meta"):
            return build_network(settings).state_dict()
    except (RuntimeError, OverflowError, TypeError) as error:
        what = f"a network of base {settings.base} and {settings.max_features} features cannot be built"
        raise ModelError(what, do="fetch the model again; its card was altered") from error


def _check_shapes(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    do = "use weights that were made with this version"
    for key in wanted.keys() ^ found.keys():
        where = "the network requires" if key in wanted else "the file has, and the network does not require,"
        raise ModelError(f"{where} {key}", where=str(path), do=do)
    for key, tensor in wanted.items():
        if tensor.shape != found[key].shape or tensor.dtype != found[key].dtype:
            what = f"{key} is {found[key].dtype} {tuple(found[key].shape)}, not {tensor.dtype} {tuple(tensor.shape)}"
            raise ModelError(what, where=str(path), do=do)
