"""Micro-Manager's core in its own process: loaded, looked at, and its stages moved only where they may go.

The only module that calls the core's stages. The acquisition engine sends positions too, and does not look where they
lead, so the core's own methods are replaced by `Stages`, which refuse what lies outside the limits, and any move of
the XY stage that did not go by way of `go_to`, because only that retracts z first.
"""

import contextlib
import importlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from spheroidd.acquisition.sources.micromanager.messages import CoreReady
from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.protocols.errors import ConfigError, InstrumentError
from spheroidd.protocols.stack import StackKey

POLL_S = 0.004
SETTLE_S = 0.3  # a stage may report itself at rest a little before it is


class AbortedError(Exception):
    """The parent asked for the end of the stack; no fault."""


class Core(Protocol):
    """What is used of `CMMCore`, by the names that pycromanager gives its methods in both backends."""

    def get_camera_device(self) -> str: ...  # noqa: D102
    def get_focus_device(self) -> str: ...  # noqa: D102
    def get_xy_stage_device(self) -> str: ...  # noqa: D102
    def get_shutter_device(self) -> str: ...  # noqa: D102
    def get_image_width(self) -> int: ...  # noqa: D102
    def get_image_height(self) -> int: ...  # noqa: D102
    def get_bytes_per_pixel(self) -> int: ...  # noqa: D102
    def get_pixel_size_um(self) -> float: ...  # noqa: D102
    def get_image_bit_depth(self) -> int: ...  # noqa: D102
    def get_image(self) -> Any: ...  # noqa: D102
    def snap_image(self) -> None: ...  # noqa: D102
    def get_exposure(self) -> float: ...  # noqa: D102
    def set_exposure(self, exposure_ms: float) -> None: ...  # noqa: D102
    def set_config(self, group: str, preset: str) -> None: ...  # noqa: D102
    def wait_for_config(self, group: str, preset: str) -> None: ...  # noqa: D102
    def get_config_data(self, group: str, preset: str) -> Any: ...  # noqa: D102
    def set_property(self, label: str, name: str, value: str) -> None: ...  # noqa: D102
    def get_current_config(self, group: str) -> str: ...  # noqa: D102
    def get_property(self, label: str, name: str) -> str: ...  # noqa: D102
    def get_position(self) -> float: ...  # noqa: D102
    def get_x_position(self) -> float: ...  # noqa: D102
    def get_y_position(self) -> float: ...  # noqa: D102
    def get_stage_sequence_max_length(self, stage: str) -> int: ...  # noqa: D102
    def is_stage_sequenceable(self, stage: str) -> bool: ...  # noqa: D102
    def is_config_defined(self, group: str, preset: str) -> bool: ...  # noqa: D102
    def device_busy(self, label: str) -> bool: ...  # noqa: D102
    def stop(self, label: str) -> None: ...  # noqa: D102
    def set_shutter_open(self, is_open: bool) -> None: ...  # noqa: D102
    def set_position(self, stage: str, z_um: float) -> None: ...  # noqa: D102
    def set_xy_position(self, stage: str, x_um: float, y_um: float) -> None: ...  # noqa: D102
    def load_stage_sequence(self, stage: str, z_um: Any) -> None: ...  # noqa: D102
    def unload_all_devices(self) -> None: ...  # noqa: D102
    def get_version_info(self) -> str: ...  # noqa: D102
    def get_api_version_info(self) -> str: ...  # noqa: D102


def load_core(settings: MicroManagerSettings) -> Core:
    """Load the core and its configuration, or find the one that is open; ConfigError or InstrumentError."""
    try:
        pycromanager, mmpycorex = (importlib.import_module(name) for name in ("pycromanager", "mmpycorex"))
    except ImportError as error:
        do = "pip install 'spheroidd[micromanager]'"
        raise ConfigError(f"pycromanager cannot be loaded: {error}", where="source.kind", do=do) from error
    try:
        if settings.backend == "python":
            pycromanager.start_headless(
                adapter_folder(settings),
                config_file=str(settings.config),
                python_backend=True,
                buffer_size_mb=settings.core_buffer_mb,
            )
            core: Core = mmpycorex.Core()
        else:
            core = mmpycorex.Core(port=settings.port)
        if core.get_shutter_device():
            core.set_shutter_open(False)  # a core that was killed while it exposed left it open
    except ConfigError:
        raise
    except Exception as error:  # the core raises RuntimeError, the bridge plain Exception
        where = str(settings.config) if settings.backend == "python" else f"port {settings.port}"
        do = "load the same configuration in Micro-Manager's own window: it shows which device does not answer"
        if settings.backend == "java":
            do = 'open Micro-Manager and switch "Run server on port" on in its options'
        raise InstrumentError(f"the core cannot be started: {error}", where=where, do=do) from error
    return core


def adapter_folder(settings: MicroManagerSettings) -> str:
    """The folder with the device adapters; ConfigError where the demo's are not installed."""
    if settings.micromanager_dir != "test-adapters":
        return str(settings.micromanager_dir)
    try:
        return str(importlib.import_module("mm_test_adapters").device_adapter_path())
    except ImportError as error:
        do = "pip install mm-test-adapters, or write the path of your Micro-Manager"
        raise ConfigError("the demo adapters are missing", where="source.micromanager_dir", do=do) from error


def describe(core: Core, settings: MicroManagerSettings) -> CoreReady:
    """What the core says of itself; ConfigError or InstrumentError where it lacks what a plate needs."""
    focus = core.get_focus_device()
    devices = {"Camera": core.get_camera_device(), "Focus": focus, "XYStage": core.get_xy_stage_device()}
    for role, label in devices.items():
        if not label:
            do = f"add the line Property,Core,{role},LABEL to the configuration"
            raise ConfigError(f"the core has no {role}", where=str(settings.config or "Micro-Manager"), do=do)
    for channel in settings.channels.values():
        if not core.is_config_defined(settings.channel_group, channel.preset):
            what = f"there is no preset {channel.preset!r} in the group {settings.channel_group!r}"
            raise ConfigError(what, where="source.channels", do="name one of the configuration's presets")
    if settings.z_sequencing and not core.is_stage_sequenceable(focus):
        what = f"the focus stage {focus!r} cannot step by hardware"
        raise ConfigError(what, where="source.z_sequencing", do="switch it on in the adapter, or write false")
    recorded(core, settings)
    return CoreReady(
        width=int(core.get_image_width()),
        height=int(core.get_image_height()),
        bytes_per_pixel=int(core.get_bytes_per_pixel()),
        pixel_um=float(core.get_pixel_size_um()),
        versions=f"{core.get_version_info()}, {core.get_api_version_info()}",
    )


def recorded(core: Core, settings: MicroManagerSettings) -> dict[str, float | str]:
    """The device properties that the settings want kept, as numbers where they are; ConfigError for what is none."""
    found: dict[str, float | str] = {}
    for key, (device, name) in settings.recorded.items():
        try:
            text = str(core.get_property(device, name))
        except Exception as error:  # the core raises RuntimeError, the bridge plain Exception
            do = "name a device and a property as Micro-Manager's property browser shows them"
            raise ConfigError(
                f"{device}-{name} cannot be read: {error}", where=f"source.recorded.{key}", do=do
            ) from error
        try:
            number = float(text)
        except ValueError:
            found[key] = text
        else:
            found[key] = number if math.isfinite(number) else text
    return found


class Stages:
    """The focus and the XY stage: moved inside their limits, waited for, read back.

    `say(what, limit_s)` is told before anything that could hang; `aborted` stops a move.
    """

    def __init__(
        self,
        core: Core,
        settings: MicroManagerSettings,
        say: Callable[[str, float], None],
        aborted: threading.Event,
    ) -> None:
        self._core, self._settings, self._say, self._aborted = core, settings, say, aborted
        self._focus, self._xy = core.get_focus_device(), core.get_xy_stage_device()
        self._set_z, self._set_xy = core.set_position, core.set_xy_position
        self._load_sequence = core.load_stage_sequence
        self.complaint: Exception | None = None
        """Why a stage did not do what the engine last asked of it; the engine itself keeps that to itself."""

    def guard(self) -> None:
        """Put these checks between the engine and the core. The Java backend's engine runs elsewhere, out of reach."""
        for name, replacement in (
            ("set_position", self._engine_z),
            ("set_xy_position", self._engine_xy),
            ("load_stage_sequence", self._engine_sequence),
        ):
            setattr(self._core, name, replacement)

    def read(self) -> tuple[float, float, float]:
        """Where the stages say they stand: x, y, z."""
        core = self._core
        return float(core.get_x_position()), float(core.get_y_position()), float(core.get_position())

    def go_to(self, x_um: float, y_um: float, name: str) -> None:
        """Retract z, move XY, read both back; nothing moves where XY is there already.

        Raises InstrumentError where a stage did not arrive, ConfigError where it may not go, AbortedError.
        """
        self.check_xy(x_um, y_um)
        if self._is_at(x_um, y_um):
            return
        self.move_z(self._settings.retract_z_um, f"retracting z before the way to {name}")
        self._say(f"moving to {name}", self._settings.move_timeout_s)
        self._set_xy(self._xy, x_um, y_um)
        self._wait(self._xy, f"moving to {name}")
        if not self._settles(lambda: self._is_at(x_um, y_um)):
            x, y, _ = self.read()
            what = f"the XY stage was sent to ({x_um:g}, {y_um:g}) um for {name} and says it stands at ({x:g}, {y:g})"
            raise InstrumentError(what, do="check the stage, its limits and source.xy_tolerance_um")

    def move_z(self, z_um: float, doing: str) -> None:
        """Move the focus stage and read it back; errors as `go_to`."""
        self.check_z([z_um])
        self._say(doing, self._settings.move_timeout_s)
        self._set_z(self._focus, z_um)
        self._wait(self._focus, doing)
        if not self._settles(lambda: abs(float(self._core.get_position()) - z_um) <= self._settings.z_tolerance_um):
            z = float(self._core.get_position())
            what = f"the focus stage was sent to {z_um:g} um and says it stands at {z:g} ({doing})"
            raise InstrumentError(what, do="check the stage, its limits and source.z_tolerance_um")

    def check_xy(self, x_um: float, y_um: float) -> None:
        """ConfigError for a place outside the limits."""
        s = self._settings
        _check("x", x_um, s.x_limits_um)
        _check("y", y_um, s.y_limits_um)

    def check_z(self, positions_um: Iterable[float]) -> None:
        """ConfigError for a focus position outside the limits."""
        for z_um in positions_um:
            _check("z", z_um, self._settings.z_limits_um)

    def _is_at(self, x_um: float, y_um: float) -> bool:
        x, y, _ = self.read()
        return max(abs(x - x_um), abs(y - y_um)) <= self._settings.xy_tolerance_um

    def _wait(self, label: str, doing: str) -> None:
        deadline = time.monotonic() + self._settings.move_timeout_s
        while self._core.device_busy(label):
            if self._aborted.is_set():
                self._core.stop(label)
                raise AbortedError
            if time.monotonic() > deadline:
                self._core.stop(label)
                what = f"the stage {label!r} was still moving after {self._settings.move_timeout_s:g} s ({doing})"
                raise InstrumentError(what, do="check the stage, or raise source.move_timeout_s")
            time.sleep(POLL_S)

    def _settles(self, arrived: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + SETTLE_S
        while not arrived():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    # What the engine's calls reach. It tries again or goes on after an error; what it was told stays here.

    def _engine_z(self, *given: Any) -> None:
        with self._overheard():
            self.check_z([float(given[-1])])
            self._set_z(given[0] if len(given) > 1 else self._focus, float(given[-1]))

    def _engine_xy(self, *given: Any) -> None:
        x_um, y_um = float(given[-2]), float(given[-1])
        with self._overheard():
            if not self._is_at(x_um, y_um):
                what = f"the engine wanted to move the XY stage to ({x_um:g}, {y_um:g}) um within a stack"
                raise InstrumentError(what, do="report this: only the way to a well may move it")

    def _engine_sequence(self, stage: str, positions_um: Sequence[float]) -> None:
        with self._overheard():
            self.check_z(float(z_um) for z_um in positions_um)
            self._load_sequence(stage, positions_um)

    @contextlib.contextmanager
    def _overheard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.complaint = error
            raise
        self.complaint = None


MOST_TOLD = 20  # places


def check_reach(settings: MicroManagerSettings, keys: Iterable[StackKey]) -> None:
    """ConfigError with the wells and fields whose centres lie outside the stage's limits."""
    beyond: dict[str, ConfigError] = {}
    for key in keys:
        x_um, y_um = settings.xy_um(key.well, key.stack)
        try:
            _check("x", x_um, settings.x_limits_um)
            _check("y", y_um, settings.y_limits_um)
        except ConfigError as error:
            beyond[f"well {key.well}" + (f", field {key.stack}" if key.stack else "")] = error
    if beyond:
        (where, first), *others = beyond.items()
        named = "; ".join(place for place, _ in others[:MOST_TOLD])
        more = f" and {len(others) - MOST_TOLD} more" if len(others) > MOST_TOLD else ""
        also = f" (and so do {named}{more})" if others else ""
        raise ConfigError(first.what + also, where=where, do=first.do)


def _check(axis: str, value_um: float, limits_um: tuple[float, float]) -> None:
    if not limits_um[0] <= value_um <= limits_um[1]:
        what = f"{axis} = {value_um:g} um lies outside the limits [{limits_um[0]:g}, {limits_um[1]:g}]"
        raise ConfigError(what, do=f"correct the position, or source.{axis}_limits_um if the stage may go there")
