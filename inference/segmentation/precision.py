"""In what a network computes: bfloat16 or single precision, by setting, by environment, or as the hardware has it."""

import os
from typing import TYPE_CHECKING

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.results import Precision

if TYPE_CHECKING:
    import torch

VARIABLE = "SPHEROIDD_PRECISION"
AUTO = "auto"
CPU_WHOLE_WAY = "cpu-torch"  # a device: a GPU's whole way on the CPU, which proves it where there is none
CHOICES = (AUTO, *(kind.value for kind in Precision))


def named_precision(setting: str = AUTO) -> Precision | None:
    """The precision that `setting` names or, where that is "auto", the environment; None leaves it to the hardware.

    ConfigError where either is another word.
    """
    word, where = setting, "[inference] precision"
    if word == AUTO:
        word, where = os.environ.get(VARIABLE) or AUTO, f"environment variable {VARIABLE}"
    if word not in CHOICES:
        raise ConfigError(f"there is no precision {word!r}", where=where, do=f"write {', '.join(CHOICES)}")
    return None if word == AUTO else Precision(word)


def choose_precision(device: "torch.device", setting: str = AUTO) -> Precision:
    """The precision that a network computes in on a device.

    Bfloat16 halves the time where the hardware multiplies it, and multiplies the time where it does not: there only
    who names it gets it. ConfigError as `named_precision`.
    """
    named = named_precision(setting)
    if named is not None:
        return named
    return Precision.BF16 if has_native_bf16(device) else Precision.FP32


def has_native_bf16(device: "torch.device") -> bool:
    """Whether the device multiplies bfloat16 itself."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capable = torch.cpu.get_capabilities()
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))
