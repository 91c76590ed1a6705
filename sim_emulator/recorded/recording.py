"""A recorded plate under an emulated camera: pixels at a place over the plate, in a channel, with an exposure.

Where the camera stands just where the recording was taken, in pixels of the same size, its image is the recorded plane,
bit by bit. Elsewhere each pixel shows the recorded pixel that lies nearest, and background with noise where none lies
near: beside the recorded field, above and below the stack, in wells and channels that were not recorded. Nearest and
not interpolated, because interpolation takes away noise.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import StackError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.draws import Draws
from spheroidd.sim_emulator.look import PLAIN, Look
from spheroidd.sim_emulator.recorded.noise import RecordedNoise
from spheroidd.sim_emulator.recorded.volume import OpenVolume, RecordedVolume

HELD_OPEN = 2  # stacks: an instrument goes from well to well, and rarely back
NOISE_WELLS, NOISE_PLANES = 3, 5  # looked at to know the camera: 30 planes of two channels, once


class Place(NamedTuple):
    """A well, and where from the middle of its recorded field the camera's stands, and from its first slice."""

    well: WellId | None
    x_um: float = 0.0
    y_um: float = 0.0
    z_um: float = 0.0


@dataclass(frozen=True, slots=True)
class CameraField:
    """What a camera gives: an image's size in pixels, a pixel's in micrometres, its depth in bits."""

    height: int
    width: int
    pixel_um: float
    dtype: str


@dataclass(frozen=True, slots=True)
class StackGeometry:
    """How a recording's first sound well was taken, which holds for the plate: see `StackPlan`."""

    channels: tuple[str, ...]
    n_z: int
    camera: CameraField
    z_step_um: float


class Recording:
    """A recorded plate: `wells` opens each well's stack, `everywhere` one that lies in all other wells.

    `plate_map` says what was done to the wells, where that is known. Any thread may ask, one at a time.
    """

    def __init__(
        self,
        wells: Mapping[WellId, OpenVolume],
        plate_map: PlateMap | None = None,
        everywhere: OpenVolume | None = None,
    ) -> None:
        self.plate_map, self._wells, self._everywhere = plate_map, dict(wells), everywhere
        self._open: OrderedDict[WellId | None, RecordedVolume] = OrderedDict()
        self._noise: dict[str, RecordedNoise] = {}
        self._lock = threading.RLock()
        self._geometry: StackGeometry | None = None

    def check(self) -> None:
        """Open every stack once; StackError for the first that cannot be read."""
        for key in self._keys():
            with self._lock:
                self._volume(key)

    @property
    def geometry(self) -> StackGeometry:
        """The plate's; StackError where its first stack cannot be read."""
        with self._lock:
            if self._geometry is None:
                volume = self._volume(self._keys()[0])
                n_z, height, width = volume.shape
                z_step_um, pixel_um = volume.voxel_um
                camera = CameraField(height, width, pixel_um, volume.dtype)
                self._geometry = StackGeometry(volume.channels, n_z, camera, z_step_um)
            return self._geometry

    def holds(self, well: WellId) -> bool:
        """Whether something was recorded in this well."""
        return well in self._wells or self._everywhere is not None

    def image(self, place: Place, camera: CameraField, channel: str, look: Look = PLAIN) -> Pixels:
        """What the camera sees there (y, x); the same bytes whenever it is asked."""
        draws, name = Draws.of("recording", place.well, camera.height, camera.width), _name(place, channel, look)
        with self._lock:
            found = self._plane(place, channel)
            if found is None:
                return self._background(camera, channel, draws, name)
            volume, plane = found
            pixel_um = volume.voxel_um[1]
            if not look.plain:
                plane = self._noise_of(channel).retaken(plane, look, pixel_um, draws, name)
        rows = _nearest(plane.shape[0], pixel_um, camera.height, camera.pixel_um, place.y_um)
        columns = _nearest(plane.shape[1], pixel_um, camera.width, camera.pixel_um, place.x_um)
        inside = (rows >= 0) & (rows < plane.shape[0]), (columns >= 0) & (columns < plane.shape[1])
        seen = plane[np.ix_(rows[inside[0]], columns[inside[1]])]
        seen = np.minimum(seen, np.iinfo(camera.dtype).max).astype(camera.dtype, copy=False)
        if inside[0].all() and inside[1].all():
            return seen
        image = self._background(camera, channel, draws, name)
        image[np.ix_(*inside)] = seen
        return image

    def background(self, channel: str) -> float:
        """The level of a channel's dark places, in counts."""
        with self._lock:
            return self._noise_of(channel).level

    def exposure_ms(self, well: WellId, channel: str) -> float | None:
        """How long the well's images were exposed in a channel; None where nobody says."""
        with self._lock:
            volume = self._volume_of(well)
            if volume is None or channel not in volume.channels:
                return None
            said = volume.metadata(SliceIndex(channel, 0)).get("exposure_ms")
            return float(said) if isinstance(said, int | float) and said > 0 else None

    def close(self) -> None:
        """Let every file go; may be called twice."""
        with self._lock:
            for volume in self._open.values():
                volume.close()
            self._open.clear()

    def _keys(self) -> list[WellId | None]:
        return [*self._wells, *([None] if self._everywhere is not None else [])]

    def _volume_of(self, well: WellId | None) -> RecordedVolume | None:
        if well in self._wells:
            return self._volume(well)
        return self._volume(None) if well is not None and self._everywhere is not None else None

    def _volume(self, key: WellId | None) -> RecordedVolume:
        if key not in self._open:
            opens = self._everywhere if key is None else self._wells[key]
            assert opens is not None  # `_keys` and `_volume_of` see to it
            opened = opens()
            while len(self._open) >= HELD_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[key] = opened
        self._open.move_to_end(key)
        return self._open[key]

    def _plane(self, place: Place, channel: str) -> tuple[RecordedVolume, Pixels] | None:
        """The recorded plane nearest to a height; nothing where there is none."""
        volume = self._volume_of(place.well)
        if volume is None or channel not in volume.channels:
            return None
        z = int(np.floor(place.z_um / volume.voxel_um[0] + 0.5))
        return (volume, volume.plane(SliceIndex(channel, z))) if 0 <= z < volume.shape[0] else None

    def _background(self, camera: CameraField, channel: str, draws: Draws, name: str) -> Pixels:
        return self._noise_of(channel).background(camera.height, camera.width, camera.dtype, draws, name)

    def _noise_of(self, channel: str) -> RecordedNoise:
        """Of the recording's first wells, whatever was asked before; of its darkest channel for one it lacks."""
        if not self._noise:
            self._noise = self._measured()
        return self._noise.get(channel) or min(self._noise.values(), key=lambda noise: noise.level)

    def _measured(self) -> dict[str, RecordedNoise]:
        planes: dict[str, list[Pixels]] = {}
        for key in self._keys()[:NOISE_WELLS]:
            volume = self._volume(key)
            heights = dict.fromkeys(round(z) for z in np.linspace(0, volume.shape[0] - 1, NOISE_PLANES))
            for channel in volume.channels:
                planes.setdefault(channel, []).extend(volume.plane(SliceIndex(channel, z)) for z in heights)
        if not planes:
            raise StackError("the recording holds no well", do="name a recording of at least one well")
        return {channel: RecordedNoise.of(found) for channel, found in planes.items()}


class RecordedSpecimen:
    """One well of a recording, imaged with its stack's own slices: `z` counts from where the first was planned."""

    def __init__(
        self, recording: Recording, camera: CameraField, place: Place, z_step_um: float, exposure: float
    ) -> None:
        self._recording, self._camera, self._place = recording, camera, place
        self._z_step_um, self._exposure = z_step_um, exposure

    def image(self, channel: str, z: int, look: Look = PLAIN) -> Pixels:
        """One camera image (y, x)."""
        place = self._place._replace(z_um=self._place.z_um + z * self._z_step_um)
        seen = Look(self._exposure * look.exposure, look.blur_um)
        return self._recording.image(place, self._camera, channel, seen)

    def background(self, channel: str) -> float:
        """What the recording's camera shows where nothing is, in counts."""
        return self._recording.background(channel)


def _nearest(n: int, pixel_um: float, n_camera: int, camera_pixel_um: float, offset_um: float) -> NDArray[np.int64]:
    """The recorded pixel that lies nearest to each of the camera's, along one axis; it may lie beyond the recording."""
    from_middle_um = (np.arange(n_camera) - (n_camera - 1) / 2) * camera_pixel_um + offset_um
    nearest: NDArray[np.int64] = np.floor(from_middle_um / pixel_um + (n - 1) / 2 + 0.5).astype(np.int64)
    return nearest


def _name(place: Place, channel: str, look: Look) -> str:
    """Of the noise at a place: neighbouring slices differ, the same slice does not."""
    x, y, z = (f"{value:.2f}" for value in place[1:])
    return f"{channel} {x} {y} {z} {look.exposure:g} {look.blur_um:g}"
