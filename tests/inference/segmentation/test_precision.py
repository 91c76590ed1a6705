"""In what the network computes: who decides, what a wrong word gets, and that both kinds work on any processor."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from spheroidd.inference.network.build import ARCHITECTURES, build_network
from spheroidd.inference.network.model_card import ModelCard, UNetSettings
from spheroidd.inference.segmentation import precision
from spheroidd.inference.segmentation.precision import VARIABLE, choose_precision, has_native_bf16, named_precision
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, choose_dtype
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.results import Precision
from spheroidd.testing.segmenter_contract import noise

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["native", "not-native"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor that multiplies bfloat16 itself, and one that does not, wherever the suite runs."""
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: request.param)
    return bool(request.param)


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """As torch computes on a processor whose bfloat16 oneDNN does not take."""
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags() warns of Intel GPUs
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


def segmenter(precision: str, architecture: str = "ResidualUNet") -> UNetSegmenter:
    torch.manual_seed(3)
    shape = UNetSettings(base=4, levels=3, architecture=architecture)
    return UNetSegmenter(build_network(shape).eval(), ModelCard("tiny", shape, 16, "0" * 64), "cpu", precision)


@pytest.mark.usefixtures("unset")
def test_auto_is_bf16_only_where_the_hardware_multiplies_it(native: bool) -> None:
    assert choose_precision(CPU) is (Precision.BF16 if native else Precision.FP32)


@pytest.mark.parametrize("kind", list(Precision))
def test_what_the_setting_names_is_computed_whatever_the_hardware_and_the_environment(
    kind: Precision, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for forced in ("", "auto", "fp32", "bf16"):
        monkeypatch.setenv(VARIABLE, forced)
        assert choose_precision(CPU, kind.value) is kind


@pytest.mark.parametrize("kind", list(Precision))
def test_the_environment_decides_where_the_setting_is_auto(
    kind: Precision, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, kind.value)
    assert named_precision() is kind
    assert choose_precision(CPU, "auto") is kind
    assert choose_dtype(CPU) is {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16}[kind]
    assert segmenter("auto").precision is kind


@pytest.mark.parametrize("word", ["fp16", "BF16", "bfloat16", " "])
def test_a_wrong_word_is_refused_with_the_right_ones(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, word)
    with pytest.raises(ConfigError, match=VARIABLE) as refused:
        named_precision()
    assert "write auto, fp32, bf16" in str(refused.value)
    with pytest.raises(ConfigError, match=r"\[inference\] precision"):
        segmenter(word)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("onednn", [contextlib.nullcontext, without_onednn], ids=["as it is", "without oneDNN"])
def test_bf16_gives_nearly_what_fp32_gives_on_any_processor(
    architecture: str, onednn: type[contextlib.AbstractContextManager[None]]
) -> None:
    region = noise((16, 24, 24))
    with onednn():
        single, half = segmenter("fp32", architecture).predict(region), segmenter("bf16", architecture).predict(region)
    for name, a, b in zip(single._fields, single, half, strict=True):
        assert b.dtype == np.float32, name
        assert np.abs(a - b).max() <= 0.02 * np.abs(a).max(), name  # bf16 has 8 bits: 0.4 % a rounding
    assert not np.array_equal(single.live, half.live), "nothing was rounded, so it was not computed in bf16"


def test_the_hardware_is_asked_of_torch() -> None:
    capable = torch.cpu.get_capabilities()
    assert has_native_bf16(CPU) is bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))
