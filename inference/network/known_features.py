"""How far what a network sees in a stack lies from what it saw when it was made: one number, from its own features.

A network answers to anything. What its layers hold where it finds cells, each feature's mean and standard deviation,
shows whether the images are of the kind that it knows. Their Mahalanobis distance from many emulated stacks, with a
covariance shrunk towards its diagonal (Lee et al. 2018, 1807.03888), is compared with the largest of healthy stacks.

The reference lies beside the weights: `<name>.features.npz`. Weights without one give no number.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.network.model_card import find_weights, read_bounded
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.results import Normalisation
from spheroidd.protocols.stack import CHANNELS

Vector = NDArray[np.float64]

FORMAT = 1
SUFFIX = ".features.npz"
FOREGROUND = 0.2  # probability in either channel from which on a voxel is looked at
LEAST_VOXELS = 200  # of a layer: fewer have no standard deviation to speak of
_SHRINKAGE = 0.1
_MAX_BYTES = 1 << 24
_ARRAYS = ("mean", "precision")


@dataclass
class FeatureSums:
    """Of each layer how many voxels were looked at, and the sums of their features and of the squares."""

    layers: dict[str, tuple[float, Vector, Vector]]

    @classmethod
    def none(cls) -> Self:
        """Of nothing."""
        return cls({})

    def add(self, layer: str, n: float, total: Vector, squares: Vector) -> None:
        """Count the voxels of a region, or of another sum."""
        before = self.layers.get(layer)
        self.layers[layer] = (
            (n, total, squares) if before is None else (before[0] + n, before[1] + total, before[2] + squares)
        )

    def merge(self, other: "FeatureSums") -> None:
        """Count all that another has counted."""
        for layer, sums in other.layers.items():
            self.add(layer, *sums)

    def vector(self) -> Vector | None:
        """Means and standard deviations, layer by layer; None where too few voxels were looked at."""
        parts: list[Vector] = []
        for layer in sorted(self.layers):
            n, total, squares = self.layers[layer]
            if n < LEAST_VOXELS:
                return None
            mean = total / n
            parts += [mean, np.sqrt(np.maximum(squares / n - mean**2, 0))]
        return np.concatenate(parts) if parts else None


class Home(NamedTuple):
    """Stacks of one kind: where they lie, the inverse of their covariance, and the largest distance of healthy ones."""

    mean: Vector
    precision: Vector
    limit: float

    def distance(self, vector: Vector) -> float:
        """Root of the mean square of the whitened deviation: about 1 at home."""
        off = vector - self.mean
        return math.sqrt(max(float(off @ self.precision @ off), 0.0) / len(off))


def home_of(vectors: Sequence[Vector], limit: float = 1.0) -> Home:
    """What vectors of one kind of stack have in common."""
    many = np.stack(vectors).astype(np.float64)
    spread: Vector = np.cov(many.T)
    shrunk = (1 - _SHRINKAGE) * spread + _SHRINKAGE * np.diag(np.diag(spread))
    floor = 1e-3 * float(np.mean(np.diag(spread))) + 1e-12
    mean: Vector = many.mean(0)
    inverse: Vector = np.linalg.inv(shrunk + floor * np.eye(len(shrunk))).astype(np.float64)
    return Home(mean, inverse, limit)


def kind_of(channels: Iterable[str], normalisation: Normalisation) -> str:
    """The kind that a stack of these channels is compared with; one channel alone mostly has its own limits."""
    have = [channel for channel in CHANNELS if channel in set(channels)]
    return "+".join(have) + (f" {normalisation.value}" if len(have) > 1 else "")


class KnownFeatures:
    """The kinds of stacks that a network knows, by their channels and where their limits come from."""

    def __init__(self, homes: Mapping[str, Home], weights_sha256: str, about: Mapping[str, Any]) -> None:
        self.homes, self.weights_sha256, self.about = dict(homes), weights_sha256, dict(about)

    def foreign(self, sums: FeatureSums, channels: Iterable[str], normalisation: Normalisation) -> float | None:
        """The distance over the largest of healthy stacks: above 1 it is foreign. None where nobody can say."""
        home, vector = self.homes.get(kind_of(channels, normalisation)), sums.vector()
        if home is None or vector is None or len(vector) != len(home.mean):
            return None
        return home.distance(vector) / home.limit

    def write(self, path: Path) -> None:
        """Write the reference, in single precision."""
        arrays = {
            f"{kind}.{name}": np.ascontiguousarray(values, np.float32)
            for kind, home in self.homes.items()
            for name, values in (("mean", home.mean), ("precision", home.precision))
        }
        limits = {kind: home.limit for kind, home in self.homes.items()}
        about = {"format": FORMAT, "weights_sha256": self.weights_sha256, "limits": limits, "about": self.about}
        out = io.BytesIO()
        np.savez(out, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        write_atomically(path, out.getvalue())

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote; ModelError for anything else."""
        data = read_bounded(path, _MAX_BYTES)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays.pop("about").tobytes())
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']}")
            homes = {
                str(kind): Home(
                    arrays[f"{kind}.mean"].astype(np.float64),
                    arrays[f"{kind}.precision"].astype(np.float64),
                    float(limit),
                )
                for kind, limit in about["limits"].items()
            }
            if any(home.precision.shape != (len(home.mean),) * 2 or not home.limit > 0 for home in homes.values()):
                raise ValueError("its arrays do not belong together")
            return cls(homes, str(about["weights_sha256"]), about["about"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
            do = "fetch it again, or remove it: without it no stack is called foreign"
            raise ModelError(f"not a reference of features: {error!r:.100}", where=str(path), do=do) from error


def known_features(name_or_path: str | Path | None, weights_sha256: str) -> KnownFeatures | None:
    """The reference beside a model's weights; None where there is none, ModelError where it is of other weights."""
    path = find_weights(name_or_path)
    path = path.with_name(path.stem + SUFFIX)
    if not path.is_file():
        return None
    known = KnownFeatures.read(path)
    if known.weights_sha256 != weights_sha256:
        do = "make it anew with python -m spheroidd.daemon.training.features_from_emulator, or remove it"
        raise ModelError("it was made of other weights", where=str(path), do=do)
    return known
