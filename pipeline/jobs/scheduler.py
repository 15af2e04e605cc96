"""The schedules of trainings.

The scheduler only inserts rows: any number of processes may run one, and each due time is one job. It uses
APScheduler with a memory store. The due time comes from the schedule and not from the moment at which a timer
fires, so that a late timer, a suspended machine and a restarted process compute the same due time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from pipeline.core.cron import Schedule
from pipeline.core.errors import StorageError

log = structlog.get_logger(__name__)

#: Delay before a due training that could not be queued is tried again.
RETRY_DELAY = timedelta(seconds=5)

#: Inserts the job of (stream, due time in ns). Raises StorageError.
QueueTraining = Callable[[str, int], None]


class ScheduleTrigger(BaseTrigger):  # type: ignore[misc]
    """A schedule in the form of APScheduler."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the first due time after both ``previous_fire_time`` and ``now``, so that no loop can stay."""
        return self._schedule.next_due(now if previous_fire_time is None else max(previous_fire_time, now))


class TrainingScheduler:
    """Calls ``queue`` for each due time of each stream's schedule, at least once."""

    def __init__(self, queue: QueueTraining) -> None:
        self._queue = queue
        self._schedules: dict[str, Schedule] = {}
        self._lock = threading.Lock()
        defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)

    def start(self) -> None:
        """Start the timers."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop the timers. A second call has no effect."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def set_schedules(self, schedules: Mapping[str, Schedule]) -> None:
        """Replace the schedules of all streams."""
        with self._lock:
            for stream in self._schedules:
                self._scheduler.remove_job(stream)
            self._schedules = dict(schedules)
            for stream, schedule in self._schedules.items():
                self._scheduler.add_job(
                    self._queue_due,
                    ScheduleTrigger(schedule),
                    args=[stream],
                    id=stream,
                    replace_existing=True,
                )

    def catch_up(self, stream: str, since_ns: int) -> None:
        """Queue the last due time now if it passed after ``since_ns``, while no scheduler ran."""
        due = self._schedules[stream].last_due(datetime.now(UTC))
        if due is not None and _ns(due) > since_ns:
            self._queue_due(stream)

    def _queue_due(self, stream: str) -> None:
        schedule = self._schedules.get(stream)
        due = schedule.last_due(datetime.now(UTC)) if schedule is not None else None
        if due is None:
            return
        try:
            self._queue(stream, _ns(due))
        except StorageError as error:
            log.warning("cannot queue a due training", stream=stream, due=due.isoformat(), error=str(error))
            self._scheduler.add_job(
                self._queue_due,
                "date",
                run_date=datetime.now(UTC) + RETRY_DELAY,
                args=[stream],
                id=f"{stream} again",
                replace_existing=True,
            )


def _ns(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
