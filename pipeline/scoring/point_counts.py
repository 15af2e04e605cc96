"""Counts of what became of the records of a batch, and its late records."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.types import LateRecord
from pipeline.decode import Columns, series_names
from pipeline.scoring.batch_result import PartitionOutcome
from pipeline.windows.event_time import DUPLICATE, LATE, SUPERSEDED, Admitted


def add_counts(
    outcome: PartitionOutcome, stream_name: str, stream: Stream, columns: Columns, admitted: Admitted
) -> None:
    """Add the counts and the late records of admitted columns to ``outcome``.

    Args:
        outcome: That of the partition.
        stream_name: The stream.
        stream: Its configuration.
        columns: The columns.
        admitted: What event time made of them.
    """
    verdict = admitted.outcome
    heads = verdict if columns.head is None else verdict[columns.head]
    scored, late, duplicate, superseded = np.bincount(heads, minlength=SUPERSEDED + 1).tolist()
    outcome.counts.scored += scored + columns.folded
    outcome.counts.late += late
    outcome.counts.duplicate += duplicate + superseded
    # Also samples of a record whose first one is scored.
    for kind in (LATE, DUPLICATE) if stream.duplicates == "last" else (LATE,):
        if (rows := verdict == kind).any():
            newest = None if admitted.newest is None else admitted.newest[rows]
            outcome.late += _late_records(stream_name, stream, columns.take(rows), newest)
    if columns.late is not None:
        outcome.counts.late += columns.late.records
        outcome.late += _late_records(stream_name, stream, columns.late, None)


def _late_records(
    stream_name: str, stream: Stream, columns: Columns, newest: NDArray[np.int64] | None
) -> Iterator[LateRecord]:
    """Yield late records.

    ``newest`` (N,) is the newest time of the series when each of them came.
    """
    ages = np.zeros(len(columns), np.int64) if newest is None else newest - columns.time
    limit = to_nanoseconds(stream.revise)
    young = ((ages <= limit) | (limit == 0)).tolist()
    rows = zip(
        columns.offsets.tolist(),
        series_names(stream, columns.keys.flat()),
        columns.time.tolist(),
        columns.values.tolist(),
        young,
        strict=True,
    )
    for offset, name, time, values, is_young in rows:
        assert name is not None
        yield LateRecord(stream_name, columns.partition, offset, name, time, values, is_young)
