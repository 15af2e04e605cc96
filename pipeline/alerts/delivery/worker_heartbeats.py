"""Heartbeats of delivery processes.

The queues of a dead process are freed by the first process that notices (see ``storage.alerting.endpoints``).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from uuid import uuid4

import structlog

from storage.alerting import delivery_queue, endpoints
from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: A worker whose heartbeat has not changed for this long, on the monotonic clock of the observer, is dead.
DEAD_AFTER_SECONDS = 15.0
HEARTBEAT_SECONDS = 1.0


class WorkerHeartbeats:
    """Heartbeat of this process, and detection of dead ones.

    ``alone``: the database serves one process only (SQLite), so every other worker is dead.
    """

    def __init__(
        self, database: Database, *, alone: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.me = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._database = database
        self._alone = alone
        self._monotonic = monotonic
        self._count = 0
        self._beat_at = -HEARTBEAT_SECONDS
        self._seen: dict[str, tuple[int, float]] = {}

    def heartbeat(self, now_ns: int) -> bool:
        """Write a heartbeat and free the queues of dead workers, at most once a second.

        Returns whether a heartbeat was due.
        """
        if self._monotonic() - self._beat_at < HEARTBEAT_SECONDS:
            return False
        self._beat_at = self._monotonic()
        self._count += 1
        with self._database.begin() as connection:
            endpoints.heartbeat(connection, self.me, self._count, now_ns)
            for worker in self._dead(endpoints.heartbeats(connection)):
                freed = delivery_queue.reclaim_queues(connection, worker, now_ns)
                endpoints.remove_workers(connection, [worker])
                log.warning("delivery process ended; its queues are freed", worker=worker, unanswered=freed)
        return True

    def leave(self, now_ns: int) -> None:
        """Free the queues of this process and delete its heartbeat."""
        with self._database.begin() as connection:
            delivery_queue.reclaim_queues(connection, self.me, now_ns)
            endpoints.remove_workers(connection, [self.me])

    def _dead(self, heartbeats: dict[str, int]) -> list[str]:
        now = self._monotonic()
        self._seen = {
            w: self._seen[w] if self._seen.get(w, (None,))[0] == heartbeat else (heartbeat, now)
            for w, heartbeat in heartbeats.items()
        }
        patience = 0.0 if self._alone else DEAD_AFTER_SECONDS
        return [w for w, (_, since) in self._seen.items() if w != self.me and now - since >= patience]
