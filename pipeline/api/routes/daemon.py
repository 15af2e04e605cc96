"""The running daemon: memory, and times of its commits."""

from __future__ import annotations

from pydantic import BaseModel, Field

from pipeline.api.context import Context
from pipeline.api.direct_answers import api_router
from pipeline.core.durations import SECOND_NS
from pipeline.core.iso_times import show_time
from pipeline.services.daemon_figures import DaemonUnreachable, read_daemon_figures

router = api_router(tags=["operations"])


class CommitItem(BaseModel):
    """Times of the transactions of one stream since the daemon started."""

    stream: str
    commits: int
    mean_ms: float | None
    p99_ms: float | None = Field(description="to the accuracy of the buckets of the metric")
    lag_records: int | None = Field(description="records of its log that are not committed yet")


class DaemonView(BaseModel):
    """Figures of the daemon at ``http`` of the config; null where none answers."""

    problem: str | None = Field(description="reason why there are no figures, with what to do")
    memory_bytes: int | None = Field(description="resident memory of all its processes")
    started: str | None
    streams: list[CommitItem]


@router.get("/daemon")
def read_daemon(context: Context) -> DaemonView:
    """Return memory and commit times of the running daemon, from its page of metrics."""
    try:
        found = read_daemon_figures(context.config.http)
    except DaemonUnreachable as error:
        return DaemonView(problem=str(error), memory_bytes=None, started=None, streams=[])
    return DaemonView(
        problem=None,
        memory_bytes=round(found.memory_bytes) or None,
        started=None if found.started_s is None else show_time(round(found.started_s * SECOND_NS)),
        streams=[
            CommitItem(
                stream=name,
                commits=round(times.count),
                mean_ms=_ms(times.mean_seconds),
                p99_ms=_ms(times.quantile_seconds(0.99)),
                lag_records=None if name not in found.lag_records else round(found.lag_records[name]),
            )
            for name, times in sorted(found.commits.items())
            if name in context.config.streams
        ],
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
