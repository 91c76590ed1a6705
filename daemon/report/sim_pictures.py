"""Widefield beside SIM: one slice of a well, made twice of its raw frames, once without the pattern."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spheroidd.acquisition.store.kept_raw import is_dropped
from spheroidd.daemon.analysis.sim_depth import weakest_contrast
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.report import images
from spheroidd.daemon.report.drawing import Drawing
from spheroidd.daemon.report.well_entry import WellEntry
from spheroidd.daemon.scoring.plate_patterns import plate_patterns
from spheroidd.protocols.errors import SpheroiddError
from spheroidd.protocols.sim_pattern import PatternEstimate, SimPattern, SliceModulation
from spheroidd.protocols.stack import DEAD_CHANNEL, LIVE_CHANNEL, Block, StackKey, StackPlan

SHOWN_UM = 15.0  # of the field: smaller details than a screen's pixel show no difference
Image = NDArray[np.float32]


def widefield_beside_sim(
    catalog: CatalogReader, data_dir: Path, plate: str, imaged: Sequence[WellEntry]
) -> tuple[tuple[Drawing, ...], tuple[str, ...]]:
    """A drawing for each colour with live stripes, and why there is none where the raw frames cannot be read.

    The live colour of the first well of the report's examples, the dead colour of its killed control.
    """
    made = catalog.sim_slices(plate)
    if not made:
        return (), ()
    chosen = [StackKey(plate, entry.well, entry.results[0].stack) for entry in images.choose(imaged)]
    stacks = [key for key in chosen if key in made and not is_dropped(data_dir, key)]
    if not stacks:
        return (), ("widefield beside SIM: no raw frames of these wells were kept",)
    given = catalog.given_patterns(plate)
    found = plate_patterns(catalog.sim_patterns(plate), catalog.plan(stacks[0]).channels, lambda: True, given) or {}
    drawings, unread = [], []
    for channel, by_turn in ((LIVE_CHANNEL, stacks), (DEAD_CHANNEL, [*stacks[1:2], *stacks])):
        pattern = found.get(channel)
        best = _best_slice(made, by_turn, channel) if pattern is not None else None
        if pattern is None or best is None:
            continue
        key, z = best
        try:
            drawings.append(_drawing(catalog, data_dir, key, channel, z, pattern))
        except SpheroiddError as error:
            unread.append(f"{key.well} as SIM: {error.what}")
    return tuple(drawings), tuple(unread)


def _best_slice(
    made: Mapping[StackKey, Sequence[SliceModulation]], stacks: Iterable[StackKey], channel: str
) -> tuple[StackKey, int] | None:
    """The slice with the highest contrast in the first stack that has one made of all angles."""
    for key in stacks:
        whole = [one for one in made[key] if one.channel == channel and one.method == "sim"]
        if whole:
            return key, max(whole, key=weakest_contrast).z
    return None


def _drawing(
    catalog: CatalogReader, data_dir: Path, key: StackKey, channel: str, z: int, pattern: PatternEstimate
) -> Drawing:
    plan = catalog.plan(key)
    ledger = {plan.plane_of(one): crc for one, crc in catalog.acknowledged(key).items() if one.channel == channel}
    widefield, sim = _both(data_dir, plan, Block(key, channel, z, z + 1), pattern, ledger)
    rows, columns = _window(sim, round(SHOWN_UM / plan.pixel_um))
    low, high = np.percentile(sim[rows, columns], (1, 99.7))
    panels = [
        images.Projection(
            channel, np.clip((one[rows, columns] - low) / max(high - low, 1e-6), 0, 1) ** 0.8, (), plan.pixel_um, label
        )
        for one, label in ((widefield, "widefield"), (sim, "SIM"))
    ]
    title = f"{key.well}  {images.LOOKS[channel][1]}"
    return images.picture(title, f"{z * plan.z_step_um:g} µm above the first slice", panels)


def _both(
    data_dir: Path, plan: StackPlan, block: Block, pattern: PatternEstimate, ledger: Mapping[int, int]
) -> tuple[Image, Image]:
    """The slice (y, x) as widefield and as SIM; errors as `read_raw`."""
    from spheroidd.acquisition.store.stack_files import read_raw
    from spheroidd.daemon.scoring.raw_stack import pattern_of
    from spheroidd.inference.reconstruction.plan import ReconstructionPlan
    from spheroidd.inference.reconstruction.reconstructor import CpuReconstructor

    raw: SimPattern = pattern_of(plan)
    frames = read_raw(data_dir, block, ledger)[0]
    widefield, sim = (
        CpuReconstructor(ReconstructionPlan.of(raw, block.channel, plan.frame_shape, plan.frame_pixel_um, known))
        .reconstruct(frames, block.z_start)
        .image
        for known in (None, pattern)
    )
    return widefield, sim


def _window(image: Image, side: int) -> tuple[slice, slice]:
    """A square where the image varies most from place to place, away from its edges where there is room."""
    height, width = image.shape
    side = min(side, height, width)
    edge = min(8, (min(height, width) - side) // 2)
    steps = max(side // 4, 1)
    places = [
        (y, x)
        for y in range(edge, height - side - edge + 1, steps)
        for x in range(edge, width - side - edge + 1, steps)
    ]
    y, x = max(places, key=lambda at: float(image[at[0] : at[0] + side, at[1] : at[1] + side].std()))
    return slice(y, y + side), slice(x, x + side)
