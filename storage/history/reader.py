"""Reader of recorded history: segments, and unwritten rows of this process."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.history import parquet
from storage.history.segments import DamagedSegment, SegmentStore, folder_of, valid
from storage.history.unwritten import unwritten_rows

log = logging.getLogger(__name__)

MAX_READ_ATTEMPTS = 5


class HistoryReader:
    """Reader of segments that any process wrote, and of the rows that this process has not written yet.

    Those of other processes may be missing for ``writer.FLUSH_SECONDS``. A damaged segment is skipped, and logged once.
    """

    def __init__(self, path: str) -> None:
        self._store = SegmentStore(path)
        #: Paths of the segments that could not be read, with the reason.
        self.skipped: dict[str, str] = {}

    def read(
        self,
        stream: str,
        *,
        series: str | Sequence[str] | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return rows (see ``storage.history.parquet``) by series and time, those of each offset once.

        Raises OSError, or what the fsspec file system raises.

        Args:
            stream: Name of the stream.
            series: One or several names, None for all series.
            since_ns: Earliest time, inclusive.
            until_ns: Latest time, exclusive.
            columns: Columns beside ``series`` and ``time``, None for all.
        """
        names = [series] if isinstance(series, str) else series
        return self._attempted(
            stream, lambda: self._tables(stream, names, since_ns, until_ns, _selected_columns(columns))
        )

    def read_newest(
        self,
        stream: str,
        most: int,
        *,
        series: Sequence[str] | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> tuple[pa.Table, int]:
        """Read at most ``most`` rows, the newest of every series, and the number of rows left out.

        Memory is bounded by those rows and one segment.
        """
        unread = 0

        def newest() -> Iterator[pa.Table]:
            nonlocal unread
            counts: Counter[str] = Counter()
            for table in self._tables(stream, series, since_ns, until_ns, ["series"]):
                counts.update(parquet.counts(table))
            room = _level(np.array(list(counts.values()), np.int64), most)
            surplus = {name: max(0, count - room) for name, count in counts.items()}
            unread = sum(surplus.values())
            for table in self._tables(stream, series, since_ns, until_ns, _selected_columns(columns)):
                yield parquet.without_oldest(table, surplus)

        return self._attempted(stream, newest), unread

    def _attempted(self, stream: str, tables: Callable[[], Iterator[pa.Table]]) -> pa.Table:
        for _ in range(MAX_READ_ATTEMPTS):
            try:
                return parquet.ordered(parquet.joined(list(tables()) or [parquet.empty()]))
            except FileNotFoundError:
                continue  # merged or pruned since it was listed
        raise FileNotFoundError(f"the history of stream {stream} changes faster than it can be read")

    def _tables(
        self,
        stream: str,
        series: Sequence[str] | None,
        since_ns: int | None,
        until_ns: int | None,
        columns: Sequence[str] | None,
    ) -> Iterator[pa.Table]:
        """Yield the rows segment by segment."""
        unwritten = unwritten_rows(self._store.root, folder_of(stream))
        for segment in valid([*self._store.list(folder_of(stream)), *unwritten]):
            if segment in unwritten:
                for table in unwritten[segment]:
                    yield parquet.selected(
                        table, series=series, since_ns=since_ns, until_ns=until_ns, columns=columns
                    )
                continue
            if (since_ns is None or segment.newest_ns >= since_ns) and (
                until_ns is None or segment.oldest_ns < until_ns
            ):
                if segment.path in self.skipped:
                    continue
                try:
                    yield self._store.read(
                        segment, series=series, since_ns=since_ns, until_ns=until_ns, columns=columns
                    )
                except DamagedSegment as error:
                    self.skipped[segment.path] = str(error)
                    log.warning("recorded history: a damaged file is skipped: %s", error)

    def damaged(self) -> list[str]:
        """Read every segment of all streams, and return the path and the reason of each damaged one."""
        found = []
        for segment in self._store.list():
            try:
                self._store.read(segment)
            except FileNotFoundError:
                continue  # merged or pruned since it was listed
            except DamagedSegment as error:
                found.append(str(error))
        return found


def _selected_columns(columns: Sequence[str] | None) -> list[str] | None:
    return (
        None if columns is None else ["series", "time", *(c for c in columns if c not in {"series", "time"})]
    )


def _level(counts: NDArray[np.int64], most: int) -> int:
    """Return the largest row limit per series with at most ``most`` rows in total, at least one each."""
    low, high = 1, max(1, int(counts.max(initial=1)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(counts, middle).sum()) <= most else (low, middle - 1)
    return low
