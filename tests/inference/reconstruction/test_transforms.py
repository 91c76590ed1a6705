"""The transforms are numpy's, in single precision, whatever factors and remainders a plane's lengths have."""

import numpy as np
import pytest

from spheroidd.inference.reconstruction.transforms import PlaneTransforms, part_pair

SHAPES = [(16, 18), (24, 50), (126, 140), (98, 64), (210, 36)]


def plane_of(shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", SHAPES)
def test_planes_are_transformed_together_as_each_alone(shape: tuple[int, int]) -> None:
    planes = np.stack([plane_of(shape), plane_of(shape)[::-1]])
    found = PlaneTransforms(*shape, (16, 16), 1).forward(planes)
    wanted = np.fft.fft2(planes.astype(complex))
    assert np.abs(found - wanted).max() < 5e-6 * wanted.std()


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
