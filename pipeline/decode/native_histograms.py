"""Native histograms of remote write: count and sum, as series of their own.

They have the names of the series of a classic histogram, ``NAME_count`` and ``NAME_sum``. The buckets are
passed over. Both versions have the same message::

    Histogram {count_int = 1 (uint64), count_float = 2 (double), sum = 3 (double), timestamp = 15 (int64, ms)}
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.core.timestamps import parse_epochs
from pipeline.decode.metric_samples import NAME, FoundSamples, SeriesTable
from pipeline.decode.protobuf_fields import BYTES, FIXED64, VARINT, fields_of, read_varint

_COUNT, _COUNT_FLOAT, _SUM, _TIME = 1, 2, 3, 15
_STALE = 0x7FF0000000000002  # bits of the sum of a stale marker


def read_histograms(
    content: bytes,
    numbers: tuple[int, int],
    without: NDArray[np.intp],
    ids: NDArray[np.int64],
    table: SeriesTable,
) -> FoundSamples | None:
    """Return counts and sums of the histograms of some series, None if they have none.

    Args:
        content: The request, unpacked.
        numbers: Numbers of the fields of series and of histograms.
        without: The series without a sample, as positions in the request.
        ids: Number of each series in ``table``.
        table: Series that are known; those of counts and sums are added.

    Raises:
        ValueError: A histogram cannot be read.
    """
    field, inner = numbers
    series = [
        (begin, end) for number, _, begin, end in fields_of(content, 0, len(content)) if number == field
    ]
    owners: list[int] = []
    times: list[int] = []
    values: list[float] = []
    for place in without.tolist():
        for number, kind, begin, end in fields_of(content, *series[place]):
            if number != inner or kind != BYTES:
                continue
            time, found = _histogram(content, begin, end)
            for suffix, value in found:
                owners.append(_number(table, int(ids[place]), suffix))
                times.append(time)
                values.append(value)
    if not owners:
        return None
    return FoundSamples(
        np.array(owners, np.int64), parse_epochs(np.array(times, np.int64), "ms"), np.array(values)
    )


def joined(parts: Iterable[FoundSamples]) -> FoundSamples:
    """Return the samples of several parts, none of which has deltas."""
    series, time, values = zip(*((one.series, one.time, one.values) for one in parts), strict=True)
    return FoundSamples(np.concatenate(series), np.concatenate(time), np.concatenate(values))


def _number(table: SeriesTable, known: int, suffix: str) -> int:
    labels = table.labels[known]
    return table.number((known, suffix), lambda _: {**labels, NAME: labels.get(NAME, "") + suffix})


def _histogram(content: bytes, begin: int, end: int) -> tuple[int, Iterator[tuple[str, float]]]:
    """Return the time in ms, and the value of each suffix; NaN at a stale marker."""
    count = total = 0.0
    bits = time = 0
    for number, kind, first, last in fields_of(content, begin, end):
        if kind == VARINT and number in (_COUNT, _TIME):
            whole, _ = read_varint(content, first, last)
            if number == _TIME:
                time = (whole + 2**63) % 2**64 - 2**63
            else:
                count = float(whole)
        elif kind == FIXED64 and number in (_COUNT_FLOAT, _SUM):
            (real,) = struct.unpack_from("<d", content, first)
            if number == _SUM:
                total, (bits,) = real, struct.unpack_from("<Q", content, first)
            else:
                count = real
    if bits == _STALE:
        count = float("nan")
    return time, iter((("_count", count), ("_sum", total)))
