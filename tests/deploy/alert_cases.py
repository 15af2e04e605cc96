"""Situations in which each alert must fire, and near misses in which it must not.

The values are in the notation of promtool: ``a+bxn`` begins at a and adds b each minute, n times.
"""

from __future__ import annotations

from typing import NamedTuple

PARTITION = 'stream="plant",topic="t",partition="0"'
SCORED = 'forewatch_records_total{stream="plant",outcome="scored"}'
LATE = 'forewatch_records_total{stream="plant",outcome="late"}'
DEAD = 'forewatch_records_total{stream="plant",outcome="dead_lettered"}'
LAG = f"forewatch_lag_records{{{PARTITION}}}"
STAGE = 'forewatch_stage_seconds_total{instance="a",stream="plant",stage="%s"}'
OPEN_FILES = 'process_open_fds{job="forewatch",instance="a"}'
MAX_FILES = 'process_max_fds{job="forewatch",instance="a"}'
ENDPOINT_UP = 'forewatch_endpoint_up{endpoint="pager",instance="%s"}'
OF_WORKER = 'forewatch_stage_seconds_total{instance="a",worker="%s",stage="score"}'
PUSHED = 'forewatch_push_requests_total{stream="plant",status="%s"}'
OUTPUT = 'forewatch_output_%s{stream="plant",output="topic",instance="%s"}'
OLDEST_LATE = 'forewatch_late_points_oldest_seconds{stream="plant",instance="%s"}'
COMMIT = 'forewatch_commit_seconds_bucket{stream="plant",le="%s"}'


class AlertCase(NamedTuple):
    """One situation. ``labels`` are those of the alert that fires, None if none does at ``minute``."""

    alert: str
    minute: int
    series: dict[str, str]
    labels: dict[str, str] | None


def pair(
    alert: str, minute: int, firing: dict[str, str], quiet: dict[str, str], **labels: str
) -> tuple[AlertCase, AlertCase]:
    """Return the case that fires and the near miss."""
    return AlertCase(alert, minute, firing, labels), AlertCase(alert, minute, quiet, None)


STREAM = {"stream": "plant"}
ENDPOINT = {"endpoint": "pager"}
HERE = {"job": "forewatch", "instance": "a"}

CASES = [
    *pair(
        "ForewatchDown",
        10,
        {'up{job="forewatch",instance="a"}': "1 1 0x20"},
        {'up{job="forewatch",instance="a"}': "1x8 0 1x20", 'up{job="node",instance="a"}': "0x20"},
        **HERE,
    ),
    *pair(
        "ForewatchRestarts",
        20,
        {'process_start_time_seconds{job="forewatch",instance="a"}': "1 1 2 2 3 3 4 4 5x20"},
        {
            'process_start_time_seconds{job="forewatch",instance="a"}': "1 1 2 2 3 3 4x30",
            'process_start_time_seconds{job="node",instance="a"}': "1 1 2 2 3 3 4 4 5x20",
        },
        **HERE,
    ),
    *pair(
        "ForewatchDatabaseDown",
        5,
        {"forewatch_database_up": "1 0x10"},
        {"forewatch_database_up": "1 0 1 0 1x10"},
    ),
    *pair(
        "ForewatchSourceDown",
        6,
        {'forewatch_source_up{stream="plant"}': "1 0x10"},
        {'forewatch_source_up{stream="plant"}': "1 0 0 1x10"},
        **STREAM,
    ),
    *pair(
        "ForewatchFaultOpen",
        6,
        {'forewatch_open_faults{stream="plant",kind="schema_break"}': "0 1x10"},
        # It has an alert of its own.
        {'forewatch_open_faults{stream="plant",kind="database_down"}': "0 1x10"},
        **STREAM,
        kind="schema_break",
    ),
    *pair(
        "ForewatchStreamStopped",
        20,
        {LAG: "0+100x30", SCORED: "500x30"},
        {LAG: "0+100x30", SCORED: "0+10x30"},
        **STREAM,
    ),
    AlertCase("ForewatchStreamStopped", 20, {LAG: "0x30", SCORED: "500x30"}, None),
    *pair(
        "ForewatchLagGrows",
        45,
        {LAG: "20000+100x60", SCORED: "0+60x60"},
        {LAG: "90000-100x60", SCORED: "0+60x60"},
        **STREAM,
    ),
    AlertCase("ForewatchLagGrows", 45, {LAG: "0+100x60", SCORED: "0+60x60"}, None),
    *pair(
        "ForewatchLoopSaturated",
        30,
        {STAGE % "score": "0+50x60", STAGE % "commit": "0+6x60"},
        {STAGE % "score": "0+50x60", STAGE % "poll": "0+10x60"},
        instance="a",
    ),
    # Four workers that work a quarter of the time each are not saturated.
    AlertCase(
        "ForewatchLoopSaturated",
        30,
        {OF_WORKER % n: "0+15x60" for n in range(4)},
        None,
    ),
    AlertCase(
        "ForewatchLoopSaturated",
        30,
        {
            OF_WORKER % 0: "0+57x60",
            OF_WORKER % 1: "0+5x60",
        },
        {"instance": "a"},
    ),
    *pair(
        "ForewatchCommitSlow",
        30,
        {COMMIT % "1.0": "0+1x60", COMMIT % "2.5": "0+60x60", COMMIT % "+Inf": "0+60x60"},
        {COMMIT % "0.5": "0+60x60", COMMIT % "2.5": "0+60x60", COMMIT % "+Inf": "0+60x60"},
        **STREAM,
    ),
    *pair(
        "ForewatchSnapshotOld",
        30,
        {f"forewatch_snapshot_timestamp_seconds{{{PARTITION}}}": "60x60", SCORED: "0+60x60"},
        # No new records: the snapshot is still exact.
        {f"forewatch_snapshot_timestamp_seconds{{{PARTITION}}}": "60x60", SCORED: "500x60"},
        **STREAM,
    ),
    *pair(
        "ForewatchDeadLetters",
        30,
        {SCORED: "0+98x60", DEAD: "0+2x60"},
        {SCORED: "0+995x60", DEAD: "0+5x60"},
        **STREAM,
    ),
    *pair(
        "ForewatchLateRecords",
        50,
        {SCORED: "0+90x60", LATE: "0+10x60"},
        {SCORED: "0+97x60", LATE: "0+3x60"},
        **STREAM,
    ),
    *pair(
        "ForewatchRevisionsBehind",
        40,
        {OLDEST_LATE % "a": "0x10 60+60x60", OLDEST_LATE % "b": "0x80"},
        {OLDEST_LATE % "a": "0x10 60+60x12 0x60", OLDEST_LATE % "b": "800x80"},
        **STREAM,
    ),
    *pair(
        "ForewatchFencedCommits",
        20,
        {'forewatch_fenced_commits_total{stream="plant"}': "0+1x30"},
        {'forewatch_fenced_commits_total{stream="plant"}': "0x15 3x15"},
        **STREAM,
    ),
    *pair(
        "ForewatchHistoryNotWritten",
        20,
        {'forewatch_history_errors_total{stream="plant"}': "0x10 1x20"},
        {'forewatch_history_errors_total{stream="plant"}': "1x30"},
        **STREAM,
    ),
    *pair(
        "ForewatchSeriesLimit",
        20,
        {'forewatch_series_limit_records_total{stream="plant"}': "0+5x30"},
        {'forewatch_series_limit_records_total{stream="plant"}': "5x30"},
        **STREAM,
    ),
    *pair(
        "ForewatchConfigRefused",
        20,
        {'forewatch_config_reloads_total{result="refused"}': "0x10 1x20"},
        {'forewatch_config_reloads_total{result="taken"}': "0x10 1x20"},
        result="refused",
    ),
    *pair(
        "ForewatchFilesExhausted",
        10,
        {OPEN_FILES: "900x20", MAX_FILES: "1024x20"},
        {OPEN_FILES: "100x20", MAX_FILES: "1024x20"},
        **HERE,
    ),
    *pair(
        "ForewatchWorkerDown",
        10,
        {'forewatch_worker_up{worker="0"}': "0x20", 'forewatch_worker_up{worker="1"}': "1x20"},
        {'forewatch_worker_up{worker="0"}': "1 0 0 1x20"},
        worker="0",
    ),
    *pair(
        "ForewatchWorkerRestarts",
        30,
        {'forewatch_worker_restarts_total{worker="0"}': "0x5 1x5 2x5 3x5 4x5 5x20"},
        {'forewatch_worker_restarts_total{worker="0"}': "0x5 1x5 2x50"},
        worker="0",
    ),
    *pair(
        "ForewatchSpoolFull",
        30,
        {PUSHED % "429": "0+6x60"},
        # A moment of pressure, and other answers.
        {PUSHED % "429": "0x5 9x60", PUSHED % "204": "0+60x60"},
        **STREAM,
    ),
    *pair(
        "ForewatchSendersRefused",
        40,
        {PUSHED % "401": "0+6x60"},
        {PUSHED % "429": "0+6x60", PUSHED % "204": "0+60x60"},
        **STREAM,
        status="401",
    ),
    *pair(
        "ForewatchOutputDown",
        10,
        {OUTPUT % ("up", "a"): "0x20", OUTPUT % ("up", "b"): "1x20"},
        {OUTPUT % ("up", "a"): "1 0 0 1x20"},
        **STREAM,
        output="topic",
    ),
    *pair(
        "ForewatchOutputDrops",
        20,
        {OUTPUT % ("dropped_rows_total", "a"): "0x10 5x20"},
        {OUTPUT % ("dropped_rows_total", "a"): "5x30", OUTPUT % ("errors_total", "a"): "0+1x30"},
        **STREAM,
        output="topic",
    ),
    *pair(
        "ForewatchOutboxStuck",
        15,
        {'forewatch_outbox_oldest_seconds{stream="plant"}': "0+60x30"},
        {'forewatch_outbox_oldest_seconds{stream="plant"}': "30x30"},
        **STREAM,
    ),
    *pair(
        "ForewatchEndpointDown",
        10,
        # One of two daemons is enough: the worst counts.
        {ENDPOINT_UP % "a": "0x20", ENDPOINT_UP % "b": "1x20"},
        {ENDPOINT_UP % "a": "0 0 1x20"},
        **ENDPOINT,
    ),
    *pair(
        "ForewatchEndpointDisabled",
        10,
        {'forewatch_endpoint_disabled{endpoint="pager"}': "1x20"},
        {'forewatch_endpoint_disabled{endpoint="pager"}': "0x20"},
        **ENDPOINT,
    ),
    *pair(
        "ForewatchDeliveriesLate",
        30,
        {'forewatch_deliveries_oldest_seconds{endpoint="pager"}': "0+60x40"},
        {'forewatch_deliveries_oldest_seconds{endpoint="pager"}': "600x40"},
        **ENDPOINT,
    ),
    *pair(
        "ForewatchDeliveriesDead",
        20,
        {'forewatch_deliveries_total{endpoint="pager",state="dead"}': "0x10 1x20"},
        {'forewatch_deliveries_total{endpoint="pager",state="delivered"}': "0+1x30"},
        **ENDPOINT,
        state="dead",
    ),
    *pair(
        "ForewatchModelUnusable",
        10,
        {'forewatch_model_usable{stream="plant"}': "0x20"},
        {'forewatch_model_usable{stream="plant"}': "1x20"},
        **STREAM,
    ),
    *pair(
        "ForewatchTrainingOverdue",
        90,
        {'forewatch_job_overdue_seconds{stream="plant"}': "0+60x100"},
        {'forewatch_job_overdue_seconds{stream="plant"}': "600x100"},
        **STREAM,
    ),
    *pair(
        "ForewatchTrainingWaitsForGpu",
        70,
        {'forewatch_jobs_waiting_gpu{stream="plant"}': "1x100"},
        {'forewatch_jobs_waiting_gpu{stream="plant"}': "1x30 0x70"},
        **STREAM,
    ),
    *pair(
        "ForewatchTrainingFails",
        60,
        {'forewatch_jobs_ended_total{stream="plant",kind="train",state="failed"}': "0x10 1x10 2x80"},
        {
            'forewatch_jobs_ended_total{stream="plant",kind="train",state="failed"}': "1x100",
            'forewatch_jobs_ended_total{stream="plant",kind="train",state="succeeded"}': "0+1x100",
        },
        **STREAM,
    ),
]  # fmt: skip
