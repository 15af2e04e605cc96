"""SQL source: one partition, whose offset is the value of the cursor column.

A position is the first value that was not read; it is in the fenced commit like any other. All rows of one
value are read together, so none of them is lost or comes twice: rows of the newest value wait until a larger
one appears, or until no other came for ``settle``. A row that is written later with a value that was read is
not seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import schema as models
from pipeline.core.errors import SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, TableRecords
from pipeline.sources.sql.query import CursorQuery, Page

#: Most rows of a query; more rows of one value come together.
MAX_ROWS = 10_000
RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
#: End of a partition before it is read: any position is inside.
_NO_END = 1 << 62


class SqlSource:
    """Source of the rows of a query. Queries run in a thread of their own."""

    def __init__(self, stream: str, config: models.SqlSourceConfig) -> None:
        """Do not connect yet. Raises ConfigError if the URL cannot be used."""
        self._query = CursorQuery(stream, config)
        self._config = config
        self._partition = Partition(f"sql-{stream}", 0)
        self._assigned = False
        self._paused = True
        self._closed = False
        self._next: int | None = None
        self._waiting = 0  # rows that are known and not returned
        self._newest: tuple[int, float, int] | None = None  # offset, since when, number of its rows
        self._due = 0.0
        self._retry_seconds = RETRY_SECONDS
        self._error: SourceUnavailable | None = None
        self._running: _Fetch | None = None

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Return new rows; those of one cursor value come together."""
        if self._closed:
            raise SourceError("this source is closed")
        if not self._assigned:
            self._assigned = True
            return Poll(assigned=[self._partition])
        if self._paused or self._next is None:
            time.sleep(timeout)
            return Poll()
        deadline = time.monotonic() + timeout
        if self._running is None and not self._start_when_due(self._next, max_records, deadline):
            if self._error is not None:
                raise self._error
            return Poll()
        assert self._running is not None
        if not self._running.done.wait(max(0.0, deadline - time.monotonic())):
            return Poll()
        fetch, self._running = self._running, None
        if fetch.error is not None:
            self._due = time.monotonic() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)
            self._error = fetch.error
            raise fetch.error
        self._error, self._retry_seconds = None, RETRY_SECONDS
        if fetch.page is None or fetch.offset != self._next:  # it was sought meanwhile
            return Poll()
        return self._taken(fetch.page)

    def _start_when_due(self, offset: int, max_records: int, deadline: float) -> bool:
        """Start the next query; False if it is not due before the deadline."""
        time.sleep(max(0.0, min(self._due, deadline) - time.monotonic()))
        if time.monotonic() < self._due:
            return False
        self._running = _Fetch(self._query, offset, min(max_records, MAX_ROWS))
        return True

    def _taken(self, page: Page) -> Poll:
        """Return the rows of a page whose values are complete."""
        count, now = len(page.rows), time.monotonic()
        wait = self._config.every.total_seconds() if page.newest is not None or not count else 0.0
        if page.newest is not None and self._config.settle:
            same = len(page.offsets) - page.offsets.index(page.newest)
            if self._newest is None or (self._newest[0], self._newest[2]) != (page.newest, same):
                self._newest = (page.newest, now, same)
            settled = self._newest[1] + self._config.settle.total_seconds()
            if now < settled:
                count -= same
                wait = min(wait, settled - now)
        self._due = now + wait
        self._waiting = len(page.rows) - count
        if not count:
            return Poll()
        first, self._next = self._next, page.offsets[count - 1] + 1
        assert first is not None
        offsets = np.array(page.offsets[:count], np.int64)
        table = pa.table(
            {
                name: arrow_column([row[place] for row in page.rows[:count]])
                for place, name in enumerate(page.columns)
            }
        )
        stamps = np.full(count, time.time_ns(), np.int64)
        return Poll(
            records=[TableRecords(self._partition, first, self._next, offsets, stamps, table, sparse=True)]
        )

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        """Return the offsets; the end counts the rows that are known to wait."""
        end = _NO_END if self._next is None else self._next + self._waiting
        return {partition: OffsetBounds(0, end) for partition in partitions}

    def start_offset(self, partition: Partition) -> int:
        """Return 0, or the offset after the newest row. Raises SourceUnavailable."""
        return 0 if self._config.start == "earliest" else self._query.end()

    def identity(self, partition: Partition) -> str:
        """Return "": a database has no identity."""
        return ""

    def seek(self, partition: Partition, offset: int) -> None:
        """Read from the first row whose cursor value is at least ``offset``."""
        self._next, self._newest, self._waiting, self._due = offset, None, 0, 0.0

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Return no row until ``resume``."""
        self._paused = self._paused or self._partition in partitions

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Return rows again."""
        self._paused = self._paused and self._partition not in partitions

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: the database holds the truth."""

    def close(self) -> None:
        """Read no more; a query that runs ends by itself."""
        if not self._closed:
            self._closed = True
            self._query.close()


class _Fetch:
    """One query in a thread of its own."""

    def __init__(self, query: CursorQuery, offset: int, limit: int) -> None:
        """Start it."""
        self.offset = offset
        self.done = threading.Event()
        self.page: Page | None = None
        self.error: SourceUnavailable | None = None
        threading.Thread(target=self._run, args=(query, limit), name="sql source", daemon=True).start()

    def _run(self, query: CursorQuery, limit: int) -> None:
        try:
            self.page = query.page(self.offset, limit)
        except SourceUnavailable as error:
            self.error = error
        except Exception as error:  # of a driver: the stream waits, the process goes on
            self.error = SourceUnavailable(f"the query failed: {type(error).__name__}: {error}")
        finally:
            self.done.set()


def arrow_column(values: list[Any]) -> pa.Array:
    """Return a column; values without a type of Arrow become text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def from_config(
    stream_name: str, config: models.SqlSourceConfig, form: models.FormatConfig | None
) -> SqlSource:
    """Make the source of a stream, for ``make_source``."""
    return SqlSource(stream_name, config)
