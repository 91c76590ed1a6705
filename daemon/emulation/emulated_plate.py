"""The `emulator` source as a run composes it: over its phantom, or over the recording that its settings name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from spheroidd.daemon.config.model import build_config
from spheroidd.daemon.config.source_registry import build_source
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.ports import Clock
from spheroidd.sim_emulator.faults import Fault
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource


class EmulatorRun(EmulatorSource):
    """Only the composing layer may know both the emulator and the readers of files."""

    def __init__(self, settings: EmulatorSettings, plate_map: PlateMap | None, plate_name: str, clock: Clock) -> None:
        recording = None
        if settings.recording is not None:
            from spheroidd.daemon.emulation.open_recording import open_recording  # the readers of all kinds of files

            recording = open_recording(settings.recording)
        super().__init__(settings, plate_map, plate_name, clock, recording=recording)


@dataclass(frozen=True, slots=True)
class PlateOptions:
    """What `spheroidd emulate` is told of the plate, whichever instrument it plays."""

    preset: str = "demo"
    seed: int = 0
    name: str = "emulated"
    plate_map: Path | None = None
    recording: Path | None = None
    exposure: float = 1.0
    slice_period_s: float | None = None

    def source(
        self,
        *,
        pace: str = "fast",
        faults: tuple[Fault, ...] = (),
        only: Callable[[PlateMap], PlateMap] | None = None,
    ) -> EmulatorSource:
        """The plate, or what `only` leaves of its map.

        ConfigError names a wrong option, or a stack of the recording that cannot be read.
        """
        known = read_plate_map(self.plate_map, self.name) if self.plate_map is not None else None
        given = {
            "preset": self.preset,
            "seed": self.seed,
            "pace": pace,
            "exposure": self.exposure,
            "faults": [fault.model_dump(exclude_none=True) for fault in faults],
            "recording": str(self.recording) if self.recording is not None else None,
            "slice_period_s": self.slice_period_s,
        }
        source = {key: value for key, value in given.items() if value is not None}
        tables = {"plate": {"name": self.name}, "source": {"kind": "emulator", **source}}
        config = build_config(tables, base=Path.cwd(), where="emulate")
        plate = cast(EmulatorSource, build_source(config.source, known, config.plate_name))
        if self.exposure != 1 and self.recording is None:
            raise ConfigError("--exposure without --recording", do="give both: it is a factor of recorded light")
        if only is not None:
            plate.close()
            plate = cast(EmulatorSource, build_source(config.source, only(plate.plate_map), config.plate_name))
        plate.check()
        return plate
