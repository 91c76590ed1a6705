"""How one image is taken otherwise than the plate's images are: the one noun that exposures and faults share."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spheroidd.protocols.pixels import Pixels

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Look:
    """`exposure`: how many times as much light reaches the camera, 0 with the shutter closed. `blur_um`: the standard
    deviation of what being out of focus does sideways.
    """

    exposure: float = 1.0
    blur_um: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether the image is as the plate's images are."""
        return self.exposure == 1 and self.blur_um == 0

    def brighter(self, factor: float) -> "Look":
        """The same with so many times the light."""
        return self if factor == 1 else Look(self.exposure * factor, self.blur_um)

    def of_light(self, light: F32, pixel_um: float) -> F32:
        """The light (y, x) as this look sees it, without noise."""
        if self.blur_um > 0:
            from scipy.ndimage import gaussian_filter  # settings name looks, and blur nothing

            light = gaussian_filter(light, self.blur_um / pixel_um, mode="nearest")
        return light if self.exposure == 1 else np.asarray(light * np.float32(self.exposure), np.float32)


PLAIN = Look()


class Specimen(Protocol):
    """What lies under the objective at one place of the plate: a phantom's scene, or a recording."""

    def image(self, channel: str, z: int, look: Look = PLAIN) -> Pixels:
        """One camera image (y, x); the same bytes whenever and in whatever order it is asked for."""
        ...
