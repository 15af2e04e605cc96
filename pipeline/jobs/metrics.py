"""Metrics of jobs.

The metrics themselves are described with all others, in ``pipeline.observability.metrics``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from pipeline.observability.metrics import Metrics
from storage.model_store.jobs import Job, JobState

#: Beginning of the reason of a job that waits for a GPU worker.
NO_GPU_WORKER = "no worker offers a GPU"


class JobMetrics:
    """Metrics computed from rows, so that every daemon on a database reports the same."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics.training
        # (job, token) of ended jobs. The first update only fills it: earlier jobs are not counted.
        self._counted: set[tuple[int, int]] | None = None

    def count_drift(self, stream: str) -> None:
        """Count one drift of a stream."""
        self._metrics.drifts.labels(stream).inc()

    def update(
        self, streams: Collection[str], live: Sequence[Job], ended: Sequence[Job], now_ns: int
    ) -> None:
        """Set the gauges from ``live`` jobs and count the newly ``ended`` ones.

        Args:
            streams: names of the configured streams.
            live: all queued and running jobs.
            ended: the newest jobs that have ended.
            now_ns: current time.
        """
        by_state = Counter((job.stream, job.state) for job in live)
        waiting = Counter(job.stream for job in live if job.reason.startswith(NO_GPU_WORKER))
        for stream in streams:
            for state in (JobState.QUEUED, JobState.RUNNING):
                self._metrics.jobs.labels(stream, state.value).set(by_state[stream, state])
            self._metrics.jobs_waiting_gpu.labels(stream).set(waiting[stream])
            queued = [job for job in live if job.stream == stream and job.state == JobState.QUEUED]
            overdue_ns = max([0, *(now_ns - job.due_ns for job in queued)])
            self._metrics.job_overdue_seconds.labels(stream).set(overdue_ns / 1e9)
        new = {(job.id, job.token) for job in ended}
        for job in ended:
            if self._counted is not None and (job.id, job.token) not in self._counted:
                self._metrics.jobs_ended.labels(job.stream, job.kind, job.state).inc()
                self._metrics.job_cpu_seconds.labels(job.stream).inc(job.cost.get("cpu_seconds", 0.0))
        self._counted = new | (self._counted or set())
