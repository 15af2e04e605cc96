"""Rows that writers of this process hold and have not written yet.

Readers of the same process see them.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

import pyarrow as pa

from storage.history.segments import Segment

#: Bounds of the times of rows whose times nobody has looked at.
OLDEST_NS, NEWEST_NS = -(1 << 63), (1 << 63) - 1


class RowHolder(Protocol):
    """Writer with rows that are not on the disk yet."""

    @property
    def root(self) -> str:
        """Folder or URL of its history."""
        ...

    def unwritten(self) -> dict[Segment, list[pa.Table]]:
        """Return its rows, under the segment that they would be."""
        ...


_holders: WeakSet[RowHolder] = WeakSet()


def add_holder(holder: RowHolder) -> None:
    """Let readers of this process see the rows of a writer."""
    _holders.add(holder)


def remove_holder(holder: RowHolder) -> None:
    """Forget a writer."""
    _holders.discard(holder)


def count_holders() -> int:
    """Return the number of writers of this process."""
    return len(_holders)


def unwritten_rows(root: str, folder: str) -> dict[Segment, list[pa.Table]]:
    """Return the rows of all writers of a history below a folder.

    Ask before the segments are listed: rows that are written meanwhile are then in one of both, or in both.
    ``segments.valid`` chooses one of them.
    """
    return {
        segment: tables
        for holder in list(_holders)
        if holder.root == root
        for segment, tables in holder.unwritten().items()
        if f"{segment.folder}/".startswith(f"{folder}/")
    }
