"""What of jobs is counted.

The metrics themselves are described with all others, in ``pipeline.observability.metrics``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from pipeline.observability.metrics import Metrics
from storage.model_store.jobs import Job


class JobMetrics:
    """Made from rows, so that they say the same in every daemon on a database."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics.training
        # (job, token) of ended ones; those from before the start do not count
        self._counted: set[tuple[int, int]] | None = None

    def drifted(self, stream: str) -> None:
        self._metrics.drifts.labels(stream).inc()

    def seen(self, streams: Collection[str], live: Sequence[Job], ended: Sequence[Job], now_ns: int) -> None:
        """The jobs that wait or run, and the newest that ended."""
        standing = Counter((job.stream, job.state) for job in live)
        waiting = Counter(job.stream for job in live if job.reason.startswith("no worker offers a GPU"))
        for stream in streams:
            for state in ("queued", "running"):
                self._metrics.jobs.labels(stream, state).set(standing[stream, state])
            self._metrics.jobs_waiting_gpu.labels(stream).set(waiting[stream])
            overdue = [now_ns - job.due_ns for job in live if job.stream == stream and job.state == "queued"]
            self._metrics.job_overdue_seconds.labels(stream).set(max([0, *overdue]) / 1e9)
        new = {(job.id, job.token) for job in ended}
        for job in ended:
            if self._counted is not None and (job.id, job.token) not in self._counted:
                self._metrics.jobs_ended.labels(job.stream, job.kind, job.state).inc()
                self._metrics.job_cpu_seconds.labels(job.stream).inc(job.cost.get("cpu_seconds", 0.0))
        self._counted = new | (self._counted or set())
