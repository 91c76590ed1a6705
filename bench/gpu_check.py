"""What a GPU does here: is it right, how quick is it, how much memory. One command, under eight minutes, JSON.

    python -m bench.gpu_check                        on the first CUDA device; exit code 3 where there is none
    python -m bench.gpu_check --device cpu --small   the same parts on the processor: that they work, not how quick

Each part has its time and is left out, saying so, where the whole runs late. A part that fails makes the exit code 1.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.inferers.inferer import SlidingWindowInferer
from monai.transforms.intensity.array import MedianSmooth
from scipy import ndimage

from spheroidd.inference.network.unet import fold_batchnorm
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
from spheroidd.inference.preprocessing.resample import MaskResampler
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.segmentation.device_path import DeviceMasks, DeviceSegmentation
from spheroidd.inference.segmentation.precision import CPU_WHOLE_WAY
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.segmentation.streaming import StreamingSegmentation
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import CHANNELS

BUDGET_S = 450.0
NO_GPU = 3
SCREEN, SMALL = (200, 800, 800), (24, 128, 128)
Z_STEP_UM, PIXEL_UM = 0.5, 0.125
BLOCK_Z = 8
LIMITS = dict.fromkeys(CHANNELS, Limits(120.0, 900.0, 330.0, 220.0))
AIMS = {"network_ms": 10.0, "stack_s": 0.3, "times_monai": 20.0, "dice": 0.999}


def cells(shape: tuple[int, int, int]) -> np.ndarray:
    """(2, z, y, x) uint16: smooth blobs with shot noise, which the network takes for cells."""
    rng = np.random.default_rng(0)
    small = tuple(max(4, n // k) for n, k in zip(shape, (8, 32, 32), strict=True))
    out = np.empty((2, *shape), np.uint16)
    for channel in out:
        blobs = ndimage.zoom(rng.normal(size=small), [a / b for a, b in zip(shape, small, strict=True)], order=1)
        channel[:] = rng.poisson(120 + 350 * np.clip(blobs / blobs.std(), 0, None))
    return out


def seconds(act: Callable[[], object], device: torch.device, n: int = 5) -> float:
    """Median seconds by the host's clock until the device is done; the first is not counted."""
    found = []
    for _ in range(n + 1):
        began_s = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began_s)
    return statistics.median(found[1:])


def whole_way(raw: np.ndarray, segmenter: UNetSegmenter) -> tuple[np.ndarray, np.ndarray]:
    """Raw slices to native masks (live, dead), by the path that the segmenter's device takes."""
    shape, own_um = raw.shape[1:], (Z_STEP_UM, PIXEL_UM, PIXEL_UM)
    given = (*shape, PIXEL_UM, Z_STEP_UM, CHANNELS, segmenter.spacing_um)
    stays = segmenter.keeps_stacks_on_device
    source: Any = (
        DevicePreprocessor(*given, known_limits=LIMITS, device=segmenter.device)
        if stays
        else StreamingPreprocessor(*given, known_limits=LIMITS)
    )
    slabs: Any = (DeviceSegmentation if stays else StreamingSegmentation)(source, segmenter, limits=LIMITS)
    masks: Any = MaskResampler(source.shape, segmenter.spacing_um, shape, own_um)
    if stays:
        masks = DeviceMasks(source.shape, segmenter.spacing_um, shape, own_um, device=segmenter.device)
    parts = []
    for z in range(0, shape[0], BLOCK_Z):
        for channel, pixels in zip(CHANNELS, raw, strict=True):
            source.feed(channel, z, pixels[z : z + BLOCK_Z])
        for slab in slabs.advance():
            parts += masks.feed(slab.z_start, slab.prediction.live, slab.prediction.dead)
    source.finish()
    for slab in slabs.finish():
        parts += masks.feed(slab.z_start, slab.prediction.live, slab.prediction.dead)
    parts += masks.finish()
    return np.concatenate([part.live for part in parts]), np.concatenate([part.dead for part in parts])


def dice(one: np.ndarray, other: np.ndarray) -> float:
    together = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / together if together else 1.0


class Check:
    """The parts, each of which gives its figures."""

    def __init__(self, device: str, shape: tuple[int, int, int]) -> None:
        self.name = CPU_WHOLE_WAY if device == "cpu" else device
        self.device, self.raw = torch.device(device), cells(shape)

    def masks(self) -> dict[str, Any]:
        """Against the numba path in fp32 on the processor; and twice the same bits."""
        part = self.raw[:, :48, :256, :256]
        truth = whole_way(part, load_segmenter(None, "cpu", None, "fp32"))
        found: dict[str, Any] = {}
        for precision in ("fp32", "bf16"):
            segmenter = load_segmenter(None, self.name, None, precision)
            first, again = whole_way(part, segmenter), whole_way(part, segmenter)
            found[f"dice_{precision}"] = round(min(dice(a, b) for a, b in zip(truth, first, strict=True)), 6)
            found[f"repeats_{precision}"] = all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        return found | {"live_voxels": int(truth[0].sum()), "right": bool(found["dice_fp32"] >= AIMS["dice"])}

    def network(self) -> dict[str, Any]:
        """A stack's tiles in one batch."""
        segmenter = load_segmenter(None, self.name)
        side = 104 if self.raw.shape[1] == SCREEN[0] else 32
        tiles = torch.randn((1, 2, side, side, side), device=self.device)
        return {"network_ms": 1e3 * seconds(lambda: segmenter.predict_many(tiles), self.device)}

    def stack(self) -> dict[str, Any]:
        """Stored slices to masks, and what of the device's memory that takes."""
        segmenter = load_segmenter(None, self.name)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        took_s = seconds(lambda: whole_way(self.raw, segmenter), self.device, 3)
        found = {"stack_s": took_s, "stacks_per_h": 3600 / took_s}
        if self.device.type == "cuda":
            found["peak_gb"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return found

    def monai(self) -> dict[str, Any]:
        """MONAI's median and sliding window with the same weights on the same device."""
        network, _ = load_model(None)
        network = fold_batchnorm(network).to(self.device)
        size = [max(8, n // 8 * 8) for n in (self.raw.shape[1] // 2, self.raw.shape[2] // 8, self.raw.shape[3] // 8)]
        window = SlidingWindowInferer([min(96, n) for n in size], sw_batch_size=8, overlap=0.25)
        volume = torch.randn((1, 2, *size), device=self.device)
        slices, median = torch.from_numpy(self.raw.astype(np.float32)), MedianSmooth(radius=1)

        def smooth() -> None:
            for z in range(0, slices.shape[1], BLOCK_Z):
                median(slices[:, z : z + BLOCK_Z].to(self.device))

        with torch.inference_mode():
            alone_s = seconds(lambda: window(volume, lambda x: network.infer(x)[0]), self.device, 2)
            return {"network_s": alone_s, "with_median_s": alone_s + seconds(smooth, self.device, 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = {"bench": "gpu_check", "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    if given.device != "cpu" and not torch.cuda.is_available():
        print(json.dumps(found | {"gpu": None, "said": "torch sees no CUDA GPU here: nothing was measured"}, indent=1))
        sys.exit(NO_GPU)
    is_gpu = given.device != "cpu"
    found["device"] = torch.cuda.get_device_name(given.device) if is_gpu else f"no GPU: {platform.machine()} processor"
    check, began_s, failed = Check(given.device, SMALL if given.small else SCREEN), time.monotonic(), False
    for part in (check.masks, check.network, check.stack, check.monai):
        name = part.__name__
        if time.monotonic() > began_s + BUDGET_S:
            found[name] = "left out: no time"
            continue
        try:
            found[name] = part()
        except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError) as error:
            found[name], failed = f"failed: {error!r}"[:400], True
    if isinstance(found["monai"], dict) and isinstance(found["stack"], dict):
        found["times_monai"] = found["monai"]["with_median_s"] / found["stack"]["stack_s"]
    print(json.dumps(found | ({"aims": AIMS} if is_gpu else {}), indent=1))
    sys.exit(failed or (isinstance(found["masks"], dict) and not found["masks"]["right"]))


if __name__ == "__main__":
    main()
