"""The schedules of trainings.

The scheduler only inserts rows: any number of processes may run one, and each due time is one job. It uses
APScheduler with a memory store. The due time comes from the trigger and not from the moment at which a timer
fires, so that a late timer, a suspended machine and a restarted process compute the same due time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from pipeline.core.cron import last_due
from pipeline.core.errors import StorageError

log = structlog.get_logger(__name__)

#: Delay before a due training that could not be queued is tried again.
RETRY_DELAY = timedelta(seconds=5)

#: Inserts the job of (stream, due time in ns). Raises StorageError.
QueueTraining = Callable[[str, int], None]


class TrainingScheduler:
    """Calls ``queue`` for each due time of each stream's trigger, at least once."""

    def __init__(self, queue: QueueTraining) -> None:
        from apscheduler.schedulers.background import BackgroundScheduler

        self._queue = queue
        self._triggers: dict[str, Any] = {}
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

    def set_triggers(self, triggers: Mapping[str, Any]) -> None:
        """Replace the triggers: stream → APScheduler trigger."""
        with self._lock:
            for stream in self._triggers:
                self._scheduler.remove_job(stream)
            self._triggers = dict(triggers)
            for stream, trigger in self._triggers.items():
                self._scheduler.add_job(
                    self._queue_due, trigger, args=[stream], id=stream, replace_existing=True
                )

    def catch_up(self, stream: str, since_ns: int) -> None:
        """Queue the last due time now if it passed after ``since_ns``, while no scheduler ran."""
        due = last_due(self._triggers[stream], datetime.now(UTC))
        if due is not None and _ns(due) > since_ns:
            self._queue_due(stream)

    def _queue_due(self, stream: str) -> None:
        trigger = self._triggers.get(stream)
        due = last_due(trigger, datetime.now(UTC)) if trigger is not None else None
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
