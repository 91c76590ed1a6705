"""What rows say of themselves: false alarms on healthy wells, and what is found of spoiled ones.

`python -m bench.trust healthy [PLATE ...]` judges every well of emulated plates on which nothing is wrong: all presets
(`screen` and `whole` cropped), small spheroids whole in coarse pixels, doses, patients, with and without killed wells.
`python -m bench.trust spoiled [SEED]` spoils one well at a time of a healthy plate, and whole plates, by every kind of
`bench.spoiled`. Both print JSON; the seeds were not used to choose a threshold. Limits, masks, counts and flags are
made by the code that a run uses.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.spoiled import SPOILED, Spoiled
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.inference.preprocessing.plate_limits import WellLight, plate_limits
from spheroidd.inference.preprocessing.resample import NativeMasks
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.quality.coarse_stack import CoarseStack
from spheroidd.inference.quality.image_profile import StackInspector
from spheroidd.inference.quality.trust.evidence import RowEvidence, Seen
from spheroidd.inference.quality.trust.rules import flags_of
from spheroidd.inference.segmentation.half_height import HalfHeightMasks
from spheroidd.inference.segmentation.objects import StackCounter
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.segmentation.streaming import StreamingSegmentation
from spheroidd.protocols.evidence import StackLooks
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.ports import Segmenter
from spheroidd.protocols.results import Limits, Normalisation
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

Spacing = tuple[float, float, float]
CONTROLS = {"negative_controls": 3, "positive_controls": 2}
NO_KILLED = {"negative_controls": 3, "positive_controls": 0}
CROPPED = {"n_z": 100, "height": 256, "width": 256}
_WHOLE = {"preset": "demo", "compounds": 3, "doses": 5, "field_z_um": -3.0, "height": 128, "width": 128, **CONTROLS}
HEALTHY: dict[str, dict[str, Any]] = {
    "demo": {"preset": "demo", "seed": 401, "compounds": 6, **CONTROLS},
    "demo without killed wells": {"preset": "demo", "seed": 402, "compounds": 5, "autofluorescence": 0.2, **NO_KILLED},
    "demo, two patients, dim": {"preset": "demo", "seed": 403, "patients": 2, "intensity": 0.6, **CONTROLS},
    "demo, large": {"preset": "demo", "seed": 404, "compounds": 6, "intensity": 1.4, "diameter_um": 450, **CONTROLS},
    "demo, small": {"preset": "demo", "seed": 405, "compounds": 5, "diameter_um": 200, **CONTROLS},
    "unit": {"preset": "unit", "seed": 411, "compounds": 6, **CONTROLS},
    "unit without killed wells": {"preset": "unit", "seed": 412, "compounds": 6, **NO_KILLED},
    "unit, two patients": {"preset": "unit", "seed": 413, "compounds": 3, "patients": 2, **CONTROLS},
    "unit again": {"preset": "unit", "seed": 414, "compounds": 6, "shuffled": True, **CONTROLS},
    "whole": {"preset": "whole", "seed": 421, "doses": 4, "negative_controls": 2, "positive_controls": 1, **CROPPED},
    "screen": {"preset": "screen", "seed": 422, "doses": 4, "negative_controls": 2, "positive_controls": 1, **CROPPED},
    "80 um in 0.8 um": {"seed": 431, "diameter_um": 80, "pixel_um": 0.8, "z_step_um": 1.5, "n_z": 64, **_WHOLE},
    "110 um in 1.2 um": {"seed": 432, "diameter_um": 110, "pixel_um": 1.2, "z_step_um": 2.5, "n_z": 48, **_WHOLE},
    "70 um in 0.6 um": {"seed": 433, "diameter_um": 70, "pixel_um": 0.6, "z_step_um": 1.0, "n_z": 80, **_WHOLE},
}  # fmt: skip
WELLS = ("A01", "A04", "B02", "B03")  # untreated, killed, and two doses of a compound
CROP = slice(64, 192)


@dataclass(frozen=True, slots=True)
class Look:
    """A stack as it was looked at, before limits are known."""

    well: WellLight
    plan: StackPlan
    preprocessor: StreamingPreprocessor
    coarse: CoarseStack
    seen: Seen


def render(source: EmulatorSource, well: str) -> Pixels:
    """The raw stack (channel, z, y, x) of a well."""
    plan = source.plan(WellId.parse(well))
    stack = np.empty((len(CHANNELS), plan.n_z, plan.height, plan.width), np.uint16)
    for frame in source.frames(plan, frozenset(plan.indices())):
        stack[CHANNELS.index(frame.index.channel), frame.index.z] = frame.pixels
    return stack


def look(stack: Pixels, own_um: Spacing, role: WellRole, segmenter: Segmenter, well: str = "A01") -> Look:
    """Filter and inspect a raw stack."""
    n_z, height, width = stack.shape[1:]
    plan = StackPlan(StackKey("trust", WellId.parse(well)), CHANNELS, n_z, height, width, own_um[2], own_um[0])
    coarse, inspector = CoarseStack(plan), StackInspector(plan)
    preprocessor = StreamingPreprocessor(
        n_z=n_z,
        height=height,
        width=width,
        pixel_um=own_um[2],
        z_step_um=own_um[0],
        channels=CHANNELS,
        spacing_um=segmenter.spacing_um,
        keep_filtered=True,
    )
    for channel, slices in zip(CHANNELS, stack, strict=True):
        preprocessor.feed(channel, 0, slices)
        coarse.feed(channel, 0, slices)
        inspector.feed(channel, 0, slices)
    preprocessor.finish()
    raw = preprocessor.raw_histograms()
    light = coarse.light(preprocessor.histograms(), raw)
    seen = Seen.of(plan, light=light, profile=inspector.profile(raw))
    return Look(WellLight(role, light), plan, preprocessor, coarse, seen)


def score(
    found: Look,
    limits: Mapping[str, Limits],
    segmenter: Segmenter,
    keep: Callable[[NativeMasks], object] = lambda masks: None,
) -> RowEvidence:
    """Segment and count what was looked at, with a plate's limits; `keep` is given the masks as they are made."""
    plan, shape = found.plan, found.preprocessor.shape
    own_um = (plan.z_step_um, plan.pixel_um, plan.pixel_um)
    native = (plan.n_z, plan.height, plan.width)
    edges = HalfHeightMasks(found.preprocessor, segmenter.spacing_um, native, own_um, limits)
    counter = StackCounter(plan, model_shape=shape, model_spacing_um=segmenter.spacing_um)
    slabs: list[NativeMasks] = []
    segmentation = StreamingSegmentation(found.preprocessor, segmenter, limits=limits)
    for slab in segmentation.finish():
        counter.add_density(slab.z_start, slab.prediction)
        slabs += edges.feed(slab.z_start, slab.prediction.live, slab.prediction.dead)
    for masks in [*slabs, *edges.finish()]:
        z, live, dead = masks
        keep(masks)
        counter.add_masks(z, live, dead)
        found.coarse.feed_masks(z, live, dead)
    looks = _looks(segmenter, segmentation)
    measured = counter.measure(
        limits=limits,
        normalisation=Normalisation.PLATE,
        precision=segmenter.precision,
        model_sha256=segmenter.sha256,
        cpu_s=0.0,
        quantiles=found.preprocessor.quantiles(),
        foreign_score=looks.foreign if looks else None,
    )
    masks = replace(found.coarse.masks(), looks=looks)
    return RowEvidence(plan.key, found.well.role, measured, replace(found.seen, masks=masks))


def _looks(segmenter: Segmenter, segmentation: StreamingSegmentation) -> StackLooks | None:
    sums = segmentation.features
    if sums is None or not isinstance(segmenter, UNetSegmenter):
        return None
    return segmenter.looks(sums, CHANNELS, Normalisation.PLATE)


def source_of(settings: Mapping[str, Any]) -> EmulatorSource:
    """The emulator of a plate."""
    source = build_source(EmulatorSettings(pace="fast", **settings), None, "trust")
    if not isinstance(source, EmulatorSource):
        raise TypeError("only the emulator has healthy plates")
    return source


def healthy(name: str, segmenter: Segmenter) -> dict[str, Any]:
    """Judge every well of a plate on which nothing is wrong."""
    start, source = time.perf_counter(), source_of(HEALTHY[name])
    preset = source.preset
    own_um = (preset.z_step_um, preset.pixel_um, preset.pixel_um)
    looks = {
        str(entry.well): look(render(source, str(entry.well)), own_um, entry.treatment.role, segmenter, str(entry.well))
        for entry in source.plate_map.imaged()
    }
    limits = plate_limits(one.well for one in looks.values())
    flags = flags_of([score(looks.pop(well), limits, segmenter) for well in list(looks)])
    alarms = {str(key.well): sorted(found) for key, found in flags.items() if found}
    seconds = round(time.perf_counter() - start)
    return {"plate": name, "wells": len(flags), "false_alarms": len(alarms), "flags": alarms, "seconds": seconds}


class SpoiledPlate:
    """A healthy plate, and what becomes of its flags when one well of it is spoiled, or all."""

    def __init__(self, settings: Mapping[str, Any], segmenter: Segmenter, crop: slice = CROP) -> None:
        source = source_of(settings)
        self._segmenter, self._seed = segmenter, settings["seed"]
        self._own_um = (source.preset.z_step_um, source.preset.pixel_um, source.preset.pixel_um)
        self._roles = {str(entry.well): entry.treatment.role for entry in source.plate_map.imaged()}
        self._stacks = {well: render(source, well)[:, :, crop, crop] for well in self._roles}
        looks = self._looks(self._stacks)
        self.limits = plate_limits(one.well for one in looks.values())
        self.rows = {well: score(one, self.limits, segmenter) for well, one in looks.items()}

    def _looks(self, stacks: Mapping[str, Pixels]) -> dict[str, Look]:
        return {w: look(one, self._own_um, self._roles[w], self._segmenter, w) for w, one in stacks.items()}

    def one_well(self, spoiled: Spoiled, well: str) -> list[str]:
        """The flags of a well that alone is spoiled, the plate's limits being what they were."""
        stack, own_um = spoiled.of(self._stacks[well], self._own_um, self._seed)
        found = look(stack, own_um, self._roles[well], self._segmenter, well)
        return self._flags({**self.rows, well: score(found, self.limits, self._segmenter)})[well]

    def whole_plate(self, spoiled: Spoiled, wells: Sequence[str]) -> dict[str, list[str]]:
        """The flags of a plate that is spoiled as a whole, under its own limits."""
        looks = {}
        for well in wells:
            stack, own_um = spoiled.of(self._stacks[well], self._own_um, self._seed)
            looks[well] = look(stack, own_um, self._roles[well], self._segmenter, well)
        limits = plate_limits(one.well for one in looks.values())
        return self._flags({well: score(one, limits, self._segmenter) for well, one in looks.items()})

    def relabelled(self, roles: Mapping[str, WellRole]) -> dict[str, list[str]]:
        """The flags where the map names other controls."""
        return self._flags({w: replace(row, role=roles.get(w, row.role)) for w, row in self.rows.items()})

    def too_narrow(self, part: float) -> dict[str, list[str]]:
        """The flags where dead nuclei are cut off: a part of the upper limit of 561, as untreated wells alone gave."""
        used = self.limits[CHANNELS[1]]
        width = part * (used.high - used.low)
        narrow = Limits(used.low, used.low + width, used.low + 0.2 * width, width / 4.5)
        limits = {**self.limits, CHANNELS[1]: narrow}
        looks = self._looks({well: self._stacks[well] for well in WELLS})
        return self._flags({well: score(one, limits, self._segmenter) for well, one in looks.items()})

    def _flags(self, rows: Mapping[str, RowEvidence]) -> dict[str, list[str]]:
        return {str(key.well): sorted(found) for key, found in flags_of(list(rows.values())).items()}


PLATE_WELLS = ("A01", "A02", "A04", "B02", "B03", "B05")
WHOLE_PLATES = ("dyes exchanged", "pixel size x 2", "pixel size x .5", "z step x 3", "camera noise only", "PI absent")


def spoiled(seed: int, segmenter: Segmenter) -> dict[str, Any]:
    """Every kind at every strength: in how many of the wells it was found, and as what."""
    plate = SpoiledPlate({"preset": "demo", "seed": seed, "compounds": 2, **CONTROLS}, segmenter)
    rows = []
    for one in SPOILED:
        flags = [plate.one_well(one, well) for well in WELLS]
        rows.append(_told(one.kind, one.strength, flags))
    for one in SPOILED:
        if one.kind in WHOLE_PLATES:
            rows.append(
                _told(f"{one.kind}, the whole plate", one.strength, list(plate.whole_plate(one, PLATE_WELLS).values()))
            )
    untreated, killed = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL
    for strength, roles in (
        ("one of each", {"A01": killed, "A04": untreated}),
        ("all", {"A01": killed, "A02": killed, "A03": killed, "A04": untreated, "A05": untreated}),
    ):
        found = plate.relabelled(roles)
        rows.append(_told("controls mislabelled", strength, [found[well] for well in roles]))
    for part in (0.25, 0.5):
        found = plate.too_narrow(part)
        rows.append(_told("limits that clip dead nuclei", f"x {part:g}", [found["A04"], found["B03"]]))
    return {"seed": seed, "healthy": {w: f for w, f in plate.relabelled({}).items() if f}, "kinds": rows}


def _told(kind: str, strength: str, flags: Sequence[Sequence[str]]) -> dict[str, Any]:
    names = Counter(flag for one in flags for flag in one)
    return {
        "kind": kind,
        "strength": strength,
        "wells": len(flags),
        "found": sum(map(bool, flags)),
        "flags": dict(names),
    }


def main() -> None:
    segmenter = load_segmenter(None, "cpu", precision="fp32")
    what, names = (sys.argv[1] if len(sys.argv) > 1 else "all"), sys.argv[2:]
    found: dict[str, Any] = {"bench": "trust"}
    if what in ("healthy", "all"):
        plates = [healthy(name, segmenter) for name in names or HEALTHY]
        wells, alarms = (sum(one[key] for one in plates) for key in ("wells", "false_alarms"))
        found |= {"healthy_wells": wells, "false_alarms": alarms, "plates": plates}
    if what in ("spoiled", "all"):
        found["spoiled"] = [spoiled(int(seed), segmenter) for seed in names or ("301", "302")]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
