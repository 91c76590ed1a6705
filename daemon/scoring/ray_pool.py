"""The scoring pool of a cluster: one Ray actor a GPU, each holding the model; for stored stacks only.

Everything that decides stands here, in the driver: which worker has which stack, and what a loss was. Ray is asked for
processes and for nothing else, so it never retries a task: a job that is lost goes back to main, which gives it out
again. Workers see the plate's folder (one that all nodes share) and never the catalog.

A worker's own death counts as an attempt of its stack; the death of its node does not. The two look alike at first:
then the actor is asked where it is, and once it answers (Ray has started it anew) or its node is known to be dead, it
is plain which it was.
"""

import concurrent.futures
import contextlib
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from spheroidd.acquisition.channel import Channel, ChannelClosedError
from spheroidd.daemon.scoring.messages import ScoreJob, StackLedger, StoredLedger
from spheroidd.daemon.scoring.pool import ScoringFailed, WorkerBroken, WorkerEvent, WorkerLost, WorkerReady
from spheroidd.daemon.scoring.ray_actor import RayWorker
from spheroidd.daemon.scoring.worker import WorkerSettings
from spheroidd.protocols.errors import ConfigError, StackError, TryLaterError

ANSWER_S = 5.0
LOOK_S = 0.2  # how often the driver looks for losses
CAUSE_S = 20.0  # after this long without a sign a loss is taken for the node's: Ray knows of a dead node within 15 s
STACK_PATIENCES = 6  # a stack's answer is waited for so many times as long as an embedded worker's sign of life
START_S = 600.0  # no worker at all for so long: nothing is going to come
CAPACITY = 4096  # news at a time: a job and an answer of each worker, so nobody ever waits to put one
DO_INSTALL = "install it on this computer and on every node: pip install 'spheroidd[ray]'"


Answer = concurrent.futures.Future[Any]


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where the cluster is and how many workers there are to be; without a number one a GPU, else one a node."""

    address: str | None = None
    workers: int | None = None


class _Job(NamedTuple):
    """A stack that waits for a worker."""

    job: ScoreJob
    ledger: StoredLedger


@dataclass(slots=True)
class _Member:
    """One worker, seen from the driver. `waits_for` is the answer under way, `job` the stack it is about."""

    number: int
    actor: Any
    waits_for: "Answer | None" = None
    job: ScoreJob | None = None
    node: str = ""
    lost_since_s: float | None = None
    loading: bool = True
    told: bool = False  # main knows of the loss
    since_s: float = 0.0  # when its stack was given out


class RayPool:
    """Workers on the nodes of a Ray cluster; `emit` is called from a thread of the pool's own.

    `images` is the folder of the plates, under the same path on every node; `ledger` is asked by `submit` only.
    """

    follows_growing = False

    def __init__(
        self,
        settings: WorkerSettings,
        cluster: ClusterSettings,
        ledger: StackLedger,
        emit: Callable[[WorkerEvent], None],
        kind: type[RayWorker] = RayWorker,
    ) -> None:
        self._settings, self._cluster, self._ledger, self._emit = settings, cluster, ledger, emit
        self._kind = kind
        self._news: Channel[_Job | tuple[_Member, Answer]] = Channel(CAPACITY)
        self._jobs: deque[_Job] = deque()  # without a worker; `ahead` at most, and those of workers that were lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray-pool", daemon=True)
        self._members: list[_Member] = []
        self._ready = False
        self._begun_s = 0.0

    def start(self) -> None:
        """Join the cluster and start its workers. ConfigError without Ray, TryLaterError where no cluster answers."""
        ray = _ray()
        address = self._cluster.address or os.environ.get("RAY_ADDRESS")
        _check_answers(address)
        try:
            ray.init(
                address=address,
                namespace=f"spheroidd-{secrets.token_hex(4)}",
                include_dashboard=None if address else False,
                configure_logging=False,
                log_to_driver=False,
            )
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            what = f"the Ray cluster does not answer: {_first_line(error)}"
            raise TryLaterError(what, where=address or "", do="check its address and that its head runs") from error
        gpus = int(ray.cluster_resources().get("GPU", 0))
        nodes = sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1)
        count = self._cluster.workers or gpus or nodes
        if not count:
            do = "start nodes with GPUs, or at least with processors"
            raise TryLaterError("the Ray cluster has nothing to work with", where=address or "", do=do)
        kind = ray.remote(num_gpus=1 if gpus else 0, num_cpus=0 if gpus else 1, max_restarts=-1, max_task_retries=0)(
            self._kind
        )
        for number in range(count):
            actor = kind.remote(self._settings)
            self._members.append(_Member(number, actor))
            self._ask(self._members[-1], actor.load.remote())
        self._begun_s = time.monotonic()
        self._thread.start()

    @property
    def ahead(self) -> int:
        """A job for each worker: it begins the next stack while main still writes the last one's row."""
        return len(self._members)

    def submit(self, job: ScoreJob) -> None:
        """Hand over a stored stack, with the lines of the ledger that are about it."""
        self._news.put(_Job(job, StoredLedger.of(self._ledger, job.key)))

    def stop(self) -> None:
        """End the workers and leave the cluster."""
        self._stop.set()
        self._news.close()
        if self._thread.is_alive():
            self._thread.join()
        _ray().shutdown()

    # -- the pool's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        look_s = 0.0
        with contextlib.suppress(ChannelClosedError):
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    self._take(self._news.get(timeout=LOOK_S))
                self._give_out()
                if time.monotonic() < look_s:
                    continue
                look_s = time.monotonic() + LOOK_S
                self._look_at_losses()
                self._end_what_hangs()
                if not self._ready and time.monotonic() > self._begun_s + START_S:
                    what = f"none of {len(self._members)} workers of the Ray cluster started within {START_S:.0f} s"
                    do = "look at `ray status`; whatever is scored by then is kept"
                    self._emit(WorkerBroken(TryLaterError(what, do=do)))
                    return

    def _take(self, news: "_Job | tuple[_Member, Answer]") -> None:
        if isinstance(news, _Job):
            self._jobs.append(news)
            return
        member, answer = news
        if member.waits_for is not answer:
            return  # of a worker that was given up meanwhile
        member.waits_for = None
        ray = _ray()
        try:
            said = answer.result()
        except ray.exceptions.RayActorError:
            self._lost(member)
        except ray.exceptions.RayError as error:  # it came back as nothing that can be read
            self._failed(member, error)
        else:
            self._answered(member, said)

    def _give_out(self) -> None:
        for member in self._members:
            if not self._jobs:
                return
            if member.waits_for is None and not member.loading:
                member.job, ledger = self._jobs.popleft()
                member.since_s = time.monotonic()
                self._ask(member, member.actor.score.remote(member.job, ledger))

    def _ask(self, member: _Member, reference: Any) -> None:
        """Wait for an answer in a thread of Ray's, which wakes this one: nobody polls."""
        member.waits_for = answer = reference.future()
        answer.add_done_callback(lambda done: self._heard(member, done))

    def _heard(self, member: _Member, answer: Answer) -> None:
        with contextlib.suppress(ChannelClosedError):  # nobody wants to know any more
            self._news.put((member, answer))

    def _answered(self, member: _Member, answer: Any) -> None:
        if member.lost_since_s is not None:  # it said where it is
            self._found_again(member, answer)
        elif member.loading:
            self._loaded(member, *answer)
        else:
            member.job = None
            self._give_out()  # before main is woken, which takes its time with what it hears
            self._emit(answer)

    def _loaded(self, member: _Member, node: str, said: WorkerReady | WorkerBroken) -> None:
        if isinstance(said, WorkerBroken):
            self._emit(said)
            self._stop.set()
            return
        member.node, member.loading, self._ready = node, False, True
        self._emit(WorkerReady(said.pid, said.model_sha256, member.number))

    def _failed(self, member: _Member, error: Exception) -> None:
        job, member.job = member.job, None
        if job is None:
            broken = StackError(f"a worker did not start: {_first_line(error)}", do="look at Ray's log of its node")
            self._emit(WorkerBroken(broken))
            self._stop.set()
            return
        do = "report this with the log; the raw stack is safe and can be scored again with `spheroidd score`"
        what = f"scoring stopped: {_first_line(error)}"
        self._emit(ScoringFailed(job.key, StackError(what, where=str(job.key), do=do)))

    # -- losses --------------------------------------------------------------------------------------------------------

    def _lost(self, member: _Member) -> None:
        if member.lost_since_s is None:
            member.lost_since_s = time.monotonic()
        member.loading = True

    def _look_at_losses(self) -> None:
        missing = [member for member in self._members if member.lost_since_s is not None]
        if not missing:
            return
        alive = {node["NodeID"] for node in _ray().nodes() if node["Alive"]}
        for member in missing:
            over = time.monotonic() > (member.lost_since_s or 0.0) + CAUSE_S
            if not member.told and member.node and (member.node not in alive or over):
                self._tell(member, with_its_node=True)
            if member.waits_for is None:
                self._ask(member, member.actor.where.remote())  # answers once Ray has started it anew

    def _end_what_hangs(self) -> None:
        bound_s = STACK_PATIENCES * self._settings.patience_s
        for member in self._members:
            if member.job is not None and member.lost_since_s is None and time.monotonic() > member.since_s + bound_s:
                job, member.job, member.told, member.waits_for = member.job, None, True, None
                _ray().kill(member.actor, no_restart=False)
                self._emit(WorkerLost(job.key, None, hung_s=bound_s, worker=member.number))
                self._lost(member)

    def _found_again(self, member: _Member, node: str) -> None:
        if not member.told:
            self._tell(member, with_its_node=bool(member.node) and node != member.node)
        member.lost_since_s, member.node, member.told = None, "", False
        self._ask(member, member.actor.load.remote())

    def _tell(self, member: _Member, *, with_its_node: bool) -> None:
        job, member.job = member.job, None
        member.told = True
        lost = WorkerLost(job.key if job else None, None, worker=member.number, with_its_node=with_its_node)
        self._emit(lost)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("the engine ray needs Ray, which is not installed", do=DO_INSTALL) from error
    return ray


def _check_answers(address: str | None) -> None:
    """TryLaterError where nobody listens at host:port; Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdecimal() or "/" in host:
        return  # "auto", a client's ray://, or none
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        what = f"the Ray cluster does not answer: {error.strerror or error}"
        raise TryLaterError(what, where=address or "", do="check its address and that its head runs") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]
