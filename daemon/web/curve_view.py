"""The curves of a plate as the page draws them: points, line, band, and the IC50 in words, as the report has it.

A curve is fitted again where one of its wells changed, and no other: a row of one well costs one fit.
"""

import json
import math
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spheroidd.daemon.analysis.curves import CurveOfPlate, CurvePoints, curve_points, fit_points
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.report import wording as words
from spheroidd.protocols.phrase import as_data

JSON = dict[str, Any]
STEPS = 48  # of a line that is 260 pixels wide
KEPT_PLATES = 4
REST = 4.0  # fits take at most a fifth of one processor, however fast rows come


class CurveViews:
    """The newest curves of each plate, for all who look. Safe for many threads, which take turns."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()
        self._drawn: dict[str, dict[CurvePoints, JSON]] = {}
        self._views: dict[str, tuple[str, str, bytes]] = {}
        self._rested_at: dict[str, float] = {}

    def of(self, catalog: CatalogReader, plate: str, standing: str) -> tuple[str, bytes]:
        """The curves in JSON and a name that changes with them; `standing` names the plate's rows as they are now.

        While fits of a moment ago are still paid for, the curves stay as they are: they are behind for seconds.
        """
        with self._lock:
            before, tag, view = self._views.get(plate, ("", "", b""))
            if before == standing or (before and self._now() < self._rested_at.get(plate, 0.0)):
                return tag, view
            began_s = self._now()
            view = json.dumps({"plate": plate, "curves": self._curves(catalog, plate)}, allow_nan=False).encode()
            ended_s = self._now()
            if before:  # the first time of all loads and compiles what fits, which is no measure
                self._rested_at[plate] = ended_s + REST * (ended_s - began_s)
            tag = f"{zlib.crc32(view):08x}"
            self._views[plate] = (standing, tag, view)
            for kept in list(self._views)[:-KEPT_PLATES]:
                del self._views[kept], self._drawn[kept]
                self._rested_at.pop(kept, None)
            return tag, view

    def _curves(self, catalog: CatalogReader, plate: str) -> list[JSON]:
        found = curve_points(catalog, plate)
        known = self._drawn.get(plate, {})
        fitted = [replace(one, missing=()) for one in found]  # what is still to come changes no fit
        new = [one for one in fitted if one not in known]
        known |= dict(zip(new, map(drawn_fit, fit_points(new)), strict=True)) if new else {}
        self._drawn[plate] = {one: known[one] for one in fitted}
        return [self._drawn[plate][key] | drawn_points(one) for key, one in zip(fitted, found, strict=True)]


def drawn_points(points: CurvePoints) -> JSON:
    """The wells of a curve; each with its dose, figure, and why it is left out where it is."""
    controls = zip(points.control_wells, points.control_responses, strict=True)
    return {
        "compound": points.compound,
        "patient": points.patient,
        "points": [
            list(one)
            for one in zip(points.wells, points.doses_um, _rounded(points.responses), points.excluded, strict=True)
        ],
        "controls": [[well, round(value, 3), None] for well, value in controls]
        + [[well, round(value, 3), reason] for well, value, reason in points.excluded_controls],
        "missing": [[one.well, one.dose_um, as_data(one.reason)] for one in points.missing],
        "provisional": points.provisional,
    }


def drawn_fit(curve: CurveOfPlate) -> JSON:
    """The line with its band over the doses that were tested, no further, and what is said of the IC50."""
    from spheroidd.inference.dose_response.fit import band, predict  # scipy takes its time

    kept = [dose for dose, out in zip(curve.doses_um, curve.excluded, strict=True) if dose > 0 and out is None]
    doses = tuple(kept or [dose for dose in curve.doses_um if dose > 0])
    fit, found = curve.fit, words.known_ic50(curve.fit)
    line: list[list[float | None]] = []
    if fit.parameters and doses and max(doses) > min(doses):
        low, high = math.log10(min(doses)), math.log10(max(doses))
        grid = [10 ** (low + (high - low) * n / STEPS) for n in range(STEPS + 1)]
        lower, upper = band(fit, grid)
        columns = zip(grid, predict(fit, grid), lower, upper, strict=True)
        line = [[_finite(value) for value in map(float, one)] for one in columns]
    return {
        "status": fit.status.value,
        "said": as_data(fit.words.said),
        "reason": as_data(fit.reason),
        "ic50": as_data(words.ic50(fit, doses)),
        "interval": as_data(words.interval(found.low_um, found.high_um)) if found else "",
        "ic50_um": [found.um, found.low_um, found.high_um] if found else None,
        "warnings": [as_data(one) for one in fit.warnings],
        "n": fit.n,
        "line": line,
    }


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 3) for value in values]


def _finite(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
