"""What Prometheus asks for, out of the catalog: what happened is counted there already, and survives a restart."""

import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import STACK_STATUS, StackState
from spheroidd.daemon.monitoring.failed_logins import FailedLogins
from spheroidd.daemon.monitoring.status import current_run
from spheroidd.protocols.stack_end import StackEnd

# Seconds. A slice is durable within milliseconds; a row comes within seconds of its stack's last slice.
ACK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STAGE_BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_STAGES = {
    "acquire": "SELECT last_acked_s - opened_s AS s FROM stacks WHERE sealed_s IS NOT NULL AND opened_s IS NOT NULL",
    "seal": "SELECT sealed_s - last_acked_s AS s FROM stacks WHERE sealed_s IS NOT NULL AND last_acked_s IS NOT NULL",
    "score": "SELECT latency_s AS s FROM results WHERE latency_s IS NOT NULL",
    "infer_cpu": "SELECT cpu_s AS s FROM results",
}


_TRUST = """SELECT plate, coalesce(trust, 'not judged') AS trust, count(*) AS n FROM wells_view
WHERE model_sha256 IS NOT NULL AND NOT excluded GROUP BY 1, 2"""


class Metrics:
    """The text of /metrics."""

    KIND: ClassVar[str] = CONTENT_TYPE_LATEST

    def __init__(self, data_dir: Path, failed_logins: FailedLogins) -> None:
        self._data_dir, self._failed_logins, self._lock = data_dir, failed_logins, threading.Lock()
        self._acks = _Acknowledgements()

    def text(self, catalog: CatalogReader) -> bytes:
        """All metrics as they are now."""
        with self._lock, catalog.snapshot():
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Once([*self._collect(catalog)]))
            return generate_latest(registry)

    def _collect(self, catalog: CatalogReader) -> Iterator[Metric]:
        yield from _run(catalog, self._data_dir)
        yield from _plates(catalog)
        yield from _queues(catalog)
        yield self._acks.histogram(catalog)
        stages = HistogramMetricFamily(
            "spheroidd_stage_seconds",
            "Time of each stage: acquire and seal a stack, score (last slice to row), infer_cpu (processor time)",
            labels=["stage"],
        )
        for stage, sql in _STAGES.items():
            values = [float(row["s"]) for row in catalog.query(sql)]
            stages.add_metric([stage], _cumulative(values, STAGE_BUCKETS), sum(values))
        yield stages
        yield CounterMetricFamily(
            "spheroidd_failed_logins",
            "Calls with a token that is not valid, since the daemon began",
            self._failed_logins.total,
        )
        yield GaugeMetricFamily(
            "spheroidd_disk_free_bytes", "Free on the data disk", shutil.disk_usage(self._data_dir).free
        )


class _Once(Collector):
    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


class _Acknowledgements:
    """How long slices took from the camera to the ledger. A sealed stack is counted once and not read again."""

    def __init__(self) -> None:
        self._done: set[tuple[str, str, int]] = set()
        self._counts, self._sum_s = [0] * (len(ACK_BUCKETS) + 1), 0.0

    def histogram(self, catalog: CatalogReader) -> Metric:
        counts, sum_s = list(self._counts), self._sum_s
        for row in catalog.query("SELECT plate, well, stack, sealed_s FROM stacks WHERE state <> 'queued'"):
            key = (row["plate"], row["well"], row["stack"])
            if key in self._done:
                continue
            more, more_s = _of_stack(catalog, key)
            counts, sum_s = [a + b for a, b in zip(counts, more, strict=True)], sum_s + more_s
            if row["sealed_s"] is not None:
                self._done.add(key)
                self._counts = [a + b for a, b in zip(self._counts, more, strict=True)]
                self._sum_s += more_s
        edges = [*(str(edge) for edge in ACK_BUCKETS), "+Inf"]
        buckets = [(edge, float(sum(counts[: n + 1]))) for n, edge in enumerate(edges)]
        words = "Time from a slice's arrival to its acknowledgement in the ledger"
        return HistogramMetricFamily("spheroidd_acknowledge_seconds", words, buckets=buckets, sum_value=sum_s)


def _of_stack(catalog: CatalogReader, key: tuple[str, str, int]) -> tuple[list[int], float]:
    sql = "SELECT acked_s - acquired_s AS s FROM slices WHERE plate = :plate AND well = :well AND stack = :stack"
    values = [float(row["s"]) for row in catalog.query(sql, dict(zip(("plate", "well", "stack"), key, strict=True)))]
    counts = [0] * (len(ACK_BUCKETS) + 1)
    for value in values:
        counts[next((n for n, edge in enumerate(ACK_BUCKETS) if value <= edge), len(ACK_BUCKETS))] += 1
    return counts, sum(values)


def _cumulative(values: Sequence[float], edges: Sequence[float]) -> list[tuple[str, float]]:
    counts = [(str(edge), float(sum(value <= edge for value in values))) for edge in edges]
    return [*counts, ("+Inf", float(len(values)))]


def _run(catalog: CatalogReader, data_dir: Path) -> Iterator[Metric]:
    run = current_run(data_dir, catalog, time.time())
    if run is not None:
        yield InfoMetricFamily(
            "spheroidd", "The daemon", {"version": run.version, "state": run.state, "plate": run.plate or ""}
        )
        yield GaugeMetricFamily("spheroidd_heartbeat_seconds", "Main's last sign of life, since 1970", run.heartbeat_s)
        yield GaugeMetricFamily("spheroidd_start_seconds", "When the run was started, since 1970", run.started_s)
        rate = GaugeMetricFamily("spheroidd_slices_per_second", "Acknowledged slices, over the last seconds")
        eta = GaugeMetricFamily("spheroidd_eta_seconds", "Until the last slice of the run")
        for family, value in ((rate, run.slices_per_s), (eta, run.eta_s)):
            if value is not None:
                family.add_metric([], value)
        yield from (rate, eta)
    faults = GaugeMetricFamily("spheroidd_open_faults", "What a person must know of", labels=["code"])
    for row in catalog.query("SELECT code, count(*) AS n FROM faults WHERE cleared_s IS NULL GROUP BY code"):
        faults.add_metric([row["code"]], row["n"])
    yield faults


def _plates(catalog: CatalogReader) -> Iterator[Metric]:
    stacks = GaugeMetricFamily("spheroidd_stacks", "Stacks by state", labels=["plate", "state"])
    for row in catalog.query(f"SELECT plate, {STACK_STATUS} AS state, count(*) AS n FROM stacks GROUP BY 1, 2"):
        stacks.add_metric([row["plate"], row["state"]], row["n"])
    yield stacks
    trust = GaugeMetricFamily(
        "spheroidd_wells", "Scored wells by how far they can be trusted", labels=["plate", "trust"]
    )
    for row in catalog.query(_TRUST):
        trust.add_metric([row["plate"], row["trust"]], row["n"])
    yield trust
    (acked,) = catalog.query("SELECT coalesce(sum(n_acked), 0) AS n FROM stacks")
    yield CounterMetricFamily("spheroidd_slices_acknowledged", "Slices that are durable and in the ledger", acked["n"])
    yield GaugeMetricFamily(
        "spheroidd_slices_missing", "Promised slices of stacks that ended without them", _missing(catalog)
    )
    yield GaugeMetricFamily(
        "spheroidd_slices_dropped", "Acknowledged slices that a sealed stack does not have: always 0", _dropped(catalog)
    )


def _missing(catalog: CatalogReader) -> int:
    sql = "SELECT coalesce(sum(n_slices - n_acked), 0) AS n FROM stacks WHERE ended IN (:short, :failed)"
    return int(catalog.query(sql, {"short": StackEnd.SHORT, "failed": StackEnd.FAILED})[0]["n"])


def _dropped(catalog: CatalogReader) -> int:
    sql = """SELECT coalesce(sum(acked - stored), 0) AS n FROM (SELECT
        (SELECT count(*) FROM slices WHERE slices.plate = stacks.plate
          AND slices.well = stacks.well AND slices.stack = stacks.stack) AS acked,
        (SELECT coalesce(sum(z_stop - z_start), 0) FROM blocks WHERE blocks.plate = stacks.plate
          AND blocks.well = stacks.well AND blocks.stack = stacks.stack) AS stored
        FROM stacks WHERE state IN ('stored', 'scoring', 'scored'))"""
    return int(catalog.query(sql)[0]["n"])


def _queues(catalog: CatalogReader) -> Iterator[Metric]:
    depths = GaugeMetricFamily("spheroidd_queue_depth", "What waits, by queue", labels=["queue"])
    waiting = catalog.query(
        "SELECT count(*) AS n FROM stacks WHERE state IN (:stored, :scoring)",
        {"stored": StackState.STORED.value, "scoring": StackState.SCORING.value},
    )
    depths.add_metric(["stacks to score"], waiting[0]["n"])
    under_way = catalog.query(
        "SELECT plate, well, stack FROM stacks WHERE state = :state", {"state": StackState.ACQUIRING.value}
    )
    n_slices = sum(_not_in_zarr(catalog, (row["plate"], row["well"], row["stack"])) for row in under_way)
    depths.add_metric(["slices to zarr"], n_slices)
    yield depths


def _not_in_zarr(catalog: CatalogReader, key: tuple[str, str, int]) -> int:
    """Slices that are durable in the ring and wait for the rest of their shard."""
    sql = """SELECT (SELECT count(*) FROM slices WHERE plate = :plate AND well = :well AND stack = :stack)
        - (SELECT coalesce(sum(z_stop - z_start), 0) FROM blocks
           WHERE plate = :plate AND well = :well AND stack = :stack) AS n"""
    return int(catalog.query(sql, dict(zip(("plate", "well", "stack"), key, strict=True)))[0]["n"])
