"""What a GPU does here: is it right, how quick is it, how much memory. One command, under eight minutes, JSON.

    python -m bench.gpu_check            on the first CUDA device; exit code 3 where there is none
    python -m bench.gpu_check --smoke    the same parts on the processor, of a tiny stack: that they work, not how quick

A part is left out, saying so, where the whole runs late; what is not done after LIMIT_S is cut off, and what was found
by then is printed. A part that fails makes the exit code 1, and so does, on a GPU, an aim that is missed or not known.

Boundaries lie at half height, as a run draws them; `dice` is the worse of that and of the network's own.
`stored_to_row_s` is from stored files to a measurement with its masks on the disk, by the worker's own function;
`last_slice_to_row_s` is what a live run's row says of itself. `counts_equal`: every well of the demonstration's plate
has the counts, in fp32, that the processor finds. `bf16_off`: by how much, of that, the plate's totals of volumes and
counts differ in bf16, the worst of the four.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from scipy import ndimage
from torch.nn import functional

from spheroidd.acquisition.store.labels import discard_label
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.launch.demo import PRESETS
from spheroidd.daemon.scoring.messages import Scored, ScoreJob
from spheroidd.daemon.scoring.score_stack import score_stack, warm_up
from spheroidd.inference.network.unet import fold_batchnorm
from spheroidd.inference.network.weights import load_model
from spheroidd.inference.preprocessing.device_stream import DevicePreprocessor
from spheroidd.inference.preprocessing.resample import MakesMasks, MaskResampler
from spheroidd.inference.preprocessing.stream import StreamingPreprocessor
from spheroidd.inference.segmentation.device_half_height import DeviceHalfHeightMasks
from spheroidd.inference.segmentation.device_path import DeviceMasks, DeviceSegmentation
from spheroidd.inference.segmentation.half_height import HalfHeightMasks
from spheroidd.inference.segmentation.precision import CPU_WHOLE_WAY
from spheroidd.inference.segmentation.segmenter import UNetSegmenter, load_segmenter
from spheroidd.inference.segmentation.streaming import StreamingSegmentation
from spheroidd.protocols.results import Boundary, Limits, Normalisation, StackMeasurement
from spheroidd.protocols.stack import CHANNELS, StackKey, StackPlan
from spheroidd.protocols.well import WellId

BUDGET_S = 300.0  # no part begins later
LIMIT_S = 460.0  # and all is cut off: eight minutes with the imports
NO_GPU = 3
SCREEN, SMOKE = (200, 800, 800), (16, 64, 64)
LARGE_SIDE = 2048
STUDY_UM = 0.1  # the study's network saw voxels of that size
Z_STEP_UM, PIXEL_UM = 0.5, 0.125
OWN_UM = (Z_STEP_UM, PIXEL_UM, PIXEL_UM)
BLOCK_Z = 8
LIMITS = dict.fromkeys(CHANNELS, Limits(120.0, 900.0, 330.0, 220.0))
RUN_S = 150.0  # the live run's stack is imaged as quickly as it can be drawn
COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
ONE_WELL: dict[str, object] = {"preset": "screen", "pace": "fast"}
TOTALS = ("live_um3", "dead_um3", "n_live", "n_dead")
AT_MOST = {"network_ms": 10.0, "stored_to_row_s": 0.3, "large_peak_gb": 8.0, "bf16_off": 0.01}
AT_LEAST = {"times_monai_with_normalisation": 20.0, "times_monai_with_median": 20.0, "dice": 0.999}
AT_LEAST |= dict.fromkeys(("counts_equal", "repeats_fp32", "repeats_bf16"), 1.0)  # these are true or false


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
    """Median seconds by the host's clock until the device is done; the first of several is not counted."""
    found = []
    for _ in range(n + 1):
        began_s = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began_s)
    return statistics.median(found[1:] or found)


def whole_way(
    raw: np.ndarray, segmenter: UNetSegmenter, boundary: Boundary = Boundary.HALF_HEIGHT
) -> tuple[np.ndarray, np.ndarray]:
    """Raw slices to native masks (live, dead), by the path that the segmenter's device takes."""
    shape, own_um = raw.shape[1:], OWN_UM
    given = (*shape, PIXEL_UM, Z_STEP_UM, CHANNELS, segmenter.spacing_um)
    stays, own_edges = segmenter.keeps_stacks_on_device, boundary is Boundary.HALF_HEIGHT
    known: dict[str, Any] = {"known_limits": LIMITS, "keep_filtered": own_edges}
    source: Any = StreamingPreprocessor(*given, **known)
    if stays:
        source = DevicePreprocessor(*given, **known, device=segmenter.device)
    slabs: Any = (DeviceSegmentation if stays else StreamingSegmentation)(source, segmenter, limits=LIMITS)
    masks: MakesMasks = MaskResampler(source.shape, segmenter.spacing_um, shape, own_um)
    if own_edges:
        make: Any = DeviceHalfHeightMasks if stays else HalfHeightMasks
        masks = make(source, segmenter.spacing_um, shape, own_um, LIMITS)
    elif stays:
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

    def __init__(self, device: str, shape: tuple[int, int, int], folder: Path) -> None:
        self.is_smoke, self.folder = shape == SMOKE, folder
        self.name = CPU_WHOLE_WAY if device == "cpu" else device
        self.device, self.raw = torch.device(device), cells(shape)

    def masks(self) -> dict[str, Any]:
        """Against the numba path in fp32 on the processor, with either boundary; and twice the same bits."""
        part = self.raw[:, :48, :256, :256]
        plain = load_segmenter(None, "cpu", None, "fp32")
        truths = {boundary: whole_way(part, plain, boundary) for boundary in Boundary}
        found: dict[str, Any] = {}
        for precision in ("fp32", "bf16"):
            segmenter, repeats = load_segmenter(None, self.name, None, precision), True
            for boundary, truth in truths.items():
                first, again = whole_way(part, segmenter, boundary), whole_way(part, segmenter, boundary)
                alike = min(dice(a, b) for a, b in zip(truth, first, strict=True))
                found[f"dice_{precision}_{boundary}"] = round(alike, 6)
                repeats &= all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
            found[f"repeats_{precision}"] = repeats
        worst = min(found[f"dice_fp32_{boundary}"] for boundary in Boundary)
        return found | {"dice": worst, "live_voxels": min(int(truth[0].sum()) for truth in truths.values())}

    def network(self) -> dict[str, Any]:
        """A stack's tiles in one batch."""
        segmenter = load_segmenter(None, self.name)
        tiles = torch.randn((1, 2, *(16 if self.is_smoke else 104 for _ in range(3))), device=self.device)
        return {"network_ms": 1e3 * seconds(lambda: segmenter.predict_many(tiles), self.device)}

    def stack(self) -> dict[str, Any]:
        """Slices in memory to masks in memory, and what of the device's memory that takes; before that what a worker
        does as it starts, and the first stack after it.
        """
        segmenter = load_segmenter(None, self.name)
        n_z, height, width = self.raw.shape[1:]
        plan = StackPlan(StackKey("gpu", WellId(0, 0)), CHANNELS, n_z, height, width, PIXEL_UM, Z_STEP_UM)
        warm_s = seconds(lambda: warm_up(segmenter, plan), self.device, 0)
        first_s = seconds(lambda: whole_way(self.raw, segmenter), self.device, 0)
        self._forget_peak()
        took_s = seconds(lambda: whole_way(self.raw, segmenter), self.device, 1 if self.is_smoke else 3)
        return {"warm_up_s": warm_s, "first_stack_s": first_s, "stack_s": took_s, "stack_peak_gb": self._peak_gb()}

    def rows(self) -> dict[str, Any]:
        """A live run of one well through the daemon, and its stored stack scored once more by the worker's function."""
        data = self._run("one", ONE_WELL)
        segmenter = load_segmenter(None, self.name)
        with Catalog.read_only(data) as catalog:
            (row,) = catalog.results()
            (stack,) = catalog.stacks()
            given = catalog.query("SELECT latency_s FROM results")[0]["latency_s"]
            n = 1 if self.is_smoke else 3
            took_s = seconds(lambda: self._measure(data, catalog, stack.key, segmenter), self.device, n)
        found = {"status": row.status.value, "last_slice_to_row_s": given, "stored_to_row_s": took_s}
        return found | {"stacks_per_h": 3600 / took_s}

    def counts(self) -> dict[str, Any]:
        """The wells of the demonstration's plate, by the worker's function: fp32 and bf16 against the processor."""
        data = self._run("demo", PRESETS["demo"] | {"pace": "fast"})
        ways = {"truth": ("cpu", "fp32"), "fp32": (self.name, "fp32"), "bf16": (self.name, "bf16")}
        found: dict[str, list[StackMeasurement]] = {}
        with Catalog.read_only(data) as catalog:
            keys = [stack.key for stack in catalog.stacks()]
            for way, (device, precision) in ways.items():
                segmenter = load_segmenter(None, device, None, precision)
                found[way] = [self._measure(data, catalog, key, segmenter) for key in keys]
        pairs = list(zip(found["truth"], found["fp32"], strict=True))
        return {
            "counts_equal": all((a.n_live, a.n_dead) == (b.n_live, b.n_dead) for a, b in pairs),
            "wells": len(keys),
            "cells": sum((one.n_live or 0) + (one.n_dead or 0) for one in found["truth"]),
            "fp32_off": apart(found["truth"], found["fp32"]),
            "bf16_off": apart(found["truth"], found["bf16"]),
        }

    def _measure(self, data: Path, catalog: Catalog, key: StackKey, segmenter: UNetSegmenter) -> StackMeasurement:
        """What the worker's function says of a stored stack; its masks are not kept."""
        limits = catalog.locked_limits(key.plate)
        normalisation = Normalisation.PLATE if limits else Normalisation.STACK
        job = ScoreJob(key, normalisation, limits, 0.0, boundary=Boundary.HALF_HEIGHT)
        found = score_stack(job, data, catalog, segmenter)
        if not isinstance(found, Scored) or found.measurement is None:
            raise RuntimeError(f"no measurement came of {key}: {found}")
        for label in found.labels:
            discard_label(data, label)
        return found.measurement

    def study(self) -> dict[str, Any]:
        """One stack at the study's sampling: the shipped weights, of which only the time means something there."""
        network, card = load_model(None)
        fine = replace(card, settings=replace(card.settings, spacing_um=(STUDY_UM,) * 3))
        segmenter = UNetSegmenter(network, fine, self.name)
        self._forget_peak()
        began_s = time.perf_counter()
        live, _ = whole_way(self.raw, segmenter)
        voxels = [round(n * own / STUDY_UM) for n, own in zip(live.shape, OWN_UM, strict=True)]
        return {"study_s": time.perf_counter() - began_s, "study_voxels": voxels, "study_peak_gb": self._peak_gb()}

    def large(self) -> dict[str, Any]:
        """A stack of 2048 x 2048 x 200 in two channels; of a smoke, twice as wide and high as the others."""
        side = 2 * SMOKE[1] if self.is_smoke else LARGE_SIDE
        times = -(-side // self.raw.shape[2])
        raw = np.tile(self.raw, (1, 1, times, times))[:, :, :side, :side]
        segmenter = load_segmenter(None, self.name)
        self._forget_peak()
        began_s = time.perf_counter()
        whole_way(raw, segmenter)
        return {"large_s": time.perf_counter() - began_s, "large_peak_gb": self._peak_gb()}

    def monai(self) -> dict[str, Any]:
        """MONAI's own steps with the same weights on the same device, each for itself."""
        from monai.inferers.inferer import SlidingWindowInferer
        from monai.transforms.compose import Compose
        from monai.transforms.intensity.array import MedianSmooth, NormalizeIntensity, ScaleIntensityRangePercentiles
        from monai.transforms.spatial.array import Resize

        network, _ = load_model(None)
        network = fold_batchnorm(network).to(self.device)
        own = self.raw.shape[1:]
        size = [max(8, round(n * step / 8) * 8) for n, step in zip(own, OWN_UM, strict=True)]
        window = SlidingWindowInferer([min(96, n) for n in size], sw_batch_size=8, overlap=0.25)
        slices, median = torch.from_numpy(self.raw.astype(np.float32)), MedianSmooth(radius=1)
        normalise = Compose(
            [
                ScaleIntensityRangePercentiles(2, 98, 0, 1, clip=True, channel_wise=True),
                NormalizeIntensity(channel_wise=True),
                Resize(size, mode="area"),
            ]
        )

        def smooth() -> None:
            for z in range(0, slices.shape[1], BLOCK_Z):
                median(slices[:, z : z + BLOCK_Z].to(self.device))

        def normalised() -> torch.Tensor:
            return torch.as_tensor(normalise(slices.to(self.device)))

        def masks() -> torch.Tensor:
            found = window(volume, lambda x: network.infer(x)[0])
            return (functional.interpolate(found, size=own, mode="trilinear") > 0.5).cpu()

        with torch.inference_mode():
            volume = normalised()[None]
            n = 1 if self.is_smoke else 2
            return {
                "monai_network_s": seconds(masks, self.device, n),
                "monai_normalisation_s": seconds(normalised, self.device, n),
                "monai_median_s": seconds(smooth, self.device, 1),
            }

    def _forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _peak_gb(self) -> float | None:
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else None

    def _run(self, name: str, source: Mapping[str, object]) -> Path:
        """The data of a live run; of one well where `source` does not say of how many compounds."""
        if self.is_smoke:
            name, source = "smoke", {"preset": "unit", "pace": "fast"}  # one small well is enough for all
        folder = self.folder / name
        if folder.exists():
            return folder / "data"
        folder.mkdir()
        lines = [f"[data]\ndir = {str(folder / 'data')!r}\n[plate]\nname = {name!r}"]
        if "compounds" not in source:
            path = folder / "map.csv"
            path.write_text("well,role,compound,dose_um,patient\nB02,sample,C01,1.0,P01\n", encoding="utf-8")
            lines.append(f"map = {str(path)!r}")
        lines += ["[source]\nkind = 'emulator'\nseed = 11", *(f"{key} = {value!r}" for key, value in source.items())]
        lines.append(f"[store]\nmin_free_gb = 0.0\n[service]\nenabled = false\n[inference]\ndevice = '{self.name}'")
        config = folder / "plate.toml"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        limit_s = 2 * RUN_S if self.is_smoke else RUN_S  # a test may run on a busy machine
        subprocess.run(
            [*COMMAND, "run", str(config), "--plain"], timeout=limit_s, stdout=subprocess.DEVNULL, check=True
        )
        return folder / "data"


def apart(truth: Sequence[StackMeasurement], found: Sequence[StackMeasurement]) -> float:
    """By how much of itself a total over all wells differs, the worst of volumes and counts; 1 where all is missing."""

    def total(rows: Sequence[StackMeasurement], name: str) -> float:
        return float(sum(getattr(row, name) or 0.0 for row in rows))

    differ = ((total(truth, name), total(found, name)) for name in TOTALS)
    return max(abs(a - b) / max(a, b) if max(a, b) else 0.0 for a, b in differ)


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """How many times as long MONAI takes: its network alone, with its normalisation, with its median too."""
    steps = [found[name] for name in ("monai_network_s", "monai_normalisation_s", "monai_median_s") if name in found]
    names = ("times_monai", "times_monai_with_normalisation", "times_monai_with_median")
    if len(steps) < len(names) or "stack_s" not in found:
        return {}
    return {name: sum(steps[: n + 1]) / found["stack_s"] for n, name in enumerate(names)}


def check(device: str, shape: tuple[int, int, int], folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """All figures, put into `found` as they come; under `failed` the parts that did not come to an end, under `late`
    those that were left out.
    """
    parts, began_s = Check(device, shape, folder), time.monotonic()
    found |= {"failed": {}, "late": [], "part_s": {}}
    for part in (
        *(parts.stack, parts.masks, parts.network, parts.monai),
        *(parts.rows, parts.counts, parts.study, parts.large),
    ):
        name, before_s = part.__name__, time.monotonic()
        if before_s > began_s + BUDGET_S:
            found["late"].append(name)
            continue
        try:
            found |= part()
            found |= ratios(found)
        except Exception as error:  # the other parts are worth knowing; the exit code tells
            found["failed"][name] = repr(error)[:400]
        found["part_s"][name] = round(time.monotonic() - before_s, 1)
    return found


def cut_off(told: dict[str, Any], found: dict[str, Any], folder: str) -> None:
    """Print what was found, and end whatever still goes on: a part may be within a kernel that nothing interrupts."""
    print(json.dumps(told | found | {"cut_off": True}, indent=1), flush=True)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def missed(found: dict[str, Any]) -> list[str]:
    """The aims that a GPU's figures do not reach; one that is not known is missed."""
    high = [name for name, most in AT_MOST.items() if found.get(name) is None or found[name] > most]
    return high + [name for name, least in AT_LEAST.items() if found.get(name) is None or found[name] < least]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S)
    given = parser.parse_args(arguments)
    device = "cpu" if given.smoke else given.device
    told: dict[str, Any] = {"bench": "gpu_check", "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    if device != "cpu" and not torch.cuda.is_available():
        print(json.dumps(told | {"gpu": None, "said": "torch sees no CUDA GPU here: nothing was measured"}, indent=1))
        return NO_GPU
    is_gpu = device != "cpu"
    told["device"] = torch.cuda.get_device_name(device) if is_gpu else f"no GPU: {platform.machine()} processor"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="spheroidd-gpu-") as folder:
        watch = threading.Timer(given.limit_s, cut_off, (told, found, folder))
        watch.daemon = True
        watch.start()
        check(device, SMOKE if given.smoke else SCREEN, Path(folder), found)
        watch.cancel()
    told |= found | ({"aims": {**AT_MOST, **AT_LEAST}, "missed": missed(found)} if is_gpu else {})
    print(json.dumps(told, indent=1))
    return int(bool(found["failed"] or told.get("missed") or found.get("dice", 0.0) < AT_LEAST["dice"]))


if __name__ == "__main__":
    sys.exit(main())
