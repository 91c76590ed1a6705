"""The bands into one spectrum of the doubled grid, with the weights of the plan: the inner loops."""

import numpy as np

from spheroidd.inference.preprocessing.jit import kernel


@kernel
def add_up(frames, sums):  # type: ignore[no-untyped-def]
    """sums[f] = the sum of the whole numbers of frame f."""
    for f in range(frames.shape[0]):
        total = np.int64(0)
        for y in range(frames.shape[1]):
            row, part = frames[f, y], np.uint32(0)  # 65537 pixels of 65535 fit into 32 bits
            for x in range(frames.shape[2]):
                part += np.uint32(row[x])
            total += np.int64(part)
        sums[f] = total


@kernel
def place_mean(mean, otf, angles, spectrum):  # type: ignore[no-untyped-def]
    """spectrum = A O D_0 on the half plane (2 Ny, Nx + 1) that is 0 elsewhere, from the half plane (Ny, Nx / 2 + 1)."""
    rows, columns = mean.shape
    for y in range(spectrum.shape[0]):
        row = spectrum[y]
        source = y if y < rows // 2 else y - rows
        if rows // 2 <= y < spectrum.shape[0] - rows // 2:
            row[:] = 0
            continue
        for x in range(columns):
            row[x] = angles * otf[source, x] * mean[source, x]
        row[columns:] = 0


@kernel
def add_band(band, otf, reach, weight, shift_y, shift_x, spectrum):  # type: ignore[no-untyped-def]
    """spectrum += T(k) + conj T(-k) with T(k) = weight O(k+f) C(k+f), whose bin lies `shift` bins from that of k.

    `reach` (y,) says up to which column, either way, a row of the OTF is not 0.
    """
    rows, columns = band.shape
    height = spectrum.shape[0]
    parts, outs = band.view(np.float32), spectrum.view(np.float32)  # real, imaginary, real ...
    re, im = weight.real, weight.imag
    for y in range(rows):
        ky = (y if y < rows // 2 else y - rows) - shift_y
        out, mirror = outs[ky % height], outs[-ky % height]
        row, pass_ = parts[y], otf[y]
        for first, last, wrap in ((0, reach[y], 0), (-reach[y], 0, columns)):
            for kx in range(max(first, shift_x), last):
                at, to, share = 2 * (kx + wrap), 2 * (kx - shift_x), pass_[kx + wrap]
                out[to] += share * (re * row[at] - im * row[at + 1])
                out[to + 1] += share * (re * row[at + 1] + im * row[at])
            for kx in range(first, min(last, shift_x + 1)):
                at, to, share = 2 * (kx + wrap), 2 * (shift_x - kx), pass_[kx + wrap]
                mirror[to] += share * (re * row[at] - im * row[at + 1])
                mirror[to + 1] -= share * (re * row[at + 1] + im * row[at])


@kernel
def weigh(spectrum, base, squares, within, reach, strengths, wiener, apodisation, ramp_y, ramp_x):  # type: ignore[no-untyped-def]
    """spectrum *= Apod / (base + sum strengths squares + wiener) and the shift to the output's pixels.

    What is 0 is not read: `reach` (y,) says up to which column the target is not, `within` (1 + band, y, 2) between
    which columns the base and each square are not.
    """
    n_bands, columns = squares.shape[0], base.shape[1]
    den = np.empty(columns, np.float32)
    for y in range(spectrum.shape[0]):
        row, under, target, at_row, last = spectrum[y], base[y], apodisation[y], ramp_y[y], reach[y]
        den[:] = wiener
        part, more = den[within[0, y, 0] : within[0, y, 1]], under[within[0, y, 0] : within[0, y, 1]]
        for x in range(part.size):  # slices: numba makes no vectors of places that might be negative
            part[x] += more[x]
        for b in range(n_bands):
            strength = strengths[b]
            if strength > 0:
                start, stop = within[1 + b, y, 0], within[1 + b, y, 1]
                part, more = den[start:stop], squares[b, y, start:stop]
                for x in range(part.size):
                    part[x] += strength * more[x]
        for x in range(last):
            den[x] = target[x] / den[x]
        for x in range(last):
            turn = at_row * ramp_x[x]
            value = row[x] * turn
            row[x] = complex(den[x] * value.real, den[x] * value.imag)
        row[last:] = 0


@kernel
def to_counts(image, scale, offset, out):  # type: ignore[no-untyped-def]
    """out uint16 = round(scale image + offset), halves to even; how many pixels did not fit and were cut off."""
    cut = 0
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            value = np.rint(image[y, x] * scale + offset)
            if value < 0 or value > 65535:
                cut += 1
            out[y, x] = np.uint16(min(max(value, np.float32(0)), np.float32(65535)))
    return cut
