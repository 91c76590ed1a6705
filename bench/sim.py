"""Structured illumination: time, parameters, images, resolution, the dying pattern. `python -m bench.sim` prints JSON.

Scenes are those of `bench/sim_scene.py`: cells and beads, haze of .3 of the signal, Poisson and read noise, edges that
are not periodic. 400 x 400 raw pixels of .25 um, 3 angles. Peer: napari-sim-processor (BSD), whose scheme prefilters
and upsamples every frame and weighs in real space; both take turns in one run, on one thread, per CPU second.

`python -m bench.sim timing dead` runs only those parts. Each does a fixed amount of work, says on stderr how far it
has come, and takes no more than four minutes of one core.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import math
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage

from bench.places import DOCS, REAL_DATA
from bench.sim_oracle import best_linear
from bench.sim_scene import GAIN_ADU, OFFSET_ADU, RED, Scene, Stripes, expose, point_pairs
from spheroidd.daemon.system.malloc import keep_freed_memory
from spheroidd.inference.reconstruction.estimation import estimate_pattern
from spheroidd.inference.reconstruction.plan import ReconstructionPlan
from spheroidd.inference.reconstruction.reconstructor import CpuReconstructor, to_uint16
from spheroidd.inference.reconstruction.torch_reconstructor import TorchReconstructor
from spheroidd.protocols.sim_pattern import (
    ALIVE,
    AngleEstimate,
    Beams,
    ChannelOptics,
    OrderEstimate,
    PatternEstimate,
    SimPattern,
)

SIZE, PIXEL_UM, SLICES = 400, 0.25, 6
GREEN_SCENE = Scene(size=SIZE, seed=0)
Image = NDArray[np.float32]


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as the daemon does: memory asked for anew with every slice costs a quarter of its time
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - PARTS.keys() - {"picture"}:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}, picture")
    found = {}
    for name in chosen:
        began_s = time.process_time()
        found[name] = (PARTS | {"picture": picture})[name]()
        say(f"{name}: {time.process_time() - began_s:.0f} s of processor time")
    print(json.dumps(found, indent=1, default=float))


def say(words: str) -> None:
    """How far it has come: standard output is for the figures."""
    print(words, file=sys.stderr, flush=True)


def true_estimate(scene: Scene, wiener: float) -> PatternEstimate:
    """The scene's own pattern: what images cost is measured apart from what finding the pattern costs."""
    phases = scene.stripes.phases_deg(scene.n_phases)
    orders = tuple(OrderEstimate(o, m, 0.01, 100.0, True, "given") for o, m in enumerate((0.8,), start=1))
    angles = tuple(
        AngleEstimate(a, scene.stripes.frequency_per_um, angle, tuple(phases[a].tolist()), True, orders)
        for a, angle in enumerate(scene.stripes.angles_deg)
    )
    return PatternEstimate(scene.optics.channel, PIXEL_UM, 1, angles, wiener)


def wiener(electrons: float) -> float:
    return 1.2 / math.sqrt(electrons)


def plans(scene: Scene) -> tuple[ReconstructionPlan, ReconstructionPlan]:
    """With the pattern and without, of the same target. The sample does not matter."""
    return _plans(replace(scene, seed=0, beads=False, bead_um=0.0, haze=0.0))


@lru_cache(maxsize=4)
def _plans(scene: Scene) -> tuple[ReconstructionPlan, ReconstructionPlan]:
    shape, channel, w = (scene.size, scene.size), scene.optics.channel, wiener(scene.electrons)
    sharp = ReconstructionPlan.of(scene.pattern, channel, shape, PIXEL_UM, true_estimate(scene, w))
    return sharp, ReconstructionPlan.of(scene.pattern, channel, shape, PIXEL_UM, None)


def with_modulation(scene: Scene, modulation: float) -> Scene:
    return replace(scene, stripes=replace(scene.stripes, modulation=(modulation,)))


# --- time -------------------------------------------------------------------------------------------------------------


def timing(repeats: int = 15) -> dict[str, Any]:
    frames = GREEN_SCENE.frames()
    plan = plans(GREEN_SCENE)[0]
    ours, torchs = CpuReconstructor(plan), TorchReconstructor(plan)
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: to_uint16(ours.reconstruct(frames).image),
        "ours_torch": lambda: torchs.reconstruct(frames),
    }
    peer, words = peer_reconstruction(frames)
    works |= peer
    works["transforms_alone"] = lambda: transforms(frames)
    spent: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            spent[name].append(1000 * (time.process_time() - start))
    found: dict[str, Any] = {"cpu_ms_median": {name: round(float(np.median(ms)), 2) for name, ms in spent.items()}}
    found["cpu_ms_least"] = {name: round(min(ms), 2) for name, ms in spent.items()}
    found["peer"] = words
    if peer:
        best = min(found["cpu_ms_median"][name] for name in peer)
        found["times_faster_than_peer"] = round(best / found["cpu_ms_median"]["ours"], 1)
    found["times_the_transforms"] = round(
        found["cpu_ms_median"]["ours"] / found["cpu_ms_median"]["transforms_alone"], 2
    )
    started = time.process_time()
    ReconstructionPlan.of(GREEN_SCENE.pattern, "488", (SIZE, SIZE), PIXEL_UM, plan.estimate)
    found["plan_cpu_s"] = round(time.process_time() - started, 2)
    return found


def transforms(frames: NDArray[np.uint16]) -> None:
    """The fewest that a reconstruction needs, without edges and checks: what this computer takes for them just now."""
    plane = frames[0, 0].astype(np.float32)
    fft.rfft2(plane)
    for _ in range(3):
        fft.fft2(plane.astype(np.complex64))
    fft.irfft2(np.zeros((2 * SIZE, SIZE + 1), np.complex64), (2 * SIZE, 2 * SIZE))


def peer_reconstruction(frames: NDArray[np.uint16]) -> tuple[dict[str, Callable[[], object]], str]:
    """napari-sim-processor's two fastest ways on a CPU, calibrated on these frames; nothing where it is not installed.

    Its package imports a viewer; only the folder with its algorithms is imported here.
    """
    spec = importlib.util.find_spec("napari_sim_processor")
    if spec is None or not spec.submodule_search_locations:
        return {}, "napari-sim-processor is not installed"
    package = types.ModuleType("napari_sim_processor")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("napari_sim_processor", package)
    with contextlib.redirect_stdout(io.StringIO()):
        module = importlib.import_module("napari_sim_processor.processors.convSimProcessor")
        peer = module.ConvSimProcessor(3, 5)
        peer.debug, peer.pixelsize, peer.magnification = False, 1000 * PIXEL_UM / 1000, 1
        peer.NA, peer.wavelength, peer.n, peer.w, peer.eta = 0.5, 0.515, 1.33, wiener(100), 0.45
        stack = frames.reshape(-1, SIZE, SIZE).astype(np.float32) - OFFSET_ADU
        peer.calibrate(stack)
    lengths = np.hypot(peer.kx, peer.ky).ravel() * peer.NA / peer.wavelength
    words = f"napari-sim-processor, calibrated on the same frames (carriers {np.round(lengths, 3).tolist()} 1/um)"
    return {
        "peer_fft": lambda: peer.reconstruct_rfftw(stack),
        "peer_torch": lambda: peer.reconstruct_pytorch(stack),
    }, words


# --- parameters -------------------------------------------------------------------------------------------------------


def parameters() -> list[dict[str, Any]]:
    return [
        _parameters(m, e, n) for m, e, n in ((0.8, 100, 5), (0.8, 20, 5), (0.3, 100, 5), (0.3, 20, 5), (0.8, 100, 3))
    ]


def _parameters(modulation: float, electrons: float, n_phases: int) -> dict[str, Any]:
    scene = replace(with_modulation(GREEN_SCENE, modulation), electrons=electrons, n_phases=n_phases)
    stack = np.array([replace(scene, seed=seed, beads=seed % 2 == 0).frames() for seed in range(SLICES)])
    started = time.process_time()
    found = estimate_pattern(stack, scene.pattern, "488", PIXEL_UM)
    spent = time.process_time() - started
    truth = scene.stripes
    phases = [
        max(abs(_turned(a - b)) for a, b in zip(one.phases_deg, truth.phases_deg(n_phases)[one.angle], strict=True))
        for one in found.angles
    ]
    return {
        "m": modulation,
        "electrons": electrons,
        "phases": n_phases,
        "usable": found.usable,
        "cpu_s": round(spent, 2),
        "frequency_error_pct": _worst(
            100 * (one.frequency_per_um / truth.frequency_per_um - 1) for one in found.angles
        ),
        "angle_error_deg": _worst(_turned(one.angle_deg - truth.angles_deg[one.angle]) for one in found.angles),
        "phase_error_deg": round(max(phases), 2),
        "modulation_error": _worst((one.orders[0].modulation or 0) - modulation for one in found.angles),
        "peak_to_median": round(min(one.orders[0].peak_to_median for one in found.angles)),
        "electrons_read": found.electrons and round(found.electrons, 1),
    }


def _worst(values: Any) -> float:
    return round(max(abs(value) for value in values), 4)


def _turned(degrees: float) -> float:
    return (degrees + 180) % 360 - 180


# --- images -----------------------------------------------------------------------------------------------------------


WANTED_RATIO = {5: 0.6, 3: 0.65}  # by phases, at m .8 and 100 electrons
KINDS = ((0.8, 400, 5), (0.8, 100, 5), (0.8, 100, 3), (0.8, 20, 5), (0.3, 100, 5), (0.1, 100, 5))


def images() -> list[dict[str, Any]]:
    """Each kind of light on each sample. What does not depend on how much light there is, is rendered once.

    The bounds at m .8 and 100 electrons are of cells with beads that were described by their errors alone, .061 with
    SIM and .112 in widefield: beads of 150 nm have .062 and .114. Cells alone hold little that widefield does not
    show; their bound is within 1 % of the best linear filters.
    """
    rows = []
    for bead_um in (0.1, 0.15, 0.2355, None):
        scene = replace(GREEN_SCENE, beads=bead_um is not None, bead_um=bead_um or 0.1)
        sample = scene.sample()
        rendered: dict[tuple[float, int], NDArray[np.float64]] = {}
        for modulation, electrons, n_phases in KINDS:
            lit = replace(with_modulation(scene, modulation), electrons=electrons, n_phases=n_phases)
            if (modulation, n_phases) not in rendered:
                rendered[modulation, n_phases] = replace(lit, electrons=1.0).expected(sample)
            rows.append(_images(lit, sample, electrons * rendered[modulation, n_phases], modulation))
            say(f"images: {rows[-1]['sample']}, m {modulation}, {electrons} electrons, {n_phases} phases")
    return rows


def _images(
    scene: Scene, sample: NDArray[np.float64], expected: NDArray[np.float64], modulation: float
) -> dict[str, Any]:
    sharp, wide = (CpuReconstructor(plan) for plan in plans(replace(scene, stripes=Stripes())))
    target = scene.target(sample, sharp.plan.reach_per_um)
    first, second = (expose(expected, seed) for seed in (1, 2))
    sim, other = sharp.reconstruct(first).image, sharp.reconstruct(second).image
    plain, plain2 = wide.reconstruct(first).image, wide.reconstruct(second).image
    known, known_wide = (TorchReconstructor(best_linear(one.plan, scene, sample)) for one in (sharp, wide))
    best_sim, best_other = (known.reconstruct(frames).image for frames in (first, second))
    best, best_wide = nrmse(best_sim, target), nrmse(known_wide.reconstruct(first).image, target)
    ratio = nrmse(sim, target) / nrmse(plain, target)
    wanted = WANTED_RATIO[scene.n_phases] if scene.beads else 1.01 * best / best_wide
    bound = {"wanted_ratio": round(wanted, 3), "kept": ratio < wanted + 0.0005}
    return {
        "m": modulation,
        "electrons": scene.electrons,
        "phases": scene.n_phases,
        "sample": f"cells and beads of {1000 * scene.bead_um:.0f} nm" if scene.beads else "cells",
        "nrmse_sim": nrmse(sim, target),
        "nrmse_widefield": nrmse(plain, target),
        "ratio": round(ratio, 3),
        **(bound if (modulation, scene.electrons) == (0.8, 100) else {}),
        "nrmse_of_best_linear_filter": best,  # which knows the sample's spectrum; so do the others named best
        "ratio_of_best_linear_filters": round(best / best_wide, 3),
        "frc_sim_per_um": frc_cutoff(sim, other),
        "frc_of_best_linear_filter_per_um": frc_cutoff(best_sim, best_other),
        "frc_widefield_per_um": frc_cutoff(plain, plain2),
        "rings_0_2_px": nrmse(sim, target, ring=(0, 4)),
        "rings_0_2_px_of_best_linear_filter": nrmse(best_sim, target, ring=(0, 4)),
        "rings_2_4_px": nrmse(sim, target, ring=(4, 8)),
        "least_count": round(float(sim.min()) + 100),
    }


def nrmse(image: Image, target: NDArray[np.float64], ring: tuple[int, int] | None = None) -> float:
    """Root mean square error in standard deviations of the target; `ring` (output pixels) from the edge."""
    wrong = ((image - target) / target.std()) ** 2
    if ring is None:
        return round(float(np.sqrt(wrong.mean())), 4)
    n = len(wrong)
    edge = np.minimum.outer(*(np.minimum(np.arange(n), n - 1 - np.arange(n)),) * 2)
    return round(float(np.sqrt(wrong[(edge >= ring[0]) & (edge < ring[1])].mean())), 4)


def frc_cutoff(one: Image, other: Image) -> float:
    """Where the Fourier ring correlation of two exposures falls below 1/7, in 1/um."""
    window = np.outer(*(np.hanning(len(one)),) * 2)
    a, b = (np.fft.fft2((image - image.mean()) * window) for image in (one, other))
    k = np.fft.fftfreq(len(one), PIXEL_UM / 2)
    rings = np.rint(np.hypot(k[:, None], k) * len(one) * PIXEL_UM / 2).astype(int).ravel()
    both, left, right = (
        np.bincount(rings, values.ravel()) for values in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    )
    power = np.sqrt(left * right)
    power[power < 1e-9 * power.max()] = np.inf  # beyond an image's reach there is only rounding, alike in both
    curve = ndimage.uniform_filter1d(both / power, 5)
    below = np.flatnonzero(curve[5 : len(one) // 2] < 1 / 7)
    last = 5 + int(below[0]) if len(below) else len(one) // 2
    return round(last / (len(one) * PIXEL_UM / 2), 2)


def resolution() -> dict[str, Any]:
    """The least distance of two points with a dip of over 20 % between them in three directions, 400 e, in um."""
    found = {}
    for scene in (GREEN_SCENE, replace(GREEN_SCENE, optics=RED, stripes=Stripes(1.46))):
        bright = replace(scene, size=192, electrons=400)
        for name, plan in zip(("sim", "widefield"), plans(bright), strict=True):
            for apart in np.arange(0.34, 0.90, 0.02):
                if _dip(bright, plan, float(apart)) > 0.2:
                    break
            say(f"resolution: {scene.optics.channel} {name} {apart:.2f} um")
            found[f"{scene.optics.channel}_{name}_um"] = round(float(apart), 3)
    return found


def _dip(scene: Scene, plan: ReconstructionPlan, apart_um: float) -> float:
    """The smallest of the mean dips by direction: 1 - middle / peaks, over the local ground."""
    side, fine_um, pitch = scene.fine.height, scene.pixel_um / 2, 2.6
    directions = (0.0, 45.0, 90.0)
    pairs = point_pairs(side, fine_um, apart_um, directions, pitch)
    sample = pairs / pairs.mean()
    frames = (GAIN_ADU * scene.expected(sample) + OFFSET_ADU).astype(np.float32)
    image = CpuReconstructor(plan).reconstruct(frames).image
    ground = float(np.percentile(image, 5))
    margin = (side - image.shape[0]) / 2
    centres = np.arange(pitch, side * fine_um - pitch / 2, pitch) / fine_um - margin
    dips: dict[float, list[float]] = {direction: [] for direction in directions}
    for row, y in enumerate(centres):
        direction = directions[row % 3]
        along = np.linspace(-0.5, 0.5, 21) * 1.6 * apart_um / fine_um
        for x in centres:
            if min(x, y) < 8 or max(x, y) > image.shape[0] - 8:
                continue
            turn = math.radians(direction)
            line = ndimage.map_coordinates(
                image - ground, [y + along * math.sin(turn), x + along * math.cos(turn)], order=3
            )
            peaks = line[:10].max() + line[11:].max()
            dips[direction].append(1 - 2 * line[10] / peaks)
    return min(float(np.mean(each)) for each in dips.values())


# --- the dying pattern ------------------------------------------------------------------------------------------------


def fading() -> list[dict[str, Any]]:
    """With the pattern against the same frames as widefield: the mean, and the area above a threshold."""
    rows = []
    for modulation in (0.8, 0.3, 0.1, 0.05, 0.02):
        means, areas, alive = [], [], []
        for seed in range(4):
            scene = replace(with_modulation(GREEN_SCENE, modulation), seed=seed, beads=False)
            sharp, wide = plans(GREEN_SCENE)
            frames = scene.frames()
            done = CpuReconstructor(sharp).reconstruct(frames)
            plain = CpuReconstructor(wide).reconstruct(frames).image
            level = float(plain.min() + 0.35 * (np.percentile(plain, 99) - plain.min()))
            means.append(100 * (done.image.mean() / plain.mean() - 1))
            areas.append(100 * ((done.image > level).mean() / (plain > level).mean() - 1))
            alive.append(sum(any(one) for one in done.modulation.alive))
        rows.append(
            {
                "m": modulation,
                "angles_alive": alive,
                "mean_jump_pct": round(max(means, key=abs), 4),
                "area_jump_pct": round(max(areas, key=abs), 3),
            }
        )
    return rows


def dead(n_slices: int = 2000) -> dict[str, Any]:
    """Live angles in slices without a pattern: 128 pixels, 5 % bleaching."""
    small = replace(GREEN_SCENE, size=128)
    plan = plans(small)[0]
    flat = np.repeat(with_modulation(small, 0.0).expected(small.sample())[:, :1], 5, axis=1)
    rng, reconstructor = np.random.default_rng(11), CpuReconstructor(plan)
    strongest, live = 0.0, 0
    for z in range(n_slices):
        bleached = flat * rng.uniform(0.95, 1.0, (3, 5, 1, 1))
        state = reconstructor.reconstruct(expose(bleached, z), z).modulation
        strongest = max(strongest, *(value**2 for (value,) in state.contrast))
        live += sum(any(one) for one in state.alive)
        if (z + 1) % 250 == 0:
            say(f"dead: {z + 1} of {n_slices} slices, {live} live angles, strongest R {strongest:.1f}")
    return {"slices": n_slices, "live_angles": live, "strongest_R": round(strongest, 1), "asked_R": ALIVE}


def weak(n_slices: int = 200) -> dict[str, Any]:
    """Dead angles in slices with a weak pattern: 400 pixels."""
    found: dict[str, Any] = {}
    for modulation, electrons in ((0.06, 100), (0.1, 20)):
        scene = replace(with_modulation(GREEN_SCENE, modulation), electrons=electrons)
        expected = scene.expected(scene.sample())
        reconstructor = CpuReconstructor(plans(replace(scene, stripes=Stripes()))[0])
        states = []
        for z in range(n_slices):
            states.append(reconstructor.reconstruct(expose(expected, z), z).modulation)
            if (z + 1) % 25 == 0:
                say(f"weak: m {modulation}, {electrons} electrons: {z + 1} of {n_slices} slices")
        dead_angles = sum(not any(one) for state in states for one in state.alive)
        ratios = [value**2 for state in states for (value,) in state.contrast]
        found[f"dead_angles_of_{3 * n_slices}_m{modulation}_e{electrons}"] = dead_angles
        found[f"R_median_least_m{modulation}_e{electrons}"] = [round(float(np.median(ratios))), round(min(ratios))]
    return found


# --- the same bits ----------------------------------------------------------------------------------------------------


def same_bits() -> dict[str, Any]:
    scenes = [replace(with_modulation(GREEN_SCENE, m), seed=seed) for seed, m in enumerate((0.8, 0.2, 0.0))]
    frames = [scene.frames() for scene in scenes]
    plan = plans(GREEN_SCENE)[0]
    straight = [CpuReconstructor(plan).reconstruct(one).image for one in frames]
    order, torchs = (2, 0, 1, 0), TorchReconstructor(plan)

    def again(own: CpuReconstructor) -> list[Image]:
        return [own.reconstruct(frames[z]).image for z in order]

    back = again(CpuReconstructor(plan))
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(again, [CpuReconstructor(plan) for _ in range(2)]))
    apart = [np.abs(torchs.reconstruct(f).image - s).max() / s.std() for f, s in zip(frames, straight, strict=True)]
    return {
        "any_order_equal": np.array_equal([straight[z] for z in order], back),
        "threads_equal": all(np.array_equal(back, images) for images in at_once),
        "torch_difference_sd": float(f"{max(apart):.2g}"),
    }


# --- files that others recorded ---------------------------------------------------------------------------------------


def real_files() -> Any:
    folder = REAL_DATA / "sim_raw"
    if not folder.is_dir():
        return f"not at {folder}"
    from spheroidd.acquisition.images.raw_frames import open_raw
    from spheroidd.inference.reconstruction.frame_order import arranged

    kinds = {
        "rdlsim_microtubules_3x3.mrc": SimPattern(3, 3, optics=(ChannelOptics("raw", 525, 1.3),)),
        "cudasirecon_3x5_raw.tif": SimPattern(
            3, 5, ("angle", "z", "phase"), Beams.THREE, optics=(ChannelOptics("raw", 528, 1.42),)
        ),
    }
    found = {}
    for name, pattern in kinds.items():
        raw = open_raw(folder / name)
        slices = np.ascontiguousarray(arranged(raw.frames, pattern))
        started = time.process_time()
        estimate = estimate_pattern(slices, pattern, "raw", raw.pixel_um or 0.0)
        found[name] = {
            "usable": estimate.usable,
            "cpu_s": round(time.process_time() - started, 2),
            "angles_deg": [round(one.angle_deg, 2) for one in estimate.angles],
            "finest_period_nm": [round(1000 * one.period_um / pattern.beams.orders, 1) for one in estimate.angles],
            "modulation": [[round(order.modulation or 0, 2) for order in one.orders] for one in estimate.angles],
            "peak_to_median": [[round(order.peak_to_median) for order in one.orders] for one in estimate.angles],
        }
    return found


def picture(out: Path = DOCS / "sim.png") -> str:
    """Real microtubules, widefield beside reconstructed, by the same filter."""
    from PIL import Image as Picture

    from spheroidd.acquisition.images.raw_frames import open_raw
    from spheroidd.inference.reconstruction.frame_order import arranged

    raw = open_raw(REAL_DATA / "sim_raw" / "rdlsim_microtubules_3x3.mrc")
    pattern = SimPattern(3, 3, optics=(ChannelOptics("raw", 525, 1.3),))
    slices = np.ascontiguousarray(arranged(raw.frames, pattern))
    pixel_um = raw.pixel_um or 0.0
    estimate = estimate_pattern(slices, pattern, "raw", pixel_um)
    panels = []
    for known in (None, estimate):
        plan = ReconstructionPlan.of(pattern, "raw", raw.frames.shape[1:], pixel_um, known)
        panel = CpuReconstructor(plan).reconstruct(slices[0]).image[60:440, 60:440]
        low, high = np.percentile(panel, [1, 99.7])
        panels.append(np.clip((panel - low) / (high - low), 0, 1) ** 0.8)
    both = np.hstack([panels[0], np.ones((len(panels[0]), 8)), panels[1]])
    Picture.fromarray((255 * both).astype(np.uint8)).save(out, optimize=True)
    return str(out)


PARTS: dict[str, Callable[[], Any]] = {
    "timing": timing,
    "parameters": parameters,
    "images": images,
    "resolution": resolution,
    "fading": fading,
    "dead": dead,
    "weak": weak,
    "same_bits": same_bits,
    "real_files": real_files,
}

if __name__ == "__main__":
    main()
