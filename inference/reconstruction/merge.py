"""The bands into one spectrum of the doubled grid, with the weights of the plan: the inner loops.

Places are unsigned numbers where a loop begins elsewhere than at 0: of signed ones numba asks at every step whether
they are negative, and makes no vectors of such a loop.
"""

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
                part = np.uint32(part + row[x])
            total += np.int64(part)
        sums[f] = total


@kernel
def power_at(spectrum, places):  # type: ignore[no-untyped-def]
    """The mean of |spectrum|^2 (flat) at some places, in double precision; 0 where there are none."""
    power = 0.0
    for place in places:
        re, im = np.float64(spectrum[place].real), np.float64(spectrum[place].imag)
        power += re * re + im * im
    return power / max(len(places), 1)


@kernel
def merge(  # type: ignore[no-untyped-def]
    mean, otf, angles, bands, otfs, reaches, weights, shifts, strengths, reach, table, place_y, place_x, apodisation,
    ramp_y, ramp_x, spectrum,
):  # fmt: skip
    """spectrum = G [A O D_0 + sum of T(k) + conj T(-k)] on the half plane (2 Ny, Nx + 1) of the doubled grid.

    T(k) = weight O(k+f) C(k+f), whose bin lies `shifts` (band, 2) bins from that of k; D_0 and `otf` are half planes
    (Ny, Nx / 2 + 1), `bands` and `otfs` whole ones with zero in the middle. G = Apod / (A O^2 + sum of strength
    O(k+f)^2 + strength O(k-f)^2 + `table`), whose place is `place_y` + `place_x`, and the shift to the output's pixels,
    `ramp_y` and `ramp_x`. Bands of strength 0 are left out.

    Memory takes longer than arithmetic here. So what is 0 is not read: `reach` (y,) says up to which column the target
    is not, `reaches` (band, y) how far from the middle a row of an OTF is not. Sums stay in the nearest cache, and
    rows k and -k, which are made of the same rows of the bands, are made one after the other.
    """
    height = spectrum.shape[0]
    sums = np.empty((3, spectrum.shape[1]), np.float32)
    for distance in range(height // 2 + 1):
        for turn in range(1 if distance % (height // 2) == 0 else 2):
            ky = -distance if turn else distance
            last = reach[ky % height]
            spectrum[ky % height, last:] = 0
            if last > 0:
                sums[:2, :last], den, place = 0, sums[2], place_y[ky % height]
                for x in range(last):
                    den[x] = table[np.uint32(np.int32(place + place_x[x]))]
                _add_up(sums, ky, last, mean, otf, angles, bands, otfs, reaches, weights, shifts, strengths)
                _weigh(spectrum[ky % height], sums, apodisation[ky % height], ramp_y[ky % height], ramp_x, last)


@kernel
def power_by_place(  # type: ignore[no-untyped-def]
    mean, otf, angles, bands, otfs, reaches, weights, shifts, strengths, reach, every, place_y, place_x, power,
):  # fmt: skip
    """power (3, place) = |A O D_0 + sum of T(k) + conj T(-k)|^2, den and den^2 by place, of every so manieth row.

    Arguments as of `merge`; in double precision and one order.
    """
    height = len(reach)
    sums = np.empty((3, len(place_x)), np.float32)
    power[:] = 0
    for distance in range(0, height // 2, every):
        for turn in range(2 if distance else 1):
            ky = -distance if turn else distance
            last, place = reach[ky % height], place_y[ky % height]
            if last > 0:
                sums[:, :last] = 0
                _add_up(sums, ky, last, mean, otf, angles, bands, otfs, reaches, weights, shifts, strengths)
                for x in range(last):
                    at = np.uint32(np.int32(place + place_x[x]))
                    re, im, den = np.float64(sums[0, x]), np.float64(sums[1, x]), np.float64(sums[2, x])
                    power[0, at] += re * re + im * im
                    power[1, at] += den
                    power[2, at] += den * den


@kernel
def _add_up(sums, ky, last, mean, otf, angles, bands, otfs, reaches, weights, shifts, strengths):  # type: ignore[no-untyped-def]
    """Into sums (real, imaginary, den; x) what mean and bands have for one row, up to a column."""
    rows = mean.shape[0]
    if -rows // 2 <= ky < rows // 2:
        _add_mean(sums[0], sums[1], sums[2], otf[ky % rows], mean[ky % rows], angles, min(last, mean.shape[1]))
    for b in range(len(strengths)):
        if strengths[b] == 0:
            continue
        for side in (1, -1):  # C(k+f), and C(-k+f)
            source = rows // 2 + shifts[b, 0] + side * ky
            if 0 <= source < rows:
                band, pass_, farthest = bands[b, source], otfs[b, source], reaches[b, source]
                if side > 0:
                    _add_row(sums, band, pass_, farthest, shifts[b, 1], weights[b], strengths[b], last)
                else:
                    _add_mirror(sums, band, pass_, farthest, shifts[b, 1], weights[b], strengths[b], last)


@kernel
def _add_mean(real, imaginary, den, otf, mean, angles, count):  # type: ignore[no-untyped-def]
    for x in range(count):
        share, value = angles * otf[x], mean[x]
        real[x] += share * value.real
        imaginary[x] += share * value.imag
        den[x] += share * otf[x]


@kernel
def _add_row(sums, band, otf, reach, shift_x, weight, strength, last):  # type: ignore[no-untyped-def]
    """T(k) of one row at the columns from 0 to `last`: those of the band from its `shift_x` on."""
    real, imaginary, den = sums[0], sums[1], sums[2]
    start, stop = max(-reach, shift_x), min(reach, shift_x + last)
    re, im = weight.real, weight.imag
    at, to = np.uint64(max(len(band) // 2 + start, 0)), np.uint64(max(start - shift_x, 0))
    for i in range(np.uint64(max(stop - start, 0))):
        share, value = otf[at + i], band[at + i]
        real[to + i] += share * (re * value.real - im * value.imag)
        imaginary[to + i] += share * (re * value.imag + im * value.real)
        den[to + i] += strength * (share * share)


@kernel
def _add_mirror(sums, band, otf, reach, shift_x, weight, strength, last):  # type: ignore[no-untyped-def]
    """conj T(-k) of one row, likewise: column x of the sum comes from column shift - x of the band."""
    real, imaginary, den = sums[0], sums[1], sums[2]
    start, stop = max(-reach, shift_x - last + 1), min(reach, shift_x + 1)
    re, im = weight.real, weight.imag
    at, to = np.uint64(max(len(band) // 2 + stop - 1, 0)), np.uint64(max(shift_x - stop + 1, 0))
    for i in range(np.uint64(max(stop - start, 0))):
        share, value = otf[at - i], band[at - i]
        real[to + i] += share * (re * value.real - im * value.imag)
        imaginary[to + i] -= share * (re * value.imag + im * value.real)
        den[to + i] += strength * (share * share)


@kernel
def _weigh(row, sums, target, at_row, ramp_x, last):  # type: ignore[no-untyped-def]
    """row = target / den (real + i imaginary) ramp, up to a column."""
    real, imaginary, den = sums[0], sums[1], sums[2]
    a, c = at_row.real, at_row.imag
    for x in range(last):
        gain = target[x] / den[x]
        re, im = gain * real[x], gain * imaginary[x]
        t = ramp_x[x]
        turn, tilt = a * t.real - c * t.imag, a * t.imag + c * t.real
        row[x] = complex(re * turn - im * tilt, re * tilt + im * turn)


@kernel
def to_counts(image, scale, offset, out):  # type: ignore[no-untyped-def]
    """out uint16 = round(scale image + offset), halves to even; how many pixels did not fit and were cut off."""
    cut = 0
    low, high = np.float32(0), np.float32(65535)
    for y in range(out.shape[0]):
        pixels, counts = image[y], out[y]
        for x in range(out.shape[1]):
            value = np.rint(pixels[x] * scale + offset)
            within = min(max(value, low), high)
            cut += value != within
            counts[x] = np.uint16(np.int32(within))
    return cut
