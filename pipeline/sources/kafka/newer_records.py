"""Records that came to the broker while a batch was scored.

kafka-python sends a request at each poll, and none while records of its answer are left. So a poll finds what
the broker had at the poll before, and what came since would wait for the next one: a whole batch longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipeline.core.errors import SourceError
from pipeline.sources.kafka.record_batches import Chunk

#: Time between two polls after which the records that are here count as old.
STALE_SECONDS = 0.01
#: Longest wait for newer ones, and its largest share of the time between the two polls.
WAIT_SECONDS, WAIT_SHARE = 0.01, 0.2
#: Polls without such a wait after one that brought nothing: the broker may be further away than the wait.
POLLS_WITHOUT_WAIT = 20

#: Records by partition of the client.
Fetched = dict[Any, list[Chunk]]


class NewerRecords:
    """Adds newer records to those of a poll."""

    def __init__(self, fetch: Callable[[Any, int, float], Fetched]) -> None:
        """Begin without a poll; ``fetch`` gets the client, most records and a wait."""
        self._fetch = fetch
        self._ended_at = time.monotonic()
        self._away = 0.0
        self._polls_without_wait = 0
        self._failure: SourceError | None = None

    def begin(self) -> None:
        """Begin a poll. Raises the SourceError of the one before, which had records."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._away = time.monotonic() - self._ended_at

    def end(self) -> None:
        """End a poll."""
        self._ended_at = time.monotonic()

    def add(self, consumer: Any, fetched: Fetched, max_records: int) -> None:
        """Add what came since the poll before to ``fetched``, if there is room."""
        room = max_records - sum(len(chunk.offsets) for chunks in fetched.values() for chunk in chunks)
        if not fetched or room <= 0 or self._away <= STALE_SECONDS:
            return
        if self._polls_without_wait > 0:
            self._polls_without_wait -= 1
            return
        try:
            newer = self._fetch(consumer, room, min(WAIT_SECONDS, WAIT_SHARE * self._away))
        except SourceError as error:
            self._failure = error
            return
        if not newer:
            self._polls_without_wait = POLLS_WITHOUT_WAIT
        for topic_partition, chunks in newer.items():
            fetched.setdefault(topic_partition, []).extend(chunks)
