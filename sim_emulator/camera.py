"""The camera: expected photoelectrons into counts. Poisson before gain, read noise, offset, gain map, hot pixels.

Noise is counter-based (Philox4x32-10: Salmon et al., SC11, 2011), keyed per slice and counted per pixel, so a slice's
bytes depend on neither order nor threads. Expected electrons are rounded to 1/16 first: a last-digit difference between
two machines' mathematics then hardly ever reaches the drawn number.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri

from spheroidd.sim_emulator.draws import Draws
from spheroidd.sim_emulator.raster import F32, compiled, inlined

OFFSET_ADU, GAIN_ADU_PER_E, READ_NOISE_E = 100.0, 2.17, 1.6
HOT_SHARE, GAIN_SPREAD = 1e-5, 0.01
_STEPS = 16  # expected electrons are rounded to 1/16
_SMALL = 10  # below so many expected electrons the distribution is summed up, above it is drawn by rejection
# exp(-k/16): the chance of no electron at all.
_NONE = np.exp(-np.arange(_SMALL * _STEPS + 1) / _STEPS)
_LOG_FACTORIAL = gammaln(np.arange(4096) + 1.0)
# Read noise in counts at the middles of 65536 equal shares of its normal distribution.
_READ = (READ_NOISE_E * GAIN_ADU_PER_E * ndtri((np.arange(65536) + 0.5) / 65536)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera's fixed pattern, (y, x) float32: relative gain, and what hot pixels add in counts."""

    gain: F32
    hot_adu: F32

    @classmethod
    def drawn(cls, height: int, width: int, draws: Draws) -> "Camera":
        """The pattern of the camera that `draws` names."""
        gain = 1 + GAIN_SPREAD * draws.normals("gain", height, width)
        unit = draws.uniforms("hot", height, width)
        hot = np.where(unit < HOT_SHARE, 500 + 6000 * unit / HOT_SHARE, 0.0)
        return cls(gain.astype(np.float32), hot.astype(np.float32))

    def expose(self, expected_e: F32, key: int) -> NDArray[np.uint16]:
        """One image (y, x) of expected photoelectrons (y, x); the same key gives the same noise."""
        image = np.empty(expected_e.shape, np.uint16)
        _expose(expected_e, self.gain, self.hot_adu, _NONE, _LOG_FACTORIAL, _READ, np.uint64(key & (2**64 - 1)), image)
        return image


@inlined
def _philox(c0: int, c1: int, c2: int, key: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Two 64-bit words for a counter of three 32-bit words and a 64-bit key."""
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, x2, x3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(0)
    k0, k1 = key & mask, key >> shift
    for _ in range(10):
        p0 = x0 * np.uint64(0xD2511F53)
        p1 = x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (p1 >> shift) ^ x1 ^ k0, p1 & mask, (p0 >> shift) ^ x3 ^ k1, p0 & mask
        k0 = (k0 + np.uint64(0x9E3779B9)) & mask
        k1 = (k1 + np.uint64(0xBB67AE85)) & mask
    return (x0 << shift) | x1, (x2 << shift) | x3


@inlined
def _unit(word: np.uint64) -> float:
    """The upper half of a word as a number between 0 and 1, never either."""
    return float(np.int64(word >> np.uint64(32)) + 0.5) / 4294967296.0


@compiled
def _few(mean: float, none: float, word: np.uint64) -> int:
    """A Poisson number of a small mean from one word, by summing up its distribution; `none` is exp(-mean)."""
    u = (np.int64(word >> np.uint64(11)) + 0.5) / 9007199254740992.0
    total, chance, n = none, none, 0
    while u > total and n < 200:
        n += 1
        chance *= mean / n
        total += chance
    return n


@compiled
def _many(
    mean: float, word: np.uint64, row: int, column: int, key: np.uint64, log_factorial: NDArray[np.float64]
) -> int:
    """A Poisson number of a mean of 10 or more: transformed rejection (PTRS: Hoermann, Insur. Math. Econ. 12, 1993)."""
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    squeeze = 0.9277 - 3.6224 / (b - 2)
    attempt = 0
    while True:
        u, v = _unit(word) - 0.5, _unit(word << np.uint64(32))
        us = 0.5 - abs(u)
        k = math.floor((2 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= squeeze:
            return int(k)
        if k >= 0 and not (us < 0.013 and v > us):
            scale = 1.1239 + 1.1328 / (b - 3.4)
            left = math.log(v * scale / (a / (us * us) + b))
            log_k = log_factorial[k] if k < len(log_factorial) else math.lgamma(k + 1.0)
            if left <= -mean + k * math.log(mean) - log_k:
                return int(k)
        attempt += 1
        word = _philox(row, column, attempt, key)[0]


@compiled
def _expose(
    expected: F32,
    gain_map: F32,
    hot: F32,
    none: NDArray[np.float64],
    log_factorial: NDArray[np.float64],
    read: F32,
    key: np.uint64,
    image: NDArray[np.uint16],
) -> None:
    height, width = expected.shape
    first, second = np.empty(width, np.uint64), np.empty(width, np.uint64)
    for j in range(height):
        for i in range(width):  # apart from the rest, so that the compiler can take several pixels at once
            first[i], second[i] = _philox(j, i, 0, key)
        for i in range(width):
            steps = max(0, math.floor(expected[j, i] * gain_map[j, i] * np.float32(_STEPS) + np.float32(0.5)))
            mean = steps / _STEPS
            if mean < _SMALL:
                electrons = _few(mean, none[steps], first[i])
            else:
                electrons = _many(mean, first[i], j, i, key, log_factorial)
            noise = read[np.int64(second[i] & np.uint64(0xFFFF))]
            counts = electrons * GAIN_ADU_PER_E + OFFSET_ADU + noise + hot[j, i]
            image[j, i] = min(max(math.floor(counts + 0.5), 0), 65535)
