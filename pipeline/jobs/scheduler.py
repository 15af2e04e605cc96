"""The clock of the schedules. It only inserts rows: any number of processes may run one, and each due time is
one job.

APScheduler with a memory store; what is due is asked of the trigger, not of the moment at which a timer
fired, so a late timer, a suspended machine or a process that was down names the same due time as everybody
else.
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

#: A tick that could not be written is tried again after this long.
AGAIN = timedelta(seconds=5)

#: Inserts the job of (stream, due time in ns). Raises StorageError.
Queue = Callable[[str, int], None]


class Clock:
    """Calls ``queue`` for each due time of each stream's trigger, at least once."""

    def __init__(self, queue: Queue) -> None:
        from apscheduler.schedulers.background import BackgroundScheduler

        self._queue = queue
        self._triggers: dict[str, Any] = {}
        self._lock = threading.Lock()
        defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        self._scheduler = BackgroundScheduler(timezone=UTC, job_defaults=defaults)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Calling it twice is fine."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def take(self, triggers: Mapping[str, Any]) -> None:
        """From now on tick for these: stream → APScheduler trigger."""
        with self._lock:
            for stream in self._triggers:
                self._scheduler.remove_job(stream)
            self._triggers = dict(triggers)
            for stream, trigger in self._triggers.items():
                self._scheduler.add_job(self._tick, trigger, args=[stream], id=stream, replace_existing=True)

    def catch_up(self, stream: str, since_ns: int) -> None:
        """Tick now if a due time passed after ``since_ns``: nobody's clock ran then."""
        due = last_due(self._triggers[stream], datetime.now(UTC))
        if due is not None and _ns(due) > since_ns:
            self._tick(stream)

    def _tick(self, stream: str) -> None:
        trigger = self._triggers.get(stream)
        due = last_due(trigger, datetime.now(UTC)) if trigger is not None else None
        if due is None:
            return
        try:
            self._queue(stream, _ns(due))
        except StorageError as error:
            log.warning(
                "a due training cannot be queued yet", stream=stream, due=due.isoformat(), error=str(error)
            )
            self._scheduler.add_job(
                self._tick,
                "date",
                run_date=datetime.now(UTC) + AGAIN,
                args=[stream],
                id=f"{stream} again",
                replace_existing=True,
            )


def _ns(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
