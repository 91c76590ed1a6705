"""A widened network: the same answers from the first step on, and copies that part ways once it learns."""

import dataclasses

import pytest
import torch
from torch import nn

from spheroidd.inference.network.build import build_network
from spheroidd.inference.network.model_card import UNetSettings
from spheroidd.inference.network.unet import UNet
from spheroidd.inference.network.widen import widened
from spheroidd.protocols.errors import ConfigError


def trained(settings: UNetSettings) -> UNet:
    """A network none of whose parameters or statistics has a value that would hide a mistake."""
    torch.manual_seed(0)
    model = build_network(settings)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                for values in (module.weight, module.running_var):
                    values.uniform_(0.5, 2.0)
                for values in (module.bias, module.running_mean):
                    values.normal_()
    return model.eval()


SWITCHES: list[dict[str, int | bool]] = [
    {},
    {"levels": 4},
    {"residual": False},
    {"deep_supervision": False},
    {"density": False},
    {"max_features": 12, "residual": False},  # the coarsest level does not grow
]


@pytest.mark.parametrize("base", [3, 6, 12])
@pytest.mark.parametrize("switch", SWITCHES)
def test_the_answers_stay(switch: dict[str, int | bool], base: int) -> None:
    narrow = trained(dataclasses.replace(UNetSettings(base=3), **switch))  # type: ignore[arg-type]
    wide = widened(narrow, base, seed=1).eval()
    assert wide.settings == dataclasses.replace(narrow.settings, base=base)
    x = torch.randn(2, 2, 8, 16, 8)
    with torch.no_grad():
        for ours, theirs in zip(wide.infer(x), narrow.infer(x), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_copies_part_ways() -> None:
    wide = widened(trained(UNetSettings(base=3)), 6, seed=1)
    out = wide(torch.randn(1, 2, 8, 8, 8))
    out.merged.square().mean().backward()
    for name, values in wide.named_parameters():
        if values.ndim == 5 and values.grad is not None:
            first, second = values.grad.chunk(2)
            assert not torch.allclose(first, second, rtol=1e-2), f"{name}: both copies would go the same way"


def test_the_seed_decides() -> None:
    narrow = trained(UNetSettings(base=3))
    states = [widened(narrow, 6, seed).state_dict() for seed in (1, 1, 2)]
    same = [all(torch.equal(states[0][name], other[name]) for name in other) for other in states[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        (UNetSettings(base=3), 8),
        (UNetSettings(base=4), 2),
        (UNetSettings(base=3, architecture="SlicewiseUNet"), 6),
        (UNetSettings(base=3, max_features=14), 6),
        (UNetSettings(base=3, max_features=12), 6),
    ],
)
def test_what_cannot_be_widened_is_refused(settings: UNetSettings, base: int) -> None:
    with pytest.raises(ConfigError, match="cannot be widened"):
        widened(trained(settings), base, seed=0)
