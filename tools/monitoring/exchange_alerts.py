"""Alerts about worker processes, pushed data and outputs."""

from __future__ import annotations

from tools.monitoring.rule_types import AlertRule

WORKER_ALERTS = (
    AlertRule(
        "ForewatchWorkerDown",
        "forewatch_worker_up == 0",
        "5m",
        "warning",
        "Worker {{ $labels.worker }} of {{ $labels.instance }} does not run",
        "The supervisor starts it again; the other workers score its partitions. Its last log lines name the "
        "reason.",
    ),
    AlertRule(
        "ForewatchWorkerRestarts",
        "increase(forewatch_worker_restarts_total[30m]) > 3",
        "0m",
        "warning",
        "Worker {{ $labels.worker }} of {{ $labels.instance }} ended {{ $value }} times in 30 minutes",
        "Killed by the kernel: too little memory, see forewatch size --workers. Others: its last log lines.",
    ),
)

EXCHANGE_ALERTS = (
    AlertRule(
        "ForewatchSpoolFull",
        'sum by (stream) (rate(forewatch_push_requests_total{status="429"}[5m])) > 0',
        "10m",
        "critical",
        "The spool of stream {{ $labels.stream }} is full; senders wait",
        "Is the database up, and does the loop keep up? Senders drop data when their own buffers are full. "
        "`spool_bytes` sets the size.",
    ),
    AlertRule(
        "ForewatchSendersRefused",
        "sum by (stream, status) "
        '(rate(forewatch_push_requests_total{status=~"400|401|403|413|415"}[5m])) > 0',
        "15m",
        "warning",
        "Senders of stream {{ $labels.stream }} are refused with status {{ $labels.status }}",
        "The log names the reason once a minute: a wrong key (401), too large (413), another format (415).",
    ),
    AlertRule(
        "ForewatchOutputDown",
        "min by (stream, output) (forewatch_output_up) == 0",
        "5m",
        "warning",
        "Output {{ $labels.output }} of stream {{ $labels.stream }} takes no verdicts",
        "Its receiver does not answer or refuses: forewatch faults list --open. Verdicts wait for a topic of "
        "Kafka; for remote write they wait until its buffer is full.",
    ),
    AlertRule(
        "ForewatchOutputDrops",
        "sum by (stream, output) (increase(forewatch_output_dropped_rows_total[15m])) > 0",
        "0m",
        "warning",
        "Output {{ $labels.output }} of stream {{ $labels.stream }} left out {{ $value }} verdicts",
        "The log says why: too large, refused by the receiver, over the limit of series or over the buffer.",
    ),
)
