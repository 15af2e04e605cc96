"""The Prometheus instruments of a process, grouped by concern.

Names, labels and meanings follow the columns of the database: an ``outcome`` is a field of ``Counts``, a
``kind`` is a ``FaultKind``. The page of metrics in the documentation is generated from these calls.
"""

from __future__ import annotations

from pipeline.observability.metric_registry import MetricRegistry

_PARTITION = ("stream", "topic", "partition")


class FlowInstruments:
    """Records on their way from the source to the commit."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.records = registry.counter(
            "records",
            "Records that were committed, by outcome: scored, late, duplicate, dead_lettered, filtered",
            "stream",
            "outcome",
        )
        self.buffered = registry.gauge(
            "held_records",
            "Records buffered until the watermark passes them (lateness, aggregation)",
            *_PARTITION,
        )
        self.lag = registry.gauge(
            "lag_records", "Records of the log behind its end that are not committed yet", *_PARTITION
        )
        self.batch_seconds = registry.histogram(
            "batch_seconds", "Time from a batch read to its commit", "stream"
        )
        self.commit_seconds = registry.histogram(
            "commit_seconds", "Time of the SQL transaction of a batch", "stream"
        )
        self.stage_seconds = registry.counter(
            "stage_seconds",
            "Time spent in each stage of the loop (poll, score, commit, snapshot); rate() is "
            "its share of one core",
            "stream",
            "stage",
        )
        self.dead_letters = registry.counter(
            "dead_letters", "Records that could not be decoded or validated, by reason", "stream", "reason"
        )
        self.fenced_commits = registry.counter(
            "fenced_commits", "Commits refused because another process owns the partition now", "stream"
        )


class StateInstruments:
    """Series in memory, anomalies, snapshots and recorded history."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.series = registry.gauge("series", "Series in memory", "stream")
        self.series_refused = registry.counter(
            "series_limit_records",
            "Records of series over max_series; they are among the records with the outcome filtered",
            "stream",
        )
        self.evictions = registry.counter(
            "evictions", "Idle series moved from memory to the database", "stream"
        )
        self.anomalies = registry.counter(
            "anomalies", "Anomalies opened, by the severity that they had then", "stream", "severity"
        )
        self.open_anomalies = registry.gauge("open_anomalies", "Anomalies that are open now", "stream")
        self.snapshot_time = registry.gauge(
            "snapshot_timestamp_seconds",
            "When the last snapshot was committed; time() minus this is its age",
            *_PARTITION,
        )
        self.snapshot_seconds = registry.histogram(
            "snapshot_seconds", "Time to encode and store a snapshot", "stream"
        )
        self.snapshot_bytes = registry.gauge("snapshot_bytes", "Size of the last snapshot", *_PARTITION)
        self.history_segments = registry.counter("history_segments", "History segments written", "stream")
        self.history_bytes = registry.counter("history_bytes", "Bytes of history segments written", "stream")
        self.history_errors = registry.counter(
            "history_errors", "History segments that could not be written", "stream"
        )


class RevisionInstruments:
    """Revision of verdicts by late points."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.anomalies = registry.counter(
            "revised_anomalies",
            "Anomalies that late points changed, by kind: new, revised, retracted",
            "stream",
            "kind",
        )
        self.series = registry.counter(
            "revised_series", "Series that were scored again because of late points", "stream"
        )
        self.waiting = registry.gauge(
            "late_points_waiting",
            "Late points that have not revised their series yet, of series in memory",
            "stream",
        )
        self.oldest_seconds = registry.gauge(
            "late_points_oldest_seconds", "Time that the oldest of them has waited", "stream"
        )


class OperationInstruments:
    """Database, sources, pipeline faults and config reloads."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.database_up = registry.gauge(
            "database_up", "1: the database answers, 0: partitions are paused until it does"
        )
        self.database_up.set(1)
        self.source_up = registry.gauge(
            "source_up", "1: the source of the stream answers, 0: it is tried again", "stream"
        )
        self.faults = registry.counter("faults", "Pipeline faults opened, by kind", "stream", "kind")
        self.open_faults = registry.gauge(
            "open_faults", "Pipeline faults that are open now, by kind", "stream", "kind"
        )
        self.config_reloads = registry.counter(
            "config_reloads", "Changed configs read: taken, or refused with the old one kept", "result"
        )


class PushInstruments:
    """Data that programs push."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.requests = registry.counter(
            "push_requests",
            "Requests of senders, by HTTP status: 2xx kept, 400 kept as a dead letter, 429 the spool is full",
            "stream",
            "status",
        )
        self.request_bytes = registry.counter(
            "push_request_bytes", "Bytes of their bodies, as received", "stream"
        )
        self.points = registry.counter("push_points", "Points in bodies that were kept", "stream")
        self.spool_bytes = registry.gauge(
            "spool_bytes", "Size of the spool; at spool_bytes of the config senders get 429", "stream"
        )


class OutputInstruments:
    """Verdicts on their way to the outputs of a stream."""

    def __init__(self, registry: MetricRegistry) -> None:
        """Register the metrics."""
        output = ("stream", "output")
        self.written = registry.counter("output_rows", "Verdicts that an output has written", *output)
        self.waiting = registry.gauge(
            "output_waiting_rows", "Verdicts that wait for the receiver of an output", *output
        )
        self.dropped = registry.counter(
            "output_dropped_rows",
            "Verdicts that an output left out: too large, or refused by the receiver, or over its limit of "
            "series, or (remote write) over its buffer",
            *output,
        )
        self.errors = registry.counter(
            "output_errors", "Attempts to write verdicts that failed and were repeated", *output
        )
        self.seconds = registry.histogram(
            "output_seconds", "Time to write some verdicts: a transaction or a request", *output
        )
        self.up = registry.gauge("output_up", "1: the receiver takes verdicts, 0: it is tried again", *output)


class DeliveryInstruments:
    """Delivery of messages to endpoints."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.deliveries = registry.counter(
            "deliveries", "Deliveries that ended, by state: delivered, dead, suppressed", "endpoint", "state"
        )
        self.deliveries_pending = registry.gauge(
            "deliveries_pending", "Deliveries that wait for their turn or their next attempt", "endpoint"
        )
        self.deliveries_oldest_seconds = registry.gauge(
            "deliveries_oldest_seconds", "Age of the oldest of them", "endpoint"
        )
        self.delivery_attempts = registry.counter(
            "delivery_attempts",
            "Calls, by outcome: delivered, failed, lost (no answer came)",
            "endpoint",
            "outcome",
        )
        self.delivery_repeats = registry.counter(
            "delivery_repeats",
            "Calls after one whose answer was lost: the receiver may know the message",
            "endpoint",
        )
        self.delivery_seconds = registry.histogram(
            "delivery_seconds", "Time from the message to its delivery", "endpoint"
        )
        self.delivery_attempt_seconds = registry.histogram(
            "delivery_attempt_seconds", "Time of one call", "endpoint"
        )
        self.endpoint_up = registry.gauge(
            "endpoint_up",
            "1: the last calls succeeded, 0: they fail, or the endpoint is disabled",
            "endpoint",
        )
        self.endpoint_disabled = registry.gauge(
            "endpoint_disabled", "1: nothing is sent until `forewatch endpoints enable`", "endpoint"
        )


class AlertInstruments(DeliveryInstruments):
    """Routing of alerts, and delivery to endpoints."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.alert_events = registry.counter(
            "alert_events",
            "Events of the outbox by what became of them: sent, or why not (silence, budget, rule:NAME, ...)",
            "stream",
            "fate",
        )
        self.alert_notices = registry.counter(
            "alert_notices",
            "Messages about alerts, by kind: opened, updated, resolved, ...",
            "stream",
            "kind",
        )
        self.alert_budget_used = registry.gauge(
            "alert_budget_used", "Pages of the last 24 hours, where there is a budget", "stream"
        )
        self.outbox_pending = registry.gauge(
            "outbox_pending", "Events of the outbox that were not routed yet", "stream"
        )
        self.outbox_oldest_seconds = registry.gauge(
            "outbox_oldest_seconds", "Age of the oldest of them", "stream"
        )
        super().__init__(registry)


class TrainingInstruments:
    """Training jobs and the models that serve."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.jobs = registry.gauge("jobs", "Retraining jobs by state: queued, running", "stream", "state")
        self.job_overdue_seconds = registry.gauge(
            "job_overdue_seconds", "Time since the oldest queued job was due", "stream"
        )
        self.jobs_waiting_gpu = registry.gauge(
            "jobs_waiting_gpu", "Jobs that wait for a GPU worker", "stream"
        )
        self.jobs_ended = registry.counter(
            "jobs_ended",
            "Jobs that ended, by state: succeeded, rejected, failed, cancelled",
            "stream",
            "kind",
            "state",
        )
        self.drifts = registry.counter("drifts", "Drifts of the stream that were detected", "stream")
        self.job_cpu_seconds = registry.counter("job_cpu_seconds", "CPU time of ended jobs", "stream")
        self.model_info = registry.gauge(
            "model_info", "1 for the champion model of the stream", "stream", "model"
        )
        self.model_exchanges = registry.counter(
            "model_exchanges", "Times that this process replaced the model of the stream", "stream"
        )
        self.model_usable = registry.gauge(
            "model_usable",
            "1: the promoted model is in use, 0: it is refused and another model is in use",
            "stream",
        )


class DetectionInstruments:
    """Detection power and the forecasters in use."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.power_smallest = registry.gauge(
            "power_smallest_spreads",
            "Minimum detectable size of each kind of change, in robust standard deviations of "
            "the series: median over the measured series, "
            "NaN where fewer than half of them detect any",
            "stream",
            "kind",
        )
        self.power_delay = registry.gauge(
            "power_delay_points",
            "Points until a change of that size is flagged, median over the series",
            "stream",
            "kind",
        )
        self.power_blind = registry.gauge(
            "power_blind_ratio",
            "Share of the measured series in which no size of the change is detected",
            "stream",
            "kind",
        )
        self.verdicts = registry.counter(
            "verdicts",
            "Points by the forecaster whose forecast they were compared with; the label guard is deprecated",
            "stream",
            "forecaster",
            "guard",
        )
        self.power_seconds = registry.counter(
            "power_seconds",
            "Time spent on measuring detection power; rate() is its share of one core",
            "stream",
        )


class WorkerInstruments:
    """Worker processes of a daemon with ``workers``; its supervisor has these metrics."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.up = registry.gauge(
            "worker_up", "1: the worker process runs and answers, 0: it does not", "worker"
        )
        self.restarts = registry.counter(
            "worker_restarts", "Times that a worker process was started again after its end", "worker"
        )
