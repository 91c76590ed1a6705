"""Scenes and plans that the tests of reconstruction share. Small: 128 pixels, seconds in all."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.sim_scene import Scene, Stripes
from spheroidd.inference.reconstruction.estimation import estimate_pattern
from spheroidd.inference.reconstruction.plan import ReconstructionPlan
from spheroidd.protocols.sim_pattern import AngleEstimate, OrderEstimate, PatternEstimate

SIZE, PIXEL_UM = 128, 0.25
THREE_BEAM = Stripes(0.85, modulation=(0.5, 0.6))


@cache
def frames_of(scene: Scene) -> NDArray[np.uint16]:
    """Rendered once for all tests; read-only."""
    frames = scene.frames()
    frames.flags.writeable = False
    return frames


def slices(scene: Scene, seeds: tuple[int, ...] = (0, 1)) -> NDArray[np.uint16]:
    """Raw slices (slice, angle, phase, y, x) of the scene with other samples and noise."""
    return np.array([frames_of(replace(scene, seed=seed)) for seed in seeds])


def estimated(scene: Scene, **stated: Any) -> PatternEstimate:
    """What is found in two slices of a scene."""
    return estimate_pattern(slices(scene), replace(scene.pattern, **stated), scene.optics.channel, scene.pixel_um)


def true_estimate(scene: Scene, trusted: bool = True) -> PatternEstimate:
    """The scene's own pattern in the form of an estimate."""
    stripes = scene.stripes
    phases = stripes.phases_deg(scene.n_phases)
    orders = tuple(
        OrderEstimate(o, m, 0.01, 100.0, trusted, "given") for o, m in enumerate(stripes.modulation, start=1)
    )
    angles = tuple(
        AngleEstimate(a, stripes.frequency_per_um, angle, tuple(phases[a].tolist()), True, orders)
        for a, angle in enumerate(stripes.angles_deg)
    )
    return PatternEstimate(scene.optics.channel, scene.pixel_um, 1, angles, 0.12, 100.0)


@cache
def plan_of(scene: Scene) -> ReconstructionPlan:
    """With the true pattern; one for all seeds and modulations."""
    shape = (scene.size, scene.size)
    return ReconstructionPlan.of(scene.pattern, scene.optics.channel, shape, scene.pixel_um, true_estimate(scene))
