"""Volume, place and brightness of objects whose every figure is known."""

import numpy as np
import pytest

from spheroidd.inference.segmentation.object_features import object_features

SPACING_UM = (2.0, 1.0, 0.5)


def test_two_boxes_are_measured() -> None:
    labels = np.zeros((6, 10, 20), np.int32)
    labels[1:3, 2:6, 4:8] = 1
    labels[4:6, 7:8, 10:20] = 2  # to the end of z and of x
    pixels = np.zeros(labels.shape)
    pixels[1], pixels[2] = 100.0, 300.0
    pixels[4:6] = 7.0
    found = object_features(labels, SPACING_UM, {"488": lambda z: pixels[z], "561": lambda z: pixels[z] * 2})
    assert found.labels.tolist() == [1, 2]
    assert found.volume_um3.tolist() == [32.0, 20.0]
    assert (found.z_um[0], found.y_um[0], found.x_um[0]) == (4.0, 4.0, 3.0)  # the middles of the boxes
    assert (found.z_um[1], found.y_um[1], found.x_um[1]) == (10.0, 7.5, 7.5)
    assert found.touches_border.tolist() == [False, True]
    assert found.means["488"].tolist() == [200.0, 7.0]
    assert found.means["561"].tolist() == [400.0, 14.0]


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 1, 1)])
def test_a_stack_without_an_object_has_a_table_without_a_row(shape: tuple[int, int, int]) -> None:
    found = object_features(np.zeros(shape, np.int32), SPACING_UM, {"488": lambda z: np.zeros(shape[1:])})
    assert [len(column) for column in (found.labels, found.volume_um3, found.means["488"])] == [0, 0, 0]
