"""Weights as a bioimage.io model package (specification 0.5), and back: a zip of rdf.yaml, weights, card and tensors.

rdf.yaml is written as JSON, which is YAML too, so that writing one needs no more than the standard library. Our own
card travels in `config.spheroidd`, and only packages that hold one come back in: another network would be another
architecture. The package describes the network alone; the filter and the intensity limits before it are spheroidd's.
"""

import contextlib
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.card_text import card_text
from spheroidd.inference.network.known_answer import answer, known_input
from spheroidd.inference.network.model_card import ModelCard, UNetSettings, card_from, find_weights, read_bounded
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.network.weights import load_model, weights_bytes, write_card
from spheroidd.protocols.errors import ModelError, StorageError
from spheroidd.protocols.json_text import parse_json

FORMAT_VERSION = "0.5.3"
RDF = "rdf.yaml"
MAX_BYTES = 1 << 28  # of the zip, and of the weights in it: 170 times those that are shipped
MAX_RDF_BYTES = 1 << 22
MAX_RATIO, _SMALL = 20, 1 << 16  # weights hardly shrink: a file that grows more than so, and is not small, is a bomb
_STUDY = "Ronneberger, Fischer and Brox (2015): U-Net: convolutional networks for biomedical image segmentation"


class PackagedUNet(nn.Module):
    """The network of `UNetSettings(**settings)`, whose call answers (probabilities, densities): what a package names.

    Its arrays have the names that they have in the weights' file.
    """

    network: UNet

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        network = build_network(UNetSettings(**settings))
        object.__setattr__(self, "network", network)  # no submodule: that would put its name before every array's
        self._modules.update(network._modules)
        self._parameters.update(network._parameters)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, channel, z, y, x) to probabilities and densities, both (batch, 2, z, y, x)."""
        return self.network.infer(x)


def export_package(
    name_or_path: str | Path | None, out: Path, *, author: str = "The spheroidd developers"
) -> ModelCard:
    """Write the package of a model to a new .zip; its card. ModelError for weights that cannot be loaded,
    StorageError where the file is there already or the disk refuses.
    """
    model, card = load_model(name_or_path)
    weights = read_bounded(find_weights(name_or_path), MAX_BYTES)
    found = answer(model)[np.newaxis]
    tensors = {
        "input.npy": known_input(card.settings.in_channels)[np.newaxis],
        "cells.npy": found[:, :2],
        "density.npy": found[:, 2:],
    }
    files = {f"{card.name}.safetensors": weights, "README.md": card_text(card).encode()}
    files |= {name: _npy(array) for name, array in tensors.items()}
    rdf = _rdf(card, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, author)
    files[RDF] = (json.dumps(rdf, indent=1) + "\n").encode()
    try:
        with zipfile.ZipFile(out, "x", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    except FileExistsError as error:
        raise StorageError("it is there already", where=str(out), do="give another name, or remove it") from error
    except OSError as error:
        do = "give a file that you may write to"
        raise StorageError(f"cannot write the package: {error.strerror}", where=str(out), do=do) from error
    return card


def import_package(path: Path, folder: Path) -> ModelCard:
    """Write the weights and the card of a package into `folder`, once their digests, shapes and answer are right.

    ModelError where it is no package of ours or was altered; StorageError where such a model is there already.
    """
    with _opened(path) as archive:
        rdf = _parse(archive, str(path))
        try:
            card = card_from(rdf["config"]["spheroidd"], str(path))
            source = str(rdf["weights"]["pytorch_state_dict"]["source"])
        except (KeyError, TypeError) as error:
            do = "only packages that `spheroidd model export` wrote hold a network that can run here"
            raise ModelError(f"it holds no spheroidd model: {error!r} is missing", where=str(path), do=do) from error
        weights = _member(archive, source, min(MAX_BYTES, weights_bytes(card.settings)), str(path))
    if weights is None or hashlib.sha256(weights).hexdigest() != card.sha256:
        what = f"its weights {source!r} are {'missing' if weights is None else 'not those of its card'}"
        raise ModelError(what, where=str(path), do="fetch the package again")
    target = folder / f"{card.name}.safetensors"
    if target.exists() or target.with_suffix(".json").exists():
        raise StorageError("it is there already", where=str(target), do="give another folder with --out, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.write_bytes(weights)
        write_card(card, folder)
    except OSError as error:
        do = "give --out a folder that you may write to"
        raise StorageError(f"cannot write the model: {error.strerror}", where=str(folder), do=do) from error
    try:
        load_model(target)
    except ModelError:
        for suffix in (".safetensors", ".json", ".md"):
            target.with_suffix(suffix).unlink(missing_ok=True)
        raise
    return card


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The package; nothing of it is unpacked to disk, so no name in it can lead anywhere."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"larger than {MAX_BYTES} bytes", where=str(path), do="check that it is the right file")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path), do="check the path") from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, zipfile.LargeZipFile) as error:
        raise ModelError(f"not a whole zip: {error}", where=str(path), do="fetch the package again") from error


def _member(archive: zipfile.ZipFile, name: str, most: int, where: str) -> bytes | None:
    """A file at the package's root, None where there is none. What it says of its size is looked at before it is read:
    ModelError for more than `most` bytes, or for so many out of so few as neither weights nor a description give.
    """
    found = next((one for one in archive.infolist() if one.filename == name), None)
    if found is None:
        return None
    packed = min(found.compress_size, Path(where).stat().st_size)
    if found.file_size > min(most, MAX_RATIO * packed + _SMALL):
        what = f"{name[:80]!r} unpacks to {found.file_size} bytes, and at most {most} can be meant"
        raise ModelError(what, where=where, do="fetch the package again, from where it was made")
    return archive.read(found)


def _parse(archive: zipfile.ZipFile, where: str) -> dict[str, Any]:
    data = _member(archive, RDF, MAX_RDF_BYTES, where)
    data = _member(archive, "bioimageio.yaml", MAX_RDF_BYTES, where) if data is None else data
    if data is None:
        raise ModelError(f"there is no {RDF} in it", where=where, do="give a bioimage.io model package")
    try:
        found = parse_json(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        do = "only packages that `spheroidd model export` wrote hold a network that can run here"
        raise ModelError("it holds no spheroidd model", where=where, do=do)
    return found


def _npy(array: NDArray[np.float32]) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array, "<f4"))
    return out.getvalue()


def _rdf(card: ModelCard, digests: Mapping[str, str], author: str) -> dict[str, Any]:
    """The resource description: what bioimage.io wants to know, and our card under `config`."""
    settings = card.as_json()["settings"]
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": f"spheroidd {card.name}",
        "description": "Live and dead cells of tumour spheroids (calcein-AM, propidium iodide) in 3-D stacks",
        "authors": [{"name": author}],
        "license": "BSD-3-Clause",
        "documentation": _file("README.md", digests),
        "cite": [{"text": _STUDY, "doi": "10.1007/978-3-319-24574-4_28"}],
        "tags": ["segmentation", "3d", "fluorescence-light-microscopy", "spheroid", "viability", "unet", "pytorch"],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_input(card, digests)],
        "outputs": [
            _output(card, "cells", "cells.npy", digests, ("live", "dead")),
            _output(card, "density", "density.npy", digests, ("live_density", "dead_density")),
        ],
        "weights": {
            "pytorch_state_dict": {
                **_file(f"{card.name}.safetensors", digests),
                "architecture": {
                    "callable": "PackagedUNet",
                    "import_from": "spheroidd.inference.network.bioimageio",
                    "kwargs": settings,
                },
                "pytorch_version": torch.__version__.split("+")[0],
                "comment": "Install spheroidd; the weights are a safetensors file.",
            }
        },
        "config": {"spheroidd": card.as_json()},
    }


def _file(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    return {"source": name, "sha256": digests[name]}


def _input(card: ModelCard, digests: Mapping[str, str]) -> dict[str, Any]:
    step = card.settings.multiple
    sizes = [{"min": max(4 * step, 32), "step": step} for _ in "zyx"]
    return {
        "id": "volume",
        "description": "clipped and standardised volume at the network's voxel size, as spheroidd prepares it",
        "axes": _axes(card, sizes, ("calcein", "propidium_iodide")),
        "test_tensor": _file("input.npy", digests),
        "data": {"type": "float32", "unit": "arbitrary unit"},
    }


def _output(
    card: ModelCard, name: str, file: str, digests: Mapping[str, str], channels: tuple[str, str]
) -> dict[str, Any]:
    sizes = [{"tensor_id": "volume", "axis_id": axis} for axis in "zyx"]
    return {
        "id": name,
        "description": "probabilities, 0 to 1" if name == "cells" else "cells per 1000 cubic micrometres",
        "axes": _axes(card, sizes, channels),
        "test_tensor": _file(file, digests),
        "data": {"type": "float32", "unit": "arbitrary unit"},
    }


def _axes(card: ModelCard, sizes: list[dict[str, Any]], channels: tuple[str, str]) -> list[dict[str, Any]]:
    space = [
        {"type": "space", "id": axis, "size": size, "unit": "micrometer", "scale": step}
        for axis, size, step in zip("zyx", sizes, card.settings.spacing_um, strict=True)
    ]
    return [{"type": "batch"}, {"type": "channel", "channel_names": list(channels)}, *space]
