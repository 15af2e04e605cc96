"""Every metric in one place, on a registry of its own; ``docs/metrics.md`` is made from here.

Names, labels and meaning follow the words of the database: an ``outcome`` is a field of ``Counts``, a
``kind`` a ``FaultKind``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from time import perf_counter
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from pipeline.core.types import Counts, FaultKind, Partition

# The time at which each counter was made would double the page; rate() does not need it.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_OUTCOMES = ("scored", "late", "duplicate", "dead_lettered", "filtered")
_PARTITION = ("stream", "topic", "partition")


class Description(NamedTuple):
    """One row of ``docs/metrics.md``."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """The metrics of one process.

    Label values come as keywords: ``metrics.records.labels(stream="plant", outcome="late").inc(3)``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Description] = []
        ProcessCollector(registry=self.registry)
        self._build = self._gauge("build_info", "Always 1; the label tells which version runs", "version")
        self._build.labels(version=version("forewatch")).set(1)
        self._flow()
        self._state()
        self._operation()
        self._alerting()
        self._retraining()
        self._power()

    def _flow(self) -> None:
        self.records = self._counter(
            "records",
            "Records that were committed, by outcome: scored, late, duplicate, dead_lettered, filtered",
            "stream",
            "outcome",
        )
        self.held = self._gauge(
            "held_records", "Records read that wait for the watermark (lateness, aggregation)", *_PARTITION
        )
        self.lag = self._gauge(
            "lag_records", "Records of the log behind its end that are not committed yet", *_PARTITION
        )
        self.batch_seconds = self._histogram(
            "batch_seconds", "Time from a batch read to its commit", "stream"
        )
        self.commit_seconds = self._histogram(
            "commit_seconds", "Time of the SQL transaction of a batch", "stream"
        )
        self.stage_seconds = self._counter(
            "stage_seconds",
            "Time spent in each stage of the loop (poll, score, commit, snapshot); rate() is its share of one core",
            "stream",
            "stage",
        )
        self.dead_letters = self._counter(
            "dead_letters", "Records that could not be decoded or validated, by reason", "stream", "reason"
        )
        self.fenced_commits = self._counter(
            "fenced_commits", "Commits refused because another process owns the partition now", "stream"
        )

    def _state(self) -> None:
        self.series = self._gauge("series", "Series in memory", "stream")
        self.evictions = self._counter("evictions", "Idle series moved from memory to the database", "stream")
        self.anomalies = self._counter(
            "anomalies", "Anomalies opened, by the severity that they had then", "stream", "severity"
        )
        self.open_anomalies = self._gauge("open_anomalies", "Anomalies that are open now", "stream")
        self.snapshot_time = self._gauge(
            "snapshot_timestamp_seconds",
            "When the last snapshot was committed; time() minus this is its age",
            *_PARTITION,
        )
        self.snapshot_seconds = self._histogram(
            "snapshot_seconds", "Time to encode and store a snapshot", "stream"
        )
        self.snapshot_bytes = self._gauge("snapshot_bytes", "Size of the last snapshot", *_PARTITION)
        self.history_segments = self._counter("history_segments", "History segments written", "stream")
        self.history_bytes = self._counter("history_bytes", "Bytes of history segments written", "stream")
        self.history_errors = self._counter(
            "history_errors", "History segments that could not be written", "stream"
        )

    def _operation(self) -> None:
        self.database_up = self._gauge(
            "database_up", "1: the database answers, 0: partitions are paused until it does"
        )
        self.database_up.set(1)
        self.source_up = self._gauge(
            "source_up", "1: the source of the stream answers, 0: it is tried again", "stream"
        )
        self.faults = self._counter("faults", "Pipeline faults opened, by kind", "stream", "kind")
        self.open_faults = self._gauge(
            "open_faults", "Pipeline faults that are open now, by kind", "stream", "kind"
        )
        self.config_reloads = self._counter(
            "config_reloads", "Changed configs read: taken, or refused with the old one kept", "result"
        )

    def _alerting(self) -> None:
        self.alert_events = self._counter(
            "alert_events",
            "Events of the outbox by what became of them: sent, or why not (silence, budget, rule:NAME, ...)",
            "stream",
            "fate",
        )
        self.alert_notices = self._counter(
            "alert_notices",
            "Messages about alerts, by kind: opened, updated, resolved, ...",
            "stream",
            "kind",
        )
        self.alert_budget_used = self._gauge(
            "alert_budget_used", "Pages of the last 24 hours, where there is a budget", "stream"
        )
        self.outbox_pending = self._gauge(
            "outbox_pending", "Events of the outbox that were not routed yet", "stream"
        )
        self.outbox_oldest_seconds = self._gauge(
            "outbox_oldest_seconds", "Age of the oldest of them", "stream"
        )
        self.deliveries = self._counter(
            "deliveries", "Deliveries that ended, by state: delivered, dead, suppressed", "endpoint", "state"
        )
        self.deliveries_pending = self._gauge(
            "deliveries_pending", "Deliveries that wait for their turn or their next attempt", "endpoint"
        )
        self.deliveries_oldest_seconds = self._gauge(
            "deliveries_oldest_seconds", "Age of the oldest of them", "endpoint"
        )
        self.delivery_attempts = self._counter(
            "delivery_attempts",
            "Calls, by outcome: delivered, failed, lost (no answer came)",
            "endpoint",
            "outcome",
        )
        self.delivery_repeats = self._counter(
            "delivery_repeats",
            "Calls after one whose answer was lost: the receiver may know the message",
            "endpoint",
        )
        self.delivery_seconds = self._histogram(
            "delivery_seconds", "Time from the message to its delivery", "endpoint"
        )
        self.delivery_attempt_seconds = self._histogram(
            "delivery_attempt_seconds", "Time of one call", "endpoint"
        )
        self.endpoint_up = self._gauge(
            "endpoint_up",
            "1: the last calls succeeded, 0: they fail, or the endpoint is disabled",
            "endpoint",
        )
        self.endpoint_disabled = self._gauge(
            "endpoint_disabled", "1: nothing is sent until `forewatch endpoints enable`", "endpoint"
        )

    def _retraining(self) -> None:
        self.jobs = self._gauge(
            "jobs", "Jobs of retraining that wait or run, by state: queued, running", "stream", "state"
        )
        self.job_overdue_seconds = self._gauge(
            "job_overdue_seconds", "For how long the oldest waiting job is due", "stream"
        )
        self.jobs_waiting_gpu = self._gauge(
            "jobs_waiting_gpu", "Jobs that wait for a worker with a GPU", "stream"
        )
        self.jobs_ended = self._counter(
            "jobs_ended",
            "Jobs that ended, by state: succeeded, rejected, failed, cancelled",
            "stream",
            "kind",
            "state",
        )
        self.drifts = self._counter("drifts", "Times that the stream was found to have drifted", "stream")
        self.job_cpu_seconds = self._counter("job_cpu_seconds", "CPU time of jobs that ended", "stream")
        self.model_info = self._gauge(
            "model_info", "1 for the model that decides in the stream", "stream", "model"
        )
        self.model_exchanges = self._counter(
            "model_exchanges", "Times that another model took over in this process", "stream"
        )
        self.model_usable = self._gauge(
            "model_usable",
            "1: the promoted model decides, 0: it is refused and another one decides",
            "stream",
        )

    def _power(self) -> None:
        self.power_smallest = self._gauge(
            "power_smallest_spreads",
            "Smallest change of each kind that would be caught now, in robust standard deviations of the series: median over the series tried, "
            "NaN where fewer than half catch any",
            "stream",
            "kind",
        )
        self.power_delay = self._gauge(
            "power_delay_points", "Points until it would be flagged, median over the series", "stream", "kind"
        )
        self.power_blind = self._gauge(
            "power_blind_ratio",
            "Share of the series tried in which no size of it would be caught",
            "stream",
            "kind",
        )
        self.verdicts = self._counter(
            "verdicts",
            "Points by the forecaster whose forecast they were compared with; the label guard is deprecated",
            "stream",
            "forecaster",
            "guard",
        )
        self.power_seconds = self._counter(
            "power_seconds", "Time spent on finding that out; rate() is its share of one core", "stream"
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self.described.append(Description(f"forewatch_{name}_total", "counter", labels, meaning))
        return Counter(f"forewatch_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self.described.append(Description(f"forewatch_{name}", "gauge", labels, meaning))
        return Gauge(f"forewatch_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        self.described.append(Description(f"forewatch_{name}", "histogram", labels, meaning))
        return Histogram(f"forewatch_{name}", meaning, labels, buckets=_SECONDS, registry=self.registry)


class StreamMetrics:
    """The metrics of one stream: what its engine writes to, without naming the stream again."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._stream = stream
        self.batch_seconds = metrics.batch_seconds.labels(stream)
        self.commit_seconds = metrics.commit_seconds.labels(stream)
        self.snapshot_seconds = metrics.snapshot_seconds.labels(stream)
        self.fenced = metrics.fenced_commits.labels(stream)
        self.series = metrics.series.labels(stream)
        self.evictions = metrics.evictions.labels(stream)
        self.open_anomalies = metrics.open_anomalies.labels(stream)
        metrics.source_up.labels(stream).set(1)
        # a series that is there from the start makes rate() right from the first record on
        for outcome in _OUTCOMES:
            metrics.records.labels(stream, outcome)

    def committed(self, before: Counts, after: Counts) -> None:
        """The cumulative outcomes of one partition before and after a commit."""
        for outcome in _OUTCOMES:
            self._metrics.records.labels(self._stream, outcome).inc(
                getattr(after, outcome) - getattr(before, outcome)
            )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as that of stage ``name``."""
        start = perf_counter()
        try:
            yield
        finally:
            self._metrics.stage_seconds.labels(self._stream, name).inc(perf_counter() - start)

    def dead_letter(self, reason: str) -> None:
        self._metrics.dead_letters.labels(self._stream, reason).inc()

    def anomaly(self, severity: str) -> None:
        """An anomaly was opened."""
        self._metrics.anomalies.labels(self._stream, severity).inc()

    def fault_opened(self, kind: str) -> None:
        self._metrics.faults.labels(self._stream, kind).inc()
        self._metrics.open_faults.labels(self._stream, kind).inc()
        self._up(kind, 0)

    def fault_closed(self, kind: str) -> None:
        self._metrics.open_faults.labels(self._stream, kind).dec()
        self._up(kind, 1)

    def _up(self, kind: str, up: int) -> None:
        if kind == FaultKind.DATABASE_DOWN:
            self._metrics.database_up.set(up)
        elif kind == FaultKind.SOURCE_DOWN:
            self._metrics.source_up.labels(self._stream).set(up)

    def lag(self, partition: Partition, records: int) -> None:
        self._metrics.lag.labels(self._stream, partition.topic, partition.number).set(records)

    def held(self, partition: Partition, records: int) -> None:
        self._metrics.held.labels(self._stream, partition.topic, partition.number).set(records)

    def snapshot(self, partition: Partition, size: int) -> None:
        """A snapshot of ``size`` bytes was committed just now."""
        self._metrics.snapshot_time.labels(
            self._stream, partition.topic, partition.number
        ).set_to_current_time()
        self._metrics.snapshot_bytes.labels(self._stream, partition.topic, partition.number).set(size)

    def history(self, segments: int, size: int, errors: int) -> None:
        """What the history writer has done since the last call."""
        self._metrics.history_segments.labels(self._stream).inc(segments)
        self._metrics.history_bytes.labels(self._stream).inc(size)
        self._metrics.history_errors.labels(self._stream).inc(errors)

    def forget(self, partition: Partition) -> None:
        """The partition is no longer ours: another process reports it."""
        for gauge in (
            self._metrics.held,
            self._metrics.lag,
            self._metrics.snapshot_time,
            self._metrics.snapshot_bytes,
        ):
            gauge.remove(self._stream, partition.topic, str(partition.number))


class PowerMetrics:
    """What would be caught on one stream, by kind of change."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._stream = stream

    def kind(self, kind: str, smallest: float | None, delay: float | None, blind: float) -> None:
        """Medians over the series; None is reported as NaN: no size, or no delay, is known."""
        self._metrics.power_smallest.labels(self._stream, kind).set(
            float("nan") if smallest is None else smallest
        )
        self._metrics.power_delay.labels(self._stream, kind).set(float("nan") if delay is None else delay)
        self._metrics.power_blind.labels(self._stream, kind).set(blind)

    def seconds(self, seconds: float) -> None:
        self._metrics.power_seconds.labels(self._stream).inc(seconds)


_HEAD = """# Metrics

Generated from `pipeline/observability/metrics.py` by `make docs`; do not edit. A running daemon serves them at `/metrics` (config key `http`) in the text format of
Prometheus. Counters begin at zero with each process: use `rate()` and `increase()`.

Every offset is accounted for: over any span without a restart, the sum of `forewatch_records_total` over its outcomes is the number of offsets that were
committed, and records that were read but wait for the watermark stand in `forewatch_held_records`.

Worth an alert: `forewatch_database_up == 0`, `forewatch_source_up == 0`, any `forewatch_open_faults > 0`, a `forewatch_lag_records` that grows, and
`time() - forewatch_snapshot_timestamp_seconds` far above `storage.snapshot_every`.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_TAIL = """
From the process itself come `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`,
`process_max_fds` and `process_start_time_seconds` (Linux).
"""


def metrics_markdown() -> str:
    """The text of ``docs/metrics.md``."""
    rows = (
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.meaning} |"
        for one in Metrics().described
    )
    return _HEAD + "\n".join(rows) + "\n" + _TAIL
