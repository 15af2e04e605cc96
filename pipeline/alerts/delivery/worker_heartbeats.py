"""Which delivery processes live.

A dead one's lanes are freed by whoever notices (see ``storage.alerting.endpoints``).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from uuid import uuid4

import structlog

from storage.alerting import deliveries, endpoints
from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: A worker whose beat stands still for this long, by the watcher's own monotonic clock, is dead.
DEAD_AFTER = 15.0
BEAT_EVERY = 1.0


class Workers:
    """This process among those that deliver.

    ``alone``: the database serves one process only (SQLite), so whoever else left lanes is dead.
    """

    def __init__(
        self, database: Database, *, alone: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.me = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._database = database
        self._alone = alone
        self._monotonic = monotonic
        self._count = 0
        self._beat_at = -BEAT_EVERY
        self._seen: dict[str, tuple[int, float]] = {}

    def beat(self, now_ns: int) -> bool:
        """Show that this process lives and bury who does not; at most once a second.

        Returns whether it was time for it.
        """
        if self._monotonic() - self._beat_at < BEAT_EVERY:
            return False
        self._beat_at = self._monotonic()
        self._count += 1
        with self._database.begin() as connection:
            endpoints.beat(connection, self.me, self._count, now_ns)
            for worker in self._dead(endpoints.beats(connection)):
                freed = deliveries.abandon(connection, worker, now_ns)
                endpoints.bury(connection, [worker])
                log.warning("a delivery process is gone", worker=worker, unanswered=freed)
        return True

    def leave(self, now_ns: int) -> None:
        """End in good order: nothing is in hand any more."""
        with self._database.begin() as connection:
            deliveries.abandon(connection, self.me, now_ns)
            endpoints.bury(connection, [self.me])

    def _dead(self, beats: dict[str, int]) -> list[str]:
        now = self._monotonic()
        self._seen = {
            w: self._seen[w] if self._seen.get(w, (None,))[0] == beat else (beat, now)
            for w, beat in beats.items()
        }
        patience = 0.0 if self._alone else DEAD_AFTER
        return [w for w, (_, since) in self._seen.items() if w != self.me and now - since >= patience]
