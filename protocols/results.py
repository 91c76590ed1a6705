"""What is measured of one stack, and what is said of one well. `result_columns` lists the columns of a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from spheroidd.protocols.phrase import constant, phrase
from spheroidd.protocols.trust import Trust, failed_reason

USUAL_CELL_UM = 12.6
"""The diameter of the living cells that networks learn from; lengths and volumes that say what a cell is are theirs."""


class WellStatus(StrEnum):
    """How far a well has come."""

    QUEUED = "queued"
    ACQUIRING = "acquiring"
    STORED = "stored"
    SCORING = "scoring"
    PROVISIONAL = "provisional"  # scored; its controls may still change
    FINAL = "final"
    FAILED = "failed"
    INCOMPLETE = "incomplete"  # the instrument gave fewer slices than it promised
    SKIPPED = "skipped"  # a person left the well out
    ABORTED = "aborted"  # a person ended the plate before it was whole
    STOPPED = "stopped"  # the daemon was stopped in the middle of it; the next run goes on

    @property
    def went_wrong(self) -> bool:
        """A person should look at it."""
        return self in (WellStatus.FAILED, WellStatus.INCOMPLETE)

    @property
    def was_ordered(self) -> bool:
        """A person wanted it so: it has no viability, and nothing is wrong."""
        return self in (WellStatus.SKIPPED, WellStatus.ABORTED)

    @property
    def is_over(self) -> bool:
        """Nothing more comes of it by itself."""
        return self is WellStatus.FINAL or self.went_wrong or self.was_ordered

    @property
    def is_to_come(self) -> bool:
        """It has no figure yet, and may get one."""
        return not (self.is_over or self is WellStatus.PROVISIONAL)


class Normalisation(StrEnum):
    """Where a stack's intensity limits come from."""

    STACK = "stack"  # its own 2nd and 98th percentiles, as in the study
    PLATE = "plate"  # locked from the plate's control wells, or given


class Precision(StrEnum):
    """What the numbers of a network are kept and multiplied in."""

    FP32 = "fp32"
    BF16 = "bf16"  # eight bits of mantissa: half the memory and time where the hardware multiplies it


class Boundary(StrEnum):
    """Where the boundary of a cell that a network found is drawn."""

    HALF_HEIGHT = "half-height"  # where its light falls to the middle between it and the ground around it
    NETWORK = "network"  # where the network's probability is one half


@dataclass(frozen=True, slots=True)
class Limits:
    """One channel's transform: clip to [low, high], then subtract mean and divide by sd, both of the clipped data."""

    low: float
    high: float
    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class StackMeasurement:
    """What the masks of one stack say, in physical units, before any control is known.

    The dead figures are None where the stack has no dead channel, and the live ones where it has no live channel.
    `live_um3_by_z` holds the live volume of each slice, in z order. `precision` is what the network computed in; None
    for a measurement of an older version, which did not note it. `depth_seen_um` is how deep below the surface cells
    can be told apart; `foreign_score` is how far what the network sees in the images, or how wide cells look to it,
    lies from what it knows, over the most of healthy stacks. Both are None where nobody can say. `cell_diameter_um` is
    how wide cells were stated or found to be, None where they were taken to be as wide as usual.
    """

    live_um3: float | None
    dead_um3: float | None
    n_live: int | None
    n_dead: int | None
    live_um3_by_z: tuple[float, ...]
    limits: dict[str, Limits]
    normalisation: Normalisation
    model_sha256: str
    cpu_s: float
    quantiles: dict[str, dict[str, float]]  # per channel: raw intensity quantiles "0.02", "0.5", "0.98", "0.999"
    precision: Precision | None = None
    depth_seen_um: float | None = None
    foreign_score: float | None = None
    cell_diameter_um: float | None = None

    @property
    def v_count(self) -> float | None:
        """N_live / (N_live + N_dead), 0 to 1; None where either is unknown or the field holds no cell."""
        if self.n_live is None or self.n_dead is None or self.n_live + self.n_dead == 0:
            return None
        return self.n_live / (self.n_live + self.n_dead)


@dataclass(frozen=True, slots=True)
class ChannelProfile:
    """One channel of one stack, in camera counts (ADU) or as parts of its pixels.

    `sharpness` is None where the channel shows no structure above its noise, `contrast_adu` is then about 0. `detail`
    is None there, too, where pixels are too coarse or the field is narrower than a cell, and of stacks that an older
    version looked at.
    """

    mean_adu_by_z: tuple[float, ...]
    floor_adu: float
    contrast_adu: float
    sharpness: float | None
    saturated_share: float
    hot_share: float
    detail: float | None = None


@dataclass(frozen=True, slots=True)
class StackProfile:
    """What a stack's images say of themselves. `drift_um` is the largest distance from the first slice, `jump_um` the
    longest single move.

    `jump_z` is the slice after that move; all three are None where no two slices could be registered.
    """

    channels: Mapping[str, ChannelProfile]
    drift_um: float | None
    jump_um: float | None
    jump_z: int | None


@dataclass(frozen=True, slots=True)
class Related:
    """A measurement related to the plate's controls, in percent of their median.

    `status` is PROVISIONAL while a control may still come or change, then FINAL. `reason` says why v_control (and
    with it v_score) is None. `trust` and the codes of `trust_flags` are None where nobody judged the row; of a row
    that failed, the viabilities are None. `v_count_lo` and `v_count_hi` are the ends of V count's 90 % interval;
    `v_count_reason` says why it has none.
    """

    status: WellStatus
    reason: str | None = None
    v_control: float | None = None
    v_score: float | None = None
    v_score_lo: float | None = None
    v_score_hi: float | None = None
    trust: Trust | None = None
    trust_flags: tuple[str, ...] | None = None
    v_count_lo: float | None = None
    v_count_hi: float | None = None
    v_count_reason: str | None = None


@dataclass(frozen=True, slots=True)
class WellResult:
    """One row of the results: one well, one stack, one model.

    v_count is 0 to 1; v_control and v_score are percent of the plate's untreated median and None, with `reason`, where
    there is none. v_count and v_score have 90 % intervals.
    """

    plate: str
    well: str
    stack: int
    status: WellStatus
    reason: str | None
    n_slices_expected: int
    n_slices_acked: int
    live_um3: float | None
    dead_um3: float | None
    n_live: int | None
    n_dead: int | None
    v_count: float | None
    v_control: float | None
    v_score: float | None
    v_score_lo: float | None
    v_score_hi: float | None
    model_sha256: str | None
    normalisation: str | None
    precision: str | None
    latency_s: float | None
    trust: Trust | None = None
    trust_flags: tuple[str, ...] | None = None
    depth_seen_um: float | None = None
    foreign_score: float | None = None
    v_count_lo: float | None = None
    v_count_hi: float | None = None
    v_count_reason: str | None = None
    cell_diameter_um: float | None = None

    @property
    def standing(self) -> str:
        """How the well stands and why: "failed: no light; open the shutter", "skipped by eve: mould"."""
        state = phrase(f"status-{self.status.value}")
        if not self.reason:
            return state
        said_already = self.status.was_ordered and self.status.value in self.reason
        return self.why if said_already else phrase("standing", state=state, why=self.why)

    @property
    def why(self) -> str:
        """The reason as a phrase where it is one: from its flags where its images failed; else as it was written."""
        reason = self.reason or ""
        if self.trust_flags and reason == (failed := failed_reason(self.trust_flags)):
            return failed
        return constant(reason)
