"""Contents of the dashboards: rows of panels with their queries."""

from __future__ import annotations

from tools.monitoring.panels import Dashboard, Panel, increase, latest, quantile, query, rate

_STREAM = 'stream=~"$stream"'
_FOREWATCH = 'job=~"forewatch.*"'
#: Legends. A daemon without workers has no label ``worker``.
_MEMBER = "{{instance}} {{worker}}"
_OUTPUT = "{{stream}} {{output}}"


def _stat(title: str, expression: str) -> Panel:
    return Panel(title, (query(expression, ""),), kind="stat", columns=6)


_STATE = (
    _stat("Daemons", "count(count by (instance) (forewatch_build_info))"),
    _stat("Database", "min(forewatch_database_up)"),
    _stat("Source", f"min(forewatch_source_up{{{_STREAM}}})"),
    _stat("Open faults", f"sum(forewatch_open_faults{{{_STREAM}}}) or vector(0)"),
    _stat("Open anomalies", f"sum(forewatch_open_anomalies{{{_STREAM}}})"),
    _stat("Series", f"sum(forewatch_series{{{_STREAM}}})"),
)
_FLOW = (
    Panel("Records committed, by outcome", (rate("forewatch_records_total", "stream", "outcome"),), "cps"),
    Panel(
        "Lag",
        (latest("sum", "forewatch_lag_records", "stream"),),
        meaning="Records behind the end of the log that are not committed yet",
    ),
    Panel("Buffered until the watermark", (latest("sum", "forewatch_held_records", "stream"),)),
    Panel(
        "Time from a batch read to its commit",
        (
            quantile(0.5, "forewatch_batch_seconds", "stream"),
            quantile(0.99, "forewatch_batch_seconds", "stream"),
        ),
        "s",
    ),
    Panel("Time of commits", (quantile(0.99, "forewatch_commit_seconds", "stream"),), "s"),
    Panel(
        "Share of one core, by stage",
        (rate("forewatch_stage_seconds_total", "instance", "worker", "stage"),),
        "percentunit",
    ),
)
_NOT_SCORED = (
    Panel("Dead letters, by reason", (rate("forewatch_dead_letters_total", "stream", "reason"),), "cps"),
    Panel(
        "Records of series over max_series", (rate("forewatch_series_limit_records_total", "stream"),), "cps"
    ),
    Panel("Faults opened", (increase("1h", "forewatch_faults_total", "stream", "kind"),)),
)
_REVISIONS = (
    Panel(
        "Anomalies changed by late points",
        (increase("1h", "forewatch_revised_anomalies_total", "stream", "kind"),),
    ),
    Panel("Series scored again", (increase("1h", "forewatch_revised_series_total", "stream"),)),
    Panel(
        "Late points that wait for a revision",
        (latest("sum", "forewatch_late_points_waiting", "stream"),),
        meaning="Those of offloaded series are not counted: they wait until the series comes back",
    ),
    Panel(
        "Age of the oldest of them", (latest("max", "forewatch_late_points_oldest_seconds", "stream"),), "s"
    ),
)
_SERIES = (
    Panel("Series in memory", (latest("sum", "forewatch_series", "stream"),)),
    Panel("Series moved to the database", (rate("forewatch_evictions_total", "stream"),), "cps"),
    Panel("Commits refused by the fence", (increase("15m", "forewatch_fenced_commits_total", "stream"),)),
    Panel(
        "Age of the newest snapshot",
        (
            query(
                f"time() - max by (stream) (forewatch_snapshot_timestamp_seconds{{{_STREAM}}})", "{{stream}}"
            ),
        ),
        "s",
    ),
    Panel("Size of snapshots", (latest("sum", "forewatch_snapshot_bytes", "stream"),), "bytes"),
    Panel("Time of snapshots", (quantile(0.99, "forewatch_snapshot_seconds", "stream"),), "s"),
    Panel("Recorded history written", (rate("forewatch_history_bytes_total", "stream"),), "Bps"),
    Panel(
        "History segments",
        (
            increase("1h", "forewatch_history_segments_total", "stream", legend="{{stream}} written"),
            increase("1h", "forewatch_history_errors_total", "stream", legend="{{stream}} failed"),
        ),
    ),
)
_PUSHED = (
    Panel("Points received", (rate("forewatch_push_points_total", "stream"),), "cps"),
    Panel(
        "Requests of senders, by status",
        (rate("forewatch_push_requests_total", "stream", "status"),),
        "reqps",
    ),
    Panel("Bytes received", (rate("forewatch_push_request_bytes_total", "stream"),), "Bps"),
    Panel(
        "Size of spools",
        (latest("sum", "forewatch_spool_bytes", "stream"),),
        "bytes",
        meaning="Received and not yet part of a snapshot; at spool_bytes senders get 429",
    ),
)
_OUTPUTS = (
    Panel(
        "Output works", (latest("min", "forewatch_output_up", "stream", "output"),), kind="stat", columns=2
    ),
    Panel("Verdicts written", (rate("forewatch_output_rows_total", "stream", "output"),), "cps", columns=2),
    Panel("Verdicts that wait", (latest("sum", "forewatch_output_waiting_rows", "stream", "output"),)),
    Panel(
        "Verdicts left out, and attempts that failed",
        (
            increase(
                "1h", "forewatch_output_dropped_rows_total", "stream", "output", legend=f"{_OUTPUT} left out"
            ),
            increase("1h", "forewatch_output_errors_total", "stream", "output", legend=f"{_OUTPUT} failed"),
        ),
    ),
    Panel("Time of a transaction or a request", (quantile(0.99, "forewatch_output_seconds", "stream"),), "s"),
)
_PROCESS = (
    Panel("CPU cores", (query(f"rate(process_cpu_seconds_total{{{_FOREWATCH}}}[5m])", _MEMBER),)),
    Panel("Resident memory", (query(f"process_resident_memory_bytes{{{_FOREWATCH}}}", _MEMBER),), "bytes"),
    Panel("Open file descriptors", (query(f"process_open_fds{{{_FOREWATCH}}}", _MEMBER),)),
    Panel("Worker processes", (query("forewatch_worker_up", _MEMBER),), meaning="1: it runs and answers"),
    Panel("Workers started again", (query("increase(forewatch_worker_restarts_total[1h])", _MEMBER),)),
    Panel(
        "Config reloads",
        (query("increase(forewatch_config_reloads_total[1h])", "{{instance}} {{result}}"),),
    ),
    Panel("Version", (query("forewatch_build_info", "{{instance}} {{version}}"),), kind="table"),
)
_ROUTING = (
    Panel(
        "Anomalies opened, by severity", (increase("1h", "forewatch_anomalies_total", "stream", "severity"),)
    ),
    Panel("Events by result", (increase("1h", "forewatch_alert_events_total", "stream", "fate"),)),
    Panel("Messages by kind", (increase("1h", "forewatch_alert_notices_total", "stream", "kind"),)),
    Panel("Pages in 24 hours, of the budget", (latest("max", "forewatch_alert_budget_used", "stream"),)),
    Panel("Events not routed yet", (latest("max", "forewatch_outbox_pending", "stream"),)),
    Panel("Age of the oldest of them", (latest("max", "forewatch_outbox_oldest_seconds", "stream"),), "s"),
)
_ENDPOINTS = (
    Panel("Endpoint works", (latest("min", "forewatch_endpoint_up", "endpoint"),), kind="stat", columns=2),
    Panel(
        "Endpoint is disabled",
        (latest("max", "forewatch_endpoint_disabled", "endpoint"),),
        kind="stat",
        columns=2,
    ),
    Panel("Deliveries that ended", (increase("1h", "forewatch_deliveries_total", "endpoint", "state"),)),
    Panel("Deliveries that wait", (latest("max", "forewatch_deliveries_pending", "endpoint"),)),
    Panel(
        "Age of the oldest of them", (latest("max", "forewatch_deliveries_oldest_seconds", "endpoint"),), "s"
    ),
    Panel("Attempts, by outcome", (rate("forewatch_delivery_attempts_total", "endpoint", "outcome"),), "cps"),
    Panel(
        "Time from the message to its delivery",
        (quantile(0.99, "forewatch_delivery_seconds", "endpoint"),),
        "s",
    ),
    Panel("Time of one call", (quantile(0.99, "forewatch_delivery_attempt_seconds", "endpoint"),), "s"),
    Panel(
        "Calls repeated after a lost answer",
        (increase("1h", "forewatch_delivery_repeats_total", "endpoint"),),
    ),
)
_TRAINING = (
    Panel("Champion", (latest("max", "forewatch_model_info", "stream", "model"),), kind="table"),
    Panel("Promoted model is in use", (latest("min", "forewatch_model_usable", "stream"),), kind="stat"),
    Panel("Models replaced", (increase("1d", "forewatch_model_exchanges_total", "stream"),)),
    Panel(
        "Jobs",
        (
            latest("max", "forewatch_jobs", "stream", "state"),
            latest("max", "forewatch_jobs_waiting_gpu", "stream", legend="{{stream}} waits for a GPU"),
        ),
    ),
    Panel(
        "Jobs that ended",
        (increase("1d", "forewatch_jobs_ended_total", "stream", "kind", "state", combine="max"),),
    ),
    Panel("Overdue", (latest("max", "forewatch_job_overdue_seconds", "stream"),), "s"),
    Panel(
        "CPU time of jobs", (increase("1d", "forewatch_job_cpu_seconds_total", "stream", combine="max"),), "s"
    ),
    Panel("Drifts detected", (increase("1d", "forewatch_drifts_total", "stream"),)),
)
_DETECTION = (
    Panel("Points by active forecaster", (rate("forewatch_verdicts_total", "stream", "forecaster"),), "cps"),
    Panel(
        "Minimum detectable size",
        (latest("max", "forewatch_power_smallest_spreads", "stream", "kind"),),
        meaning="In robust standard deviations of the series, median over the measured series",
    ),
    Panel(
        "Points until a change of that size is flagged",
        (latest("max", "forewatch_power_delay_points", "stream", "kind"),),
    ),
    Panel(
        "Series in which no size is detected",
        (latest("max", "forewatch_power_blind_ratio", "stream", "kind"),),
        "percentunit",
    ),
    Panel(
        "Share of a core for measuring it", (rate("forewatch_power_seconds_total", "stream"),), "percentunit"
    ),
)

DASHBOARDS = (
    Dashboard(
        "forewatch-pipeline",
        "forewatch / pipeline",
        (("stream", "forewatch_records_total"),),
        (
            ("State", _STATE),
            ("Flow", _FLOW),
            ("Records that are not scored", _NOT_SCORED),
            ("Revisions by late points", _REVISIONS),
            ("State of the series", _SERIES),
            ("Data that programs push", _PUSHED),
            ("Verdicts to outputs", _OUTPUTS),
            ("Process", _PROCESS),
        ),
    ),
    Dashboard(
        "forewatch-alerts",
        "forewatch / alerts",
        (("stream", "forewatch_records_total"), ("endpoint", "forewatch_endpoint_up")),
        (("From the anomaly to the message", _ROUTING), ("Endpoints", _ENDPOINTS)),
    ),
    Dashboard(
        "forewatch-models",
        "forewatch / models",
        (("stream", "forewatch_records_total"),),
        (("Models and training", _TRAINING), ("Detection", _DETECTION)),
    ),
)
