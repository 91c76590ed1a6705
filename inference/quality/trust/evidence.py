"""What a row is judged by: what was measured of its stack, and the limits within which that can be believed.

Thresholds lie between what healthy emulated wells show and what spoiled ones do; docs/trust.md has the figures.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from spheroidd.inference.quality.image_profile import LAG_UM, sharpness_lag
from spheroidd.protocols.evidence import MaskEvidence, StackLight
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import StackMeasurement, StackProfile
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.trust import TrustFlag


@dataclass(frozen=True, slots=True)
class TrustLimits:
    """What a row keeps within that can be believed. Volumes are um3 an object, the mask's volume over the count."""

    clipped: float = 1.5  # own 98th percentile over the limit it was scored with, as counts
    clipped_window: float = 1.7  # and above the lower limit, in windows
    structure: float = 2.0  # contrast over camera noise in the better channel
    structure_alone: float = 1.3  # and in one: dead wells of dim plates have 2 in 488, a channel without dye .9
    live_contrast: float = 0.03  # of the untreated wells': dead wells keep .06 and more of autofluorescence
    dim: float = 0.3  # brightness over the limits' window, in the better channel; healthy wells have .45 and more
    live_inside: float = 0.12  # how bright 488 is inside the live mask, in windows: living cells have .19 and more
    live_um3: tuple[float, float] = (350.0, 1300.0)
    dead_um3: tuple[float, float] = (105.0, 520.0)
    dead_chord_um: float = 3.5  # mean length sideways: dead nuclei have 3.9 and more, specks up to 3.4
    spread: float = 0.5  # sd of single volumes over their mean: nuclei break, and the field's faces cut cells
    exchanged_live_um3: float = 420.0  # "live cells" as small as nuclei
    exchanged_dead_um3: float = 480.0  # and "dead nuclei" as large as bodies
    beside_plate: tuple[float, float] = (0.55, 1.8)  # volume an object over the plate's median
    body_um3: float = 2500.0  # more in a mask for each object is no cell
    many: int = 40  # objects are cells, however large: of a saturated or blurred well 31 are found at most
    aspect: tuple[float, float] = (0.75, 1.5)  # length in depth over length sideways
    coarse_um: float = 2.0  # z-step from which on nuclei look longer than they are, as they lie between slices
    longer: float = 0.55  # by so much for each um more: dead ones have 1.65 at 3 um, 2.6 at 4
    enough: int = 10  # objects to judge their mean by
    some: int = 5
    same: float = 0.98  # correlation of two channels that hold the same image
    alike: float = 0.8  # and of those that show the same things: debris takes both dyes
    bleed: float = 0.25  # more than any filter lets through
    together: float = 0.6  # correlation of channels where dead cells do not lie below living ones
    both_dyes: float = 0.6  # brightness of 488 in the dead mask over that in the live one
    no_dead_alike: float = 0.985  # without a dead cell, 561 is nothing but bleed-through
    no_dead_beside: float = 0.9  # the same, where there are few cells altogether
    few_cells: float = 0.35  # of the plate's median count
    detail_per_um2: float = 0.38  # detail over the square of its lag, as long as that is short (bench.focus)
    detail_um: float = 0.95  # at long lags cells differ no more than they can
    sharp_per_um2: float = 0.2  # the same of sharpness, where detail could not be measured
    sharp_um: float = 1.8
    sharp: float = 0.6  # sharpness over the plate's median
    shade: float = 0.75  # small fields of few dead nuclei have .77 by chance
    compared: int = 4  # stacks that make a plate to compare with
    foreign: float = 1.0  # distance of the network's features over the largest of healthy emulated stacks
    cells_for_width: int = 30  # counted in a stack: of fewer, how wide they look has a wider limit
    untreated_alive: float = 0.3  # V count that untreated wells have at least


LIMITS = TrustLimits()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a stack besides its counts; None where an older version scored it."""

    light: StackLight | None = None
    masks: MaskEvidence | None = None
    profile: StackProfile | None = None
    depth_um: float = 0.0
    z_step_um: float = 1.0
    lag_um: float = LAG_UM  # at which sharpness was measured
    widefield: bool = False  # made of raw frames, and no slice of it has a pattern

    @classmethod
    def of(
        cls,
        plan: StackPlan,
        *,
        light: StackLight | None,
        profile: StackProfile | None,
        masks: MaskEvidence | None = None,
        widefield: bool = False,
    ) -> Self:
        """What was seen of the stack with this plan."""
        depth_um, lag_um = plan.n_z * plan.z_step_um, sharpness_lag(plan) * plan.pixel_um
        return cls(light, masks, profile, depth_um, plan.z_step_um, lag_um, widefield)


@dataclass(frozen=True, slots=True)
class RowEvidence:
    """What is known of one scored stack when it is judged. One that is `excluded` is no measure for others."""

    key: StackKey
    role: WellRole
    measurement: StackMeasurement
    seen: Seen = field(default_factory=Seen)
    excluded: bool = False


Flags = Iterator[TrustFlag]
