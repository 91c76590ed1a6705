"""The camera that takes raw frames: pixels twice as large, a pattern in each, and noise of its own."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.stack import CHANNELS, UPSAMPLING, RawIndex, SliceIndex
from spheroidd.sim_emulator.camera import Camera
from spheroidd.sim_emulator.draws import Draws
from spheroidd.sim_emulator.look import PLAIN, Look
from spheroidd.sim_emulator.optics import Optics, emission
from spheroidd.sim_emulator.raster import F32
from spheroidd.sim_emulator.scene import Scene, axes
from spheroidd.sim_emulator.striped_planes import StripedPlanes
from spheroidd.sim_emulator.stripes import StripeSettings, TruePattern

_KEPT = 4  # slices whose striped planes are kept: of both channels, and of the ones before


@dataclass(slots=True)
class RawCamera:
    """Raw frames of one field of one well, in any order; the same bytes whenever they are asked for."""

    scene: Scene
    settings: StripeSettings
    truth: dict[str, TruePattern]
    _optics: Optics
    _camera: Camera
    _planes: dict[tuple[str, int], StripedPlanes] = field(default_factory=dict)

    @classmethod
    def over(cls, scene: Scene, settings: StripeSettings) -> "RawCamera":
        """Put the camera over a scene; ConfigError where its slices have no half."""
        fine, spec = scene.preset, scene.phantom.spec
        if fine.height % UPSAMPLING or fine.width % UPSAMPLING:
            what = f"slices of {fine.height} x {fine.width} pixels have no raw frames"
            raise ConfigError(what, where="emulator", do="choose an even height and width")
        height, width = fine.height // UPSAMPLING, fine.width // UPSAMPLING
        preset = replace(fine, height=height, width=width, pixel_um=UPSAMPLING * fine.pixel_um)
        optics = Optics.of(scene.phantom, emission(spec, scene.phantom.painted), preset, *axes(preset))
        camera = Camera.drawn(height, width, Draws.of(spec.seed, "camera"))
        return cls(scene, settings, {name: settings.truth(name) for name in CHANNELS}, optics, camera)

    def image(self, index: SliceIndex, look: Look = PLAIN) -> NDArray[np.uint16]:
        """One raw frame (y, x), as the instrument delivers it under that name."""
        if not isinstance(index, RawIndex):
            raise ConfigError(f"{index} is no raw frame", where="emulator", do="ask for an angle and a phase")
        shown = self.settings.shown_in(index, self.scene.preset.n_z)
        light = look.of_light(self.expected_e(shown), UPSAMPLING * self.scene.preset.pixel_um)
        image = self._camera.expose(light, self.scene.noise_key(str(index)))
        return np.ascontiguousarray(image[::-1]) if self.settings.flipped(index.channel) else image

    def expected_e(self, index: RawIndex) -> F32:
        """Expected photoelectrons (y, x) of one frame, without noise."""
        channel, z, fine = index.channel, index.z, self.scene.preset
        pattern = self.truth[channel]
        modulation = pattern.modulation_at(fine.field_z_um + z * fine.z_step_um)
        lit = self._striped(channel, z).frame(index.angle, pattern.phases_deg[index.angle][index.phase], modulation)
        share = self.settings.share_of_light * pattern.brightness[index.angle][index.phase]
        out = np.empty_like(lit)
        self._optics.seen(lit, self.scene.dye(channel), z, share, out)
        return out

    def _striped(self, channel: str, z: int) -> StripedPlanes:
        if (channel, z) not in self._planes:
            while len(self._planes) >= _KEPT:
                del self._planes[next(iter(self._planes))]
            sharp, lens = self.scene.in_focus(channel, z), self.scene.lens(channel)
            self._planes[channel, z] = StripedPlanes.of(sharp, lens, self.scene.preset.pixel_um, self.truth[channel])
        return self._planes[channel, z]
