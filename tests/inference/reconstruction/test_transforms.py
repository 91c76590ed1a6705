"""The transforms are numpy's, in single precision, whatever factors and remainders a plane's lengths have."""

import numpy as np
import pytest

from spheroidd.inference.reconstruction.transforms import aligned, forward, inverse, part_pair

SHAPES = [(16, 18), (24, 50), (126, 140), (98, 64), (210, 36)]


def plane_of(shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", SHAPES)
def test_planes_are_transformed_together_as_each_alone(shape: tuple[int, int]) -> None:
    planes = np.stack([plane_of(shape), plane_of(shape)[::-1]])
    found = forward(planes)
    wanted = np.fft.fft2(planes.astype(complex))
    assert np.abs(found - wanted).max() < 5e-6 * wanted.std()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_part_of_the_doubled_plane_comes_back(shape: tuple[int, int]) -> None:
    height, width = shape
    part = (2 * height - 6, 2 * width - 5)
    half = np.fft.rfft2(np.random.default_rng(1).normal(size=(2 * height, 2 * width)))
    wanted = np.fft.irfft2(half, (2 * height, 2 * width), norm="forward")
    image = inverse(half.astype(np.complex64), part)
    assert image.shape == part
    assert np.abs(image - wanted[: part[0], : part[1]]).max() < 5e-6 * wanted.std()


def test_memory_for_planes_begins_cache_lines_and_is_apart() -> None:
    parts = aligned(((3, 5), np.complex64), ((0, 4), np.float32), ((7,), np.float32), ((2, 2), np.int64))
    assert [part.shape for part in parts] == [(3, 5), (0, 4), (7,), (2, 2)]
    assert all(part.ctypes.data % 64 == 0 and not part.any() for part in parts if part.size)
    for number, part in enumerate(parts):
        part[:] = number
    assert all((part == number).all() for number, part in enumerate(parts))


def test_two_real_planes_are_told_apart_in_the_transform_of_both() -> None:
    both = plane_of((24, 30))
    transform = np.fft.fft2(both).astype(np.complex64)
    mean, faded = np.empty((24, 16), np.complex64), np.empty((24, 16), np.complex64)
    part_pair(transform, mean, faded)
    for half, plane in ((mean, both.real), (faded, both.imag)):
        wanted = np.fft.rfft2(plane)
        assert np.abs(half - wanted).max() < 5e-6 * wanted.std()
