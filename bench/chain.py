"""The whole way from a file to masks, against a MONAI chain and scipy's median + MONAI: `python -m bench.chain`.

The same weights, folded, in all of them, and each in a process of its own; CPU seconds from reading the file to masks
at the stack's own sampling, imports and a warm-up on a small stack not counted. Prints JSON.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.segment import peak_mb

CROP = (48, 384, 384)  # slices, rows, columns of a screen stack: MONAI's chain needs gigabytes for the whole of it
OWN_UM = (0.5, 0.125, 0.125)
WINDOW = 64  # voxels a side, at most, of the sliding window
REPEATS = 3
Masks = NDArray[np.bool_]  # (2, z, y, x): live, dead


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "default"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stack.npy"
        np.save(file, _emulated(CROP))
        np.save(Path(folder) / "warm.npy", _emulated((16, 64, 64)))
        rows = {name: _in_own_process(name, model, file) for name in CHAINS}
        masks = {name: np.load(Path(folder) / f"{name}.npy") for name in CHAINS}
    for name, row in rows.items():
        row["cpu_ratio_to_ours"] = round(row["cpu_s"] / rows["ours"]["cpu_s"], 2)
        row["live_dice_to_ours"], row["dead_dice_to_ours"] = (
            round(_dice(a, b), 5) for a, b in zip(masks[name], masks["ours"], strict=True)
        )
        row["live_part"], row["dead_part"] = (round(float(mask.mean()), 4) for mask in masks[name])
    print(json.dumps({"bench": "chain", "model": model, "crop": CROP, **rows}, indent=2))


def _dice(a: Masks, b: Masks) -> float:
    whole = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / whole if whole else 1.0


def _emulated(shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """A field near the surface of an emulated spheroid (2, z, y, x)."""
    import dataclasses

    from spheroidd.daemon.system.clock import SystemClock
    from spheroidd.sim_emulator.presets import PRESETS
    from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource

    n_z, height, width = shape
    preset = dataclasses.replace(PRESETS["screen"], n_z=n_z, height=height, width=width, field_x_um=30.0)
    source = EmulatorSource(EmulatorSettings(preset="screen", pace="fast"), None, "bench", SystemClock(), preset=preset)
    plan = [*source.plans()][-4]  # a treated well: both channels show something
    frames = list(source.frames(plan, set(plan.indices())))
    return np.stack([[f.pixels for f in frames if f.index.channel == channel] for channel in plan.channels])


def _in_own_process(name: str, model: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.chain", "--measure", name, model, str(file)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def measure(name: str, model: str, file: Path) -> dict[str, float]:
    """Median wall and CPU seconds of one chain over `file`; its masks are written beside it."""
    import torch

    torch.set_num_threads(1)
    chain = CHAINS[name](model)
    chain(file.parent / "warm.npy")
    before_mb, walls, cpus = psutil.Process().memory_info().rss / 2**20, [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        masks = chain(file)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    np.save(file.parent / f"{name}.npy", masks)
    return {
        "cpu_s": round(statistics.median(cpus), 3),
        "wall_s": round(statistics.median(walls), 3),
        "rss_mb": round(peak_mb()),
        "rss_mb_before": round(before_mb),
    }


def ours(model: str) -> Callable[[Path], Masks]:
    """What the daemon runs: slices fed as they come, slabs of masks out."""
    from spheroidd.inference.preprocessing.resample import MaskResampler
    from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
    from spheroidd.inference.segmentation.segmenter import load_segmenter
    from spheroidd.inference.segmentation.streaming import StreamingSegmentation
    from spheroidd.protocols.stack import CHANNELS

    segmenter = load_segmenter(model, "cpu")

    def run(file: Path) -> Masks:
        stack = np.load(file)
        _, n_z, height, width = stack.shape
        spacing = segmenter.spacing_um
        preprocessor = StreamingPreprocessor(n_z, height, width, OWN_UM[2], OWN_UM[0], CHANNELS, spacing)
        for z in range(0, n_z, 8):
            for channel, pixels in zip(CHANNELS, stack[:, z : z + 8], strict=True):
                preprocessor.feed(channel, z, pixels)
        preprocessor.finish()
        out = np.zeros(stack.shape, bool)
        resampler = MaskResampler(preprocessor.shape, spacing, stack.shape[1:], OWN_UM)
        for slab in StreamingSegmentation(preprocessor, segmenter).finish():
            for masks in resampler.feed(slab.z_start, slab.prediction.live, slab.prediction.dead):
                out[0, masks.z_start : masks.z_start + len(masks.live)] = masks.live
                out[1, masks.z_start : masks.z_start + len(masks.dead)] = masks.dead
        return out

    return run


def monai(model: str, use_scipy_median: bool = False) -> Callable[[Path], Masks]:
    """The same steps as MONAI's transforms and its sliding window."""
    import torch
    from monai.inferers.inferer import SlidingWindowInferer
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.array import MedianSmooth, NormalizeIntensity, ScaleIntensityRangePercentiles
    from monai.transforms.io.array import LoadImage
    from monai.transforms.spatial.array import Resize
    from scipy import ndimage

    from spheroidd.inference.network.unet import fold_batchnorm
    from spheroidd.inference.network.weights import load_model
    from spheroidd.inference.segmentation.segmenter import choose_dtype

    network, card = load_model(model)
    dtype = choose_dtype(torch.device("cpu"))
    network = fold_batchnorm(network).to(dtype).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def scipy_median(stack: torch.Tensor) -> torch.Tensor:
        filtered = np.stack([ndimage.median_filter(np.asarray(part), 3, mode="nearest") for part in stack])
        return torch.from_numpy(filtered)

    def run(file: Path) -> Masks:
        transforms = Compose(
            [
                LoadImage(image_only=True, reader="NumpyReader", channel_dim=0),
                scipy_median if use_scipy_median else MedianSmooth(radius=1),
                ScaleIntensityRangePercentiles(2, 98, 0, 1, clip=True, channel_wise=True),
                NormalizeIntensity(channel_wise=True),
            ]
        )
        volume = torch.as_tensor(np.asarray(transforms(str(file)))).float()
        own = tuple(volume.shape[1:])
        shape = [round(n * a / b) for n, a, b in zip(own, OWN_UM, card.settings.spacing_um, strict=True)]
        volume = torch.as_tensor(np.asarray(Resize(shape, mode="area")(volume)))
        window = [min(WINDOW, n // 8 * 8) for n in shape]
        infer = SlidingWindowInferer(window, sw_batch_size=2, overlap=0.25)
        with torch.inference_mode():
            inputs = volume[None].to(dtype).contiguous(memory_format=torch.channels_last_3d)
            found = infer(inputs, lambda x: network.infer(x)[0])
            own_sampling = torch.nn.functional.interpolate(found, size=own, mode="trilinear", align_corners=False)
            masks: Masks = (own_sampling[0] > 0.5).numpy()
        return masks

    return run


CHAINS: dict[str, Callable[[str], Callable[[Path], Masks]]] = {
    "ours": ours,
    "scipy_monai": lambda model: monai(model, use_scipy_median=True),
    "monai": monai,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], Path(sys.argv[4]))))
    else:
        main()
