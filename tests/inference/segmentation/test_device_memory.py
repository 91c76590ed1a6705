"""What is reckoned of a device's memory holds, counted tensor by tensor, and a large stack stays within 8 GB."""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
from spheroidd.inference.segmentation.device_half_height import DeviceHalfHeightMasks
from spheroidd.inference.segmentation.device_memory import FED, require_room, stack_bytes
from spheroidd.inference.segmentation.device_path import DeviceMasks, DeviceSegmentation
from spheroidd.inference.segmentation.precision import CPU_WHOLE_WAY
from spheroidd.inference.segmentation.segmenter import load_segmenter
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.results import Precision
from spheroidd.protocols.stack import CHANNELS
from tests.inference.segmentation.test_device_path import CPU, KNOWN, SPACING, cells

OWN_UM = (0.5, 0.125, 0.125)


class Counted(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self._users: dict[int, int] = {}
        self._now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_iter(found):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr():
                self._held(one)
        return found

    def _held(self, tensor: torch.Tensor) -> None:
        place, n_bytes = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if not self._users.get(place):
            self._now += n_bytes
            self.peak = max(self.peak, self._now)
        self._users[place] = self._users.get(place, 0) + 1
        weakref.finalize(tensor, self._left, place, n_bytes)

    def _left(self, place: int, n_bytes: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            self._now -= n_bytes


@pytest.mark.parametrize("half_height", [False, True], ids=["network's boundary", "half height"])
@pytest.mark.parametrize(
    ("shape", "own_um", "known", "precision"),
    [
        ((24, 128, 128), OWN_UM, True, Precision.FP32),
        ((24, 40, 168), (1.0, 1.0, 1.0), False, Precision.BF16),
        ((48, 192, 64), OWN_UM, True, Precision.BF16),
        ((48, 192, 64), OWN_UM, False, Precision.FP32),
        ((12, 40, 168), (1.0, 1.0, 1.0), True, Precision.FP32),
    ],
)
def test_a_stack_takes_no_more_than_is_reckoned_and_not_much_less(
    shape: tuple[int, int, int],
    own_um: tuple[float, float, float],
    known: bool,
    precision: Precision,
    half_height: bool,
) -> None:
    network = load_segmenter(None, CPU_WHOLE_WAY, None, precision.value)
    raw = cells(*shape)
    with Counted() as counted:
        given = (*shape, own_um[1], own_um[0], CHANNELS, SPACING)
        limits = KNOWN if known else None
        source = DevicePreprocessor(*given, known_limits=limits, device=CPU, keep_filtered=half_height)
        segmentation = DeviceSegmentation(source, network, limits=limits)
        masks: Any = DeviceMasks(source.shape, SPACING, shape, own_um, device=CPU)
        if half_height:
            masks = DeviceHalfHeightMasks(source, SPACING, shape, own_um, limits)
        for z in range(0, shape[0], FED):
            for channel, pixels in zip(CHANNELS, raw, strict=True):
                source.feed(channel, z, pixels[z : z + FED])
        source.finish()
        for slab in segmentation.finish():
            list(masks.feed(slab.z_start, slab.prediction.live, slab.prediction.dead))
        list(masks.finish())
    reckoned = stack_bytes(shape, own_um, SPACING, network.halo, precision, known_limits=known, half_height=half_height)
    assert counted.peak <= reckoned <= 2.5 * counted.peak


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("known", [True, False], ids=["known limits", "own limits"])
@pytest.mark.parametrize("half_height", [False, True], ids=["network's boundary", "half height"])
def test_a_stack_of_2048_by_2048_by_200_in_two_channels_stays_within_8_gb(
    half_height: bool, known: bool, precision: Precision
) -> None:
    halo = load_segmenter(None, CPU_WHOLE_WAY).halo
    shape = (200, 2048, 2048)
    needed = stack_bytes(shape, OWN_UM, SPACING, halo, precision, known_limits=known, half_height=half_height)
    assert needed <= 8 * 2**30


def test_a_stack_that_a_device_cannot_hold_is_refused_in_words() -> None:
    require_room(8, 8, "P1/A01/0")
    with pytest.raises(StackError, match=r"needs 9\.0 GB of a GPU that has 8\.0 GB"):
        require_room(9 * 10**9, 8 * 10**9, "P1/A01/0")
