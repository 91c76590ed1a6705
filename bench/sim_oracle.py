"""How near any linear filter may come to the truth of a scene: the Wiener filter that knows the sample's spectrum.

Only a sample that is known has it. It tells a filter that could be better from an image that cannot.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from bench.sim_scene import GAIN_ADU, MARGIN_PX, READ_E, Scene
from spheroidd.inference.reconstruction.plan import UPSAMPLING, ReconstructionPlan


def best_linear(plan: ReconstructionPlan, scene: Scene, sample: NDArray[np.float64]) -> ReconstructionPlan:
    """The plan with the true ratio of noise to signal at every |k| instead of what the slice says; for torch alone.

    In the plan's units a sample bin is the mean frame's over the OTF, and den = A O^2 + ... goes with A times the
    noise of the mean: that of Poisson, reading and rounding. The sample's power is averaged over rings.
    """
    fine, inside = plan.grid.doubled(), slice(2 * MARGIN_PX, -2 * MARGIN_PX)
    light = GAIN_ADU * scene.electrons / (1 + scene.haze) * (sample[inside, inside] + scene.haze)
    spectrum = fft.rfft2(light - light.mean(), (fine.height, fine.width)) / UPSAMPLING**2
    radius = np.hypot(fine.ky, fine.half_kx)
    rings = np.rint(radius / fine.step_x).astype(int)
    power = np.bincount(rings.ravel(), (np.abs(spectrum) ** 2).ravel()) / np.bincount(rings.ravel())
    variance = GAIN_ADU**2 * (scene.electrons + READ_E**2) + 1 / 12
    noise = light.size / UPSAMPLING**2 * variance / scene.n_phases
    ratio: NDArray[Any] = noise / power[rings]
    ratio[0, 0] = 0
    return replace(plan, base=(plan.base + ratio).astype(np.float32), wiener=0.0, stated=True)
