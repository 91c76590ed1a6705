"""The status of a daemon as it tells it itself, over the service: here or on another computer."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from spheroidd.daemon.catalog.rows import Fault, RunState, bare_result
from spheroidd.daemon.monitoring.status import STOPPED, Status
from spheroidd.daemon.service.client import CALL_S, DaemonClient
from spheroidd.daemon.service.errors import from_call
from spheroidd.daemon.system.address_files import ServiceAddress
from spheroidd.daemon.verification.scrub_state import ScrubProgress
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.results import WellResult, WellStatus
from spheroidd.protocols.trust import Trust


def connect(address: str, authority: Path | None) -> DaemonClient:
    """A daemon at host:port; with `authority` (PEM) over TLS. The token is that of SPHEROIDD_TOKEN."""
    return DaemonClient(ServiceAddress(address, 0, str(authority) if authority else None))


def ask(client: DaemonClient) -> Status:
    """The status now; raises what the daemon refused it with."""
    return from_message(client.call(client.stub.GetStatus, wire.GetStatusRequest(), CALL_S), client.address.address)


def watch(client: DaemonClient) -> Iterator[Status]:
    """The status whenever it changes, at most once a second, until the daemon ends."""
    try:
        for message in client.stub.WatchStatus(wire.WatchStatusRequest(period_s=1.0), metadata=client.metadata):
            yield from_message(message, client.address.address)
    except grpc.RpcError as error:
        raise from_call(error, client.address.address) from None


def from_message(message: wire.Status, address: str) -> Status:
    """A status as the local one is; the history of excluded wells is not in it."""
    told: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    run: dict[str, Any] = {"started_s": 0.0, "heartbeat_s": message.observed_s, "pid": 0, "version": ""}
    run |= {name: told[name] for name in RunState.__slots__ if name in told}
    stack = (message.stack_slices_done, message.stack_slices_total) if "stack_slices_done" in told else None
    return Status(
        data_dir=message.data_dir,
        running=message.verdict != STOPPED,
        silent_s=max(0.0, time.time() - run["heartbeat_s"]),
        run=RunState(**run),
        slice=stack,
        slices=(message.slices_done, message.slices_total),
        wells=dict(message.wells),
        failed=tuple(_row(each, reason=each.reason) for each in message.failed),
        doubtful=tuple(
            _row(each, trust=Trust(each.trust), trust_flags=tuple(each.trust_flags)) for each in message.doubtful
        ),
        left_out=tuple(_row(each, reason=each.reason) for each in message.left_out),
        work_left=any(message.wells[word] for word in ("queued", "acquiring", "stopped", "stored", "scoring")),
        disk_free_gb=message.disk_free_gb,
        faults=tuple(
            Fault(each.code, each.key, each.kind, each.what, each.where, each.do, each.raised_s, None)
            for each in message.faults
        ),
        service=address,
        asked="daemon",
        scrub=_scrub(message.scrub) if message.HasField("scrub") else None,
    )


def _scrub(told: wire.Scrub) -> ScrubProgress:
    return ScrubProgress(
        told.finished_s if told.HasField("finished_s") else None,
        told.share_done if told.HasField("share_done") else None,
        told.damaged,
    )


def _row(told: wire.WellFault | wire.DoubtfulWell, **more: Any) -> WellResult:
    """What is told of one well; the figures are not."""
    return bare_result(told.plate, told.well, told.stack, WellStatus(told.status), **more)
