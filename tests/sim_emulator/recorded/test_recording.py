"""A recorded plate under a camera: its very pixels where they were taken, what a camera sees everywhere else."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.look import Look
from spheroidd.sim_emulator.recorded.noise import RecordedNoise
from spheroidd.sim_emulator.recorded.recording import CameraField, Place, Recording

A01, B02 = WellId(0, 0), WellId(1, 1)
N_Z, HEIGHT, WIDTH, PIXEL_UM, STEP_UM = 4, 64, 80, 0.5, 2.0
LEVEL, SD, GAIN = 100.0, 4.0, 2.0
CAMERA = CameraField(HEIGHT, WIDTH, PIXEL_UM, "uint16")


def taken(light: float, seed: int = 0, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Pixels:
    """An image of a camera whose level, read noise and gain are known: half in the dark, half in even light."""
    rng = np.random.default_rng(seed)
    signal = np.zeros(shape)
    signal[:, shape[1] // 2 :] = light
    counts = LEVEL + GAIN * rng.poisson(signal / GAIN) + SD * rng.normal(size=shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


class Volume:
    """A stack in memory."""

    channels, shape, dtype, voxel_um = ("488", "561"), (N_Z, HEIGHT, WIDTH), "uint16", (STEP_UM, PIXEL_UM)

    def __init__(self) -> None:
        self.planes = {
            SliceIndex(channel, z): taken(light, seed=10 * z + k)
            for k, (channel, light) in enumerate((("488", 1000.0), ("561", 400.0)))
            for z in range(N_Z)
        }
        self.closed = False

    def plane(self, index: SliceIndex) -> Pixels:
        return self.planes[index].copy()

    def metadata(self, index: SliceIndex) -> Mapping[str, float | str]:
        return {"exposure_ms": 20.0} if index.channel == "488" else {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def volume() -> Volume:
    return Volume()


@pytest.fixture
def recording(volume: Volume) -> Recording:
    return Recording({A01: lambda: volume})


def is_background(image: Any) -> bool:
    """Neither empty nor a picture: the camera's level, with its noise."""
    return bool(abs(image.mean() - LEVEL) < 2 and 0.7 * SD < image.std() < 1.4 * SD)


@pytest.mark.parametrize("z", range(N_Z))
@pytest.mark.parametrize("channel", ["488", "561"])
def test_where_it_was_taken_the_image_is_the_recorded_plane(
    recording: Recording, volume: Volume, channel: str, z: int
) -> None:
    image = recording.image(Place(A01, z_um=z * STEP_UM), CAMERA, channel)
    assert np.array_equal(image, volume.planes[SliceIndex(channel, z)])
    assert image.dtype == np.uint16


@pytest.mark.parametrize("off_um", [(0.2, -0.2, 0.9), (-0.24, 0.24, -0.9)])
def test_less_than_half_a_pixel_or_a_step_beside_it_is_the_same_plane(
    recording: Recording, volume: Volume, off_um: tuple[float, float, float]
) -> None:
    x, y, z = off_um
    image = recording.image(Place(A01, x, y, STEP_UM + z), CAMERA, "488")
    assert np.array_equal(image, volume.planes[SliceIndex("488", 1)])


def test_beside_the_field_the_image_is_shifted_and_ends_in_background(recording: Recording, volume: Volume) -> None:
    image = recording.image(Place(A01, x_um=10 * PIXEL_UM, y_um=-6 * PIXEL_UM), CAMERA, "488")
    assert np.array_equal(image[6:, :-10], volume.planes[SliceIndex("488", 0)][:-6, 10:])
    assert is_background(image[:, -10:])
    assert is_background(image[:6])


def test_a_larger_camera_sees_the_field_in_its_middle(recording: Recording, volume: Volume) -> None:
    image = recording.image(Place(A01), CameraField(HEIGHT + 20, WIDTH + 10, PIXEL_UM, "uint16"), "561")
    assert np.array_equal(image[10:-10, 5:-5], volume.planes[SliceIndex("561", 0)])
    assert is_background(image[:10])


def test_larger_pixels_show_the_recorded_ones_that_lie_nearest(recording: Recording, volume: Volume) -> None:
    image = recording.image(Place(A01), CameraField(HEIGHT // 2, WIDTH // 2, 2 * PIXEL_UM, "uint16"), "488")
    assert np.array_equal(image, volume.planes[SliceIndex("488", 0)][1::2, 1::2])


@pytest.mark.parametrize(
    "place",
    [
        Place(B02),
        Place(None),
        Place(A01, x_um=500.0),
        Place(A01, z_um=-1.1),
        Place(A01, z_um=(N_Z - 0.4) * STEP_UM),
        Place(A01, z_um=1e9),
    ],
    ids=["a well it lacks", "beside the plate", "between wells", "below", "above", "far above"],
)
@pytest.mark.parametrize("channel", ["488", "561"])
def test_where_nothing_was_recorded_the_camera_sees_background_with_noise(
    recording: Recording, place: Place, channel: str
) -> None:
    assert is_background(recording.image(place, CAMERA, channel))


def test_a_channel_that_was_not_recorded_is_background(volume: Volume) -> None:
    volume.channels = ("488",)  # type: ignore[assignment]
    assert is_background(Recording({A01: lambda: volume}).image(Place(A01), CAMERA, "561"))


def test_noise_is_another_at_each_slice_and_the_same_whenever_it_is_asked(volume: Volume) -> None:
    def seen(z_um: float) -> Pixels:
        return Recording({A01: lambda: volume}).image(Place(B02, z_um=z_um), CAMERA, "488")

    assert np.array_equal(seen(2.0), seen(2.0))
    assert not np.array_equal(seen(2.0), seen(4.0))


@pytest.mark.parametrize("factor", [0.5, 0.1, 3.0])
def test_exposure_is_a_factor_of_the_light_above_the_background(recording: Recording, factor: float) -> None:
    image = recording.image(Place(A01), CAMERA, "488", Look(exposure=factor))
    assert image[:, WIDTH // 2 :].mean() - LEVEL == pytest.approx(1000 * factor, rel=0.03)
    assert is_background(image[:, : WIDTH // 2 - 2]) or factor > 1


@pytest.mark.parametrize("factor", [0.5, 0.1])
def test_a_shorter_exposure_has_the_noise_that_a_camera_would_have(recording: Recording, factor: float) -> None:
    image = recording.image(Place(A01), CAMERA, "488", Look(exposure=factor)).astype(float)
    lit = image[:, WIDTH // 2 + 2 :]
    assert lit.var() == pytest.approx(GAIN * 1000 * factor + SD**2, rel=0.25)


def test_without_light_the_camera_sees_its_own_noise(recording: Recording) -> None:
    assert is_background(recording.image(Place(A01), CAMERA, "488", Look(exposure=0)))


def test_out_of_focus_an_edge_is_soft_and_the_noise_stays(recording: Recording) -> None:
    sharp, soft = (recording.image(Place(A01), CAMERA, "488", Look(blur_um=b)).astype(float) for b in (0.0, 4.0))
    middle = slice(WIDTH // 2 - 1, WIDTH // 2 + 1)
    assert np.diff(sharp.mean(0)[middle]) > 800
    assert np.diff(soft.mean(0)[middle]) < 100
    assert soft[:, -8:].var() == pytest.approx(GAIN * 1000 + SD**2, rel=0.4)


def test_light_beyond_the_cameras_range_is_its_highest_value(recording: Recording) -> None:
    bright = recording.image(Place(A01), CAMERA, "488", Look(exposure=1000.0))
    assert bright.max() == 65535
    eight_bits = recording.image(Place(A01), CameraField(HEIGHT, WIDTH, PIXEL_UM, "uint8"), "488")
    assert eight_bits.dtype == np.uint8
    assert eight_bits.max() == 255


def test_what_the_camera_was_is_measured_in_its_images() -> None:
    noise = RecordedNoise.of([taken(1000.0, seed, (256, 256)) for seed in range(3)])
    assert noise.level == pytest.approx(LEVEL, abs=1)
    assert noise.sd == pytest.approx(SD, rel=0.15)
    assert noise.gain == pytest.approx(GAIN, rel=0.2)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (5, 5), (8, 8)])
def test_a_recording_of_a_few_pixels_is_measured_too(shape: tuple[int, int]) -> None:
    assert RecordedNoise.of([taken(10.0, 0, shape)]).level > 0


def test_exposure_is_known_where_the_files_say_it(recording: Recording) -> None:
    assert recording.exposure_ms(A01, "488") == 20.0
    assert recording.exposure_ms(A01, "561") is None
    assert recording.exposure_ms(B02, "488") is None


def test_few_stacks_are_open_at_a_time() -> None:
    volumes = {WellId(0, n): Volume() for n in range(5)}
    recording = Recording({well: lambda v=v: v for well, v in volumes.items()})  # type: ignore[misc]
    for well in volumes:
        recording.image(Place(well), CAMERA, "488")
    assert [volume.closed for volume in volumes.values()] == [True, True, True, False, False]
    recording.close()
    assert all(volume.closed for volume in volumes.values())


def test_one_stack_can_lie_in_every_well(volume: Volume) -> None:
    recording = Recording({}, everywhere=lambda: volume)
    for well in (A01, B02):
        assert np.array_equal(recording.image(Place(well), CAMERA, "488"), volume.planes[SliceIndex("488", 0)])
    assert is_background(recording.image(Place(None), CAMERA, "488"))


def test_a_stack_that_cannot_be_read_is_found_before_anything_starts(volume: Volume) -> None:
    def broken() -> Volume:
        raise StackError("it is damaged", where="b.tif", do="copy it again")

    recording = Recording({A01: lambda: volume, B02: broken})
    with pytest.raises(StackError, match=r"b\.tif: it is damaged"):
        recording.check()
