"""Software autofocus: a coarse sweep through z, a fine one where the coarse one points, and the plate's focus map.

The first wells are looked for over the whole range; once some are known, the wells around say where to look, and less
light is spent. What the curve means is `focus_curve`'s, what the wells around say `focus_map`'s. Nothing here knows an
instrument: images come from a function, and nothing is ever asked for outside the limits.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from spheroidd.acquisition.focus.focus_curve import FocusCurve, PlaneSeen, Target, look_at
from spheroidd.acquisition.focus.focus_map import FocusMap
from spheroidd.acquisition.plates.plan_settings import Finite, Positive
from spheroidd.protocols.errors import InstrumentError, StackError
from spheroidd.protocols.focus import FocusFound, FocusStatus
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import StackKey

Take = Callable[[Sequence[float]], Iterable[Pixels]]
ENOUGH_NEIGHBOURS = 3  # wells: fewer say nothing of the plate's tilt


class AutofocusSettings(BaseModel):
    """Look for the focus before each stack."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: Literal["488", "561"] = "488"
    """In which channel: one in which every well shows something."""
    target: Target = "bottom"
    """"bottom": where the sample begins, for spheroids; "peak": the sharpest plane, for what is thin."""
    offset_um: Finite = 0.0
    """Where the stack's first slice lies above the focus."""
    expected_um: Finite | None = None
    """Where the first well's focus is expected; without it where z_start_um puts it."""
    range_um: Positive = 80.0
    """How much is looked through, half of it on each side."""
    near_range_um: Positive = 32.0
    """The same once three wells around are known; the whole range follows where that finds nothing."""
    coarse_um: Positive = 4.0
    fine_um: Positive = 1.0
    """The steps of the two sweeps."""
    min_signal_adu: Positive = 20.0
    """How far something must stand out from an image's middle brightness, in counts."""
    min_contrast: float = Field(default=5.0, gt=1, allow_inf_nan=False)
    """How many times the dullest plane's measure the sharpest one must have."""
    on_failure: Literal["skip", "neighbours"] = "skip"
    """"skip": the well is left out, and its row says why; "neighbours": it is taken where the wells around have it."""
    outlier_um: Positive = 10.0
    """A focus further than that from what the wells around say is marked in the focus map."""
    give_up_after: int = Field(default=5, ge=1)
    """So many wells without a focus, one after the other, are the instrument's fault: the run stops."""


class Autofocus:
    """Finds the focus of one stack after another, and keeps the plate's focus map.

    `start_um` is where a stack begins without autofocus, `depth_um` how far its last slice lies above its first.
    """

    def __init__(
        self, settings: AutofocusSettings, *, start_um: float, depth_um: float, limits_um: tuple[float, float]
    ) -> None:
        self._settings, self._depth_um, self._limits_um = settings, depth_um, limits_um
        nominal_um = start_um - settings.offset_um
        self._expected_um = nominal_um if settings.expected_um is None else settings.expected_um
        self._failures = 0
        self.map = FocusMap()

    @property
    def channel(self) -> str:
        """The channel that is looked at."""
        return self._settings.channel

    def seek(self, key: StackKey, x_um: float, y_um: float, take: Take) -> FocusFound:
        """Find a stack's focus and put it into the map. `take` gives an image (y, x) for each focus position, in order.

        A focus that was not found is told too: with the status FAILED, or with the neighbours' focus where the
        settings say so and there are any. Raises what `take` raises.
        """
        settings = self._settings
        predicted_um = self.map.predict_um(key, x_um, y_um)
        enough = len(self.map.neighbours(key, x_um, y_um)) >= ENOUGH_NEIGHBOURS
        ranges_um = (settings.near_range_um, settings.range_um) if enough else (settings.range_um,)
        centre_um = self._expected_um if predicted_um is None else predicted_um
        focus_um, reason, seen = None, "", FocusCurve(())
        for range_um in ranges_um:
            try:
                seen = FocusCurve.of([*seen.planes, *self._sweep(centre_um, range_um, settings.coarse_um, take)])
                focus_um, seen = self._refine(seen, take)
                break
            except StackError as error:
                reason = str(error)
        status = FocusStatus.FOUND
        if focus_um is None:
            usable = settings.on_failure == "neighbours" and predicted_um is not None
            status, focus_um = (FocusStatus.NEIGHBOURS, predicted_um) if usable else (FocusStatus.FAILED, None)
        outlier = (
            status is FocusStatus.FOUND
            and enough
            and predicted_um is not None
            and focus_um is not None
            and abs(focus_um - predicted_um) > settings.outlier_um
        )
        first_um = None if focus_um is None else focus_um + settings.offset_um
        why = "" if status is FocusStatus.FOUND else reason
        found = FocusFound(
            key, status, settings.channel, x_um, y_um, focus_um, first_um, predicted_um, outlier, seen.points(), why
        )
        self.map.add(found)
        return found

    def check(self, found: FocusFound) -> float:
        """Where the stack's first slice goes. StackError where its focus was not found, or the stack would leave the
        limits; InstrumentError where that has happened to too many stacks one after the other.
        """
        if found.status is FocusStatus.FOUND:
            self._failures = 0
        else:
            self._failures += 1
        if self._failures >= self._settings.give_up_after:
            self._failures = 0  # a person looks at it, and then it counts anew
            what = f"no focus was found in {self._settings.give_up_after} stacks one after the other: {found.reason}"
            raise InstrumentError(what, where=str(found.key), do="check lamp, shutter, plate and objective")
        if found.first_z_um is None:
            what, _, do = found.reason.partition("; ")
            raise StackError(what, where=str(found.key), do=do)
        low, high = self._limits_um
        if not low <= found.first_z_um <= found.first_z_um + self._depth_um <= high:
            what = f"with its focus at {found.focus_z_um:.1f} um the stack would leave z_limits_um [{low:g}, {high:g}]"
            raise StackError(what, where=str(found.key), do="correct source.autofocus.offset_um, or the limits")
        return found.first_z_um

    def _refine(self, coarse: FocusCurve, take: Take) -> tuple[float, FocusCurve]:
        """The focus of a coarse curve, by a fine sweep about it; the fine planes join the curve."""
        s = self._settings
        coarse.check(min_signal_adu=s.min_signal_adu, min_contrast=s.min_contrast)
        low_um, high_um = coarse.bracket(s.target)
        spare = 1.5 * s.coarse_um
        fine = self._sweep((low_um + high_um) / 2, high_um - low_um + spare, s.fine_um, take)
        curve = FocusCurve.of([*coarse.planes, *fine])
        return FocusCurve.of(fine).focus_um(s.target), curve

    def _sweep(self, centre_um: float, range_um: float, step_um: float, take: Take) -> list[PlaneSeen]:
        """Look at the planes about a z, upwards, as far as the limits allow."""
        half = int(range_um / 2 / step_um)
        low, high = self._limits_um
        wanted = [z for z in (centre_um + step_um * np.arange(-half, half + 1)).tolist() if low <= z <= high]
        return [look_at(z, pixels) for z, pixels in zip(wanted, take(wanted), strict=True)] if wanted else []
