"""How a stack looks to a network beside those that it saw when it was made: by its own features, in one pass.

A network answers to anything. What its layers hold where it finds cells, each feature's mean and standard deviation,
shows whether the images are of the kind that it knows. Their Mahalanobis distance from many emulated stacks, with a
covariance shrunk towards its diagonal (Lee et al. 2018, 1807.03888), is compared with the largest of healthy stacks.
A distance in all directions hardly notes that cells are wider than usual; how wide they look is a sum of the same
features, fitted to stacks that were shown in larger and in smaller voxels.

The reference lies beside the weights: `<name>.features.npz`. Weights without one say nothing.
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
from spheroidd.protocols.evidence import StackLooks
from spheroidd.protocols.results import Normalisation
from spheroidd.protocols.stack import CHANNELS

Vector = NDArray[np.float64]

FORMAT = 2
SUFFIX = ".features.npz"
FOREGROUND = 0.2  # probability in either channel from which on a voxel is looked at
LEAST_VOXELS = 200  # of a layer: fewer have no standard deviation to speak of
_SHRINKAGE = 0.1
_RIDGE = 0.003  # of each feature's variance; ten times as much leans towards the usual width
_MAX_BYTES = 1 << 24
_ARRAYS = ("mean", "precision", "widths")


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
    """Stacks of one kind: where they lie, the inverse of their covariance, and how wide their cells look.

    `widths` (n + 1,) gives the logarithm of the width, in that of usual cells: a weight for each feature, and what is
    added. `farthest` and `off` are the largest distance and the largest such logarithm of healthy stacks.
    """

    mean: Vector
    precision: Vector
    widths: Vector
    farthest: float = 1.0
    off: float = 1.0

    def distance(self, vector: Vector) -> float:
        """Root of the mean square of the whitened deviation: about 1 at home."""
        off = vector - self.mean
        return math.sqrt(max(float(off @ self.precision @ off), 0.0) / len(off))

    def log_width(self, vector: Vector) -> float:
        """The logarithm of how wide cells look, in the width of usual ones."""
        return float(vector @ self.widths[:-1] + self.widths[-1])

    def looks(self, vector: Vector) -> StackLooks:
        """How a stack looks that has these features."""
        width = self.log_width(vector)
        return StackLooks(self.distance(vector) / self.farthest, math.exp(width), abs(width) / self.off)


def home_of(usual: Sequence[Vector], shown: Sequence[tuple[Vector, float]]) -> Home:
    """What the vectors of usual stacks have in common, and what tells widths among those that were `shown` wide."""
    many = np.stack(usual).astype(np.float64)
    spread: Vector = np.cov(many.T)
    shrunk = (1 - _SHRINKAGE) * spread + _SHRINKAGE * np.diag(np.diag(spread))
    floor = 1e-3 * float(np.mean(np.diag(spread))) + 1e-12
    mean: Vector = many.mean(0)
    inverse: Vector = np.linalg.inv(shrunk + floor * np.eye(len(shrunk))).astype(np.float64)
    return Home(mean, inverse, _widths([vector for vector, _ in shown], [math.log(width) for _, width in shown]))


def _widths(vectors: Sequence[Vector], logs: Sequence[float]) -> Vector:
    """The ridge regression of the logarithms on the features, each in its own standard deviation."""
    many, aim = np.stack(vectors).astype(np.float64), np.array(logs)
    middle, sd = many.mean(0), many.std(0) + 1e-9
    whitened = (many - middle) / sd
    squares = whitened.T @ whitened + _RIDGE * len(many) * np.eye(len(sd))
    weights: Vector = np.linalg.solve(squares, whitened.T @ (aim - aim.mean())) / sd
    return np.append(weights, aim.mean() - middle @ weights)


def kind_of(channels: Iterable[str], normalisation: Normalisation) -> str:
    """The kind that a stack of these channels is compared with; one channel alone mostly has its own limits."""
    have = [channel for channel in CHANNELS if channel in set(channels)]
    return "+".join(have) + (f" {normalisation.value}" if len(have) > 1 else "")


class KnownFeatures:
    """The kinds of stacks that a network knows, by their channels and where their limits come from."""

    def __init__(self, homes: Mapping[str, Home], weights_sha256: str, about: Mapping[str, Any]) -> None:
        self.homes, self.weights_sha256, self.about = dict(homes), weights_sha256, dict(about)

    def looks(self, sums: FeatureSums, channels: Iterable[str], normalisation: Normalisation) -> StackLooks | None:
        """How a stack looks; None where nobody can say."""
        home, vector = self.homes.get(kind_of(channels, normalisation)), sums.vector()
        if home is None or vector is None or len(vector) != len(home.mean):
            return None
        return home.looks(vector)

    def write(self, path: Path) -> None:
        """Write the reference, in single precision."""
        arrays = {
            f"{kind}.{name}": np.ascontiguousarray(getattr(home, name), np.float32)
            for kind, home in self.homes.items()
            for name in _ARRAYS
        }
        limits = {kind: [home.farthest, home.off] for kind, home in self.homes.items()}
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
                str(kind): Home(*(arrays[f"{kind}.{name}"].astype(np.float64) for name in _ARRAYS), *map(float, limits))
                for kind, limits in about["limits"].items()
            }
            if not all(map(_is_whole, homes.values())):
                raise ValueError("its arrays do not belong together")
            return cls(homes, str(about["weights_sha256"]), about["about"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
            do = "fetch it again, or remove it: without it no stack is called foreign"
            raise ModelError(f"not a reference of features: {error!r:.100}", where=str(path), do=do) from error


def _is_whole(home: Home) -> bool:
    n = len(home.mean)
    return home.precision.shape == (n, n) and home.widths.shape == (n + 1,) and home.farthest > 0 and home.off > 0


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
