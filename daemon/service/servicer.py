"""The methods of the service. They submit orders and read snapshots; no pipeline object is within their reach."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from spheroidd.acquisition.sources.push import PushInlet
from spheroidd.daemon.catalog.plate_queue import WAITING, queue_run, queued_plates
from spheroidd.daemon.catalog.rows import geometry_differences
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.submitted_plates import SubmittedPlates
from spheroidd.daemon.pipeline import orders
from spheroidd.daemon.pipeline.live_view import LiveView
from spheroidd.daemon.scoring.exclusions import Decision, exclude_well, include_well
from spheroidd.daemon.service.authorization import AuthInterceptor
from spheroidd.daemon.service.control_lease import ControlLease, Lease
from spheroidd.daemon.service.messages import (
    changes_after,
    known_models,
    last_change,
    progress_message,
    queue_message,
    result_message,
    stack_key,
)
from spheroidd.daemon.service.push_message import PushMessage
from spheroidd.daemon.service.push_stream import PushDoor, push
from spheroidd.daemon.service.snapshots import FocusSweep, snap_order, snapshot_message
from spheroidd.daemon.service.status_board import StatusBoard
from spheroidd.daemon.service.tokens import Caller
from spheroidd.daemon.service.viewers import Viewers
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols import spheroidd_pb2_grpc as wire_grpc
from spheroidd.protocols.errors import BusyError, ConfigError, MissingError
from spheroidd.protocols.plate import Treatment, WellRole, check_plate_name
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId

ORDER_S = 20.0  # how long an order without a deadline waits for main
VIEW_S = 120.0  # how long an instrument may take to load, and a hundred images through z
MARGIN_S = 0.1  # the answer has to be on its way before the caller's own clock runs out
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 0.1, 3600.0
CHANGES_S = 0.5  # how often the history of results is looked at for a viewer
CHANGES_AT_ONCE = 200
TOKEN_S = 1.0  # how often an open stream's token is looked at


class Servicer(wire_grpc.SpheroiddServicer):
    """One object for gRPC and for whatever speaks HTTP in its stead. Errors leave it as SpheroiddError."""

    def __init__(
        self,
        data_dir: Path,
        *,
        inbox: orders.Inbox,
        board: StatusBoard,
        gate: AuthInterceptor,
        lease: ControlLease,
        viewers: Viewers,
        door: PushDoor,
        live: LiveView,
    ) -> None:
        self._data_dir, self._plans = data_dir, SubmittedPlates(data_dir)
        self._inbox, self._board, self._gate, self._lease = inbox, board, gate, lease
        self._viewers, self._door, self._live = viewers, door, live

    # -- looking

    def GetStatus(self, request: wire.GetStatusRequest, context: grpc.ServicerContext) -> wire.Status:  # noqa: N802
        """See the contract."""
        return self._newest()

    def WatchStatus(  # noqa: N802
        self, request: wire.WatchStatusRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.Status]:
        """See the contract. Only the newest is ever held for a viewer."""
        period_s = _period_s(request)
        after = request.after_sequence if request.instance == self._board.instance else 0
        with self._viewers.admit(context) as viewer:
            while context.is_active():
                self._rest(period_s, context)
                found = self._board.newest(after)
                if found is not None:
                    after = found.sequence
                    with viewer.sending():
                        yield found

    def ListResults(  # noqa: N802
        self, request: wire.ListResultsRequest, context: grpc.ServicerContext
    ) -> wire.ListResultsResponse:
        """See the contract."""
        with Catalog.read_only(self._data_dir) as catalog:
            if request.plate:
                catalog.plate_map(check_plate_name(request.plate))
            rows = catalog.result_rows(request.plate or None, request.model_sha256 or None)
        return wire.ListResultsResponse(results=[result_message(row) for row in rows])

    def WatchResults(  # noqa: N802
        self, request: wire.WatchResultsRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.ResultChange]:
        """See the contract. The history itself is the buffer: a viewer that stops reading holds nothing back."""
        with self._viewers.admit(context) as viewer, Catalog.read_only(self._data_dir) as catalog:
            newest = last_change(catalog)
            after = min(request.after_sequence, newest) if request.HasField("after_sequence") else newest
            while context.is_active():
                changes = changes_after(catalog, after, CHANGES_AT_ONCE)
                for change in changes:
                    after = change.sequence
                    if request.plate in ("", change.result.plate):
                        with viewer.sending():
                            yield change
                if len(changes) < CHANGES_AT_ONCE:
                    self._rest(CHANGES_S, context)

    def ListModels(  # noqa: N802
        self, request: wire.ListModelsRequest, context: grpc.ServicerContext
    ) -> wire.ListModelsResponse:
        """See the contract."""
        with Catalog.read_only(self._data_dir) as catalog:
            return wire.ListModelsResponse(models=known_models(catalog))

    def ListPlates(  # noqa: N802
        self, request: wire.ListPlatesRequest, context: grpc.ServicerContext
    ) -> wire.ListPlatesResponse:
        """See the contract."""
        submitted, now = set(self._plans.names()), self._newest()
        plates = {name: wire.Plate(name=name, submitted=True, running=False) for name in sorted(submitted)}
        with Catalog.read_only(self._data_dir) as catalog:
            for result in catalog.results():
                plate = plates.setdefault(
                    result.plate, wire.Plate(name=result.plate, submitted=result.plate in submitted, running=False)
                )
                plate.wells[result.status.value] += 1
        if now.state not in ("idle", "stopped") and now.plate in plates:
            plates[now.plate].running = True
        return wire.ListPlatesResponse(plates=plates.values())

    # -- ordering

    def SubmitPlate(  # noqa: N802
        self, request: wire.SubmitPlateRequest, context: grpc.ServicerContext
    ) -> wire.SubmitPlateResponse:
        """See the contract."""
        self._driver(request.lease, context)
        config = self._plans.submit(request.config_toml, request.plate_map_csv)
        plate_map = config.plate_map()
        n_wells = {"n_wells": len(plate_map.imaged())} if plate_map else {}
        self._order(request.lease, config.plate_name, context, orders.QueuePlate, **n_wells)
        return wire.SubmitPlateResponse(plate=config.plate_name, **n_wells)

    def ListQueue(  # noqa: N802
        self, request: wire.ListQueueRequest, context: grpc.ServicerContext
    ) -> wire.ListQueueResponse:
        """See the contract."""
        with Catalog.read_only(self._data_dir) as catalog:
            return queue_message(queued_plates(catalog), queue_run(catalog))

    def GetSubmission(  # noqa: N802
        self, request: wire.GetSubmissionRequest, context: grpc.ServicerContext
    ) -> wire.Submission:
        """See the contract."""
        config_toml, plate_map_csv = self._plans.texts(request.plate)
        return wire.Submission(plate=request.plate, config_toml=config_toml, plate_map_csv=plate_map_csv)

    def ArrangeQueue(self, request: wire.ArrangeQueueRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        plates = tuple(map(check_plate_name, request.plates))
        return self._order(request.lease, "", context, orders.ArrangeQueue, plates=plates)

    def HoldPlate(self, request: wire.HoldPlateRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        held = request.held if request.HasField("held") else True
        return self._order(request.lease, check_plate_name(request.plate), context, orders.HoldPlate, held=held)

    def RemovePlate(self, request: wire.RemovePlateRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        return self._order(request.lease, check_plate_name(request.plate), context, orders.RemovePlate)

    def GoOn(self, request: wire.GoOnRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        goes_on = request.goes_on if request.HasField("goes_on") else True
        return self._order(request.lease, "", context, orders.GoOn, goes_on=goes_on)

    def StartPlate(self, request: wire.StartPlateRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        return self._order(request.lease, check_plate_name(request.plate), context, orders.StartPlate)

    def StartQueue(self, request: wire.StartQueueRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        return self._order(request.lease, "", context, orders.StartPlate)

    def PausePlate(self, request: wire.PausePlateRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        after_well = request.when == wire.PAUSE_WHEN_AFTER_WELL
        return self._order(request.lease, request.plate, context, orders.Pause, after_well=after_well)

    def ResumePlate(self, request: wire.ResumePlateRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        return self._order(request.lease, request.plate, context, orders.Resume)

    def AbortPlate(self, request: wire.AbortPlateRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        return self._order(request.lease, request.plate, context, orders.Abort, reason=request.reason)

    def SkipWell(self, request: wire.SkipWellRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        well = WellId.parse(request.well)
        return self._order(request.lease, request.plate, context, orders.SkipWell, well=well, reason=request.reason)

    def RepeatWell(self, request: wire.RepeatWellRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        well = WellId.parse(request.well)
        return self._order(request.lease, request.plate, context, orders.RepeatWell, well=well, reason=request.reason)

    def ExcludeWell(self, request: wire.ExcludeWellRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract. An exclusion is an event beside the run, and no order to it: see `scoring.exclusions`."""
        decision = exclude_well(
            self._data_dir,
            str(WellId.parse(request.well)),
            request.reason,
            plate=check_plate_name(request.plate),
            who=self._driver(request.lease, context).name,
        )
        return self._decided(decision, "excluded")

    def IncludeWell(self, request: wire.IncludeWellRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        decision = include_well(
            self._data_dir,
            str(WellId.parse(request.well)),
            request.reason,
            plate=check_plate_name(request.plate),
            who=self._driver(request.lease, context).name,
        )
        return self._decided(decision, "taken in again")

    def RelabelWell(self, request: wire.RelabelWellRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        roles = ", ".join(role.value for role in WellRole)
        if request.role not in tuple(WellRole):
            raise ConfigError(f"role is {request.role!r}", do=f"write one of {roles}")
        dose_um = request.dose_um if request.HasField("dose_um") else None
        label = (request.compound or None, dose_um, request.patient or None)
        given = {"well": WellId.parse(request.well), "treatment": Treatment(WellRole(request.role), *label)}
        return self._order(
            request.lease, check_plate_name(request.plate), context, orders.RelabelWell, reason=request.reason, **given
        )

    def ReorderWells(self, request: wire.ReorderWellsRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        wells = tuple(WellId.parse(well) for well in request.wells)
        return self._order(request.lease, request.plate, context, orders.ReorderWells, wells=wells)

    def Rescore(self, request: wire.RescoreRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        if request.normalisation not in ("", "stack", "plate"):
            raise ConfigError(f"normalisation is {request.normalisation!r}", do="write stack, plate, or nothing")
        with Catalog.read_only(self._data_dir) as catalog:
            names = {model.name for model in known_models(catalog) if model.name}
        if request.model and request.model not in names:
            raise ConfigError(f"there is no model {request.model!r}", do=f"use one of {', '.join(sorted(names))}")
        wells = tuple(WellId.parse(well) for well in request.wells)
        given = {"wells": wells, "model": request.model, "normalisation": request.normalisation}
        return self._order(request.lease, request.plate, context, orders.Rescore, **given)

    def StopDaemon(self, request: wire.StopDaemonRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        return self._order(request.lease, "", context, orders.Stop)

    # -- looking through the instrument

    def SnapImage(self, request: wire.SnapImageRequest, context: grpc.ServicerContext) -> wire.Snapshot:  # noqa: N802
        """See the contract."""
        order = snap_order(request, request.z_um if request.HasField("z_um") else None)
        who, plate = self._viewed(request.plate, request.lease, context)
        taken = self._live.look(plate, lambda source: source.snap(order), _patience_s(context, VIEW_S), who)
        return snapshot_message(plate, taken)

    def SweepFocus(self, request: wire.SweepFocusRequest, context: grpc.ServicerContext) -> wire.FocusSweep:  # noqa: N802
        """See the contract."""
        sweep = FocusSweep.of(request)
        who, plate = self._viewed(request.plate, request.lease, context)
        stopped = lambda: self._live.forbidden  # noqa: E731
        return self._live.look(plate, lambda source: sweep.take(source, stopped), _patience_s(context, VIEW_S), who)

    def EndLiveView(self, request: wire.EndLiveViewRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        self._driver(request.lease, context)
        done = "the instrument is let go" if self._live.end(_patience_s(context)) else "the instrument is being let go"
        return wire.OrderResponse(done=done, state=self._newest().state)

    def TakeControl(self, request: wire.TakeControlRequest, context: grpc.ServicerContext) -> wire.Control:  # noqa: N802
        """See the contract."""
        duration_s = request.duration_s if request.HasField("duration_s") else None
        lease = self._lease.take(self._caller(context), request.holder, duration_s, request.lease, force=request.force)
        return wire.Control(holder=lease.holder, expires_s=lease.expires_s, lease=lease.secret)

    def ReleaseControl(  # noqa: N802
        self, request: wire.ReleaseControlRequest, context: grpc.ServicerContext
    ) -> wire.ReleaseControlResponse:
        """See the contract."""
        self._lease.release(request.lease)
        return wire.ReleaseControlResponse()

    # -- pushing

    def PushSlices(  # noqa: N802
        self, request_iterator: Iterator[wire.PushSlicesRequest], context: grpc.ServicerContext
    ) -> Iterator[wire.PushSlicesResponse]:
        """See the contract."""
        return self.push(map(PushMessage.of, request_iterator), context)

    def push(self, messages: Iterator[PushMessage], context: grpc.ServicerContext) -> Iterator[wire.PushSlicesResponse]:
        """PushSlices with messages that need not be parsed whole."""

        def enter(plan: StackPlan, opened: wire.PushPlan) -> PushInlet:
            self._driver(opened.lease, context)
            inlet = self._door.enter(plan)
            self._check_plan(plan)
            return inlet

        return push(messages, context, self._data_dir, enter, lambda: self._check_token(context))

    def GetPushProgress(  # noqa: N802
        self, request: wire.GetPushProgressRequest, context: grpc.ServicerContext
    ) -> wire.PushProgress:
        """See the contract."""
        key = stack_key(request.plate, request.well, request.stack)
        with Catalog.read_only(self._data_dir) as catalog:
            catalog.plate_map(key.plate)
            planned = [row for row in catalog.stacks(key.plate) if row.key == key]
            return progress_message(planned[0] if planned else None, catalog.acknowledged(key))

    def FinishPush(self, request: wire.FinishPushRequest, context: grpc.ServicerContext) -> wire.OrderResponse:  # noqa: N802
        """See the contract."""
        return self._order(request.lease, request.plate, context, orders.FinishPush)

    # -- what they have in common

    def _viewed(self, plate: str, lease: str, context: grpc.ServicerContext) -> tuple[str, str]:
        """Who looks, and through which plate's instrument: that of a submitted plate, or of the queue's next."""
        who = self._driver(lease, context).name
        if plate:
            return who, check_plate_name(plate)
        with Catalog.read_only(self._data_dir) as catalog:
            waiting = next((one.plate for one in queued_plates(catalog) if one.state == WAITING), None)
        if waiting is None:
            raise MissingError("no plate waits that says which instrument is meant", do="submit one, or name a plate")
        return who, waiting

    def _newest(self) -> wire.Status:
        found = self._board.newest()
        if found is None:
            raise BusyError("the daemon is starting, or its disk does not answer", do="ask again in a moment")
        return found

    def _caller(self, context: grpc.ServicerContext) -> Caller:
        return self._gate.caller(context.invocation_metadata())

    def _check_token(self, context: grpc.ServicerContext) -> None:
        """UnknownCallerError, which ends a stream, where its token was revoked or has expired since it began."""
        metadata = context.invocation_metadata()
        if any(key == "authorization" for key, _ in metadata or ()):
            self._gate.caller(metadata)

    def _rest(self, seconds: float, context: grpc.ServicerContext) -> None:
        """Sleep between two looks of a stream; raises what ends it, within TOKEN_S."""
        until_s = time.monotonic() + seconds
        while context.is_active():
            self._check_token(context)
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            self._board.wait_open(min(TOKEN_S, left_s))

    def _driver(self, lease: str, context: grpc.ServicerContext) -> Caller:
        """Who drives; ControlHeldError where somebody else does."""
        self._lease.check(lease)
        return self._caller(context)

    def _order(
        self,
        lease: str,
        plate: str,
        context: grpc.ServicerContext,
        kind: Callable[..., orders.Order],
        **what: object,
    ) -> wire.OrderResponse:
        who = self._driver(lease, context).name
        order = kind(who=who, plate=plate and check_plate_name(plate), **what)
        done = self._inbox.submit(order, _patience_s(context))
        return wire.OrderResponse(done=done.what, state=done.state)

    def _decided(self, decision: Decision, what: str) -> wire.OrderResponse:
        then = "the plate's rows are up to date" if decision.related else "the plate's rows follow"
        return wire.OrderResponse(done=f"{decision.event.well} is {what}; {then}", state=self._newest().state)

    def _check_plan(self, plan: StackPlan) -> None:
        """Refuse a stack that main could not write down."""
        key: StackKey = plan.key
        with Catalog.read_only(self._data_dir) as catalog:
            if key.well not in {entry.well for entry in catalog.plate_map(key.plate).imaged()}:
                do = "push a well of the plate map"
                raise MissingError(f"plate {key.plate} has no well {key.well} to image", do=do)
            planned = [row for row in catalog.stacks(key.plate) if row.key == key]
        differences = geometry_differences(planned[0].plan, plan) if planned else []
        if differences:
            what = f"the stack was begun with another geometry: {', '.join(differences)}"
            raise ConfigError(what, where=str(key), do="restore the geometry, or push it as a further stack")


def _period_s(request: wire.WatchStatusRequest) -> float:
    """The least time between two statuses that a viewer wants; ConfigError where no clock can wait so long."""
    asked = request.period_s if request.HasField("period_s") else 0.0
    if not 0 <= asked <= LONGEST_PERIOD_S:
        do = f"give seconds from 0 to {LONGEST_PERIOD_S:g}"
        raise ConfigError(f"period_s is {asked}", where="WatchStatus", do=do)
    return max(SHORTEST_PERIOD_S, asked)


def _patience_s(context: grpc.ServicerContext, most_s: float = ORDER_S) -> float:
    """How long an order waits: as long as its caller, and no longer than that."""
    left_s = context.time_remaining()
    return most_s if left_s is None else max(0.0, min(most_s, left_s - MARGIN_S))


def control_message(lease: Lease) -> wire.Control:
    """Who drives, for others to see."""
    return wire.Control(holder=lease.holder, expires_s=lease.expires_s)
