"""The metrics of a process and of each stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from time import perf_counter

from prometheus_client import CollectorRegistry, generate_latest

from pipeline.core.types import Counts, FaultKind, Partition
from pipeline.observability.instruments import (
    AlertInstruments,
    DetectionInstruments,
    FlowInstruments,
    OperationInstruments,
    OutputInstruments,
    PushInstruments,
    RevisionInstruments,
    StateInstruments,
    TrainingInstruments,
)
from pipeline.observability.metric_registry import MetricDescription, MetricRegistry

_REVISION_KINDS = ("new", "revised", "retracted")
_OUTCOMES = ("scored", "late", "duplicate", "dead_lettered", "filtered")


class Metrics:
    """The metrics of one process, grouped by concern.

    Label values are keywords: ``metrics.flow.records.labels(stream="plant", outcome="late").inc(3)``.
    """

    def __init__(self) -> None:
        registry = MetricRegistry()
        build = registry.gauge("build_info", "Always 1; the label tells which version runs", "version")
        build.labels(version=version("forewatch")).set(1)
        self._registry = registry
        # The order of these lines is the order of the generated page.
        self.flow = FlowInstruments(registry)
        self.state = StateInstruments(registry)
        self.revisions = RevisionInstruments(registry)
        self.operation = OperationInstruments(registry)
        self.push = PushInstruments(registry)
        self.outputs = OutputInstruments(registry)
        self.alerts = AlertInstruments(registry)
        self.training = TrainingInstruments(registry)
        self.detection = DetectionInstruments(registry)

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that ``/metrics`` exposes."""
        return self._registry.collector

    def exposition(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    @property
    def described(self) -> list[MetricDescription]:
        """One description for each metric, in the order of the generated page."""
        return self._registry.described


class OutputMetrics:
    """The metrics of one output of a stream."""

    def __init__(self, metrics: Metrics, stream: str, output: str) -> None:
        """Begin with the labels of the output."""
        found = metrics.outputs
        self.written = found.written.labels(stream, output)
        self.waiting = found.waiting.labels(stream, output)
        self.refused = found.dropped.labels(stream, output)
        self.errors = found.errors.labels(stream, output)
        self.seconds = found.seconds.labels(stream, output)
        self.up = found.up.labels(stream, output)


class StreamMetrics:
    """The metrics that the engine of one stream writes."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._stream = stream
        self.batch_seconds = metrics.flow.batch_seconds.labels(stream)
        self.commit_seconds = metrics.flow.commit_seconds.labels(stream)
        self.snapshot_seconds = metrics.state.snapshot_seconds.labels(stream)
        self.fenced = metrics.flow.fenced_commits.labels(stream)
        self.series = metrics.state.series.labels(stream)
        self.series_refused = metrics.state.series_refused.labels(stream)
        self.evictions = metrics.state.evictions.labels(stream)
        self.open_anomalies = metrics.state.open_anomalies.labels(stream)
        metrics.operation.source_up.labels(stream).set(1)
        # a series that is there from the start makes rate() right from the first record on
        self._records = {outcome: metrics.flow.records.labels(stream, outcome) for outcome in _OUTCOMES}

    def committed(self, before: Counts, after: Counts) -> None:
        """Add the difference of the cumulative outcomes of a partition before and after a commit."""
        for outcome, counter in self._records.items():
            if added := getattr(after, outcome) - getattr(before, outcome):
                counter.inc(added)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as that of stage ``name``."""
        start = perf_counter()
        try:
            yield
        finally:
            self._metrics.flow.stage_seconds.labels(self._stream, name).inc(perf_counter() - start)

    def dead_letter(self, reason: str) -> None:
        self._metrics.flow.dead_letters.labels(self._stream, reason).inc()

    def anomaly(self, severity: str) -> None:
        """Count an opened anomaly."""
        self._metrics.state.anomalies.labels(self._stream, severity).inc()

    def fault_opened(self, kind: str) -> None:
        self._metrics.operation.faults.labels(self._stream, kind).inc()
        self._metrics.operation.open_faults.labels(self._stream, kind).inc()
        self._up(kind, 0)

    def fault_closed(self, kind: str) -> None:
        self._metrics.operation.open_faults.labels(self._stream, kind).dec()
        self._up(kind, 1)

    def _up(self, kind: str, up: int) -> None:
        if kind == FaultKind.DATABASE_DOWN:
            self._metrics.operation.database_up.set(up)
        elif kind == FaultKind.SOURCE_DOWN:
            self._metrics.operation.source_up.labels(self._stream).set(up)

    def lag(self, partition: Partition, records: int) -> None:
        self._metrics.flow.lag.labels(self._stream, partition.topic, partition.number).set(records)

    def buffered(self, partition: Partition, records: int) -> None:
        self._metrics.flow.buffered.labels(self._stream, partition.topic, partition.number).set(records)

    def snapshot(self, partition: Partition, size: int) -> None:
        """Record that a snapshot of ``size`` bytes has been committed."""
        self._metrics.state.snapshot_time.labels(
            self._stream, partition.topic, partition.number
        ).set_to_current_time()
        self._metrics.state.snapshot_bytes.labels(self._stream, partition.topic, partition.number).set(size)

    def history(self, segments: int, size: int, errors: int) -> None:
        """Add the work of the history writer since the last call."""
        self._metrics.state.history_segments.labels(self._stream).inc(segments)
        self._metrics.state.history_bytes.labels(self._stream).inc(size)
        self._metrics.state.history_errors.labels(self._stream).inc(errors)

    def forget(self, partition: Partition) -> None:
        """Remove the gauges of a partition that this process has lost."""
        for gauge in (
            self._metrics.flow.buffered,
            self._metrics.flow.lag,
            self._metrics.state.snapshot_time,
            self._metrics.state.snapshot_bytes,
        ):
            gauge.remove(self._stream, partition.topic, str(partition.number))


class RevisionMetrics:
    """The metrics of the revision of one stream's verdicts by late points."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        """Begin with the labels of the stream."""
        found = metrics.revisions
        self._anomalies = {kind: found.anomalies.labels(stream, kind) for kind in _REVISION_KINDS}
        self._series = found.series.labels(stream)
        self._waiting = found.waiting.labels(stream)
        self._oldest_seconds = found.oldest_seconds.labels(stream)

    def revised(self, series: int, kinds: Iterable[str]) -> None:
        """Count series that were scored again, and the kind of each anomaly that changed."""
        self._series.inc(series)
        for kind in kinds:
            self._anomalies[kind].inc()

    def wait(self, points: int, oldest_seconds: float) -> None:
        """Set the number of late points that wait, and the age of the oldest."""
        self._waiting.set(points)
        self._oldest_seconds.set(oldest_seconds)


class PushMetrics:
    """The metrics of one push source."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        """Count for a stream."""
        self._metrics = metrics
        self._stream = stream

    def request(self, status: int, size: int, points: int) -> None:
        """Count an answered request with a body of ``size`` bytes."""
        self._metrics.push.requests.labels(self._stream, status).inc()
        self._metrics.push.request_bytes.labels(self._stream).inc(size)
        self._metrics.push.points.labels(self._stream).inc(points)

    def spool(self, size: int) -> None:
        """Set the size of the spool in bytes."""
        self._metrics.push.spool_bytes.labels(self._stream).set(size)


class PowerMetrics:
    """The detection power metrics of one stream."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._stream = stream

    def kind(self, kind: str, smallest: float | None, delay: float | None, blind: float) -> None:
        """Medians over the series; None is reported as NaN: no size, or no delay, is known."""
        self._metrics.detection.power_smallest.labels(self._stream, kind).set(
            float("nan") if smallest is None else smallest
        )
        self._metrics.detection.power_delay.labels(self._stream, kind).set(
            float("nan") if delay is None else delay
        )
        self._metrics.detection.power_blind.labels(self._stream, kind).set(blind)

    def seconds(self, seconds: float) -> None:
        self._metrics.detection.power_seconds.labels(self._stream).inc(seconds)
