"""The study's viability head: a 1-D convolution over slicewise live volumes and a fully connected layer.

Only its use, in numpy: the process that relates wells to their controls never imports torch. How it is trained stands
in `regressor_training`, which a test holds to the same numbers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from spheroidd.inference.viability.related_viability import ControlProfiles
from spheroidd.protocols.durable import write_atomically
from spheroidd.protocols.errors import ModelError
from spheroidd.protocols.json_text import parse_json

DEFAULT_REGRESSOR = Path(__file__).parents[1] / "weights" / "regressor.safetensors"
BINS, INPUTS, FEATURES, KERNEL, POOL, HIDDEN = 32, 3, 8, 5, 4, 16
TOP = 2  # bins
_KEPT = 16  # sets of controls of which that is remembered
SHAPES = {
    "conv.weight": (FEATURES, INPUTS, KERNEL),
    "conv.bias": (FEATURES,),
    "hidden.weight": (HIDDEN, FEATURES * BINS // POOL + 1),
    "hidden.bias": (HIDDEN,),
    "head.weight": (2, HIDDEN + 1),
    "head.bias": (2,),
}
_CARD_FORMAT, _ARCHITECTURE = 3, "ViabilityRegressor"
DEPTH_UNIT_UM = 100.0  # the study's field
MIN_SIGMA = 0.01  # of 1: no assay is surer than one percent point


def depth_profile(um3_by_z: Sequence[float], z_step_um: float) -> NDArray[np.float64]:
    """Spread slicewise volumes (um3) over `BINS` equal depths of the stack, in um3 per um; the total is kept exactly.

    Per micrometre and not per slice, so that a stack's z-step does not show.
    """
    volumes = np.asarray(um3_by_z, np.float64)
    depth_um = len(volumes) * z_step_um
    below = np.concatenate([[0.0], np.cumsum(volumes)])
    at_edges = np.interp(np.linspace(0, len(volumes), BINS + 1), np.arange(len(volumes) + 1), below)
    profile: NDArray[np.float64] = np.diff(at_edges) * BINS / depth_um
    return profile


def features(
    um3_by_z: Sequence[float], z_step_um: float, control_um3_by_z: Sequence[Sequence[float]]
) -> NDArray[np.float32] | None:
    """The network's input (3, BINS): the well's profile, the controls', and how deep the stack is.

    Both profiles are divided by the mean level of the controls' median profile, and so free of scale. The depth (its
    logarithm, the same in every bin) tells a field that holds a whole spheroid from one that sees its lowest cap.
    None where the controls hold no live volume.
    """
    given = features_of([um3_by_z], z_step_um, _hashable(control_um3_by_z))
    return None if given is None else given[0]


def features_of(
    wells_um3_by_z: Sequence[Sequence[float]], z_step_um: float, controls: tuple[tuple[float, ...], ...]
) -> NDArray[np.float32] | None:
    """The same of some wells with one z-step, (n, 3, BINS)."""
    if len(controls) == 0:
        return None
    control = _control_profile(controls, z_step_um)
    level = control.mean()
    if not level > 0:
        return None
    given = np.empty((len(wells_um3_by_z), INPUTS, BINS), np.float32)
    given[:, 1] = control / level
    for number, um3_by_z in enumerate(wells_um3_by_z):
        own = _own_profile(um3_by_z, z_step_um) if isinstance(um3_by_z, tuple) else depth_profile(um3_by_z, z_step_um)
        given[number, 0] = own / level
        given[number, 2] = np.log(len(um3_by_z) * z_step_um / DEPTH_UNIT_UM)
    return given


def _hashable(profiles: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Controls whose profile is found again; of `ControlProfiles` without a look at every number."""
    return profiles if isinstance(profiles, ControlProfiles) else tuple(map(tuple, profiles))


@lru_cache(maxsize=2048)  # a well of a large plate is asked for each time a control is added
def _own_profile(um3_by_z: tuple[float, ...], z_step_um: float) -> NDArray[np.float64]:
    return depth_profile(um3_by_z, z_step_um)


@lru_cache(maxsize=2)  # every well of a plate is related to the same controls, each time one more is scored
def _control_profile(control_um3_by_z: tuple[tuple[float, ...], ...], z_step_um: float) -> NDArray[np.float64]:
    profile: NDArray[np.float64] = np.median([_own_profile(one, z_step_um) for one in control_um3_by_z], axis=0)
    return profile


@dataclass(frozen=True, slots=True)
class ViabilityRegressor:
    """Estimates what the MTT assay would say of a well, in percent of the plate's untreated controls.

    `quantile` is the 90 % quantile of |error| / sigma over calibration plates (split conformal), so that the interval
    score +- quantile * sigma holds nine of ten true values where wells are like those it was calibrated on.
    """

    weights: Mapping[str, NDArray[np.float32]]
    quantile: float
    sha256: str
    _alike: dict[bytes, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def predict(
        self, profile_um3: Sequence[float], z_step_um: float, control_profiles_um3: Sequence[Sequence[float]]
    ) -> tuple[float, float, float] | None:
        """Return (score, low, high) in percent; None where the controls hold no live volume.

        Profiles are live volumes (um3) of each slice in z order, all at the same `z_step_um`. Nothing is clipped.
        """
        return self.predict_many([(profile_um3, z_step_um)], control_profiles_um3)[0]

    def predict_many(
        self,
        wells: Sequence[tuple[Sequence[float], float]],
        control_profiles_um3: Sequence[Sequence[float]],
    ) -> list[tuple[float, float, float] | None]:
        """What `predict` returns, to the last bit, of each (profile_um3, z_step_um): together they take less time."""
        controls = _hashable(control_profiles_um3)
        found: list[tuple[float, float, float] | None] = [None] * len(wells)
        alike: dict[tuple[float, int], list[int]] = {}  # with the same controls beside them, and as deep
        for number, (profile, z_step_um) in enumerate(wells):
            if len(profile):
                alike.setdefault((z_step_um, len(profile)), []).append(number)
        for (z_step_um, _), numbers in alike.items():
            given = features_of([wells[number][0] for number in numbers], z_step_um, controls)
            if given is not None:
                like = np.repeat(self._like_controls(given[0]), len(given), axis=0)
                for number, mean, sigma in zip(numbers, *forward(self.weights, given, like), strict=True):
                    found[number] = self._in_percent(float(mean), float(sigma))
        return found

    def _in_percent(self, mean: float, sigma: float) -> tuple[float, float, float]:
        reach = self.quantile * sigma
        return 100 * mean, 100 * (mean - reach), 100 * (mean + reach)

    def _like_controls(self, given: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the features are of a well just like its controls, (1, HIDDEN): found once for all their wells."""
        at = given[1:].tobytes()
        if at not in self._alike:
            if len(self._alike) >= _KEPT:
                self._alike.clear()
            self._alike[at] = hidden_of_controls(self.weights, given[np.newaxis])
        return self._alike[at]

    @classmethod
    def load(cls, path: Path = DEFAULT_REGRESSOR) -> Self:
        """Read weights and the JSON card beside them; ModelError where one is missing, altered or another network's."""
        card = _read_card(path.with_suffix(".json"))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _refused(path, f"cannot be read: {error.strerror}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != card["sha256"]:
            raise _refused(path, f"its sha256 is {digest[:12]}..., and its card says {str(card['sha256'])[:12]}...")
        try:
            weights = safetensors.numpy.load(content)
        except SafetensorError as error:
            raise _refused(path, f"not a safetensors file: {error}") from error
        if {name: value.shape for name, value in weights.items()} != SHAPES:
            raise _refused(path, "its arrays are not those of this regressor")
        return cls(weights, card["quantile"], digest)


def forward(
    weights: Mapping[str, NDArray[np.float32]],
    given: NDArray[np.float32],
    like_controls: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and sigma (n,), as fractions of 1, of inputs (n, 3, BINS): convolution, mean pooling, two linear layers.

    The ratio of the mean volumes goes to both linear layers beside the features: it alone is the study's V_control, so
    the network has to learn only what that lacks. What the features add to the mean is told from what they would be of
    a well just like its controls, whose score so is the line's, wherever the field lies; and it counts by the part that
    the field does not see (`unseen`): where it holds whole spheroids, V_control is the assay's own quantity but for a
    line's two numbers. `like_controls` is `hidden_of_controls` where that is known already.
    """
    ratio = given[:, 0].mean(1, keepdims=True)
    hidden = _hidden(weights, given)
    apart = hidden - (hidden_of_controls(weights, given) if like_controls is None else like_controls)
    part = unseen(given)
    for_mean, for_sigma = weights["head.weight"]
    mean = _each(np.concatenate([part * apart, ratio], axis=1), for_mean) + weights["head.bias"][0]
    raw = _each(np.concatenate([part * hidden, ratio], axis=1), for_sigma) + weights["head.bias"][1]
    return mean, MIN_SIGMA + np.logaddexp(0, raw)


def hidden_of_controls(weights: Mapping[str, NDArray[np.float32]], given: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features (n, HIDDEN) of wells just like the controls in inputs (n, 3, BINS)."""
    return _hidden(weights, given[:, [1, *range(1, INPUTS)]])


def _hidden(weights: Mapping[str, NDArray[np.float32]], given: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.zeros((*given.shape[:2], given.shape[2] + 2 * (KERNEL // 2)), given.dtype)  # np.pad takes half a row
    padded[..., KERNEL // 2 : -(KERNEL // 2)] = given
    windows = np.lib.stride_tricks.sliding_window_view(padded, KERNEL, axis=2)
    found = np.einsum("ncbk,fck->nfb", windows, weights["conv.weight"]) + weights["conv.bias"][:, np.newaxis]
    pooled = np.maximum(found, 0).reshape(len(given), FEATURES, -1, POOL).mean(3).reshape(len(given), -1)
    inputs = np.concatenate([pooled, given[:, 0].mean(1, keepdims=True)], axis=1)
    hidden: NDArray[np.float32] = np.maximum(_each(inputs, weights["hidden.weight"].T) + weights["hidden.bias"], 0)
    return hidden


def _each(inputs: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product of each row (n, features) with `weight` by itself: of many rows at once BLAS adds up in another
    order, and what a well's score is must not depend on which other wells are asked for.
    """
    found: NDArray[np.float32] = (inputs[:, np.newaxis] @ weight)[:, 0]
    return found


def unseen(given: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far (n, 1), 0 to 1, controls go on above the field: their level in its top slices beside their highest."""
    control = given[:, 1]
    highest = np.maximum(control.max(1, keepdims=True), 1e-6)
    part: NDArray[np.float32] = np.clip(control[:, -TOP:].mean(1, keepdims=True) / highest, 0, 1)
    return part


def save(path: Path, weights: Mapping[str, NDArray[np.float32]], quantile: float, **told: Any) -> ViabilityRegressor:
    """Write weights and card (`told`: command, seeds, metrics, description), and return what was written."""
    content = safetensors.numpy.save(dict(weights))
    digest = hashlib.sha256(content).hexdigest()
    card = {
        "format": _CARD_FORMAT,
        "architecture": "ViabilityRegressor",
        "sha256": digest,
        "quantile": quantile,
        **told,
    }
    write_atomically(path, content)
    write_atomically(path.with_suffix(".json"), f"{json.dumps(card, indent=2)}\n".encode())
    return ViabilityRegressor(dict(weights), quantile, digest)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = parse_json(path.read_text(encoding="utf-8"))
        if card["architecture"] != _ARCHITECTURE:
            raise _refused(path, "it is the card of another kind of model")
        if card["format"] != _CARD_FORMAT:
            what = (
                f"it is a regressor of format {card['format']}, and this spheroidd reads {_CARD_FORMAT}: train it again"
            )
            raise _refused(path, what)
        card["sha256"] = str(card["sha256"])
        card["quantile"] = float(card["quantile"])
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(path, f"not a regressor's card: {type(error).__name__} {error}") from error
    return dict(card)


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(what, where=str(path), do="install spheroidd again, or train the regressor again")
