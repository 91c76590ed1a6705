"""Objects one by one against the true ones."""

import numpy as np
import pytest

from spheroidd.inference.agreement.instances import instance_agreement
from spheroidd.protocols.errors import ConfigError

TRUE = np.repeat([0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 0], 2).reshape(1, 1, -1)  # two bars of 8 voxels


def bars(*values: int) -> np.ndarray:
    return np.repeat(values, 2).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("found", "matched", "f1"),
    [
        (TRUE, 2, 1.0),
        (bars(0, 7, 7, 7, 7, 0, 40, 40, 40, 40, 0, 0), 2, 1.0),  # numbers mean nothing
        (bars(0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0), 0, 0.0),  # two that became one: IoU 8 / 18
        (bars(0, 1, 1, 2, 2, 0, 3, 3, 3, 3, 0, 0), 1, 0.4),  # half of one is not more than half
        (bars(0, 1, 1, 1, 2, 0, 3, 3, 3, 3, 0, 0), 2, 0.8),  # three quarters of it are
        (bars(0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 0, 0), 1, 2 / 3),
        (bars(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, 0.0),
        (bars(5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6), 0, 0.0),
    ],
    ids=["same", "renumbered", "merged", "halved", "cut", "missed", "empty", "elsewhere"],
)
def test_an_object_matches_where_more_than_half_of_both_is_shared(found: np.ndarray, matched: int, f1: float) -> None:
    said = instance_agreement(found, TRUE)
    assert (said.true, said.matched) == (2, matched)
    assert said.found == len(set(found.ravel().tolist()) - {0})
    assert said.f1 == pytest.approx(f1)


def test_nothing_in_nothing_is_all_that_there_was() -> None:
    empty = np.zeros((2, 3, 4), int)
    assert instance_agreement(empty, empty).f1 == 1.0


@pytest.mark.parametrize("found", [TRUE.astype(float), TRUE[:, :, :5]], ids=["no labels", "another shape"])
def test_what_cannot_be_compared_is_refused(found: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="cannot be compared"):
        instance_agreement(found, TRUE)
