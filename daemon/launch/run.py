"""Puts a run together: lock, source, model card, catalog, store, worker, threads; and takes it apart again."""

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console

from spheroidd.acquisition.channel import Channel
from spheroidd.acquisition.disk.durable_file import storage_errors
from spheroidd.acquisition.sources.push import PushSource
from spheroidd.acquisition.store.image_folder import images_root, take_images_folder
from spheroidd.acquisition.store.shard import ShardCodec
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.analysis.results_table import results_table
from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.found_widths import AUTO
from spheroidd.daemon.catalog.rows import RunState, StackState
from spheroidd.daemon.catalog.sim_rows import with_given
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.model import (
    Config,
    InferenceConfig,
    ScoringConfig,
    ServiceConfig,
    inference_with,
    open_source,
)
from spheroidd.daemon.config.named_models import chosen_regressor
from spheroidd.daemon.launch.open_catalog import open_catalog
from spheroidd.daemon.launch.plate_end import plate_ended
from spheroidd.daemon.launch.stored_images import check_stored
from spheroidd.daemon.launch.sweep import swept
from spheroidd.daemon.monitoring.event_log import logging_to
from spheroidd.daemon.monitoring.monitor import RunMonitor
from spheroidd.daemon.monitoring.preflight import preflight, require
from spheroidd.daemon.pipeline.acquisition_threads import AcquisitionThreads
from spheroidd.daemon.pipeline.live_table import Progress
from spheroidd.daemon.pipeline.main_loop import EVENTS_CAPACITY, AnyEvent, PlateRun
from spheroidd.daemon.pipeline.run_context import Inlet, NoInlet, RunContext
from spheroidd.daemon.pipeline.stack_queue import PlanQueue
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.daemon.scoring.engines import scoring_pool
from spheroidd.daemon.scoring.given_patterns import check_given, read_given
from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings
from spheroidd.daemon.scoring.worker import WorkerSettings
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.daemon.system.privacy import Readers, readable_by, readers_of
from spheroidd.daemon.system.stop_signals import interrupt, stopped_by_signals
from spheroidd.inference.segmentation.choice import model_digest
from spheroidd.inference.segmentation.precision import named_precision
from spheroidd.inference.segmentation.threshold import is_threshold
from spheroidd.protocols.errors import GOES_ON, ConfigError, NoRoomError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import FocusRecalling, StackSource
from spheroidd.protocols.results import Normalisation, WellStatus
from spheroidd.protocols.trust import Trust
from spheroidd.protocols.well import WellId

if TYPE_CHECKING:
    from spheroidd.daemon.service.server import Service

_log = logging.getLogger(__name__)
FRAMES_CAPACITY = 32  # 41 MB of a screen stack's frames: rides out 19 s of a disk that does not answer
_BEGIN_AT = {"order": "BeginAt", "done": "the run begins at this well; those before it come last"}
SCORED = (WellStatus.PROVISIONAL, WellStatus.FINAL)
MAX_NAMED = 12  # wells that a person should look at, named at the end of a run


def run_plate(config: Config, *, console: Console, live: bool = True, from_well: WellId | None = None) -> int:
    """Acquire and score a plate, taking up what an earlier run left; 0 only when every well has its row and its images
    did not fail, or a person skipped or excluded it.

    With `from_well` it begins at that well; those before it come last. Raises ConfigError or ModelError before anything
    starts, InstrumentError where the instrument gave up.
    """
    data_dir = config.data.dir
    require(preflight(config))
    with (
        readable_by(config.data.readable_by),
        stopped_by_signals(interrupt, console.print),
        acquire_lock(data_dir),
        logging_to(data_dir),
        open_catalog(data_dir) as catalog,
        swept(data_dir),
        RunMonitor(data_dir, catalog, config.alarms, config.verification) as monitor,
        _serving(data_dir, catalog, config.service, monitor, console) as service,
    ):
        context = RunContext(monitor=monitor) if service is None else RunContext(service.inbox, monitor=monitor)
        began_s = time.time()
        code = acquire_plate(config, catalog, service, context, console=console, live=live, from_well=from_well)
        say_ended(catalog, config.plate_name, began_s, config.service.time_zone, console)
        return code


def say_ended(catalog: Catalog, plate: str, began_s: float, time_zone: str | None, console: Console) -> str | None:
    """Write down that the plate has ended, for the notices that say so; the verdict, None where it has not."""
    verdict = plate_ended(catalog, plate, began_s, time.time(), time_zone)
    if verdict is not None:
        console.print(f"plate {plate}: {verdict}", highlight=False)
    return verdict


def acquire_plate(
    config: Config,
    catalog: Catalog,
    service: "Service | None",
    context: RunContext,
    *,
    console: Console,
    live: bool = True,
    from_well: WellId | None = None,
) -> int:
    """The same with the lock held, the catalog open, and the service (if any) at work."""
    data_dir = config.data.dir
    take_images_folder(data_dir, config.data.images)
    with contextlib.closing(open_source(config, SystemClock())) as source:
        plate_map, plans = source.plate_map, source.plans()
        _tell_of_others(catalog, plate_map.name, console)
        check_stored(catalog, plate_map, config)
        given = {channel: read_given(path, channel) for channel, path in config.sim.files().items()}
        check_given(given, plans if isinstance(plans, Sequence) else ())
        kept = config.model_dump_json() if not given else with_given(config.model_dump_json(), given)
        catalog.register_plate(plate_map, kept, n_fields=_n_fields(config, plans))
        known = {row.key: row for row in catalog.stacks(plate_map.name)}
        queue = PlanQueue(
            plans,
            begin_at=from_well,
            besides=[row.plan for row in known.values()],
            done={key for key, row in known.items() if row.whole},
        )
        if isinstance(source, FocusRecalling):
            source.restore_focus_map(catalog.focus_map(plate_map.name))
        with catalog.transaction():
            for plan in plans if isinstance(plans, Sequence) else ():  # one that only watches names none yet
                if plan.key not in known or known[plan.key].plan != plan:
                    catalog.expect(plan)
        if from_well is not None:
            catalog.append_event(Action.ORDERED, plate=plate_map.name, well=str(from_well), new=_BEGIN_AT)
        events: Channel[AnyEvent] = Channel(capacity=EVENTS_CAPACITY)
        store = config.store
        threads = AcquisitionThreads(
            source,
            ZarrStackStore(
                data_dir,
                plate_map,
                events.put,
                codec=ShardCodec(store.codec),
                slab_z=store.slab_z,
                ring_slots=store.ring_slots,
            ),
            queue,
            events.put,
            has_room=lambda: _check_room(data_dir, store.min_free_gb),
            frames_capacity=FRAMES_CAPACITY,
            attempts=config.inference.max_attempts,
        )
        with _taking_pushes(service, plate_map.name, source) as inlet:
            context = replace(context, inlet=inlet)
            chosen = (config.inference, config.scoring)
            _run(catalog, plate_map, chosen, events, threads, data_dir, console, context, live=live)
        return _verdict(catalog, plate_map.name, data_dir, console)


def _n_fields(config: Config, plans: object) -> int:
    """How many stacks of a well the source takes in one go."""
    said = getattr(config.source, "n_stacks", None)  # a folder's names say it
    if isinstance(said, int):
        return said
    return 1 + max((plan.key.stack for plan in plans), default=0) if isinstance(plans, Sequence) else 1


def _tell_of_others(catalog: Catalog, plate: str, console: Console) -> None:
    """A new plate beside others is often a slip: a name typed otherwise, a data directory that was not changed."""
    others = catalog.plates()
    if not others or plate in others:
        return
    listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if others[5:] else "")
    what = f"{catalog.path.parent} holds {listed} already: {plate} is a further plate with controls of its own"
    _log.warning("%s", what)
    console.print(f"Note: {what}. Stop now if it was meant to go on with that one.", highlight=False)


@contextlib.contextmanager
def _serving(
    data_dir: Path, catalog: Catalog, settings: ServiceConfig, monitor: RunMonitor, console: Console
) -> Iterator["Service | None"]:
    say_state(catalog, "starting", time.time())  # not what a daemon that was killed said last
    if not settings.enabled:
        yield None
        return
    from spheroidd.daemon.service.server import (
        Service,  # gRPC takes a tenth of a second, which `spheroidd score` need not wait
    )
    from spheroidd.daemon.web.server import page_beside

    served = Service(data_dir, settings, monitor.failed_logins)
    with served as service, page_beside(service, data_dir, settings, console):
        yield service


def say_state(catalog: Catalog, state: str, started_s: float) -> None:
    """Write down what the daemon does while it runs no plate."""
    catalog.set_run_state(RunState(version("spheroidd"), os.getpid(), state, started_s, time.time()))


@contextlib.contextmanager
def _taking_pushes(service: "Service | None", plate: str, source: StackSource) -> Iterator[Inlet]:
    """The inlet of a run; where slices are pushed, programs find it at the service as long as the run lasts."""
    if not isinstance(source, PushSource):
        yield NoInlet()
        return
    if service is None:
        yield source.inlet
        return
    service.door.open(plate, source.inlet)
    try:
        yield source.inlet
    finally:
        service.door.close()


def _readers(data_dir: Path) -> Readers:
    """Whom a directory that is there already is for."""
    return readers_of(data_dir.stat().st_mode) if data_dir.is_dir() else Readers.OWNER


def score_plate(
    data_dir: Path,
    *,
    model: str | None,
    normalisation: str | None,
    device: str,
    threads: int | None,
    precision: str | None = None,
    objects: bool | None = None,
    cell_um: str | float | None = None,
    scoring: ScoringConfig | None = None,
    missing: bool = False,
    console: Console,
) -> int:
    """Score every stored stack of a data directory, again where this model has scored it; rows are added or updated.

    `missing`: only those that have no row by this model yet. `scoring`: where; without it beside this process.
    """
    given = {
        "model": model,
        "normalisation": normalisation,
        "device": device,
        "threads": threads,
        "precision": precision,
        "objects": objects,
        "cell_diameter_um": cell_um,
    }
    named_precision(precision or "auto")  # what the environment says, too
    inference_with(InferenceConfig(), given, where="score")  # a wrong word is refused before anything is touched
    with (
        readable_by(_readers(data_dir)),
        stopped_by_signals(interrupt, console.print),
        acquire_lock(data_dir),
        logging_to(data_dir),
        open_catalog(data_dir) as catalog,
        swept(data_dir),
        RunMonitor(data_dir, catalog, AlarmsConfig()) as monitor,
    ):
        plates = catalog.plates()
        if not plates:
            raise ConfigError("no plate was ever run here", where=str(data_dir), do="give the directory of a run")
        for plate in plates:
            context = RunContext(monitor=monitor)
            score_again(catalog, plate, given, data_dir, console, context, scoring=scoring, missing=missing)
        return max(_verdict(catalog, plate, data_dir, console) for plate in plates)


def score_again(
    catalog: Catalog,
    plate: str,
    given: Mapping[str, Any],
    data_dir: Path,
    console: Console,
    context: RunContext,
    *,
    scoring: ScoringConfig | None = None,
    missing: bool = False,
) -> None:
    """Score every stored stack of one plate with its own settings, but for those that are given and not None."""
    before = InferenceConfig.model_validate(json.loads(catalog.plate_config(plate))["inference"])
    settings = inference_with(before, given, where="score")
    with catalog.transaction():
        for row in catalog.stacks(plate):
            if row.complete and row.state is StackState.FAILED:
                catalog.set_stack_state(row.key, StackState.STORED)
    events: Channel[AnyEvent] = Channel(capacity=EVENTS_CAPACITY)
    plate_map = catalog.plate_map(plate)
    chosen = (settings, scoring or ScoringConfig())
    _run(catalog, plate_map, chosen, events, None, data_dir, console, context, again=not missing)


def _run(
    catalog: Catalog,
    plate_map: PlateMap,
    chosen: tuple[InferenceConfig, ScoringConfig],
    events: Channel[AnyEvent],
    threads: AcquisitionThreads | None,
    data_dir: Path,
    console: Console,
    context: RunContext,
    *,
    live: bool = True,
    again: bool = False,
) -> None:
    inference, scoring = chosen
    model = None if inference.model == "default" else str(inference.model)
    regressor = chosen_regressor(inference)
    width = inference.cell_diameter_um
    settings = ScoringSettings(
        model_sha256=model_digest(model),
        normalisation=Normalisation(inference.normalisation),
        limits=inference.known_limits(),
        tolerance=inference.limit_tolerance,
        max_attempts=inference.max_attempts,
        again=again,
        keep_raw=catalog.keep_raw(plate_map.name),
        objects=inference.objects,
        boundary=inference.boundary,
        cell_um=None if width == AUTO and is_threshold(model) else width,  # it sees no width
    )
    pace = Throughput(*catalog.slices_of(plate_map.name), plate=plate_map.name)
    scheduler = ScoringScheduler(catalog, plate_map, settings, regressor)
    _enter_start(catalog, plate_map.name, settings, regressor.sha256, acquires=threads is not None)
    about = WorkerSettings(
        data_dir,
        model,
        inference.device,
        inference.threads,
        inference.precision,
        inference.patience_s,
        catalog.plan_to_come(plate_map.name),
    )
    pool = scoring_pool(scoring, about, catalog, events.put, inference.devices)
    with Progress(console, catalog, pace, plate_map.name, live=live) as progress:
        run = PlateRun(catalog, scheduler, pool, events, pace, progress, threads, context)
        with stopped_by_signals(run.stop, console.print):
            run.run()
    if scheduler.width.told is not None:
        _log.info("plate %s: %s", plate_map.name, scheduler.width.told)
        console.print(f"plate {plate_map.name}: {scheduler.width.told}", highlight=False)


def _enter_start(
    catalog: Catalog, plate: str, settings: ScoringSettings, regressor_sha256: str, *, acquires: bool
) -> None:
    """Say in the audit trail what is going to make or change the plate's numbers."""
    _, acknowledged = catalog.slices_of(plate)
    started = acknowledged > 0
    action = (Action.RUN_RESUMED if started else Action.RUN_STARTED) if acquires else Action.RESCORE_STARTED
    new = {
        "version": version("spheroidd"),
        "model_sha256": settings.model_sha256,
        "regressor_sha256": regressor_sha256,
        "normalisation": settings.normalisation.value,
        "boundary": settings.boundary.value,
        "cell_diameter_um": settings.cell_um,
        "host": platform.node(),
        "pid": os.getpid(),
    }
    catalog.append_event(action, plate=plate, new=new)


def _check_room(data_dir: Path, min_free_gb: float) -> None:
    folders = {data_dir, images_root(data_dir)}
    with storage_errors(data_dir):
        free_gb, data_dir = min((psutil.disk_usage(str(folder)).free / 1e9, folder) for folder in folders)
    if free_gb < min_free_gb:
        what = f"{free_gb:.2f} GB are free, and no slice is taken below {min_free_gb:g} GB"
        raise NoRoomError(what, where=str(data_dir), do=f"make room; {GOES_ON}")


def _verdict(catalog: Catalog, plate: str, data_dir: Path, console: Console) -> int:
    rows = catalog.result_rows(plate)
    console.print(results_table(rows, f"plate {plate}", width=console.width))
    for row in rows:
        if row.result.status not in SCORED:
            style = None if row.result.status.was_ordered else "yellow"
            console.print(f"{row.result.well} {row.result.standing}", style=style, highlight=False)
    again = [f for f in catalog.faults() if f.code == FaultCode.RESCORE_FAILED and f.key.startswith(f"{plate}/")]
    for fault in again:
        console.print(f"{fault.key} not scored again: {fault.what}; {fault.do}", style="yellow", highlight=False)
    done = sum(row.result.status in SCORED for row in rows)
    skipped = sum(row.result.status is WellStatus.SKIPPED for row in rows)
    kept = sum(row.result.n_slices_acked for row in rows)
    wells = f"{done} of {len(rows)} wells have a row" + (f", {skipped} skipped" if skipped else "")
    console.print(f"{wells}; {kept} slices are kept in {data_dir}", highlight=False)
    doubtful = [row for row in rows if row.to_look_at]
    failed = [row for row in doubtful if row.result.trust is Trust.FAIL]
    if doubtful:
        named = ", ".join(str(row.result.well) for row in doubtful[:MAX_NAMED])
        more = f" and {len(doubtful) - MAX_NAMED} more" if len(doubtful) > MAX_NAMED else ""
        what = f"to be looked at, {len(failed)} of them without viability because their images failed"
        console.print(f"{len(doubtful)} {what}: {named}{more}; spheroidd results says why", style="yellow")
    return 0 if done + skipped == len(rows) and not again and not failed else 1
