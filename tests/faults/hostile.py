"""Files and programs that mean harm: one well's file among whole ones, one call among whole ones."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import tifffile

from spheroidd.daemon.service.client import DaemonClient
from spheroidd.daemon.service.messages import push_plan
from spheroidd.daemon.service.push_client import push_stack
from spheroidd.daemon.service.push_message import slice_message
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import RefusedError, SpheroiddError
from spheroidd.protocols.plate import PlateWell
from spheroidd.protocols.plate_map.file import write_plate_map
from spheroidd.protocols.stack import StackPlan
from spheroidd.sim_emulator.folder_writer import write_plate
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from tests.faults.campaign import HUNG, Trial, Verdict, told
from tests.faults.plate_runs import ledger
from tests.places import ROOT

VICTIM = "B01"  # a sample: no other well's figures depend on it
CALL_S = 20.0
DIED = 9


def plate() -> EmulatorSource:
    """The plate of `write_config`, as a source of files and of slices."""
    settings = EmulatorSettings(
        preset="unit", pace="fast", compounds=1, doses=2, negative_controls=2, positive_controls=1
    )
    return EmulatorSource(settings, None, "P1", SystemClock())


def _config(folder: Path, *source: str) -> Path:
    data, plate_map, path = folder / "data", folder / "map.csv", folder / "plate.toml"
    with closing(plate()) as emulated:
        write_plate_map(plate_map, [PlateWell(entry.well, entry.treatment) for entry in emulated.plate_map])
    lines = ["[data]", f"dir = {str(data)!r}", "[plate]", "name = 'P1'", f"map = {str(plate_map)!r}"]
    lines += ["[store]", "min_free_gb = 0.0", "[service]", "http = false", "address = '127.0.0.1:0'"]
    lines += ["[inference]", "model = 'threshold'", "normalisation = 'plate'", "threads = 1", "[source]", *source]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# -- files ------------------------------------------------------------------------------------------------------------


def _ifd(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


_GREY = ((256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
_GREY += ((277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 128))


def _tiff(*ifds: bytes) -> bytes:
    return struct.pack("<2sHI", b"II", 42, 136) + bytes(128) + b"".join(ifds)


def _bombed(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((2, 9000, 9000), np.uint16), compression="zlib", photometric="minisblack")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _nan(path: Path) -> None:
    planes = np.full((2, 24, 96, 96), np.nan, np.float32)
    tifffile.imwrite(path, planes, ome=True, metadata={"axes": "CZYX"}, photometric="minisblack")


def _xml(path: Path, text: str) -> None:
    tifffile.imwrite(path, np.ones((24, 96, 96), np.uint16), description=text, metadata=None, photometric="minisblack")


def _cut(path: Path) -> None:
    path.write_bytes((path.parent / "A01.ome.tif").read_bytes()[:200_000])


def _noise(path: Path) -> None:
    content = bytearray((path.parent / "A01.ome.tif").read_bytes())
    content[:4000] = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
    path.write_bytes(content)


def _socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as one:
        one.bind(os.path.relpath(path))  # a socket's path may not be long


def _deep_zarr(path: Path) -> None:
    folder = path.with_name(f"{VICTIM}.ome.zarr")
    folder.mkdir()
    (folder / "zarr.json").write_text("[" * 60_000)


def _zarr_of_a_petabyte(path: Path) -> None:
    folder = path.with_name(f"{VICTIM}.ome.zarr")
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "name": "x"}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", "multiscales": [image]}}}
    array = {"zarr_format": 3, "node_type": "array", "shape": [10**9, 10**6, 10**6], "data_type": "uint16"}
    array |= {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 1000, 1000]}}, "fill_value": 0}
    array |= {"chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "bytes"}], "attributes": {}}
    (folder / "0").mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(group))
    (folder / "0" / "zarr.json").write_text(json.dumps(array))


_OME = '<OME><Image><Pixels DimensionOrder="XYZCT" SizeX="96" SizeY="96" {}</Pixels></Image></OME>'
_LAUGHS = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol">{}]><OME><Image Name="&j;"/></OME>'.format(
    "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
)
FILES: dict[str, Callable[[Path], object]] = {
    "TIFF whose planes loop": lambda p: p.write_bytes(_tiff(_ifd(*_GREY, following=136))),
    "TIFF that claims 2^64 pixels": lambda p: p.write_bytes(
        _tiff(_ifd((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), *_GREY[2:]))
    ),
    "TIFF of 65535 tags": lambda p: p.write_bytes(_tiff(struct.pack("<H", 65535))),
    "TIFF that unpacks to 324 MB": _bombed,
    "TIFF cut short": _cut,
    "TIFF with noise in its head": _noise,
    "TIFF of NaN": _nan,
    "OME-XML of 10^12 planes": lambda p: _xml(p, _OME.format('SizeZ="1000000" SizeC="1000" SizeT="1000"><TiffData/>')),
    "OME-XML with a billion laughs": lambda p: _xml(p, _LAUGHS),
    "OME-XML 100,000 deep": lambda p: _xml(p, "<OME>" + "<a>" * 100_000 + "</a>" * 100_000 + "</OME>"),
    "an empty file": lambda p: p.write_bytes(b""),
    "a sparse file of 1 TB": _sparse,
    "a pipe": lambda p: os.mkfifo(p),
    "a socket": _socket,
    "a link to /dev/zero": lambda p: p.symlink_to("/dev/zero"),
    "a link to itself": lambda p: p.symlink_to(p.name),
    "a folder of that name": lambda p: p.mkdir(),
    "Zarr metadata 60,000 deep": _deep_zarr,
    "Zarr array of 2 exabytes": _zarr_of_a_petabyte,
}


def hostile_file(trial: Trial, kind: str) -> Verdict:
    """A watched folder in which one well's file is hostile: every other well has its row, and that one has a reason."""
    folder = trial.folder / "in"
    with closing(plate()) as emulated:
        write_plate(emulated, folder, "ome-tiff")
    victim = folder / f"{VICTIM}.ome.tif"
    victim.unlink()
    FILES[kind](victim)
    said = [f"folder = {str(folder)!r}", "pattern = '{well}.ome.*'", "n_z = 24", "pixel_um = 0.5", "z_step_um = 1.0"]
    more = ["settle_s = 2", "end_after_s = 6", "poll_s = 0.3", "read_budget_s = 10"]
    config = _config(trial.folder, "kind = 'watch'", *said, *more)
    code = trial.end(trial.start(config))
    verdict = trial.verdict(config, 1, HUNG if code is None else f"exit code {code}; {told(config)}", besides={VICTIM})
    with_a_number = any(row[0] is not None for row in ledger(config).results.get(VICTIM, ()))
    silent = code == 0 or told(config) == "nothing"
    return Verdict(1, verdict.lost, verdict.wrong + with_a_number + silent, verdict.sees)


# -- pushes -----------------------------------------------------------------------------------------------------------


def _slice(**changes: object) -> bytes:
    """One slice of the victim, with something wrong in it."""
    said = {"channel": "488", "z": 0, "pixels": bytes(96 * 96 * 2), "acquired_s": 1.0, **changes}
    return wire.PushSlicesRequest(slice=wire.PushedSlice(**said)).SerializeToString()  # type: ignore[arg-type]


def _open(plan: StackPlan, **changes: object) -> bytes:
    request = push_plan(plan, "")
    for name, value in changes.items():
        request.ClearField(name)  # type: ignore[arg-type]
        request.MergeFrom(wire.PushPlan(**{name: value}))  # type: ignore[arg-type]
    return wire.PushSlicesRequest(open=request).SerializeToString()


PUSHES: dict[str, Callable[[StackPlan], Iterator[bytes]]] = {
    "time NaN": lambda plan: iter([_open(plan), _slice(acquired_s=float("nan"))]),
    "time infinite": lambda plan: iter([_open(plan), _slice(acquired_s=float("inf"))]),
    "pixels cut short": lambda plan: iter([_open(plan), _slice(pixels=b"\0" * 5)]),
    "100 MB of pixels": lambda plan: iter([_open(plan), _slice(pixels=bytes(100 << 20))]),
    "wrong crc32c": lambda plan: iter([_open(plan), _slice(crc32c=7)]),
    "z negative": lambda plan: iter([_open(plan), _slice(z=-1)]),
    "z 2^31 - 1": lambda plan: iter([_open(plan), _slice(z=2**31 - 1)]),
    "channel unknown": lambda plan: iter([_open(plan), _slice(channel="../../etc")]),
    "metadata of 1 MB": lambda plan: iter([_open(plan), _slice(metadata={"x": "y" * (1 << 20)})]),
    "metadata with NUL": lambda plan: iter([_open(plan), _slice(metadata={"\0": "\0"}, crc32c=1)]),
    "no plan first": lambda plan: iter([_slice()]),
    "plan twice": lambda plan: iter([_open(plan), _open(plan)]),
    "nothing at all": lambda plan: iter([]),
    "bytes that are no message": lambda plan: iter([_open(plan), zlib.compress(bytes(9999)) * 50]),
    "plan of 2^31 - 1 slices": lambda plan: iter([_open(plan, n_z=2**31 - 1)]),
    "plan of 2^31 - 1 pixels a side": lambda plan: iter([_open(plan, height=2**31 - 1, width=2**31 - 1)]),
    "plan of no slices": lambda plan: iter([_open(plan, n_z=0)]),
    "voxels of NaN": lambda plan: iter([_open(plan, pixel_um=float("nan"))]),
    "voxels infinite": lambda plan: iter([_open(plan, z_step_um=float("inf"))]),
    "dtype object": lambda plan: iter([_open(plan, dtype="object")]),
    "another plate": lambda plan: iter([_open(plan, plate="../P2")]),
    "a well that is none": lambda plan: iter([_open(plan, well="../../A01")]),
    "stack 2^31 - 1": lambda plan: iter([_open(plan, stack=2**31 - 1)]),
    "1000 channels": lambda plan: iter([_open(plan, channels=[f"c{n}" for n in range(1000)])]),
}


def hostile_push(trial: Trial, kind: str) -> Verdict:
    """A program pushes what is none; then the instrument pushes the whole plate. All is as on an undisturbed plate."""
    config = _config(trial.folder, "kind = 'push'", "patience_s = 1.0")
    process = trial.start(config)
    data = config.parent / "data"
    _await_run(trial, process, data)
    try:
        refused = _push_hostile(data, PUSHES[kind])
        whole = _push_all(data)
    except SpheroiddError as error:
        return Verdict(1, 0, 1, f"THE INSTRUMENT IS REFUSED: {error}")
    code = trial.end(process)
    verdict = trial.verdict(config, 1, HUNG if code is None else f"{refused}; exit code {code}; {told(config)}")
    return Verdict(1, verdict.lost, verdict.wrong + int(not whole) + int(code != 0), verdict.sees)


def killed_program(trial: Trial) -> Verdict:
    """A program opens a stack, sends some of it, and is killed; another one goes on."""
    config = _config(trial.folder, "kind = 'push'", "patience_s = 1.0")
    process = trial.start(config)
    data = config.parent / "data"
    _await_run(trial, process, data)
    script = "import sys; from tests.faults.hostile import die_half_way; die_half_way(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", script, str(data), str(trial.chance.randint(1, 40))]
    died = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT).returncode
    trial.look(config)
    try:
        whole = _push_all(data)
    except SpheroiddError as error:
        return Verdict(1, 0, 1, f"THE INSTRUMENT IS REFUSED: {error}")
    code = trial.end(process)
    sees = HUNG if code is None else f"exit code {code}; {told(config)}"
    verdict = trial.verdict(config, int(died == DIED), sees)
    return Verdict(verdict.happened, verdict.lost, verdict.wrong + int(not whole) + int(code != 0), verdict.sees)


def _await_run(trial: Trial, process: subprocess.Popen[str], data: Path) -> None:
    """Until the plate takes pushes, or its daemon has ended."""

    def running() -> bool:
        with suppress(SpheroiddError), DaemonClient.of(data) as client:
            return bool(client.call(client.stub.GetStatus, wire.GetStatusRequest()).state == "running")
        return process.poll() is not None

    trial.until(running)


def _push_hostile(data: Path, messages: Callable[[StackPlan], Iterator[bytes]]) -> str:
    """What a hostile call is answered with."""
    over = threading.Event()
    with DaemonClient.of(data) as daemon, closing(plate()) as emulated:
        victim = next(plan for plan in emulated.plans() if str(plan.key.well) == VICTIM)
        try:
            for _ in daemon.push(_and_hold(messages(victim), over), CALL_S):
                pass
        except grpc.RpcError as error:
            return str(error.code().name)  # type: ignore[attr-defined]
        finally:
            over.set()
    return "taken"


def _and_hold(messages: Iterator[bytes], over: threading.Event) -> Iterator[bytes]:
    """The messages; then the program holds the line a little, as one that hangs does."""
    yield from messages
    over.wait(2.0)


def _push_all(data: Path) -> bool:
    """The whole plate, as an instrument pushes it; whether every slice got in."""
    n = n_wanted = 0
    with DaemonClient.of(data) as daemon, closing(plate()) as emulated:
        for plan in emulated.plans():
            n_wanted += plan.n_slices
            n += sum(1 for _ in push_stack(daemon, plan, partial(emulated.frames, plan), 60.0))
        with suppress(RefusedError):  # the plate is whole, and may have ended by itself
            daemon.call(daemon.stub.FinishPush, wire.FinishPushRequest(plate="P1"))
    return n == n_wanted


def die_half_way(data: str, after: int) -> None:
    """An instrument's program that dies in the middle of its first stack."""
    with DaemonClient.of(Path(data)) as daemon, closing(plate()) as emulated:
        plan = next(iter(emulated.plans()))

        def messages() -> Iterator[bytes]:
            yield wire.PushSlicesRequest(open=push_plan(plan, "")).SerializeToString()
            for n, frame in enumerate(emulated.frames(plan, frozenset(plan.indices()))):
                if n == after:
                    threading.Event().wait(0.5)
                    os._exit(DIED)
                yield slice_message(frame)

        for _ in daemon.push(messages(), 60.0):
            pass
