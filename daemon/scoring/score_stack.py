"""Scores one stack, growing or stored: blocks out of Zarr, through pre-processing and the network, to masks and counts.

Runs in a worker. It reads the stack's ledger and images, writes masks beside the plate, and returns a measurement; it
never writes a row, and puts no mask into its place. A live run, a replay, a restart after a crash and a re-score all
come through here.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spheroidd.acquisition.store.kept_raw import is_dropped
from spheroidd.acquisition.store.labels import FinishedLabel, LabelWriter
from spheroidd.acquisition.store.stack_files import read_block
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.scored_from import ScoredFrom, images_digest
from spheroidd.daemon.scoring.counted_objects import LABELS, objects_of
from spheroidd.daemon.scoring.messages import PatternsFound, Scored, ScoreJob, StackLedger
from spheroidd.inference.preprocessing.resample import MakesMasks, MaskResampler, NativeMasks
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.quality.coarse_stack import CoarseStack
from spheroidd.inference.quality.image_profile import StackInspector
from spheroidd.inference.segmentation.half_height import HalfHeightMasks
from spheroidd.inference.segmentation.objects import StackCounter, magnified
from spheroidd.inference.segmentation.streaming import SegmentedSlab, StreamingSegmentation
from spheroidd.inference.segmentation.threshold import ThresholdSegmenter
from spheroidd.protocols.errors import StackError, StorageError
from spheroidd.protocols.evidence import StackLooks
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.ports import Segmenter
from spheroidd.protocols.results import Boundary, Limits, Normalisation
from spheroidd.protocols.stack import CHANNELS, Block, StackKey, StackPlan
from spheroidd.protocols.well import WellId

if TYPE_CHECKING:
    from spheroidd.daemon.scoring.raw_stack import RawStack
    from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
    from spheroidd.inference.segmentation.segmenter import UNetSegmenter

_NOWHERE = StackKey("warm-up", WellId(0, 0))
_BLOCK_Z = 8  # slices that come at once: a block of the store
_MADE_UP_LIMITS = Limits(90.0, 400.0, 245.0, 10.0)  # noise varies by more than what is taken for background
POLL_S = 0.05  # how often a growing stack's ledger is looked at; a slab of a screen stack takes 9.6 s


def score_stack(
    job: ScoreJob,
    images: Path,
    ledger: StackLedger,
    segmenter: Segmenter,
    alive: Callable[[], None] = lambda: None,
) -> Scored | PatternsFound | None:
    """Score a stack whose plate lies in `images`, following it while it grows. None where it ended incomplete.

    Of raw frames the pattern is found first, by a job of its own, and slices are made of them as they come.

    `alive` is called with every block, every slab, and every look for slices that have not arrived.
    """
    plan = ledger.plan(job.key)
    cpu_start_s = time.process_time()
    if job.patterns is None and _has_raw_frames(plan, images):
        from spheroidd.daemon.scoring.raw_stack import find_patterns  # a fifth of a worker's start

        return PatternsFound(job.key, find_patterns(job.key, images, ledger, alive))
    read, raw = _reader(job, plan, images, alive)
    limits = job.limits if job.normalisation is Normalisation.PLATE else None
    boundary = Boundary.NETWORK if isinstance(segmenter, ThresholdSegmenter) else job.boundary
    own_edges = boundary is Boundary.HALF_HEIGHT and not job.light_only
    cell_um = None if isinstance(segmenter, ThresholdSegmenter) else job.cell_um
    shown = _as_wide_as_known(plan, cell_um)
    preprocessor = _preprocessor(shown, segmenter, job.limits, keep_filtered=own_edges)
    inspector, coarse = StackInspector(plan), CoarseStack(plan)
    output = None
    if not job.light_only:
        resampler = _masks(preprocessor, segmenter, shown, boundary, limits)
        counter = StackCounter(
            plan, model_shape=preprocessor.shape, model_spacing_um=segmenter.spacing_um, cell_um=cell_um
        )
        output = _StackOutput(plan, images, segmenter, counter, coarse, resampler, boundary)
    try:
        segmentation = _segmentation(preprocessor, segmenter, limits, job.tolerance)
        fed = dict.fromkeys(plan.channels, 0)
        slices = partial(ledger.acknowledged, job.key)
        for block in follow(plan, ledger, alive):
            held = (item for item in slices().items() if item[0].channel == block.channel)
            pixels = _read(read, block, {plan.plane_of(index): crc for index, crc in held})
            preprocessor.feed(block.channel, block.z_start, pixels)
            inspector.feed(block.channel, block.z_start, pixels)
            coarse.feed(block.channel, block.z_start, pixels)
            fed[block.channel] = block.z_stop
            if output:
                output.take(_each(segmentation.advance(), alive))
            else:
                preprocessor.discard(preprocessor.shape[0])  # its light is measured; nobody will ask for pixels
        if min(fed.values()) < plan.n_z:
            return None
        preprocessor.finish()
        profile = inspector.profile(preprocessor.raw_histograms())
        light = coarse.light(preprocessor.histograms(), preprocessor.raw_histograms())
        if output is None:
            return Scored(job.key, light, profile, None, slices=raw.finish() if raw else ())
        output.take(_each(segmentation.finish(), alive))
        labels = output.finish()
        if job.objects:
            computed = partial(_computed_block, images)
            pixels_of = partial(_read, computed, acknowledged={}) if raw is None else None  # those have no slices yet
            labels += objects_of(plan, images, counter, segmenter.sha256, pixels_of)
        looks = _looks(segmenter, segmentation, plan, job.normalisation)
        measurement = counter.measure(
            limits=limits or preprocessor.limits(),
            normalisation=job.normalisation,
            model_sha256=segmenter.sha256,
            precision=segmenter.precision,
            quantiles=preprocessor.quantiles(),
            depth_seen_um=coarse.depth_seen_um(preprocessor.raw_histograms()),
            foreign_score=looks.foreign if looks else None,
            cpu_s=time.process_time() - cpu_start_s,
        )
        origin = ScoredFrom(images_digest(slices()), output.digests())
        made = raw.finish() if raw else ()
        masks = replace(coarse.masks(), looks=looks)
        return Scored(job.key, light, profile, measurement, masks, origin, labels, made)
    finally:
        if output:
            output.abandon()


def _as_wide_as_known(plan: StackPlan, cell_um: float | None) -> StackPlan:
    """The stack as a network is shown it: measured so that cells are as wide as those that it learnt from."""
    times = magnified(cell_um)
    return replace(plan, pixel_um=plan.pixel_um / times, z_step_um=plan.z_step_um / times)


def _looks(
    segmenter: Segmenter, segmentation: StreamingSegmentation, plan: StackPlan, normalisation: Normalisation
) -> StackLooks | None:
    """How the stack looks beside those that its network knows; a threshold knows nothing."""
    sums = segmentation.features
    if sums is None or isinstance(segmenter, ThresholdSegmenter):
        return None
    from spheroidd.inference.segmentation.segmenter import UNetSegmenter

    return segmenter.looks(sums, plan.channels, normalisation) if isinstance(segmenter, UNetSegmenter) else None


def _has_raw_frames(plan: StackPlan, images: Path) -> bool:
    return plan.raw is not None and not is_dropped(images, plan.key)


def _reader(
    job: ScoreJob, plan: StackPlan, images: Path, alive: Callable[[], None]
) -> "tuple[Callable[[Block, Mapping[int, int]], Pixels], RawStack | None]":
    """What gives a block's pixels, and the stack that makes them of raw frames, where there are some."""
    if _has_raw_frames(plan, images) and job.patterns is not None:
        from spheroidd.daemon.scoring.raw_stack import RawStack

        raw = RawStack(job, plan, images, job.patterns)
        return partial(raw.slices, alive=alive), raw
    if plan.raw is not None:  # the slices that were made of them are there, with checksums of their own
        return partial(_computed_block, images), None
    return partial(read_block, images), None


def _computed_block(images: Path, block: Block, _frames: Mapping[int, int]) -> Pixels:
    return read_block(images, block)


def _read(read: Callable[[Block, Mapping[int, int]], Pixels], block: Block, acknowledged: Mapping[int, int]) -> Pixels:
    """A block's pixels. StackError where what was stored is damaged or gone: to read it again would not help."""
    try:
        return read(block, acknowledged)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise  # the disk fails, for a moment perhaps
        what = f"its stored images do not read back: {error.what}"
        do = "keep the disk as it is and check it; restore the file from a copy, or image the well again"
        raise StackError(what, where=error.where, do=do) from error


def _preprocessor(
    plan: StackPlan, segmenter: Segmenter, limits: Mapping[str, Limits] | None, *, keep_filtered: bool = False
) -> "StreamingPreprocessor | DevicePreprocessor":
    make: Any = StreamingPreprocessor
    network = _on_device(segmenter)
    if network is not None:
        from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
        from spheroidd.inference.segmentation.device_memory import require_room

        make = partial(DevicePreprocessor, device=network.device)
        if (there := network.memory_bytes) is not None:
            needed = _bytes_on_device(plan, network, known_limits=limits is not None, half_height=keep_filtered)
            require_room(needed, there, str(plan.key))
    made: StreamingPreprocessor | DevicePreprocessor = make(
        n_z=plan.n_z,
        height=plan.height,
        width=plan.width,
        pixel_um=plan.pixel_um,
        z_step_um=plan.z_step_um,
        channels=plan.channels,
        spacing_um=segmenter.spacing_um,
        known_limits=limits,
        own_window=True,
        keep_filtered=keep_filtered,
    )
    return made


def _bytes_on_device(plan: StackPlan, network: "UNetSegmenter", *, known_limits: bool, half_height: bool) -> int:
    """The most that a stack holds of a GPU's memory; see `device_memory`."""
    from spheroidd.inference.segmentation.device_memory import stack_bytes

    return stack_bytes(
        (plan.n_z, plan.height, plan.width),
        (plan.z_step_um, plan.pixel_um, plan.pixel_um),
        network.spacing_um,
        network.halo,
        network.precision,
        known_limits=known_limits,
        half_height=half_height,
        base=network.card.settings.base,
    )


def _on_device(segmenter: Segmenter) -> "UNetSegmenter | None":
    """The network, where a stack's whole way is on its device. A threshold loads no torch."""
    if isinstance(segmenter, ThresholdSegmenter):
        return None
    from spheroidd.inference.segmentation.segmenter import UNetSegmenter

    return segmenter if isinstance(segmenter, UNetSegmenter) and segmenter.keeps_stacks_on_device else None


def _segmentation(
    preprocessor: "StreamingPreprocessor | DevicePreprocessor",
    segmenter: Segmenter,
    limits: Mapping[str, Limits] | None = None,
    tolerance: float = 0.0,
) -> StreamingSegmentation:
    if isinstance(preprocessor, StreamingPreprocessor):
        return StreamingSegmentation(preprocessor, segmenter, limits=limits, tolerance=tolerance)
    from spheroidd.inference.segmentation.device_path import DeviceSegmentation
    from spheroidd.inference.segmentation.segmenter import UNetSegmenter

    if isinstance(segmenter, UNetSegmenter):
        return DeviceSegmentation(preprocessor, segmenter, limits=limits, tolerance=tolerance)
    return StreamingSegmentation(preprocessor, segmenter, limits=limits, tolerance=tolerance)


def _masks(
    preprocessor: "StreamingPreprocessor | DevicePreprocessor",
    segmenter: Segmenter,
    plan: StackPlan,
    boundary: Boundary,
    limits: Mapping[str, Limits] | None,
) -> MakesMasks:
    """What makes masks of a stack's slabs, where its slices are."""
    shape, spacing_um = (plan.n_z, plan.height, plan.width), (plan.z_step_um, plan.pixel_um, plan.pixel_um)
    own_edges = boundary is Boundary.HALF_HEIGHT
    if isinstance(preprocessor, StreamingPreprocessor):
        if own_edges:
            return HalfHeightMasks(preprocessor, segmenter.spacing_um, shape, spacing_um, limits)
        return MaskResampler(preprocessor.shape, segmenter.spacing_um, shape, spacing_um)
    if own_edges:
        from spheroidd.inference.segmentation.device_half_height import DeviceHalfHeightMasks

        return DeviceHalfHeightMasks(preprocessor, segmenter.spacing_um, shape, spacing_um, limits)
    from spheroidd.inference.segmentation.device_path import DeviceMasks

    return DeviceMasks(preprocessor.shape, segmenter.spacing_um, shape, spacing_um, device=preprocessor.device)


def _each(slabs: Iterable[SegmentedSlab], alive: Callable[[], None]) -> Iterator[SegmentedSlab]:
    for slab in slabs:
        alive()
        yield slab


def follow(plan: StackPlan, ledger: StackLedger, alive: Callable[[], None] = lambda: None) -> Iterator[Block]:
    """Yield a stack's blocks, per channel in z order without gap or overlap, as the ledger announces them.

    Ends when every slice was yielded, or when the stack is over without them.
    """
    key = plan.key
    waiting: dict[str, list[Block]] = {channel: [] for channel in plan.channels}
    next_z = dict.fromkeys(plan.channels, 0)
    cursor = 0
    while True:
        alive()
        over = ledger.state(key) in (StackState.INCOMPLETE, StackState.FAILED)
        for seen, block in ledger.blocks(key, cursor):
            cursor = seen
            waiting[block.channel].append(block)
        for channel, blocks in waiting.items():
            blocks.sort(key=lambda block: block.z_start)
            while blocks and blocks[0].z_start <= next_z[channel]:
                block = blocks.pop(0)
                if block.z_stop > next_z[channel]:
                    alive()
                    yield Block(key, channel, next_z[channel], block.z_stop)
                    next_z[channel] = block.z_stop
        if min(next_z.values()) == plan.n_z or over:
            return
        time.sleep(POLL_S)


class _StackOutput:
    """Where a stack's slabs go: masks at the stack's own sampling into labels, volumes and counts into the counter."""

    def __init__(
        self,
        plan: StackPlan,
        images: Path,
        segmenter: Segmenter,
        counter: StackCounter,
        coarse: CoarseStack,
        resampler: MakesMasks,
        boundary: Boundary,
    ) -> None:
        self._counter, self._coarse, self._resampler = counter, coarse, resampler
        attributes = {"model_sha256": segmenter.sha256, "boundary": boundary.value}
        self._labels = {
            name: LabelWriter(images, plan.key, plan, name, attributes)
            for name, channel in LABELS.items()
            if channel in plan.channels
        }

    def take(self, slabs: Iterable[SegmentedSlab]) -> None:
        """Write and count slabs that are final."""
        for slab in slabs:
            self._counter.add_density(slab.z_start, slab.prediction)
            self._write(self._resampler.feed(slab.z_start, slab.prediction.live, slab.prediction.dead))

    def finish(self) -> tuple[FinishedLabel, ...]:
        """Write what is left; the counter has everything then. The labels, which are not in their place yet."""
        self._write(self._resampler.finish())
        return tuple(label.finish() for label in self._labels.values())

    def digests(self) -> dict[str, str]:
        """What each finished label is known by."""
        return {name: label.sha256 for name, label in self._labels.items()}

    def abandon(self) -> None:
        """Remove labels that were begun and not finished."""
        for label in self._labels.values():
            label.abandon()

    def _write(self, slabs: Iterable[NativeMasks]) -> None:
        for z_start, live, dead in slabs:
            self._counter.add_masks(z_start, live, dead)
            self._coarse.feed_masks(z_start, live, dead)
            for name, mask in (("live", live), ("dead", dead)):
                if name in self._labels:
                    self._labels[name].append(z_start, mask)


def warm_up(segmenter: Segmenter, plan: StackPlan | None = None) -> None:
    """Compile and load everything that a stack will need, on a made-up one: the first well waits for nothing.

    Where stacks stay on a device it is as large as `plan`, one of those that are to come: kernels are loaded, and
    memory is asked for, at the shapes of what follows. On a processor little depends on the size; a small one does.
    """
    if plan is not None and _on_device(segmenter) is not None:
        with suppress(StackError):  # the device cannot hold it: that is said of the stack when it is its turn
            made_up = replace(plan, key=_NOWHERE, raw=None)
            _score_made_up(made_up, segmenter, dict.fromkeys(plan.channels, _MADE_UP_LIMITS))
            return
    _score_made_up(StackPlan(_NOWHERE, CHANNELS, _BLOCK_Z, 64, 64, 0.25, 0.5), segmenter, None)


def _score_made_up(plan: StackPlan, segmenter: Segmenter, limits: Mapping[str, Limits] | None) -> None:
    """The whole way of noise, block by block, to masks that nobody keeps."""
    preprocessor = _preprocessor(plan, segmenter, limits, keep_filtered=True)
    segmentation = _segmentation(preprocessor, segmenter, limits)
    boundaries = [Boundary.NETWORK] if isinstance(segmenter, ThresholdSegmenter) else list(Boundary)
    resamplers = [_masks(preprocessor, segmenter, plan, boundary, limits) for boundary in boundaries]

    def take(slabs: Iterable[SegmentedSlab]) -> None:
        for slab in slabs:
            for resampler in resamplers:
                list(resampler.feed(slab.z_start, slab.prediction.live, slab.prediction.dead))

    pixels = np.random.default_rng(0).integers(90, 400, (_BLOCK_Z, plan.height, plan.width)).astype(plan.dtype)
    for z in range(0, plan.n_z, _BLOCK_Z):
        for channel in plan.channels:
            preprocessor.feed(channel, z, pixels[: plan.n_z - z])
        take(segmentation.advance())
    preprocessor.finish()
    take(segmentation.finish())
    for resampler in resamplers:
        list(resampler.finish())
