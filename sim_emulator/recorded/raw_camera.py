"""Raw frames made of a recording: its planes are the sample, a known pattern lights them, a lens and a camera see them.

Real texture with a known pattern. What the recording's own microscope did stays in it: its blur, so that there is
nothing finer to be won, and its noise, which counts as texture. The modulation dies from its first slice on.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.stack import UPSAMPLING, RawIndex, SliceIndex
from spheroidd.sim_emulator.camera import GAIN_ADU_PER_E, Camera
from spheroidd.sim_emulator.draws import Draws
from spheroidd.sim_emulator.look import PLAIN, Look
from spheroidd.sim_emulator.optics import gaussian_taps
from spheroidd.sim_emulator.raster import F32
from spheroidd.sim_emulator.recorded.recording import RecordedSpecimen
from spheroidd.sim_emulator.striped_planes import StripedPlanes
from spheroidd.sim_emulator.stripes import StripeSettings, TruePattern

_KEPT = 4  # slices whose striped planes are kept


@dataclass(frozen=True, slots=True)
class RawField:
    """The slices that are made of the frames: how many, how many pixels, and their sizes."""

    n_z: int
    height: int
    width: int
    pixel_um: float
    z_step_um: float


@dataclass(slots=True)
class RecordedRawCamera:
    """Raw frames of one recorded well, in any order; the same bytes whenever they are asked for."""

    specimen: RecordedSpecimen
    settings: StripeSettings
    of: RawField
    draws: Draws
    truth: dict[str, TruePattern]
    camera: Camera
    _planes: dict[tuple[str, int], StripedPlanes] = field(default_factory=dict)

    @classmethod
    def over(
        cls, specimen: RecordedSpecimen, settings: StripeSettings, of: RawField, channels: tuple[str, ...], name: str
    ) -> "RecordedRawCamera":
        """Put the camera over a specimen; ConfigError where its slices have no half. `name` names its noise."""
        if of.height % UPSAMPLING or of.width % UPSAMPLING:
            what = f"slices of {of.height} x {of.width} pixels have no raw frames"
            raise ConfigError(what, where="emulator", do="choose an even height and width")
        draws = Draws.of("raw recording", name)
        camera = Camera.drawn(of.height // UPSAMPLING, of.width // UPSAMPLING, Draws.of("raw recording", "camera"))
        return cls(specimen, settings, of, draws, {channel: settings.truth(channel) for channel in channels}, camera)

    def image(self, index: SliceIndex, look: Look = PLAIN) -> Pixels:
        """One raw frame (y, x), as the instrument delivers it under that name."""
        if not isinstance(index, RawIndex):
            raise ConfigError(f"{index} is no raw frame", where="emulator", do="ask for an angle and a phase")
        shown = self.settings.shown_in(index, self.of.n_z)
        light = look.of_light(self.expected_e(shown), UPSAMPLING * self.of.pixel_um)
        image = self.camera.expose(light, self.draws.key(str(index)))
        return np.ascontiguousarray(image[::-1]) if self.settings.flipped(index.channel) else image

    def expected_e(self, index: RawIndex) -> F32:
        """Expected photoelectrons (y, x) of one frame, without noise."""
        pattern = self.truth[index.channel]
        lit = self._striped(index.channel, index.z).frame(
            index.angle,
            pattern.phases_deg[index.angle][index.phase],
            pattern.modulation_at(index.z * self.of.z_step_um),
        )
        share = self.settings.share_of_light * pattern.brightness[index.angle][index.phase]
        return np.asarray(np.maximum(np.float32(share) * lit, 0), np.float32)

    def _striped(self, channel: str, z: int) -> StripedPlanes:
        if (channel, z) not in self._planes:
            while len(self._planes) >= _KEPT:
                del self._planes[next(iter(self._planes))]
            taps = gaussian_taps(self.settings.sigma_um(channel) / self.of.pixel_um)
            sample = self._sample_e(channel, z)
            self._planes[channel, z] = StripedPlanes.of(sample, taps, self.of.pixel_um, self.truth[channel])
        return self._planes[channel, z]

    def _sample_e(self, channel: str, z: int) -> F32:
        """The recorded plane (2y, 2x) as photoelectrons above its own background."""
        plane: NDArray[np.float32] = self.specimen.image(channel, z).astype(np.float32)
        level = np.float32(self.specimen.background(channel))
        return np.asarray(np.maximum(plane - level, 0) / np.float32(GAIN_ADU_PER_E), np.float32)
