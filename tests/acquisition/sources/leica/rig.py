"""A fake LAS X over a tiny emulated plate, the source that drives it, and servers that speak a script."""

import contextlib
import socket
import threading

import numpy as np

from spheroidd.acquisition.sources.leica.settings import LeicaCamSettings
from spheroidd.acquisition.sources.leica.source import LeicaCamSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.sim_emulator.leica.faults import LeicaFault
from spheroidd.sim_emulator.leica.server import LeicaServer, LeicaServerSettings
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock

N_Z = 3
STACK = {"n_z": N_Z, "height": 16, "width": 16, "pixel_um": 0.5, "z_step_um": 1.0}
PLATE = EmulatorSource(
    EmulatorSettings(preset="unit", compounds=0, negative_controls=2, positive_controls=1, pace="fast", **STACK),
    None,
    "plate",
    FakeClock(),
)
TRUTH = {
    (str(plan.key.well), *frame.index): frame.pixels
    for plan in PLATE.plans()
    for frame in PLATE.frames(plan, set(plan.indices()))
}


@contextlib.contextmanager
def fake_las_x(out, *faults, **settings):
    told = LeicaServerSettings(**{"port": 0, "pace": "fast", **settings}, faults=tuple(map(LeicaFault.parse, faults)))
    server = LeicaServer(told, PLATE, out)
    server.start()
    with contextlib.closing(server):
        yield server


def leica_settings(port, out, **settings):
    fast = {"settle_s": 0.3, "end_after_s": 5.0, "poll_s": 0.05, "timeout_s": 5.0, "template": "spheroids"}
    return LeicaCamSettings(folder=out, port=port, **{**STACK, **fast, **settings})


def leica_source(server, out, **settings):
    return LeicaCamSource(leica_settings(server.address[1], out, **settings), PLATE.plate_map, "plate", SystemClock())


def assert_true_to_the_plate(got, *wells):
    """Every slice of these wells, to the bit."""
    assert got.keys() == {key for key in TRUTH if key[0] in wells}
    for key, pixels in got.items():
        np.testing.assert_array_equal(pixels, TRUTH[key])


@contextlib.contextmanager
def brief_las_x(n_commands):
    """A server that greets, echoes so many commands, hangs up and is gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    gone = threading.Event()

    def serve():
        client, _ = listener.accept()
        with client:
            client.sendall(b"Welcome client : 1\r\n")
            for _ in range(n_commands):
                client.sendall(client.recv(4096) + b"\r\n")
        listener.close()
        gone.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], gone
    thread.join(5)


@contextlib.contextmanager
def scripted_las_x(*answers, welcome=b"Welcome client : 1\r\n"):
    """A server that greets, then answers each command with the next of `answers`: bytes, or None to hang up."""
    listener = socket.create_server(("127.0.0.1", 0))
    received = []

    def serve():
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.sendall(welcome)
                for answer in answers:
                    data = client.recv(4096)
                    if not data or answer is None:
                        return
                    received.append(data)
                    client.sendall(answer)
                while client.recv(4096):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], received
    finally:
        listener.close()
        thread.join(5)
