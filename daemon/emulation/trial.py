"""A trial of a configuration: everything as it says but the light, which comes from a recording.

What the trial finds lies beside the configuration's own data, never among them. A microscope under Micro-Manager is
replaced by the demo adapters of its core, with the settings' own camera size, channel group and presets; an instrument
that another program drives is played by `spheroidd emulate`, which the error names.
"""

from pathlib import Path
from typing import Any

from spheroidd.acquisition.sources.micromanager.settings import MicroManagerSettings
from spheroidd.daemon.config.model import Config
from spheroidd.daemon.emulation.emulated_camera import EmulatedCamera, MicroManagerRunSettings
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.sim_emulator.source import EmulatorSettings

RIG_NAME = "trial-microscope.cfg"
SUFFIX = "-trial"


def trial_of(config: Config, recording: Path, data: Path | None = None) -> tuple[Config, str]:
    """The configuration with a recording in place of the light, and what is not as it says, in words.

    `data` is where the trial is kept; without it beside the configuration's own directory. ConfigError where this
    process is not the instrument.
    """
    own = config.data.dir
    kept = (data or own.with_name(f"{own.name}{SUFFIX}")).absolute()
    if kept.resolve() == own.resolve():
        do = "give --data another directory: a trial's rows are not the plate's"
        raise ConfigError("a trial cannot be kept among the plate's own data", where=str(own), do=do)
    if isinstance(config.source, EmulatorSettings):
        source: Any = config.source.model_copy(update={"recording": recording})
        told = "the phantom is replaced"
    elif isinstance(config.source, MicroManagerRunSettings):
        source, told = _microscope(config.source, recording, kept)
    else:
        raise ConfigError(
            f"a {config.source_kind} source takes what another program gives", where="--recording",
            do=f"play that program with `{_player(config, recording)}`, and run the configuration as it is",
        )  # fmt: skip
    changed = {"source": source, "data": config.data.model_copy(update={"dir": kept})}
    return config.model_copy(update=changed), f"A trial with {recording}: {told}. Its data: {kept}"


def _microscope(settings: MicroManagerRunSettings, recording: Path, kept: Path) -> tuple[MicroManagerRunSettings, str]:
    if settings.emulated_camera is not None:
        camera = settings.emulated_camera.model_copy(update={"recording": recording})
        return settings.model_copy(update={"emulated_camera": camera}), "the emulated camera shows it"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        (kept / RIG_NAME).write_text(demo_rig(settings), encoding="utf-8")
    except OSError as error:
        do = "choose a directory that you may write to"
        raise StorageError(f"cannot be written: {error.strerror}", where=str(kept / RIG_NAME), do=do) from error
    rig: dict[str, Any] = {"backend": "python", "micromanager_dir": "test-adapters", "config": kept / RIG_NAME}
    told = "the microscope's devices are Micro-Manager's demo adapters"
    if settings.recorded:
        rig["recorded"] = {}
        told += f", and its properties {', '.join(settings.recorded)} are not kept"
    return settings.model_copy(update={**rig, "emulated_camera": EmulatedCamera(recording=recording)}), told


def demo_rig(settings: MicroManagerSettings) -> str:
    """A configuration of Micro-Manager's demo adapters with the settings' camera, channel group and presets."""
    lit = [channel.preset for channel in settings.channels.values()]
    bits = 16 if settings.dtype == "uint16" else 8
    devices = {"Camera": "DCam", "Laser": "DWheel", "Z": "DStage", "XY": "DXYStage", "Shutter": "DShutter"}
    startup = [
        f"Camera,PixelType,{bits}bit",
        f"Camera,BitDepth,{bits}",
        f"Camera,OnCameraCCDXSize,{settings.width}",
        f"Camera,OnCameraCCDYSize,{settings.height}",
        "Laser,Label,dark",
        *(["Z,UseSequences,Yes"] if settings.z_sequencing else []),
    ]
    lines = [
        "Property,Core,Initialize,0",
        "Device,DHub,DemoCamera,DHub",
        *(f"Device,{label},DemoCamera,{name}" for label, name in devices.items()),
        *(f"Parent,{label},DHub" for label in devices),
        "Property,Core,Initialize,1",
        "Property,Core,Camera,Camera",
        "Property,Core,Shutter,Shutter",
        "Property,Core,Focus,Z",
        "Property,Core,XYStage,XY",
        "Property,Core,AutoShutter,1",
        "Property,Core,TimeoutMs,10000",
        "Label,Laser,0,dark",
        *(f"Label,Laser,{number},{preset}" for number, preset in enumerate(lit, 1)),
        *(f"ConfigGroup,{settings.channel_group},{preset},Laser,Label,{preset}" for preset in lit),
        *(f"ConfigGroup,System,Startup,{line}" for line in startup),
        "ConfigPixelSize,trial,Laser,Name,DWheel",
        f"PixelSize_um,trial,{settings.pixel_um}",
    ]
    return "\n".join(lines) + "\n"


def _player(config: Config, recording: Path) -> str:
    """The command that plays the instrument of a configuration."""
    source, given = config.source, f"--recording {recording}"
    plate_map = f" --map {config.plate.map}" if config.plate.map else ""
    match config.source_kind:
        case "leica-cam":
            port, folder = getattr(source, "port", 8895), getattr(source, "folder", "FOLDER")
            return f"spheroidd emulate {folder} --as leica-cam --port {port}{plate_map} {given}"
        case "push":
            return f"spheroidd emulate {config.data.dir} --as push{plate_map} {given}"
        case "matrix-screener" | "watch":
            return f"spheroidd emulate FOLDER --layout matrix-screener --pace real{plate_map} {given}"
        case _:
            return f"spheroidd emulate FOLDER --pace real {given}"
