"""Against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.network.unet import DENSITY_UNIT_PER_UM3, UNetOutput
from spheroidd.inference.training.joint_viability import (
    ViabilitySettings,
    ViabilityWell,
    load_regressor_net,
    soft_features,
    soft_profile,
    tune_with_viability,
    viability_loss,
)
from spheroidd.inference.training.loss import (
    LossSettings,
    density_loss,
    negative_log_dice,
    pool_to,
    segmentation_loss,
    total_loss,
)
from spheroidd.inference.viability.regressor import ViabilityRegressor, features
from spheroidd.protocols.errors import ConfigError
from tests.inference.training.test_trainer import balls

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


def test_a_network_without_stages_or_density_costs_its_merged_map_alone() -> None:
    cells, merged = torch.rand(1, 2, 8, 8, 8).round(), torch.randn(1, 2, 8, 8, 8)
    found = total_loss(UNetOutput(merged, (), None), cells, torch.zeros_like(cells), LossSettings())
    assert float(found) == float(segmentation_loss(merged, cells, LossSettings()))


def test_the_study_s_loss_of_one_map_by_hand() -> None:
    """Half of -log Dice and half of focal with gamma 2, of four voxels: Dice = (2 * 1.5 + s) / (1.8 + 2 + s)."""
    s = 4e-3
    dice = -math.log((2 * 1.5 + s) / (1.8 + 2 + s))
    focal = -sum((1 - p) ** 2 * math.log(p) for p in (0.9, 0.6, 0.8, 0.9)) / 4
    found = segmentation_loss(logits(0.9, 0.6, 0.2, 0.1), FIRST_HALF, LossSettings())
    assert float(found) == pytest.approx(0.5 * dice + 0.5 * focal, rel=1e-4)


def test_the_viability_costs_its_squared_error_as_fractions() -> None:
    mean, mtt_percent = torch.tensor([0.9, 0.2]), torch.tensor([100.0, 50.0])
    assert float(viability_loss(mean, mtt_percent)) == pytest.approx((0.1**2 + 0.3**2) / 2)


def test_a_soft_count_has_a_gradient_and_the_regressor_s_own_features() -> None:
    rng = np.random.default_rng(0)
    live = torch.tensor(rng.random((24, 8, 8)), requires_grad=True)
    controls = [list(rng.uniform(50, 90, 24)), list(rng.uniform(50, 90, 24))]
    profile = soft_profile(live, (2.0, 1.0, 0.5))
    assert profile.tolist() == pytest.approx((live.detach().numpy().sum((1, 2)) * 1.0).tolist(), rel=1e-5)
    found = soft_features(profile, 2.0, controls)
    expected = features(profile.detach().tolist(), 2.0, controls)
    assert np.allclose(found.detach().numpy(), expected, rtol=1e-5)
    found.sum().backward()
    assert live.grad is not None
    assert float(live.grad.min()) > 0


def test_tuning_with_the_viability_lowers_its_error() -> None:
    torch.manual_seed(0)
    model = build_network(UNetSettings(base=3, levels=2, density_level=0))
    stacks = [balls(seed) for seed in range(2)]
    wells = [ViabilityWell(stack, (stacks[0],), mtt) for stack, mtt in zip(stacks, (150.0, 120.0), strict=True)]
    before = {name: value.clone() for name, value in model.named_buffers()}
    net = load_regressor_net(ViabilityRegressor.load().weights)
    costs: list[float] = []
    settings = ViabilitySettings(alpha=10.0, steps=30, learning_rate=3e-3)
    tune_with_viability(model, net, wells, LossSettings(), settings, lambda step, cost: costs.append(cost))
    assert np.mean(costs[-5:]) < 0.8 * np.mean(costs[:5])
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers()), "BatchNorm learns nothing"


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"steps": 0}, {"learning_rate": 0.0}], ids=str)
def test_a_tuning_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ViabilitySettings(**wrong)


def test_nothing_is_learnt_where_nobody_could_tell() -> None:
    """Whatever the network says there, the loss and its gradient are the same; elsewhere it counts as before."""
    cells, density = torch.rand(2, 2, 16, 16, 16).round(), torch.rand(2, 2, 16, 16, 16) * DENSITY_UNIT_PER_UM3
    known = torch.ones(2, 1, 16, 16, 16)
    known[:, :, 8:] = 0

    def cost(there: float, **given: torch.Tensor) -> float:
        torch.manual_seed(1)
        maps = [torch.randn(2, 2, n, n, n) for n in (16, 16, 8, 8)]
        for one in maps:
            one[:, :, one.shape[2] // 2 :] = there
        output = UNetOutput(maps[0], (maps[1], maps[2]), maps[3])
        return float(total_loss(output, cells, density, LossSettings(), **given))

    assert cost(9.0, known=known) == pytest.approx(cost(-9.0, known=known), rel=1e-6)
    assert cost(9.0) != pytest.approx(cost(-9.0), rel=0.1)
    assert cost(9.0, known=torch.ones_like(known)) == cost(9.0)
