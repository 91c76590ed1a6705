"""What an instrument's settings say of its stacks, the same for every well, and the plan that this makes."""

from typing import Literal, Protocol

from spheroidd.protocols.stack import StackKey, StackPlan


class StackSettings(Protocol):
    """The geometry of an instrument's stacks; see `StackPlan`."""

    n_z: int
    height: int
    width: int
    dtype: Literal["uint8", "uint16"]
    pixel_um: float
    z_step_um: float

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels in the order in which a z-step takes them."""
        raise NotImplementedError


def plan_of(key: StackKey, settings: StackSettings, slice_period_s: float | None) -> StackPlan:
    """The plan of any stack that is imaged with these settings."""
    return StackPlan(
        key,
        settings.channel_names,
        settings.n_z,
        settings.height,
        settings.width,
        pixel_um=settings.pixel_um,
        z_step_um=settings.z_step_um,
        dtype=settings.dtype,
        slice_period_s=slice_period_s,
    )
