"""The outputs' biases: moved to where the Dice of the validation stacks is highest, and nothing else changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logit

from spheroidd.inference.balance import balance
from spheroidd.inference.model_card import ModelCard
from spheroidd.inference.segment import UNetSegmenter
from spheroidd.inference.train import train
from spheroidd.inference.training_stack import TrainingStack
from spheroidd.inference.unet import UNet, build_network
from tests.study_rig import TINY, balls


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> UNet:
    folder: Path = tmp_path_factory.mktemp("learned")
    return train([balls(0)], [], replace(TINY, steps=25, every=25), folder)


def dice(model: UNet, stack: TrainingStack) -> list[float]:
    prediction = answers(model, stack)
    truth = stack.fractions() >= 0.5
    masks = [p >= 0.5 for p in prediction]
    return [2 * np.sum(m & t) / (m.sum() + t.sum()) for m, t in zip(masks, truth, strict=True)]


def answers(model: UNet, stack: TrainingStack) -> np.ndarray:
    segmenter = UNetSegmenter(model, ModelCard("t", model.settings, halo=0, sha256=""))
    return np.stack(segmenter.predict(stack.variants[:2][-1].astype(np.float32))[:2])


@pytest.mark.parametrize("bias", [1.2, -0.8])
def test_an_output_that_was_too_bold_or_too_careful_finds_its_way_back(learned: UNet, bias: float) -> None:
    stack, before = balls(1), [parameter.clone() for parameter in learned.logit_biases]
    best = dice(learned, stack)
    with torch.no_grad():
        for parameter, kept in zip(learned.logit_biases, before, strict=True):
            parameter.copy_(kept + bias)
    shifted, skewed = answers(learned, stack), dice(learned, stack)
    live, dead = balance(learned, [stack], ("live", "dead"))
    found = answers(learned, stack)
    for output, shift in enumerate((live, dead)):
        inner = (shifted[output] > 1e-3) & (shifted[output] < 1 - 1e-3)
        assert np.allclose(logit(found[output][inner]) - logit(shifted[output][inner]), shift, atol=2e-3)
    assert all(new >= old for new, old in zip(dice(learned, stack), skewed, strict=True))
    assert sum(dice(learned, stack)) >= sum(best) - 0.05
    with torch.no_grad():
        for parameter, kept in zip(learned.logit_biases, before, strict=True):
            parameter.copy_(kept)


def test_an_output_that_is_not_asked_for_stays(learned: UNet) -> None:
    before = [parameter.detach().clone() for parameter in learned.logit_biases]
    with torch.no_grad():
        for parameter in learned.logit_biases:
            parameter += 1.2
    skewed = [parameter.detach().clone() for parameter in learned.logit_biases]
    live, dead = balance(learned, [balls(1)], ("dead",))
    assert live == 0
    assert dead < 0
    for parameter, old, kept in zip(learned.logit_biases, skewed, before, strict=True):
        now = parameter.detach().numpy()
        assert now[0] == old[0]
        assert now[1] == pytest.approx(float(old[1]) + dead, abs=1e-6)
        with torch.no_grad():
            parameter.copy_(kept)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_without_stacks_nothing_is_moved(dimensions: int) -> None:
    model = build_network(replace(TINY.network, dimensions=dimensions))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert balance(model, [], ("live", "dead")) == (0.0, 0.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_network_says_where_its_merged_logits_are_moved(dimensions: int) -> None:
    torch.manual_seed(0)
    model = build_network(replace(TINY.network, dimensions=dimensions)).eval()
    volume = torch.randn(1, 2, 8, 16, 16)
    with torch.no_grad():
        before = model(volume).merged.clone()
        for bias in model.logit_biases:
            bias += torch.tensor([0.5, -0.25])
        moved = model(volume).merged - before
    assert torch.allclose(moved[:, 0], torch.tensor(0.5), atol=1e-5)
    assert torch.allclose(moved[:, 1], torch.tensor(-0.25), atol=1e-5)
