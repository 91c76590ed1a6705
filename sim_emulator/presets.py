"""The microscope's fields: how many slices, how fine, how fast, and where in the spheroid."""

import math
from dataclasses import dataclass

from spheroidd.protocols.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Preset:
    """One field's geometry. Change a field with `dataclasses.replace`, for crops, other places or other spheroids.

    Lengths are micrometres. The spheroid's lowest point is at z = 0 on the axis y = x = 0, light comes from below;
    the first slice lies at `field_z_um`, and the field is centred on (`field_y_um`, `field_x_um`). `diameter_um` is the
    plate's typical spheroid before seeding variation. `sigma_*_um` describe the in-focus point spread (Gaussian).
    """

    name: str
    n_z: int
    height: int
    width: int
    pixel_um: float
    z_step_um: float
    slice_period_s: float
    diameter_um: float = 400.0
    field_z_um: float = -4.0
    field_y_um: float = 0.0
    field_x_um: float = 0.0
    sigma_xy_um: float = 0.22
    sigma_z_um: float = 1.0

    def __post_init__(self) -> None:
        for name in ("n_z", "height", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", where=f"preset {self.name}", do="use 1 or more")
        for name in ("pixel_um", "z_step_um", "diameter_um", "sigma_xy_um", "sigma_z_um"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}", where=f"preset {self.name}", do="use a length above 0")
        if not 60 <= self.diameter_um <= 1000:
            raise ConfigError(
                f"diameter_um is {self.diameter_um}", where=f"preset {self.name}", do="use 60 to 1000 micrometres"
            )
        if not (math.isfinite(self.slice_period_s) and self.slice_period_s >= 0):
            raise ConfigError(
                f"slice_period_s is {self.slice_period_s}", where=f"preset {self.name}", do="use 0 s or more"
            )

    @property
    def extent_um(self) -> tuple[float, float, float]:
        """The field's size (z, y, x)."""
        return self.n_z * self.z_step_um, self.height * self.pixel_um, self.width * self.pixel_um


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("unit", 24, 96, 96, 0.5, 1.0, 0.02, diameter_um=160.0, field_z_um=0.0),
        Preset("demo", 40, 256, 256, 0.4, 1.25, 0.1, diameter_um=300.0),
        Preset("screen", 200, 800, 800, 0.125, 0.5, 1.2),  # the study's field: the bottom 100 um cap
        Preset(
            "sim", 32, 384, 384, 0.125, 1.25, 0.6, diameter_um=300.0
        ),  # fine enough for stripes, small enough to try
        Preset("whole", 200, 800, 800, 0.6, 2.0, 1.2, diameter_um=350.0, field_z_um=-12.0),
    )
}
