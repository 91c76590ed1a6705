"""From an angle's frames to its bands, by least squares in real space: 15 frames become 7 real planes before any FFT.

Frame p of an angle is D_p = C_0 + sum over orders o of Re(C_o exp(i o phi_p)): with the columns 1, exp(i o phi_p) / 2
and their conjugates that is a linear system for C_0 (real) and C_o (complex); the conjugate bands need no computing.
"""

import numpy as np
from numpy.typing import NDArray

from spheroidd.inference.preprocessing.jit import kernel

Complexes = NDArray[np.complex128]
Floats = NDArray[np.float64]
EDGE_STEP = 0.3  # of an edge's last step, by which it goes on
MOST_CONDITION = 30.0  # of the system: beyond it phases coincide, and noise would grow as much
_ROWS = 4  # of every frame, summed up at a time: the sums stay in the nearest cache, and memory is read in longer runs


def unmixing(phases_rad: Floats, offsets_rad: Floats) -> Complexes | None:
    """The rows (1 + orders, frames) that give C_0, C_1 ... from frames of these phases; None where they cannot.

    `offsets_rad` (orders,) is by how much each order's phase leads its multiple of `phases_rad`.
    """
    orders = np.arange(1, len(offsets_rad) + 1)
    turns = np.exp(1j * (np.outer(phases_rad, orders) + offsets_rad)) / 2
    columns = np.concatenate([np.ones((len(phases_rad), 1)), turns, turns.conj()], axis=1)
    if len(phases_rad) < columns.shape[1] or np.linalg.cond(columns) > MOST_CONDITION:
        return None
    solved: Complexes = np.linalg.pinv(columns)[: 1 + len(orders)]
    return solved


@kernel
def separate(  # type: ignore[no-untyped-def]
    frames, angle_of, mean_weights, band_angle, band_weights, offset, ramp_y, ramp_x, spin_y, spin_x, blend, taper_y,
    taper_x, pair, bands,
):  # fmt: skip
    """One pass over frames (frame, y, x): their mean plane, and each band moved by its fraction of a bin.

    `pair` (y, x) and `bands` (band, y, x) complex64 are larger than the frames: they begin with them, and behind them
    one edge goes over into the other by the shares `blend` (axis, pixel), so that the transforms see none.
    `mean_weights` (frame,) and `band_weights` (band, frame) complex64 carry what evens the frames' brightness out;
    `ramp_y` (band, y) and `ramp_x` (band, x) are the factors of the move, `spin_y` and `spin_x` the stripes in whole
    bins: a band goes over from edge to edge without them, so that they go on evenly. The real part of `pair` is the
    mean, the imaginary one the mean times `taper_y` (y,) and `taper_x` (x,), 0 behind the frames.
    """
    n_frames, height, width = frames.shape
    n_bands = bands.shape[0]
    real, imaginary = np.empty((n_bands, _ROWS * width), np.float32), np.empty((n_bands, _ROWS * width), np.float32)
    plain = np.empty(_ROWS * width, np.float32)
    mean_offset = np.float32(0)
    band_offset = np.zeros(n_bands, np.complex64)
    for f in range(n_frames):
        mean_offset += mean_weights[f] * offset
        for b in range(n_bands):
            band_offset[b] += band_weights[b, f] * offset
    for first in range(0, height, _ROWS):
        rows = min(_ROWS, height - first)
        plain[:] = -mean_offset
        for b in range(n_bands):
            real[b, :] = -band_offset[b].real
            imaginary[b, :] = -band_offset[b].imag
        for f in range(n_frames):
            weight, pixels = mean_weights[f], frames[f, first : first + rows].reshape(-1)
            counted = weight == 0
            for b in range(n_bands):
                if band_angle[b] != angle_of[f]:
                    continue
                a, c = band_weights[b, f].real, band_weights[b, f].imag
                real_b, imaginary_b = real[b], imaginary[b]
                if counted:
                    for i in range(pixels.size):
                        value = np.float32(pixels[i])
                        real_b[i] += a * value
                        imaginary_b[i] += c * value
                else:  # a pixel is read and made a float once
                    counted = True
                    for i in range(pixels.size):
                        value = np.float32(pixels[i])
                        plain[i] += weight * value
                        real_b[i] += a * value
                        imaginary_b[i] += c * value
            if not counted:
                for i in range(pixels.size):
                    plain[i] += weight * np.float32(pixels[i])
        for row in range(rows):
            y, part = first + row, slice(row * width, (row + 1) * width)
            both, mean, at_row = pair[y], plain[part], taper_y[y]
            for x in range(width):
                both[x] = complex(mean[x], mean[x] * (at_row * taper_x[x]))
            for b in range(n_bands):
                out, turn, real_b, imaginary_b = bands[b, y], ramp_x[b], real[b, part], imaginary[b, part]
                a, c = ramp_y[b, y].real, ramp_y[b, y].imag
                for x in range(width):
                    re, im = real_b[x] * a - imaginary_b[x] * c, real_b[x] * c + imaginary_b[x] * a
                    t = turn[x]
                    out[x] = complex(re * t.real - im * t.imag, re * t.imag + im * t.real)
    plain_y, plain_x = np.ones(pair.shape[0], np.complex64), np.ones(pair.shape[1], np.complex64)
    _close(pair, height, width, plain_y, plain_x, blend)
    pair[:, width:].imag[:] = 0
    pair[height:].imag[:] = 0
    for b in range(n_bands):
        _close(bands[b], height, width, spin_y[b], spin_x[b], blend)


@kernel
def _close(plane, height, width, spin_y, spin_x, blend):  # type: ignore[no-untyped-def]
    """Fills a plane behind its frame of `height` x `width`: right of it, then below.

    An edge goes on as its last step promises, in part, evened with its neighbours along the edge (1, 2, 1), because
    what goes on is a pixel's noise too; without the stripes in whole bins, which go on by themselves.
    """
    quarter, beyond = np.float32(0.25), np.float32(EDGE_STEP)
    first, last = np.empty(len(spin_x), np.complex64), np.empty(len(spin_x), np.complex64)
    left, right = np.empty(height, np.complex64), np.empty(height, np.complex64)
    for y in range(height):
        row, turn = plane[y], spin_y[y].conjugate()
        one, two = row[0] * spin_x[0].conjugate(), row[1] * spin_x[1].conjugate()
        left[y] = (one + beyond * (one - two)) * turn
        one, two = row[width - 1] * spin_x[width - 1].conjugate(), row[width - 2] * spin_x[width - 2].conjugate()
        right[y] = (one + beyond * (one - two)) * turn
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        start = quarter * (right[above] + right[y] + right[y] + right[below]) * spin_y[y]
        stop = quarter * (left[above] + left[y] + left[y] + left[below]) * spin_y[y]
        for x in range(width, len(spin_x)):
            plane[y, x] = (start + blend[1, x - width] * (stop - start)) * spin_x[x]
    for x in range(len(spin_x)):
        turn = spin_x[x].conjugate()
        one, two = plane[0, x] * spin_y[0].conjugate(), plane[1, x] * spin_y[1].conjugate()
        first[x] = (one + beyond * (one - two)) * turn
        one, two = (
            plane[height - 1, x] * spin_y[height - 1].conjugate(),
            plane[height - 2, x] * spin_y[height - 2].conjugate(),
        )
        last[x] = (one + beyond * (one - two)) * turn
    for x in range(len(spin_x)):
        before, after = (x - 1) % len(spin_x), (x + 1) % len(spin_x)
        start = quarter * (last[before] + last[x] + last[x] + last[after]) * spin_x[x]
        stop = quarter * (first[before] + first[x] + first[x] + first[after]) * spin_x[x]
        for y in range(height, len(spin_y)):
            plane[y, x] = (start + blend[0, y - height] * (stop - start)) * spin_y[y]


def blending(pad_y: int, pad_x: int) -> NDArray[np.float32]:
    """The shares (2, most) by which the last row or column goes over into the first, along a half cosine."""
    shares = np.zeros((2, max(pad_y, pad_x)), np.float32)
    for axis, pad in enumerate((pad_y, pad_x)):
        shares[axis, :pad] = (1 - np.cos(np.pi * (np.arange(pad) + 1) / (pad + 1))) / 2
    return shares
