"""`spheroidd emulate DATA --as push`: an instrument's program that pushes an emulated or recorded plate into a daemon.

It speaks to the daemon as any program does, over gRPC; a connection that is lost is made again, for what is missing.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from spheroidd.daemon.emulation.emulated_plate import PlateOptions
from spheroidd.daemon.service.client import DaemonClient
from spheroidd.daemon.service.push_client import push_stack
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, InstrumentError, RefusedError, StackError
from spheroidd.protocols.stack import StackPlan
from spheroidd.sim_emulator.faults import Fault
from spheroidd.sim_emulator.source import EmulatorSource

START_S = 60.0  # a daemon that was started just before loads its network first
LOOK_S = 0.2
ATTEMPTS = 3  # connections for one stack


def push_plate(data: Path, options: PlateOptions, *, pace: str, faults: Sequence[str], console: Console) -> int:
    """Push every imaged well into the plate that the daemon on `data` runs; 0 where every slice became durable, else 1.

    ConfigError names a wrong option; RefusedError where no daemon runs a plate there within START_S.
    """
    if pace not in ("real", "fast"):
        raise ConfigError(f"--pace is {pace!r}", do="write one of real, fast")
    told = tuple(map(Fault.parse, faults))
    plate = _await_plate(data)
    with (
        DaemonClient.of(data) as daemon,
        closing(replace(options, name=plate).source(pace=pace, faults=told)) as source,
    ):
        plans = list(source.plans())
        whole = [plan for plan in plans if _push(daemon, source, plan, console)]
        try:
            daemon.call(daemon.stub.FinishPush, wire.FinishPushRequest(plate=plate, lease=daemon.lease))
        except RefusedError:  # a plate that is whole may have ended by itself
            if len(whole) < len(plans):
                raise
    console.print(f"{len(whole)} of {len(plans)} wells pushed whole.", highlight=False)
    return 0 if len(whole) == len(plans) else 1


def _await_plate(data: Path) -> str:
    """The plate that the daemon of a data directory runs, waited for."""
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            with DaemonClient.of(data) as daemon:
                status = daemon.call(daemon.stub.GetStatus, wire.GetStatusRequest())
            if status.state == "running" and status.plate:
                return status.plate
            do = "start a plate whose configuration says [source] kind = 'push'"
            raise RefusedError(f"the daemon is {status.state} and runs no plate", where=str(data), do=do)
        except RefusedError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(LOOK_S)


def _push(daemon: DaemonClient, source: EmulatorSource, plan: StackPlan, console: Console) -> bool:
    """One stack, in as many connections as it takes; whether every slice of it is durable."""
    durable = 0
    for attempt in range(ATTEMPTS):
        durable = 0
        try:
            for _ in push_stack(daemon, plan, lambda wanted: source.frames(plan, wanted)):
                durable += 1
            break
        except (InstrumentError, StackError) as error:
            again = "the connection is made again" if attempt + 1 < ATTEMPTS else "given up"
            console.print(f"{plan.key.well}: {error}; {again}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{plan.key.well}: {durable} of {plan.n_slices} slices are durable", markup=False, highlight=False)
    console.file.flush()
    return durable == plan.n_slices
