"""Whether a network answers as it once did: a known input, and its answer kept in the card.

The bits of an answer depend on the processor, so the card holds both: the hash of the exact answer, and the answer
averaged over an eighth of the volume in each direction, which has to come back within a tolerance anywhere.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spheroidd.inference.network.unet import UNet
from spheroidd.protocols.errors import ModelError

TOLERANCE = 2e-3  # the answer is computed in the weights' own single precision, whatever a run computes in
SIDE, POOL = 32, 8
_NAMES = ("live", "dead", "live_density", "dead_density")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How near an answer is to the card's: `same_bits`, and the largest difference of a mean; None without a probe."""

    same_bits: bool
    difference: float | None

    @property
    def passes(self) -> bool:
        """Whether it is near enough; True where the card keeps no answer to compare with."""
        return self.difference is None or self.difference <= TOLERANCE


def known_input(channels: int = 2) -> NDArray[np.float32]:
    """Two touching balls and noise, from a fixed seed: (channels, z, y, x) float32 as after normalisation."""
    rng = np.random.default_rng(20240117)
    volume = rng.normal(-0.7, 0.2, (channels, SIDE, SIDE, SIDE)).astype(np.float32)
    z, y, x = np.mgrid[:SIDE, :SIDE, :SIDE].astype(np.float32)
    for channel in range(channels):
        for place, radius in (((12, 11, 10), 6.5), ((19, 20, 21), 6.0)):
            distance = np.sqrt((z - place[0]) ** 2 + (y - place[1]) ** 2 + (x - place[2] - 2 * channel) ** 2)
            volume[channel] += np.where(distance < radius - 2.5 * channel, 2.2, 0).astype(np.float32)
    return volume


def answer(model: UNet) -> NDArray[np.float32]:
    """What the network says of the known input: (4, z, y, x) float32, live and dead, then their densities."""
    device = next(model.parameters()).device
    mode = model.training
    model.eval()
    try:
        with torch.inference_mode():
            given = torch.from_numpy(known_input(model.settings.in_channels))[None].to(device)
            parts = [part[0].float().cpu().numpy() for part in model.infer(given)]
    finally:
        model.train(mode)
    return np.concatenate(parts).astype(np.float32)


def probe(model: UNet) -> dict[str, Any]:
    """The card's entry: the exact answer's hash and its averages, by name; JSON can hold it."""
    found = answer(model)
    means = _means(found)
    return {
        "sha256": hashlib.sha256(np.ascontiguousarray(found, "<f4").tobytes()).hexdigest(),
        "means": {name: [round(float(v), 6) for v in part.ravel()] for name, part in zip(_NAMES, means, strict=False)},
    }


def compare(model: UNet, kept: Mapping[str, Any]) -> ProbeResult:
    """The network's answer beside a card's; ModelError where the card's entry is none."""
    if not kept:
        return ProbeResult(False, None)
    now = probe(model)
    try:
        pairs = [(now["means"][name], kept["means"][name]) for name in now["means"]]
        difference = max(float(np.abs(np.subtract(a, b, dtype=np.float64)).max()) for a, b in pairs)
        return ProbeResult(now["sha256"] == kept["sha256"], difference)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"its card keeps no answer that can be compared: {error!r}", do="write the card anew"
        ) from error


def _means(found: NDArray[np.float32]) -> NDArray[np.float32]:
    n = SIDE // POOL
    means: NDArray[np.float32] = found.reshape(-1, n, POOL, n, POOL, n, POOL).mean((2, 4, 6))
    return means
