"""`spheroidd emulate --as leica-cam`: a fake LAS X that listens until Ctrl-C."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spheroidd.daemon.emulation.emulated_plate import PlateOptions
from spheroidd.daemon.emulation.known_truth import tell_of_truth
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.sim_emulator.leica.faults import LeicaFault
from spheroidd.sim_emulator.leica.server import LeicaServer, LeicaServerSettings
from spheroidd.sim_emulator.source import EmulatorSource

LOOK_S = 0.2
INSTRUMENTS = ("leica-cam", "push")
_PACKETS = ("whole", "split", "burst")


def check_instrument(kind: str) -> None:
    """Raise ConfigError where there is nothing of that kind to be."""
    if kind not in INSTRUMENTS:
        raise ConfigError(f"--as is {kind!r}", do=f"write {' or '.join(INSTRUMENTS)}")


def serve_leica(
    out: Path,
    options: PlateOptions,
    *,
    host: str,
    port: int,
    pace: str,
    packets: str,
    faults: Sequence[str],
    console: Console,
) -> int:
    """Listen for CAM clients and write what they scan into `out`; 0 after Ctrl-C. ConfigError names a wrong option."""
    for option, given, choices in (("--pace", pace, ("real", "fast")), ("--packets", packets, _PACKETS)):
        if given not in choices:
            raise ConfigError(f"{option} is {given!r}", do=f"write one of {', '.join(choices)}")
    plate = options.source()
    told = tuple(LeicaFault.parse(text) for text in faults)
    settings = LeicaServerSettings.model_validate(
        {"host": host, "port": port, "pace": pace, "packets": packets, "faults": told}
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        do = "choose a folder that you may write to"
        raise StorageError(f"cannot be made: {error.strerror}", where=str(out), do=do) from error
    server = LeicaServer(settings, plate, out.absolute())
    server.start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background
    try:
        _tell(server, plate, out, console)
        tell_of_truth(options, plate, console)
        while server.failure is None:
            time.sleep(LOOK_S)
        raise server.failure
    except KeyboardInterrupt:
        console.print("Ended.")
        return 0
    finally:
        server.close()
        plate.close()


def _tell(server: LeicaServer, plate: EmulatorSource, out: Path, console: Console) -> None:
    listens = f"A fake LAS X listens at {server.address[0]}:{server.address[1]} and writes to {out}."
    p = plate.preset
    stack = f"n_z = {p.n_z}, height = {p.height}, width = {p.width}, pixel_um = {p.pixel_um}, z_step_um = {p.z_step_um}"
    console.print(f"{listens}\n{len(plate.plate_map.imaged())} wells; for [source]: {stack}. Ctrl-C ends it.",
                  markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    console.file.flush()
