"""A reconstruction shows what is there, fades into widefield, and depends on nothing but its slice."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.sim_oracle import best_linear
from bench.sim_scene import MARGIN_PX, Scene, Stripes
from spheroidd.inference.reconstruction.noise_weight import PLACES
from spheroidd.inference.reconstruction.plan import ReconstructionPlan
from spheroidd.inference.reconstruction.raw_slice import weighed_noise
from spheroidd.inference.reconstruction.reconstructor import CpuReconstructor, to_uint16
from spheroidd.inference.reconstruction.separation import unmixing
from spheroidd.inference.reconstruction.torch_reconstructor import TorchReconstructor
from spheroidd.protocols.errors import ConfigError, StackError
from tests.inference.reconstruction.scenes import PIXEL_UM, SIZE, THREE_BEAM, frames_of, plan_of, true_estimate

SCENE = Scene(size=SIZE)
WIDE = ReconstructionPlan.of(SCENE.pattern, "488", (SIZE, SIZE), PIXEL_UM, None)


def error(image: NDArray[np.float32], scene: Scene) -> float:
    """Root mean square difference to the scene's own target, in its standard deviations."""
    target = scene.target(scene.sample(), plan_of(scene).reach_per_um)
    return float(np.sqrt(np.mean((image - target) ** 2)) / target.std())


@pytest.mark.parametrize(
    ("scene", "gain"),
    [(SCENE, 0.75), (replace(SCENE, n_phases=3), 0.8), (replace(SCENE, stripes=THREE_BEAM), 0.85)],
    ids=["5 phases", "3 phases", "three beams"],
)
def test_an_image_is_nearer_to_the_truth_than_widefield(scene: Scene, gain: float) -> None:
    sharp = CpuReconstructor(plan_of(scene)).reconstruct(frames_of(scene))
    wide = CpuReconstructor(ReconstructionPlan.of(scene.pattern, "488", (SIZE, SIZE), PIXEL_UM, None)).reconstruct(
        frames_of(scene)
    )
    assert sharp.modulation.method == "sim"
    assert wide.modulation.method == "widefield"
    assert error(sharp.image, scene) < gain * error(wide.image, scene)
    assert sharp.image.mean() == pytest.approx(wide.image.mean(), rel=5e-4)


@pytest.mark.parametrize("electrons", [20.0, 100.0, 400.0])
@pytest.mark.parametrize("beads", [True, False])
def test_noise_is_weighed_as_by_one_who_knows_the_sample(electrons: float, beads: bool) -> None:
    scene = replace(SCENE, electrons=electrons, beads=beads)
    best = best_linear(plan_of(scene), scene, scene.sample())
    ours = CpuReconstructor(plan_of(scene)).reconstruct(frames_of(scene)).image
    theirs = TorchReconstructor(best).reconstruct(frames_of(scene)).image
    assert error(ours, scene) < 1.02 * error(theirs, scene)


def test_a_stated_wiener_constant_holds_for_every_slice_and_otherwise_noise_counts() -> None:
    shape, known = (SIZE, SIZE), true_estimate(SCENE)
    stated = ReconstructionPlan.of(SCENE.pattern, "488", shape, PIXEL_UM, known, wiener=0.12)
    sums = np.ones((3, PLACES + 1)) * np.array([[5e6], [1.0], [1.0]])
    tables = [weighed_noise(stated, sums * seen, noise, 0.0) for seen, noise in ((1, 1e5), (2, 1e3))]
    assert np.array_equal(*tables)
    assert tables[0][-1] == pytest.approx((0.12 * stated.reach_per_um / stated.cutoff_per_um) ** 2, rel=1e-3)
    loud = weighed_noise(plan_of(SCENE), sums, 1e5, 0.0)
    assert loud == pytest.approx(3e5 / (5e6 - 3e5), rel=1e-6)  # A N / S, alike at all |k|


def test_frames_without_noise_or_without_light_have_an_image_too() -> None:
    smooth = np.clip(SCENE.expected(SCENE.sample()) * 2.17 + 100, 0, 65535).astype(np.float32)
    made = CpuReconstructor(plan_of(SCENE)).reconstruct(smooth)
    assert made.modulation.method == "sim"
    assert error(made.image, SCENE) < error(CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(SCENE)).image, SCENE)
    for kind in (CpuReconstructor, TorchReconstructor):
        black = np.full((3, 5, SIZE, SIZE), 100, np.uint16)
        assert np.abs(kind(plan_of(SCENE)).reconstruct(black).image).max() < 1e-3


@pytest.mark.parametrize("modulation", [0.8, 0.4, 0.2, 0.1, 0.05, 0.0])
def test_a_dying_pattern_changes_neither_scale_nor_the_area_above_a_threshold(modulation: float) -> None:
    scene = replace(SCENE, stripes=Stripes(modulation=(modulation,)))
    ours = CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(scene)).image
    wide = CpuReconstructor(WIDE).reconstruct(frames_of(scene)).image
    assert ours.mean() == pytest.approx(wide.mean(), rel=5e-4)
    level = (wide.max() - wide.min()) * 0.2 + wide.min()
    assert (ours > level).mean() == pytest.approx((wide > level).mean(), abs=0.01)


def test_without_modulation_an_image_is_exactly_the_widefield_of_the_same_plan() -> None:
    scene = SCENE.dead()
    plan = plan_of(SCENE)
    known = CpuReconstructor(plan).reconstruct(frames_of(scene))
    assert known.modulation.method == "widefield"
    wide = ReconstructionPlan.of(SCENE.pattern, "488", (SIZE, SIZE), PIXEL_UM, None)
    plain = CpuReconstructor(wide).reconstruct(frames_of(scene))
    assert np.abs(known.image - plain.image).max() < 0.05 * plain.image.std()


def test_no_angle_is_alive_in_many_slices_without_modulation() -> None:
    scene = replace(SCENE, size=64, stripes=Stripes(modulation=(0.0,)))
    plan = plan_of(replace(SCENE, size=64))
    reconstructor = CpuReconstructor(plan)
    sample = scene.expected(scene.sample())[:, :1]
    rng = np.random.default_rng(7)
    for z in range(60):
        light = np.repeat(sample, 5, axis=1) * rng.uniform(0.95, 1.0, (3, 5, 1, 1))
        frames = np.rint(2.17 * rng.poisson(light) + 100).astype(np.uint16)
        assert reconstructor.reconstruct(frames, z).modulation.widefield


@pytest.mark.parametrize("modulation", [0.2, 0.1])
def test_weak_stripes_are_alive_and_their_modulation_is_read(modulation: float) -> None:
    scene = replace(SCENE, stripes=Stripes(modulation=(modulation,)))
    found = CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(scene)).modulation
    assert all(found.alive)
    assert np.ravel(found.modulation) == pytest.approx([modulation] * 3, abs=0.03)


@pytest.mark.parametrize("kind", [CpuReconstructor, TorchReconstructor])
def test_slices_in_any_order_and_twice_give_the_same_bits(
    kind: type[CpuReconstructor] | type[TorchReconstructor],
) -> None:
    scenes = [replace(SCENE, seed=seed, stripes=Stripes(modulation=(m,))) for seed, m in enumerate((0.8, 0.1, 0.0))]
    plan = plan_of(SCENE)
    first = kind(plan)
    forwards = [first.reconstruct(frames_of(scene), z) for z, scene in enumerate(scenes)]
    again = [kind(plan).reconstruct(frames_of(scenes[z]), z) for z in (2, 0, 1)]
    for z, one in zip((2, 0, 1), again, strict=True):
        assert one.modulation == forwards[z].modulation
        assert np.array_equal(one.image, forwards[z].image)


def test_threads_that_reconstruct_at_once_change_no_bit() -> None:
    alone = CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(SCENE)).image

    def often(own: CpuReconstructor) -> list[NDArray[np.float32]]:
        return [own.reconstruct(frames_of(SCENE)).image for _ in range(4)]

    with ThreadPoolExecutor(2) as pool:
        for images in pool.map(often, [CpuReconstructor(plan_of(SCENE)) for _ in range(2)], timeout=60):
            assert all(np.array_equal(image, alone) for image in images)


@pytest.mark.parametrize("size", [SIZE, 100])
@pytest.mark.parametrize("stripes", [Stripes(), THREE_BEAM, Stripes(modulation=(0.0,))], ids=["two", "three", "none"])
def test_torch_agrees_with_the_cpu(size: int, stripes: Stripes) -> None:
    scene = replace(SCENE, size=size, stripes=stripes)
    present = np.ones((3, 5), bool)
    for _ in range(2):
        numpy_ = CpuReconstructor(plan_of(scene)).reconstruct(frames_of(scene), present=present)
        torch_ = TorchReconstructor(plan_of(scene)).reconstruct(frames_of(scene), present=present)
        assert np.abs(numpy_.image - torch_.image).max() < 1e-5 * numpy_.image.std()
        assert torch_.modulation.alive == numpy_.modulation.alive
        present[2, 3:] = present[0, 1] = False


def test_torch_makes_widefield_too_where_no_pattern_is_known() -> None:
    numpy_, torch_ = (kind(WIDE).reconstruct(frames_of(SCENE)) for kind in (CpuReconstructor, TorchReconstructor))
    assert np.abs(numpy_.image - torch_.image).max() < 1e-5 * numpy_.image.std()


def test_a_lost_frame_costs_noise_and_too_many_cost_the_angle_and_are_named() -> None:
    plan, frames = plan_of(SCENE), frames_of(SCENE).copy()
    frames[0, 3] = 0
    frames[1, 1:4] = 65535
    present = np.ones((3, 5), bool)
    present[0, 3] = present[1, 1] = present[1, 2] = present[1, 3] = False
    made = CpuReconstructor(plan).reconstruct(frames, present=present)
    whole = CpuReconstructor(plan).reconstruct(frames_of(SCENE))
    assert made.modulation.missing_frames == ((0, 3), (1, 1), (1, 2), (1, 3))
    assert made.modulation.method == "partial"
    assert made.modulation.alive == ((True,), (False,), (True,))
    assert made.image.mean() == pytest.approx(whole.image.mean(), rel=2e-3)
    assert error(made.image, SCENE) < 1.5 * error(whole.image, SCENE)
    with pytest.raises(StackError, match="too few raw frames"):
        CpuReconstructor(plan).reconstruct(frames, present=np.zeros((3, 5), bool))


def test_the_edges_are_as_good_as_an_edge_can_be() -> None:
    image = CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(SCENE)).image
    target = SCENE.target(SCENE.sample(), plan_of(SCENE).reach_per_um)
    wrong = (image - target) / target.std()
    rim = np.ones(image.shape, bool)
    rim[4:-4, 4:-4] = False
    assert np.sqrt(np.mean(wrong[rim] ** 2)) < 0.085  # inside: .063
    assert image.min() > 0


def test_two_output_pixels_tile_one_camera_pixel() -> None:
    image = CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(SCENE)).image
    target = SCENE.target(SCENE.sample(), plan_of(SCENE).reach_per_um)
    inner = slice(MARGIN_PX, -MARGIN_PX)
    best = min(
        ((np.abs(np.roll(image, (dy, dx), (0, 1)) - target)[inner, inner].mean(), dy, dx))
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    assert best[1:] == (0, 0)


def test_a_pattern_that_drifted_in_phase_is_followed() -> None:
    moved = replace(SCENE, stripes=Stripes(phase0_deg=(91.0, -17.0, 200.0)))  # 60 degrees further than the plan says
    made = CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(moved))
    whole = CpuReconstructor(plan_of(SCENE)).reconstruct(frames_of(SCENE))
    assert error(made.image, SCENE) < 1.1 * error(whole.image, SCENE)


def test_an_estimate_that_is_not_usable_makes_widefield() -> None:
    plan = ReconstructionPlan.of(SCENE.pattern, "488", (SIZE, SIZE), PIXEL_UM, true_estimate(SCENE, trusted=False))
    assert not plan.bands
    assert CpuReconstructor(plan).reconstruct(frames_of(SCENE)).modulation.widefield


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 9), st.floats(0, 6.28), st.integers(0, 1000))
def test_unmixing_gives_back_what_was_mixed(n_phases: int, first: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    phases = first + 2 * np.pi / n_phases * np.arange(n_phases) + rng.uniform(-0.3, 0.3, n_phases)
    solved = unmixing(phases, np.zeros(1))
    if solved is None:
        return
    mean, band = rng.normal(size=4), rng.normal(size=4) + 1j * rng.normal(size=4)
    frames = mean + (band * np.exp(1j * phases)[:, np.newaxis]).real
    assert (solved @ frames)[0] == pytest.approx(mean)
    assert (solved @ frames)[1] == pytest.approx(band)


def test_phases_that_coincide_cannot_be_unmixed() -> None:
    assert unmixing(np.zeros(5), np.zeros(1)) is None
    assert unmixing(np.array([0.0, 1.0]), np.zeros(1)) is None


def test_counts_are_rounded_at_a_fixed_scale_and_what_does_not_fit_is_counted() -> None:
    image = np.array([[0.4, 0.6, -100.4], [-101.0, 65435.0, 65436.0]], np.float32)
    counts, cut = to_uint16(image)
    assert counts.tolist() == [[100, 101, 0], [0, 65535, 65535]]
    assert cut == 2
    assert to_uint16(image, 0.5)[0][0, 1] == 100


def test_frames_that_do_not_fit_the_plan_are_refused() -> None:
    reconstructor = CpuReconstructor(plan_of(SCENE))
    with pytest.raises(StackError, match="raw frames are"):
        reconstructor.reconstruct(frames_of(SCENE)[:, :3])
    with pytest.raises(StackError, match="present"):
        reconstructor.reconstruct(frames_of(SCENE), present=np.ones(15, bool))
    with pytest.raises(ConfigError, match="angles"):
        ReconstructionPlan.of(replace(SCENE.pattern, n_angles=2), "488", (SIZE, SIZE), PIXEL_UM, true_estimate(SCENE))
