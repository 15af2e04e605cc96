"""Reading of a partition up to an offset, for sources of a range of another source."""

from __future__ import annotations

from pipeline.core.types import Partition
from pipeline.sources.base import Records, Source, TableRecords


def take_before(
    source: Source, records: Records | TableRecords, end: int, next_offsets: dict[Partition, int]
) -> Records | TableRecords | None:
    """Return the records before ``end``, None if all lie behind it.

    Args:
        source: their source; it pauses a partition that is read to its end.
        records: records of one partition.
        end: first offset that does not belong to the range.
        next_offsets: partition → offset at which reading goes on; it is updated.
    """
    if records.first_offset >= end:
        return None
    taken = records if records.next_offset <= end else records.until(end)
    next_offsets[records.partition] = taken.next_offset
    if taken.next_offset >= end:
        source.pause([records.partition])
    return taken
