"""The transforms are numpy's, in single precision, whatever factors and remainders a plane's lengths have."""

import numpy as np
import pytest

from spheroidd.inference.reconstruction.transforms import PlaneTransforms, part_pair

SHAPES = [(16, 18), (24, 50), (126, 140), (98, 64), (210, 36)]


def plane_of(shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plane_is_transformed_in_place_and_elsewhere_alike(shape: tuple[int, int]) -> None:
    plane, transforms = plane_of(shape), PlaneTransforms(*shape, (16, 16), 1)
    out = np.empty_like(plane)
    transforms.forward(plane, out)
    wanted = np.fft.fft2(plane.astype(complex))
    assert np.abs(out - wanted).max() < 5e-6 * wanted.std()
    transforms.forward(plane, plane)
    assert np.array_equal(plane, out)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_part_of_the_doubled_plane_comes_back_from_the_columns_that_hold_anything(
    shape: tuple[int, int], share: float
) -> None:
    height, width = shape
    columns, part = int(share * (width + 1)), (2 * height - 6, 2 * width - 5)
    transforms = PlaneTransforms(height, width, part, columns)
    half = np.fft.rfft2(np.random.default_rng(1).normal(size=(2 * height, 2 * width)))
    half[:, columns:] = 0
    transforms.spectrum[:, : width + 1] = half
    wanted = np.fft.irfft2(half, (2 * height, 2 * width), norm="forward")
    image = transforms.inverse()
    assert image.shape == part
    assert np.abs(image - wanted[: part[0], : part[1]]).max() < 5e-6 * wanted.std()


def test_two_real_planes_are_told_apart_in_the_transform_of_both() -> None:
    both = plane_of((24, 30))
    transform = np.fft.fft2(both).astype(np.complex64)
    mean, faded = np.empty((24, 16), np.complex64), np.empty((24, 16), np.complex64)
    part_pair(transform, mean, faded)
    for half, plane in ((mean, both.real), (faded, both.imag)):
        wanted = np.fft.rfft2(plane)
        assert np.abs(half - wanted).max() < 5e-6 * wanted.std()
