"""Against values worked out by hand."""

import math

import pytest
import torch

from spheroidd.inference.loss import (
    LossSettings,
    density_loss,
    negative_log_dice,
    pool_to,
    segmentation_loss,
    total_loss,
)
from spheroidd.inference.unet import DENSITY_UNIT_PER_UM3, UNetOutput
from spheroidd.protocols.errors import ConfigError

FIRST_HALF = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 1, 4)
SURE = 40.0  # a logit whose sigmoid is 0 or 1 to all digits


def logits(*probabilities: float) -> torch.Tensor:
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.logit(p).clamp(-SURE, SURE).float().reshape(1, 1, 1, 1, -1)


@pytest.mark.parametrize(
    ("probabilities", "dice"),
    [
        ((1, 1, 0, 0), 1.0),
        ((0.5, 0.5, 0.5, 0.5), 0.5),  # 2 * 1 / (2 + 2)
        ((1, 0, 0, 0), 2 / 3),  # 2 * 1 / (1 + 2)
        ((1, 1, 1, 0), 4 / 5),
        ((0, 0, 1, 1), 1e-3 / (4 / 4 + 1e-3)),  # nothing met: only the smoothing, 0.001 of 4 voxels, is left
    ],
)
def test_negative_log_dice(probabilities: tuple[float, ...], dice: float) -> None:
    found = negative_log_dice(logits(*probabilities), FIRST_HALF, 1e-3)
    assert float(found) == pytest.approx(-math.log(dice), abs=2e-3)


def test_a_fractional_target_that_is_met_costs_nothing() -> None:
    target = torch.tensor([1.0, 0.7, 0.25, 0.0]).reshape(1, 1, 1, 1, 4)
    assert float(negative_log_dice(logits(1, 0.7, 0.25, 0), target, 1e-3)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("p", "cost"), [(0.0, 0.0), (0.001, math.log(2)), (1.0, math.log(1001))])
def test_what_an_empty_target_costs(p: float, cost: float) -> None:
    empty = torch.zeros(2, 1, 4, 4, 4)
    found = negative_log_dice(torch.full_like(empty, float(logits(p))), empty, 1e-3)
    assert float(found) == pytest.approx(cost, abs=1e-3)


def test_dice_is_pooled_over_the_batch_and_averaged_over_the_outputs() -> None:
    target = torch.zeros(2, 2, 1, 1, 4)
    target[0, 0, ..., :2] = 1  # of live, only the first patch has any; of dead, there is none
    found = torch.full((2, 2, 1, 1, 4), -SURE)
    found[0, 0, ..., :1] = SURE  # half of it is found: Dice 2/3
    assert float(negative_log_dice(found, target, 1e-6)) == pytest.approx(-math.log(2 / 3) / 2, abs=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_by_hand(gamma: float) -> None:
    settings = LossSettings(lambda_dice=0, lambda_focal=1, gamma=gamma)
    found = segmentation_loss(logits(0.9, 0.6, 0.2, 0.1), FIRST_HALF, settings)
    truth = (0.9, 0.6, 0.8, 0.9)
    assert float(found) == pytest.approx(-sum((1 - p) ** gamma * math.log(p) for p in truth) / 4, rel=1e-4)


def test_half_precision_logits_are_judged_in_single() -> None:
    target = torch.rand(1, 2, 8, 8, 8)
    raw = torch.randn(1, 2, 8, 8, 8).bfloat16()
    found = segmentation_loss(raw, target, LossSettings())
    assert found.dtype == torch.float32
    assert float(found) == float(segmentation_loss(raw.float(), target, LossSettings()))


def test_targets_are_pooled_by_area() -> None:
    target = torch.zeros(1, 1, 4, 4, 4)
    target[0, 0, 1, 1, 1] = 1  # a nearest-neighbour sample of every other voxel would miss it
    assert pool_to(target, torch.Size((1, 1, 2, 2, 2))).flatten().tolist() == [1 / 8] + [0] * 7


def test_density_is_judged_in_its_own_unit() -> None:
    target = torch.full((1, 2, 4, 4, 4), 3 * DENSITY_UNIT_PER_UM3)
    assert float(density_loss(torch.full((1, 2, 2, 2, 2), 1.0), target)) == pytest.approx(4)


def test_the_total_weighs_its_parts_as_written() -> None:
    settings = LossSettings(stages=0.5, density=0.25)
    cells = torch.rand(1, 2, 8, 8, 8).round()
    stages = (torch.randn(1, 2, 8, 8, 8), torch.randn(1, 2, 4, 4, 4))
    merged, density = torch.randn(1, 2, 8, 8, 8), torch.zeros(1, 2, 4, 4, 4)
    target = torch.full((1, 2, 8, 8, 8), 2 * DENSITY_UNIT_PER_UM3)
    main, fine = (segmentation_loss(x, cells, settings) for x in (merged, stages[0]))
    coarse = segmentation_loss(stages[1], pool_to(cells, stages[1].shape), settings)
    expected = main + 0.5 * (fine + 0.5 * coarse) / 1.5 + 0.25 * 4
    assert float(total_loss(UNetOutput(merged, stages, density), cells, target, settings)) == pytest.approx(
        float(expected)
    )


@pytest.mark.parametrize("wrong", [{"gamma": -1.0}, {"smoothing": 0.0}, {"density": float("nan")}], ids=str)
def test_weights_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LossSettings(**wrong)
