"""The outputs' biases: moved to where the Dice of the validation stacks is highest, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logit

from spheroidd.inference.network.build import ARCHITECTURES, build_network
from spheroidd.inference.network.model_card import ModelCard
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.segmentation.segmenter import UNetSegmenter
from spheroidd.inference.training.output_bias import Output, balance
from spheroidd.inference.training.stack import TrainingStack
from tests.inference.training.rig import TINY, balls

GRID = 0.12  # logits between two thresholds at most


def move(model: UNet, live: float, dead: float) -> None:
    with torch.no_grad():
        for bias in model.logit_biases:
            bias += torch.tensor([live, dead])


def answers(model: UNet, stack: TrainingStack) -> np.ndarray:
    segmenter = UNetSegmenter(model, ModelCard("t", model.settings, halo=0, sha256=""), "cpu", "fp32")
    return np.stack(segmenter.predict(stack.variants[:2][-1].astype(np.float32))[:2])


@pytest.fixture
def agreed() -> tuple[UNet, TrainingStack]:
    """A network that takes half of the voxels for cells, and a stack whose truth is just those."""
    torch.manual_seed(0)
    model, stack = build_network(TINY.network).eval(), balls(0)
    for _ in range(2):
        move(model, *(-np.median(logit(p)) for p in answers(model, stack)))
    masks = answers(model, stack) >= 0.5
    assert ((masks.mean(axis=(1, 2, 3)) > 0.3) & (masks.mean(axis=(1, 2, 3)) < 0.7)).all()
    return model, replace(stack, cells=(255 * masks).astype(np.uint8))


@pytest.mark.parametrize("outputs", [("live", "dead"), ("dead",), ("live",), ()])
@pytest.mark.parametrize("skew", [(0.6, -0.5), (-0.4, 0.7)])
def test_an_output_that_was_moved_away_from_the_truth_finds_its_way_back(
    agreed: tuple[UNet, TrainingStack], skew: tuple[float, float], outputs: tuple[Output, ...]
) -> None:
    model, stack = agreed
    move(model, *skew)
    skewed = answers(model, stack)
    shifts = balance(model, [stack], outputs, "fp32")
    found = answers(model, stack)
    for number, name in enumerate(("live", "dead")):
        if name in outputs:
            assert shifts[number] == pytest.approx(-skew[number], abs=GRID)
            truth = stack.cells[number] > 0
            assert np.mean((found[number] >= 0.5) == truth) > np.mean((skewed[number] >= 0.5) == truth)
        else:
            assert shifts[number] == 0
        assert np.allclose(logit(found[number]) - logit(skewed[number]), shifts[number], atol=2e-3)


def test_in_bf16_the_way_back_is_found_too(agreed: tuple[UNet, TrainingStack]) -> None:
    model, stack = agreed
    move(model, 0.6, -0.5)
    assert balance(model, [stack], ("live", "dead"), "bf16") == pytest.approx((-0.6, 0.5), abs=GRID)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_stacks_nothing_is_moved(architecture: str) -> None:
    model = build_network(replace(TINY.network, architecture=architecture))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert balance(model, [], ("live", "dead")) == (0.0, 0.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_says_where_its_merged_logits_are_moved(architecture: str) -> None:
    torch.manual_seed(0)
    model = build_network(replace(TINY.network, architecture=architecture)).eval()
    volume = torch.randn(1, 2, 8, 16, 16)
    with torch.no_grad():
        before = model(volume).merged.clone()
        move(model, 0.5, -0.25)
        moved = model(volume).merged - before
    assert torch.allclose(moved[:, 0], torch.tensor(0.5), atol=1e-5)
    assert torch.allclose(moved[:, 1], torch.tensor(-0.25), atol=1e-5)
