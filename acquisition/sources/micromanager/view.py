"""Single images outside a run, taken by the core itself; camera and stages are left as they were found.

The engine is for stacks. One image wants no acquisition, and what a person tries out must not stay behind: exposure
and light path go back after each image, the stages when the view ends.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spheroidd.acquisition.sources.micromanager.core import Core, Stages
from spheroidd.acquisition.sources.micromanager.engine import image_fault
from spheroidd.acquisition.sources.micromanager.messages import LookOrder
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.protocols.errors import InstrumentError
from spheroidd.protocols.pixels import Pixels

Place = tuple[float, float, float]


class View:
    """Remembers how it found the instrument, from its first image on."""

    def __init__(
        self, core: Core, settings: MicroManagerSettings, stages: Stages, say: Callable[[str, float], None]
    ) -> None:
        self._core, self._settings, self._stages, self._say = core, settings, stages, say
        self._found: Place | None = None
        self._left: Place | None = None

    def take(self, order: LookOrder) -> tuple[Pixels, dict[str, float | str]]:
        """The image, and how it was taken. Errors as `Stages.go_to`, and InstrumentError for another image."""
        core, s = self._core, self._settings
        if order.z_um is not None:
            self._stages.check_z([order.z_um])
        if self._found is None:
            self._found = self._stages.read()
        if order.xy_um is not None:
            self._stages.go_to(*order.xy_um, order.name)
        if order.z_um is not None:
            self._stages.move_z(order.z_um, f"going to {order.z_um:g} um for {order.name}")
        with self._lit(order):
            exposure_ms = float(core.get_exposure())
            self._say(f"waiting for {order.name}", s.first_frame_s + exposure_ms / 1000)
            core.snap_image()
            pixels = _as_image(core.get_image(), s.frame_shape)
        self._left = x, y, z = self._stages.read()
        if fault := image_fault(pixels, s):
            do = "correct source.height, width and dtype, or the camera's region, binning and bit depth"
            raise InstrumentError(f"{order.name}: {fault}", do=do)
        ceiling = 2 ** int(core.get_image_bit_depth()) - 1
        return pixels, {"x_um": x, "y_um": y, "z_um": z, "exposure_ms": exposure_ms, "ceiling_adu": float(ceiling)}

    def put_back(self) -> None:
        """The stages to where the first image found them; not where somebody has moved them since."""
        found, left = self._found, self._left
        self._found = self._left = None
        if found is None or left is None or found == left:
            return
        s, now = self._settings, self._stages.read()
        tolerances = (s.xy_tolerance_um, s.xy_tolerance_um, s.z_tolerance_um)
        if any(abs(a - b) > tolerance for a, b, tolerance in zip(now, left, tolerances, strict=True)):
            return
        self._stages.go_to(*found[:2], "where it stood before")
        self._stages.move_z(found[2], "going back to where the focus stood")

    @contextlib.contextmanager
    def _lit(self, order: LookOrder) -> Iterator[None]:
        """The channel's light and the exposure, for one image."""
        core, group = self._core, self._settings.channel_group
        preset = self._settings.channels[order.channel].preset  # type: ignore[index]
        before_ms = float(core.get_exposure())
        before = [(*place, str(core.get_property(*place))) for place in _places(core.get_config_data(group, preset))]
        try:
            core.set_config(group, preset)
            core.wait_for_config(group, preset)
            core.set_exposure(order.exposure_ms)
            yield
        finally:
            core.set_exposure(before_ms)
            for device, name, value in before:
                core.set_property(device, name, value)


def _places(config: Any) -> list[tuple[str, str]]:
    """The device properties that a preset sets. pycromanager renames the core's methods alone, not what it returns."""

    def call(owner: Any, *names: str) -> Any:
        return next(getattr(owner, name) for name in names if hasattr(owner, name))

    settings = (call(config, "getSetting", "get_setting")(n) for n in range(int(config.size())))
    return [
        (
            str(call(one, "getDeviceLabel", "get_device_label")()),
            str(call(one, "getPropertyName", "get_property_name")()),
        )
        for one in settings
    ]


def _as_image(pixels: Any, shape: tuple[int, int]) -> Any:
    """A bridge to Java gives an image as one long line, and its counts as signed numbers."""
    if not isinstance(pixels, np.ndarray):
        return pixels
    if pixels.dtype.kind == "i":
        pixels = pixels.view(pixels.dtype.str.replace("i", "u"))
    return pixels.reshape(shape) if pixels.ndim == 1 and pixels.size == shape[0] * shape[1] else pixels
