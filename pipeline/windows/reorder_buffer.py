"""Reorder buffer: bounded reordering of one partition."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.types import Partition
from pipeline.decode import Columns, Key
from pipeline.windows.partition_clock import PartitionClock

#: Clock before the first point.
NO_CLOCK = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class ReorderBuffer:
    """Points of one partition that wait for the watermark.

    It is a value: ``push`` and ``flush`` return a new one. The watermark is the clock of the partition minus
    the lateness. A point is released by the record that brings the watermark to it, or at once if it is
    older. Points released by one record come in the order of their times, and of one time in offset order. So
    the order does not depend on how the records were cut into batches.
    """

    partition: Partition
    lateness_ns: int
    clock: PartitionClock
    waiting: Columns | None = None

    @staticmethod
    def empty(partition: Partition, lateness_ns: int) -> ReorderBuffer:
        """Return the buffer before the first point."""
        return ReorderBuffer(partition, lateness_ns, PartitionClock.begin(lateness_ns))

    @property
    def records(self) -> int:
        """Number of buffered records."""
        return 0 if self.waiting is None else self.waiting.records

    def known_keys(self) -> Collection[Key]:
        """Return the keys of the series with buffered points."""
        return () if self.waiting is None else set(self.waiting.keys.names)

    def most_keys(self) -> int:
        """Return an upper bound of the number of ``known_keys``, without a look at them."""
        return 0 if self.waiting is None else len(self.waiting.keys.names)

    @property
    def watermark_ns(self) -> int | None:
        """Time before which no more points are expected, None before the first point."""
        return None if self.clock.ns is None else self.clock.ns - self.lateness_ns

    def push(self, columns: Columns) -> tuple[ReorderBuffer, Columns]:
        """Add a batch, and return the ready points."""
        if not len(columns):
            return self, columns
        advanced, clock = self.clock.advance(columns)
        if not self.lateness_ns:
            return ReorderBuffer(self.partition, 0, advanced, None), columns
        points = columns if self.waiting is None else self.waiting.append(columns)
        # Arrival counts from the first point of this batch. A point is released by the first one whose clock
        # has come so far.
        arrival = np.arange(len(columns) - len(points), len(columns))
        release = np.maximum(np.searchsorted(clock, points.time + self.lateness_ns), arrival)
        due = release < len(columns)
        buffered = ReorderBuffer(
            self.partition, self.lateness_ns, advanced, None if due.all() else points.take(~due)
        )
        ready = _in_order(points, np.flatnonzero(due), release)
        ready.filtered = columns.filtered
        return buffered, ready

    def watermarks(self, columns: Columns, ready: Columns) -> NDArray[np.int64]:
        """Return the watermark before the record that released each point (N,).

        ``ready`` is what ``push(columns)`` returns.
        """
        before = NO_CLOCK if self.clock.ns is None else self.clock.ns
        clock = np.concatenate([[before], self.clock.advance(columns)[1][:-1]])
        clock = np.where(clock == NO_CLOCK, NO_CLOCK, clock - self.lateness_ns)
        return clock if ready.release is None else clock[ready.release]

    def flush(self) -> tuple[ReorderBuffer, Columns | None]:
        """Return all buffered points: the input has ended."""
        if self.waiting is None:
            return self, None
        n = len(self.waiting)
        flushed = ReorderBuffer(self.partition, self.lateness_ns, self.clock, None)
        return flushed, _in_order(self.waiting, np.arange(n), np.zeros(n, np.int64))

    def to_arrays(self) -> tuple[dict[str, NDArray], list[Key]]:
        """Return plain arrays and keys for a snapshot; ``from_arrays`` is the inverse."""
        arrays, keys = ({}, []) if self.waiting is None else self.waiting.to_arrays()
        return {
            **arrays,
            "clock_ns": np.array([] if self.clock.ns is None else [self.clock.ns], np.int64),
            "clock_state": self.clock.to_bytes(),
        }, keys

    @staticmethod
    def from_arrays(
        partition: Partition, lateness_ns: int, arrays: dict[str, NDArray], keys: list[Key]
    ) -> ReorderBuffer:
        """Return the buffer that ``to_arrays`` wrote."""
        ns = int(arrays["clock_ns"][0]) if len(arrays["clock_ns"]) else None
        clock = PartitionClock.begin(lateness_ns).from_bytes(ns, arrays.get("clock_state"))
        waiting = Columns.from_arrays(partition, arrays, keys) if "offsets" in arrays else None
        return ReorderBuffer(partition, lateness_ns, clock, waiting)


def _in_order(points: Columns, rows: NDArray[np.int64], release: NDArray[np.int64]) -> Columns:
    order = rows[np.lexsort((points.time[rows], release[rows]))]
    ready = points.take(order)
    ready.release = release[order]
    return ready
