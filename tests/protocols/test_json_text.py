"""JSON that Python's own reader ends a program with: refused where it comes in, with the file's name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from spheroidd.acquisition.plates.labware_formats import read_plate_format
from spheroidd.acquisition.store.ngff import read_node
from spheroidd.daemon.service.tokens import TOKENS_NAME, TokenFile
from spheroidd.inference.network.model_card import read_card
from spheroidd.protocols.errors import SpheroiddError


def plate_format(folder: Path, text: str) -> object:
    (folder / "ours.json").write_text(text)
    return read_plate_format(folder / "ours.json")


def card(folder: Path, text: str) -> object:
    (folder / "ours.safetensors").write_bytes(b"")
    (folder / "ours.json").write_text(text)
    return read_card(folder / "ours.safetensors")


def tokens(folder: Path, text: str) -> object:
    (folder / TOKENS_NAME).write_text(text)
    return TokenFile(folder).tokens()


def zarr_node(folder: Path, text: str) -> object:
    (folder / "zarr.json").write_text(text)
    return read_node(folder)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, "1" * 5000], ids=["lists", "objects", "digits"])
@pytest.mark.parametrize("read", [plate_format, card, tokens, zarr_node])
def test_json_without_end_is_refused_by_name(tmp_path: Path, read: Callable[[Path, str], object], text: str) -> None:
    with pytest.raises(SpheroiddError, match=r"nested too deep|digits") as refused:
        read(tmp_path, text)
    assert str(tmp_path) in refused.value.where
