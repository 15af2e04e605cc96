"""The page of metrics in the documentation, generated from the instruments."""

from __future__ import annotations

from pipeline.observability.instruments import WorkerInstruments
from pipeline.observability.metric_registry import MetricDescription, MetricRegistry
from pipeline.observability.metrics import Metrics

_HEAD = """# Metrics

Generated from `pipeline/observability/instruments.py` by `make docs`; do not edit. A running daemon serves them at `/metrics` (config key `http`) in the text format of
Prometheus. Counters begin at zero with each process: use `rate()` and `increase()`.

Every offset is accounted for: over any span without a restart, the sum of `forewatch_records_total` over its outcomes is the number of offsets that were
committed, and records that are buffered until the watermark passes them are counted in `forewatch_held_records`.

Worth an alert: `forewatch_database_up == 0`, `forewatch_source_up == 0`, any `forewatch_open_faults > 0`, a `forewatch_lag_records` that grows, and
`time() - forewatch_snapshot_timestamp_seconds` far above `storage.snapshot_every`.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_TAIL = """
From the process itself come `process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`,
`process_max_fds` and `process_start_time_seconds` (Linux).

With `workers` in the config, the page has the metrics of all workers, each with the label `worker`
(0, 1, ...); those of the supervisor have `worker="supervisor"`. Sum or take the maximum over it as over
daemons of several machines.
"""


def metric_descriptions() -> list[MetricDescription]:
    """Return the metrics of a daemon and of a supervisor of workers."""
    of_supervisor = MetricRegistry()
    WorkerInstruments(of_supervisor)
    return [*Metrics().described, *of_supervisor.described]


def metrics_markdown() -> str:
    """Return the page of metrics as Markdown."""
    rows = (
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.meaning} |"
        for one in metric_descriptions()
    )
    return _HEAD + "\n".join(rows) + "\n" + _TAIL
