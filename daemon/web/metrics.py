"""What Prometheus asks for, out of the catalog: what happened is counted there already, and survives a restart."""

import shutil
import threading
import time
from collections import Counter
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
from spheroidd.protocols.results import WellStatus
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
_ACKNOWLEDGED = """SELECT acked_s - acquired_s AS s FROM slices
WHERE plate = :plate AND well = :well AND stack = :stack"""
_WHOLE = (StackState.STORED, StackState.SCORING, StackState.SCORED)
_SCORED = (WellStatus.PROVISIONAL, WellStatus.FINAL)


class Metrics:
    """The text of /metrics."""

    KIND: ClassVar[str] = CONTENT_TYPE_LATEST

    def __init__(self, data_dir: Path, failed_logins: FailedLogins) -> None:
        self._data_dir, self._failed_logins, self._lock = data_dir, failed_logins, threading.Lock()
        self._ledger = _Ledger()

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
        yield from self._ledger.metrics(catalog)
        stages = HistogramMetricFamily(
            "spheroidd_stage_seconds",
            "Time of each stage: acquire and seal a stack, score (last slice to row), infer_cpu (processor time)",
            labels=["stage"],
        )
        for stage, sql in _STAGES.items():
            counts, sum_s = _counted(catalog, sql, STAGE_BUCKETS)
            stages.add_metric([stage], _cumulative(counts, STAGE_BUCKETS), sum_s)
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


class _Ledger:
    """What the slices' rows say. A sealed stack is counted once and not read again: its rows change no more."""

    def __init__(self) -> None:
        self._done: set[tuple[str, str, int]] = set()
        self._counts, self._sum_s, self._dropped = [0] * (len(ACK_BUCKETS) + 1), 0.0, 0

    def metrics(self, catalog: CatalogReader) -> Iterator[Metric]:
        """How long slices took from the camera to the ledger, and how many of it a sealed stack lacks."""
        counts, sum_s, dropped = list(self._counts), self._sum_s, self._dropped
        for row in catalog.query("SELECT plate, well, stack, sealed_s, state FROM stacks WHERE state <> 'queued'"):
            key = (row["plate"], row["well"], row["stack"])
            if key in self._done:
                continue
            more, more_s = _counted(catalog, _ACKNOWLEDGED, ACK_BUCKETS, key)
            counts, sum_s = [a + b for a, b in zip(counts, more, strict=True)], sum_s + more_s
            lacks = _not_in_zarr(catalog, key) if row["state"] in _WHOLE else 0
            dropped += lacks
            if row["sealed_s"] is not None and row["state"] in _WHOLE:
                self._done.add(key)
                self._counts = [a + b for a, b in zip(self._counts, more, strict=True)]
                self._sum_s, self._dropped = self._sum_s + more_s, self._dropped + lacks
        words = "Time from a slice's arrival to its acknowledgement in the ledger"
        buckets = _cumulative(counts, ACK_BUCKETS)
        yield HistogramMetricFamily("spheroidd_acknowledge_seconds", words, buckets=buckets, sum_value=sum_s)
        words = "Acknowledged slices that a sealed stack does not have: always 0"
        yield GaugeMetricFamily("spheroidd_slices_dropped", words, dropped)


def _counted(
    catalog: CatalogReader, sql: str, edges: Sequence[float], key: tuple[str, str, int] | None = None
) -> tuple[list[int], float]:
    """How many values `s` of a query lie up to each edge, and of all; and their sum. SQLite counts, not Python."""
    up_to = ", ".join(f"sum(s <= {edge!r}) AS e{n}" for n, edge in enumerate(edges))
    values = dict(zip(("plate", "well", "stack"), key, strict=True)) if key else {}
    (row,) = catalog.query(f"SELECT {up_to}, count(*) AS n, sum(s) AS total FROM ({sql})", values)
    return [*(row[f"e{n}"] or 0 for n in range(len(edges))), row["n"]], float(row["total"] or 0.0)


def _cumulative(counts: Sequence[int], edges: Sequence[float]) -> list[tuple[str, float]]:
    return [(edge, float(count)) for edge, count in zip([*map(str, edges), "+Inf"], counts, strict=True)]


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
    for (plate, word), n in sorted(_judged(catalog).items()):
        trust.add_metric([plate, word], n)
    yield trust
    (acked,) = catalog.query("SELECT coalesce(sum(n_acked), 0) AS n FROM stacks")
    yield CounterMetricFamily("spheroidd_slices_acknowledged", "Slices that are durable and in the ledger", acked["n"])
    yield GaugeMetricFamily(
        "spheroidd_slices_missing", "Promised slices of stacks that ended without them", _missing(catalog)
    )


def _judged(catalog: CatalogReader) -> Counter[tuple[str, str]]:
    """How many scored stacks that no person excluded can be trusted how far, by plate."""
    wells = {(row["plate"], row["well"]) for row in catalog.query("SELECT plate, well FROM excluded_wells")}
    stacks = catalog.excluded_stacks()
    return Counter(
        (one.key.plate, one.trust or "not judged")
        for one in catalog.standings()
        if one.status in _SCORED and one.key not in stacks and (one.key.plate, str(one.key.well)) not in wells
    )


def _missing(catalog: CatalogReader) -> int:
    sql = "SELECT coalesce(sum(n_slices - n_acked), 0) AS n FROM stacks WHERE ended IN (:short, :failed)"
    return int(catalog.query(sql, {"short": StackEnd.SHORT, "failed": StackEnd.FAILED})[0]["n"])


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
    """Slices, or raw frames, that are durable in the ring and wait for the rest of their shard."""
    sql = """SELECT (SELECT count(*) FROM slices WHERE plate = :plate AND well = :well AND stack = :stack)
        - (SELECT coalesce(sum(z_stop - z_start), 0) FROM blocks
           WHERE plate = :plate AND well = :well AND stack = :stack)
        * coalesce(json_extract(plan_json, '$.raw.n_angles') * json_extract(plan_json, '$.raw.n_phases'), 1) AS n
      FROM stacks WHERE plate = :plate AND well = :well AND stack = :stack"""
    return int(catalog.query(sql, dict(zip(("plate", "well", "stack"), key, strict=True)))[0]["n"])
