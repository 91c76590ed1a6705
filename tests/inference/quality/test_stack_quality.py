"""What an acquisition does wrong is found in its own images, and healthy stacks are left alone."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from spheroidd.inference.preprocessing.intensity import Histogram
from spheroidd.inference.quality.image_profile import StackInspector, saturated_share
from spheroidd.inference.quality.stack_quality import StackEvidence, judge_stacks, odd_slices
from spheroidd.protocols.quality import QualityFlag, Verdict
from spheroidd.protocols.results import ChannelProfile, StackProfile
from spheroidd.protocols.stack import CHANNELS, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator import camera
from spheroidd.sim_emulator.scene import Scene
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock
from tests.places import REAL_DATA, needs_real_data

Stack = NDArray[np.uint16]  # (channel, z, y, x)
SETTINGS = {"preset": "demo", "seed": 3, "n_z": 32, "height": 144, "width": 144, "negative_controls": 4, "doses": 4}
MARGIN = 24  # pixels that a wider field has on each side, so that a sample can be moved in it
ODD_WELL = "A02"


def source(**changes: object) -> EmulatorSource:
    return EmulatorSource(EmulatorSettings.model_validate({**SETTINGS, **changes}), None, "P1", FakeClock())


def imaged(
    well: str, spec: dict[str, float] | None = None, preset: dict[str, float] | None = None, **changes: object
) -> Stack:
    """A well's stack from the emulator, the well itself or its field changed."""
    found = source(**changes)
    field = dataclasses.replace(found.preset, **(preset or {}))  # type: ignore[arg-type]
    scene = Scene.of(dataclasses.replace(found.spec(well), **(spec or {})), field)
    return np.stack([[scene.image(channel, z) for z in range(field.n_z)] for channel in CHANNELS])


def profile(stack: Stack, channels: tuple[str, ...] = CHANNELS, portion: int = 8, **geometry: float) -> StackProfile:
    _, n_z, height, width = stack.shape
    lengths = {"pixel_um": 0.4, "z_step_um": 1.25, **geometry}
    plan = StackPlan(StackKey("P1", WellId(0, 0)), channels, n_z, height, width, dtype=stack.dtype.name, **lengths)
    inspector, raw = StackInspector(plan), {channel: Histogram() for channel in channels}
    for z in range(0, n_z, portion):
        for channel, slices in zip(channels, stack, strict=True):
            inspector.feed(channel, z, slices[z : z + portion])
            raw[channel].add(slices[z : z + portion, ::4])
    return inspector.profile(raw)


def evidence(well: str, found: StackProfile, stack: int = 0, repeated: tuple[SliceIndex, ...] = ()) -> StackEvidence:
    return StackEvidence(StackKey("P1", WellId.parse(well), stack), found, 40.0, repeated)


@pytest.fixture(scope="module")
def healthy() -> dict[str, StackProfile]:
    """The profiles of a plate's stacks, by well: untreated, killed, and treated in two ways."""
    return {str(entry.well): profile(imaged(str(entry.well))) for entry in source().plate_map.imaged()}


@pytest.fixture(scope="module")
def odd() -> Stack:
    """The stack of the well that things happen to; to be copied before it is changed."""
    return imaged(ODD_WELL)


@pytest.fixture(scope="module")
def wide() -> Stack:
    side = 144 + 2 * MARGIN
    return imaged(ODD_WELL, height=side, width=side)


def flags_with(healthy: dict[str, StackProfile], odd: StackProfile | Stack) -> tuple[QualityFlag, ...]:
    """The flags of the plate with one stack in place of a healthy one."""
    found = odd if isinstance(odd, StackProfile) else profile(odd)
    return judge_stacks([evidence(well, found if well == ODD_WELL else one) for well, one in healthy.items()])


def moved(wide: Stack, path_um: Callable[[int], tuple[float, float]]) -> Stack:
    """The stack as a camera sees it whose sample is somewhere else in each slice."""
    slices = []
    for z in range(wide.shape[1]):
        y, x = (MARGIN + round(um / 0.4) for um in path_um(z))
        slices.append(wide[:, z, y : y + 144, x : x + 144])
    return np.stack(slices, axis=1)


# Healthy stacks


def test_healthy_stacks_are_not_flagged(healthy: dict[str, StackProfile]) -> None:
    assert len(healthy) >= 12
    assert judge_stacks([evidence(well, one) for well, one in healthy.items()]) == ()


def test_the_portions_do_not_matter(odd: Stack) -> None:
    assert profile(odd, portion=8) == profile(odd, portion=3) == profile(odd, portion=32)


def test_sharpness_depends_on_neither_brightness_nor_noise() -> None:
    draw = np.random.default_rng(0)
    clean = np.tile(np.sin(np.arange(200) / 6.0), (9, 120, 1))
    found = []
    for gain, noise in ((100, 0), (1000, 0), (1000, 200)):
        pixels = 3000 + gain * clean + noise * draw.normal(size=clean.shape)
        found.append(profile(pixels.clip(0, 65535).astype(np.uint16)[None], ("488",)).channels["488"].sharpness)
    assert found[0] is not None
    assert found[1:] == pytest.approx([found[0]] * 2, rel=0.1)


def test_detail_does_not_depend_on_how_much_of_the_field_is_empty() -> None:
    spheroid = imaged(ODD_WELL, n_z=40, height=120, width=120, pixel_um=0.8, z_step_um=1.5, diameter_um=80.0)
    seen = profile(spheroid, pixel_um=0.8, z_step_um=1.5).channels["488"]
    close = profile(spheroid[:, :, 35:85, 35:85], pixel_um=0.8, z_step_um=1.5).channels["488"]
    assert seen.sharpness is not None
    assert close.sharpness is not None
    assert seen.sharpness < 0.8 * close.sharpness
    assert seen.detail == pytest.approx(close.detail, rel=0.15)


@pytest.mark.parametrize(("pixel_um", "is_told"), [(0.3, True), (1.5, True), (2.0, False), (8.0, False)])
def test_pixels_too_coarse_for_a_cell_show_no_detail(odd: Stack, pixel_um: float, is_told: bool) -> None:
    seen = profile(odd, pixel_um=pixel_um).channels["488"]
    assert seen.sharpness is not None
    assert (seen.detail is not None) == is_told


def test_a_slope_across_a_small_field_is_no_detail() -> None:
    slope = np.tile(np.linspace(200, 3000, 64), (9, 64, 1))
    noise = 20 * np.random.default_rng(0).normal(size=slope.shape)
    seen = profile((slope + noise).astype(np.uint16)[None], ("488",), pixel_um=0.5).channels["488"]
    assert seen.detail == pytest.approx(3 / (12**2 - 1), abs=0.005)  # of a straight line, by the squares of 1, 2 and 12


# Each fault, found and named


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("out-of-focus", {"preset": {"sigma_xy_um": 1.2, "sigma_z_um": 3.0}}),
        ("empty-field", {"preset": {"field_z_um": -60.0}}),
        ("saturated", {"intensity": 60.0}),
        ("bleached", {"spec": {"bleaching": 0.9}}),
    ],
)
def test_the_emulators_faults_are_found(
    healthy: dict[str, StackProfile], code: str, changes: dict[str, object]
) -> None:
    flags = flags_with(healthy, imaged(ODD_WELL, **changes))  # type: ignore[arg-type]
    assert [(flag.code, flag.wells) for flag in flags if flag.code == code][:1] == [(code, (ODD_WELL,))]
    assert {flag.wells for flag in flags} == {(ODD_WELL,)}
    assert {flag.code for flag in flags} <= {code, "saturated"}
    assert all(flag.what.startswith(ODD_WELL) and flag.do for flag in flags)


def test_a_camera_with_hot_pixels_is_found(healthy: dict[str, StackProfile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "HOT_SHARE", 0.01)
    found = profile(imaged(ODD_WELL))
    assert {flag.code for flag in flags_with(healthy, found)} == {"hot-pixels"}
    assert 0.003 < found.channels["488"].hot_share < 0.02


@pytest.mark.parametrize(
    ("code", "path_um"),
    [
        ("drifted", lambda z: (6 * z / 31, -7 * z / 31)),
        ("moved", lambda z: (4.0, -3.0) if z >= 20 else (0.0, 0.0)),
        (None, lambda z: (0.0, 0.0)),
    ],
)
def test_a_sample_that_moves_is_found(
    healthy: dict[str, StackProfile], wide: Stack, code: str | None, path_um: Callable[[int], tuple[float, float]]
) -> None:
    found = profile(moved(wide, path_um))
    flags = flags_with(healthy, found)
    assert [flag.code for flag in flags] == ([code] if code else [])
    if code == "moved":
        assert found.jump_z == 20
        assert found.jump_um == pytest.approx(5, abs=0.7)
        assert "slice 20" in flags[0].what


def dark(stack: Stack, slices: list[int]) -> Stack:
    """The shutter stayed shut: nothing but the camera's offset and noise."""
    draw = np.random.default_rng(0)
    stack = stack.copy()
    stack[0, slices] = (100 + 3.5 * draw.normal(size=stack[0, slices].shape)).round().astype(np.uint16)
    return stack


@pytest.mark.parametrize("slices", [[0], [12], [12, 13, 14], [31], [0, 1, 2], list(range(20, 32))], ids=str)
def test_dark_slices_are_found(healthy: dict[str, StackProfile], odd: Stack, slices: list[int]) -> None:
    found = profile(dark(odd, slices))
    assert odd_slices(found.channels["488"]) == (slices, [])
    assert odd_slices(found.channels["561"]) == ([], [])
    flag = next(flag for flag in flags_with(healthy, found) if flag.code == "dark-slices")
    assert flag.verdict is (Verdict.FAIL if len(slices) > 1 else Verdict.WARN)
    assert "channel 488" in flag.what


def test_a_flash_of_stray_light_is_found(healthy: dict[str, StackProfile], odd: Stack) -> None:
    stack = odd.copy()
    stack[1, 17] += 2000
    found = profile(stack)
    assert odd_slices(found.channels["561"]) == ([], [17])
    assert "bright-slices" in {flag.code for flag in flags_with(healthy, found)}


def test_repeated_slices_are_named(healthy: dict[str, StackProfile]) -> None:
    few, many = (tuple(SliceIndex("561", z) for z in range(4, 4 + n)) for n in (1, 20))
    for repeated, verdict in ((few, Verdict.WARN), (many, Verdict.FAIL)):
        flags = judge_stacks([evidence(w, one, 0, repeated if w == ODD_WELL else ()) for w, one in healthy.items()])
        assert [(flag.code, flag.wells, flag.verdict) for flag in flags] == [("repeated-slices", (ODD_WELL,), verdict)]
        assert "channel 561 z 4" in flags[0].what


@pytest.mark.parametrize(
    ("bits", "ceiling"), [(np.uint16, 65535), (np.uint16, 4095), (np.uint16, 16383), (np.uint8, 255)]
)
def test_clipping_is_seen_wherever_the_camera_ends(bits: type[np.unsignedinteger], ceiling: int) -> None:
    draw = np.random.default_rng(1)
    light = draw.gamma(2.0, ceiling / 8, (10, 200, 200))
    share = float((light >= ceiling).mean())
    clipped, open_ended = Histogram(), Histogram()
    clipped.add(light.clip(0, ceiling).astype(bits))
    open_ended.add((light * 0.2).clip(0, ceiling).astype(bits))
    assert saturated_share(clipped) == pytest.approx(share, rel=0.15)
    assert share > 0.001
    assert saturated_share(open_ended) == 0
    assert saturated_share(Histogram()) == 0


def test_a_second_stack_of_a_well_is_told_apart(healthy: dict[str, StackProfile]) -> None:
    stacks = [evidence(well, one) for well, one in healthy.items()]
    blurred = profile(imaged(ODD_WELL, preset={"sigma_xy_um": 1.2, "sigma_z_um": 3.0}))
    (flag,) = judge_stacks([*stacks, evidence(ODD_WELL, blurred, stack=2)])
    assert flag.what.startswith("A02, stack 2: ")


def test_a_few_stacks_are_not_compared_with_each_other(healthy: dict[str, StackProfile]) -> None:
    some = [evidence(well, one) for well, one in list(healthy.items())[:3]]
    assert [(flag.code, flag.verdict) for flag in judge_stacks(some)] == [("images-not-compared", Verdict.UNKNOWN)]
    assert judge_stacks([]) == ()


@needs_real_data
def test_a_real_spheroid_is_dark_in_its_last_two_slices_and_nowhere_else() -> None:
    folder = REAL_DATA / "spheroid_2colour"
    raw = tifffile.imread(next(folder.rglob("*488*.tif*")))
    found = profile(raw[None], ("488",), pixel_um=1.0, z_step_um=1.0)
    seen = found.channels["488"]
    # Both colours lose half of their light there from one slice to the next.
    assert odd_slices(seen) == ([127, 128], [])
    assert seen.sharpness is not None
    blurred = gaussian_filter(raw.astype(np.float32), (0, 2, 2)).astype(np.uint16)
    dull = profile(blurred[None], ("488",), pixel_um=1.0, z_step_um=1.0).channels["488"]
    assert dull.sharpness is not None
    assert dull.sharpness < 0.8 * seen.sharpness
    flags = judge_stacks([evidence("A01", found)])
    assert {flag.code for flag in flags} <= {"images-not-compared", "dark-slices", "saturated"}


# Anything at all


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_stack_has_a_profile_of_numbers(data: st.DataObject) -> None:
    """Constant, empty, noisy, of one slice or one pixel: no warning, no figure that is not a number."""
    shape = tuple(data.draw(st.integers(1, top), label=name) for name, top in (("z", 9), ("y", 40), ("x", 40)))
    bits = data.draw(st.sampled_from([np.uint8, np.uint16]), label="dtype")
    kind = data.draw(st.sampled_from(["constant", "noise", "ramp", "hot"]), label="kind")
    top = np.iinfo(bits).max
    draw = np.random.default_rng(data.draw(st.integers(0, 5)))
    pixels = {
        "constant": np.full((2, *shape), data.draw(st.sampled_from([0, 1, top]))),
        "noise": draw.integers(0, top, (2, *shape), endpoint=True),
        "ramp": np.broadcast_to(np.linspace(0, top, shape[0])[:, None, None], (2, *shape)),
        "hot": np.where(draw.random(shape[1:]) < 0.1, top, 0) + np.zeros((2, *shape), np.int64),
    }[kind]
    found = profile(pixels.astype(bits), pixel_um=data.draw(st.sampled_from([0.05, 0.4, 8.0])))
    flags = judge_stacks([evidence(f"A{column:02d}", found) for column in range(1, 9)])
    assert all(flag.what and flag.do for flag in flags)
    figures = [found.drift_um, found.jump_um]
    for seen in found.channels.values():
        figures += [seen.floor_adu, seen.contrast_adu, seen.sharpness, seen.detail]
        figures += [seen.saturated_share, seen.hot_share]
        assert len(seen.mean_adu_by_z) == shape[0]
    assert all(figure is None or np.isfinite(figure) for figure in figures)


@settings(deadline=None)
@given(means=st.lists(st.floats(0, 65535), min_size=1, max_size=30), floor=st.floats(0, 65535))
def test_odd_slices_are_slices_of_the_stack(means: list[float], floor: float) -> None:
    dark_ones, bright_ones = odd_slices(ChannelProfile(tuple(means), floor, 0.0, None, 0.0, 0.0))
    assert not set(dark_ones) & set(bright_ones)
    assert set(dark_ones) | set(bright_ones) <= set(range(len(means)))
    assert len(dark_ones) + len(bright_ones) < len(means)
