"""A worker is warm at the shapes of what it will score: on a device nothing is seen for the first time by a stack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.score_stack import warm_up
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
from spheroidd.inference.segmentation.device_half_height import DeviceHalfHeightMasks
from spheroidd.inference.segmentation.device_path import DeviceMasks, DeviceSegmentation
from spheroidd.inference.segmentation.precision import CPU_WHOLE_WAY
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.protocols.results import Boundary
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates
from tests.inference.segmentation.test_device_path import CPU, KNOWN, SPACING, cells

WIDE = StackPlan(StackKey("P1", WellId(0, 0)), CHANNELS, 20, 24, 140, 1.0, 1.0)  # two tiles of 128 voxels at most
LARGE = StackPlan(StackKey("P1", WellId(0, 0)), CHANNELS, 200, 2048, 2048, 0.125, 0.5)


class Seen(TorchDispatchMode):
    """Every operation of torch with the shapes that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.all: set[tuple[Any, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.all.add((str(func), *(tuple(one.shape) for one in tree_iter(args) if isinstance(one, torch.Tensor))))
        return func(*args, **(kwargs or {}))


def score(raw: np.ndarray, plan: StackPlan, network: UNetSegmenter, boundary: Boundary) -> None:
    """The whole way of a stack whose blocks arrive one by one."""
    given = (plan.n_z, plan.height, plan.width, plan.pixel_um, plan.z_step_um, CHANNELS, SPACING)
    own_edges = boundary is Boundary.HALF_HEIGHT
    source = DevicePreprocessor(*given, known_limits=KNOWN, device=CPU, keep_filtered=own_edges)
    segmentation = DeviceSegmentation(source, network, limits=KNOWN)
    masks: Any = DeviceMasks(source.shape, SPACING, raw.shape[1:], SPACING, device=CPU)
    if own_edges:
        masks = DeviceHalfHeightMasks(source, SPACING, raw.shape[1:], SPACING, KNOWN)
    for z in range(0, plan.n_z, 8):
        for channel, pixels in zip(CHANNELS, raw, strict=True):
            source.feed(channel, z, pixels[z : z + 8])
    source.finish()
    for slab in segmentation.finish():
        list(masks.feed(slab.z_start, slab.prediction.live, slab.prediction.dead))
    list(masks.finish())


@pytest.mark.parametrize("boundary", Boundary)
def test_no_operation_of_a_stack_is_the_first_with_its_shapes(boundary: Boundary) -> None:
    network = load_segmenter(None, CPU_WHOLE_WAY, None, "fp32")
    raw = cells(WIDE.n_z, WIDE.height, WIDE.width)
    with Seen() as warm:
        warm_up(network, WIDE)
    with Seen() as small:
        warm_up(network)
    with Seen() as scored:
        score(raw, WIDE, network, boundary)
    assert any("convolution" in name for name, *_ in scored.all)
    assert scored.all <= warm.all
    assert not scored.all <= small.all


class Filled(UNetSegmenter):
    """On a device of half a gigabyte."""

    @property
    def memory_bytes(self) -> int:
        return 1 << 29


def test_a_stack_that_the_device_cannot_hold_does_not_keep_the_worker_from_starting() -> None:
    network, card = load_model(None)
    with Seen() as seen:
        warm_up(Filled(network, card, CPU_WHOLE_WAY, "fp32"), LARGE)
    assert any("convolution" in name for name, *_ in seen.all), "it is warm for those that it can hold"


@pytest.mark.parametrize(("scored", "expected"), [(0, {0, 1}), (1, {1}), (2, {0, 1})])
def test_the_stack_to_come_is_one_that_is_not_scored_where_there_is_one(
    tmp_path: Path, scored: int, expected: set[int]
) -> None:
    wells = plates.plate_map("P1", {WellId(0, n): plates.UNTREATED for n in range(2)})
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(wells, '{"inference":{}}')
        assert catalog.plan_to_come("P1") is None
        plans = [plates.plan_of(StackKey("P1", WellId(0, n)), n_z=2, side=8 + 8 * n) for n in range(2)]
        for plan in plans:
            catalog.expect(plan)
        for plan in plans[:scored]:
            catalog.connection.execute("UPDATE stacks SET state = 'scored' WHERE well = ?", (str(plan.key.well),))
        assert catalog.plan_to_come("P1") in [plans[n] for n in expected]
