"""How the stripes of raw frames die with the depth: modulation, contrast to noise and method of each slice.

Of one stack, or of a plate's stacks together: medians slice by slice.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.protocols.sim_pattern import SliceModulation
from spheroidd.protocols.stack import StackKey

Slices = Mapping[StackKey, Sequence[SliceModulation]]


@dataclass(frozen=True, slots=True)
class SliceDepth:
    """One z of one colour, over `n_stacks` stacks.

    `modulation` is the median over the stacks, and over the angles of each, of the live stripes' amplitude; None where
    in half of the stacks none is alive. `contrast` is the median of each stack's weakest angle. `sim`, `partial` and
    `widefield` are the shares of stacks that were reconstructed so.
    """

    depth_um: float
    modulation: float | None
    contrast: float
    sim: float
    partial: float
    widefield: float


@dataclass(frozen=True, slots=True)
class ChannelDepth:
    """One colour's slices in z order, from the stack's first slice on, in `n_stacks` stacks."""

    channel: str
    n_stacks: int
    slices: tuple[SliceDepth, ...]

    @property
    def sim_up_to_um(self) -> float | None:
        """Where the last slice lies that at least half of the stacks show in SIM; None where no slice is."""
        return max((one.depth_um for one in self.slices if one.sim >= 0.5), default=None)


def depth_of_plate(catalog: CatalogReader, plate: str, key: StackKey | None = None) -> tuple[ChannelDepth, ...]:
    """Of the plate's stacks, or of one; nothing where no slice was made of raw frames.

    Stacks of another depth or z-step than most are left out: their slices lie elsewhere.
    """
    made = catalog.sim_slices(plate)
    if key is not None:
        made = {key: made[key]} if key in made else {}
    plans = {row.key: row.plan for row in catalog.stacks(plate) if row.key in made}
    if not plans:
        return ()
    kind, _ = Counter((plan.n_z, plan.z_step_um) for plan in plans.values()).most_common(1)[0]
    alike = [key for key, plan in plans.items() if (plan.n_z, plan.z_step_um) == kind]
    channels = dict.fromkeys(one.channel for key in alike for one in made[key])
    return tuple(_channel({key: made[key] for key in alike}, channel, kind[1]) for channel in channels)


def _channel(made: Slices, channel: str, z_step_um: float) -> ChannelDepth:
    by_z: dict[int, list[SliceModulation]] = {}
    stacks = set()
    for key, slices in made.items():
        for one in slices:
            if one.channel == channel:
                by_z.setdefault(one.z, []).append(one)
                stacks.add(key)
    return ChannelDepth(channel, len(stacks), tuple(_slice(z * z_step_um, by_z[z]) for z in sorted(by_z)))


def _slice(depth_um: float, seen: Sequence[SliceModulation]) -> SliceDepth:
    alive = [strength for one in seen if (strength := live_modulation(one)) is not None]
    methods = Counter(one.method for one in seen)
    return SliceDepth(
        depth_um,
        statistics.median(alive) if 2 * len(alive) >= len(seen) else None,
        statistics.median(weakest_contrast(one) for one in seen),
        *(methods[name] / len(seen) for name in ("sim", "partial", "widefield")),
    )


def live_modulation(one: SliceModulation) -> float | None:
    """The median over the angles of their strongest live order; None where no stripes are alive."""
    strengths = [
        max(m for m, alive in zip(orders, live, strict=True) if alive)
        for orders, live in zip(one.modulation, one.alive, strict=True)
        if any(live)
    ]
    return statistics.median(strengths) if strengths else None


def weakest_contrast(one: SliceModulation) -> float:
    """The least contrast to noise of an angle, by its best order; 0 where no band was looked at."""
    return min((max(orders, default=0.0) for orders in one.contrast), default=0.0)
