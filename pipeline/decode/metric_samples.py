"""Samples of metrics as points: what remote write and OTLP have in common.

What depends on the labels of a series only (its key, and whether it belongs to the stream) is computed once
for each series and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.conditions import Condition
from pipeline.decode.columns import SEPARATOR, SeriesKeys
from pipeline.decode.fields import Fields
from pipeline.decode.parsed_batch import Fingerprints, Parsed, Reject, short_label, shown
from pipeline.sources.base import Records

#: Label with the name of a metric.
NAME = "__name__"
#: Field with the name and all labels of a series.
SERIES = "series"
VALUE, TIME = "value", "timestamp"
#: Beginning of a field that is a label, for labels called like another field.
_LABEL_PREFIX = "labels."
#: Most series that are kept between two batches.
MAX_KNOWN_SERIES = 200_000
_CONTENT_TYPE = "content-type"
_DELTA = (
    f"{VALUE} is the rate of a delta, and `counters` are totals; remove `counters`, or leave it out: "
    "`where: {temporality: {not: delta}}`"
)
Handle = TypeVar("Handle", bound=Hashable)


class FoundSamples(NamedTuple):
    """Samples of a record: series, time in ns and value, (N,) each.

    A negative time cannot be used.
    """

    series: NDArray[np.int64]
    time: NDArray[np.int64]
    values: NDArray[np.float64]
    #: Samples that are the increase since the one before, not a total; None: none is.
    delta: NDArray[np.bool_] | None = None


class OtherContentError(ValueError):
    """Content of a type that the format does not read."""


class SeriesTable:
    """Numbers of series, and the labels of new ones."""

    def __init__(self) -> None:
        """Have no series yet."""
        self.numbers: dict[Hashable, int] = {}
        self.labels: list[Mapping[str, str]] = []

    def number(self, handle: Handle, labels_of: Callable[[Handle], Mapping[str, str]]) -> int:
        """Return the number of a series; ``labels_of`` reads the labels of a new one."""
        found = self.numbers.get(handle)
        if found is None:
            labels = labels_of(handle)
            found = self.numbers[handle] = len(self.numbers)
            self.labels.append(labels)
        return found


#: Reads a record: its content, the type of the content, the series. Raises ValueError.
ReadSamples = Callable[[bytes, str, SeriesTable], FoundSamples]
#: Makes records of single samples: the labels of each series, the samples, positions of some.
WriteSamples = Callable[[list[Mapping[str, str]], FoundSamples, list[int]], bytes]


def series_text(labels: Mapping[str, str]) -> str:
    """Return the name and the labels of a series as Prometheus writes them."""
    rest = ",".join(
        f'{label}="{_escaped(text)}"' for label, text in sorted(labels.items()) if label != NAME and text
    )
    return f"{labels.get(NAME, '')}{{{rest}}}" if rest else labels.get(NAME, "")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def label_content(labels: Mapping[str, str], field: str) -> str:
    """Return the content of a field; an absent label is empty, as in Prometheus."""
    if field == SERIES:
        return series_text(labels)
    return labels.get(field.removeprefix(_LABEL_PREFIX) if field.startswith(_LABEL_PREFIX) else field, "")


class MetricParser:
    """Parser of records that hold samples of metrics."""

    def __init__(
        self,
        fields: Fields,
        where: Condition | None,
        read: ReadSamples,
        write: WriteSamples,
        totals: bool = False,
    ) -> None:
        """Know no series yet.

        Args:
            fields: Fields of the format.
            where: Condition of the series that belong to the stream.
            read: Reads a record.
            write: Writes samples as a record.
            totals: The stream has counters, so its samples must be totals.
        """
        self._totals = totals
        self._fields = fields
        self._where = where
        self._read = read
        self._write = write
        self._prints = Fingerprints()
        self._empty()

    def _empty(self) -> None:
        self._table = SeriesTable()
        self._keys: list[str] = []
        self._unfit: dict[int, Reject] = {}  # series → reason
        self._belongs = np.empty(0, bool)
        self._distinct = {field: np.empty(0, np.uint64) for field in self._fields.fingerprints}

    def parse(self, records: Records) -> Parsed:
        """Return the points of a batch. Never raises, whatever the bytes."""
        if len(self._table.numbers) > MAX_KNOWN_SERIES:
            self._empty()
        rejects: dict[int, Reject] = {}
        found, rows = [], []
        for row, value in enumerate(records.values):
            if value is None:
                continue
            try:
                found.append(self._read(value, _content_type(records, row), self._table))
                rows.append(row)
            except ValueError as error:
                rejects[row] = Reject("malformed", str(error))
        self._learn_series()
        return self._parsed(records, found, rows, rejects)

    def _learn_series(self) -> None:
        """Keep what depends on the labels of new series, and forget the labels."""
        labels = self._table.labels
        if not labels:
            return
        fields = self._fields
        for one in labels:
            parts = [short_label(label_content(one, field)) for field in fields.labels]
            for field, part in zip(fields.labels, parts, strict=True):
                if "\0" in part:
                    self._unfit[len(self._keys)] = Reject("bad_label", f"{field} is {shown(part)}")
            self._keys.append(SEPARATOR.join(part.replace("\0", "") for part in parts))
        belongs = [
            self._where is None or self._where.holds(lambda name, one=one: label_content(one, name) or None)  # type: ignore[misc]
            for one in labels
        ]
        self._belongs = np.append(self._belongs, np.array(belongs, bool))
        for field, prints in self._distinct.items():
            more = self._prints.of([label_content(one, field) or None for one in labels])
            self._distinct[field] = np.append(prints, more)
        labels.clear()

    def _parsed(
        self,
        records: Records,
        found: Sequence[FoundSamples],
        record_rows: Sequence[int],
        rejects: dict[int, Reject],
    ) -> Parsed:
        lengths = [len(one.series) for one in found]
        rows = np.repeat(np.array(record_rows, np.int64), lengths)
        series = _joined([one.series for one in found], np.int64)
        time = _joined([one.time for one in found], np.int64)
        values = _joined([one.values for one in found], np.float64)
        # Positions within their records, for dead letters of single samples.
        positions = np.arange(len(rows)) - np.repeat(np.cumsum([0, *lengths])[:-1], lengths)
        delta = _joined([_delta(one) for one in found], bool)
        kept = self._belongs[series]
        if not kept.all():
            rows, series, time = rows[kept], series[kept], time[kept]
            values, positions, delta = values[kept], positions[kept], delta[kept]
        unfit = {
            point: Reject("not_finite", f"{VALUE} is {values[point]}")
            for point in np.flatnonzero(np.isinf(values)).tolist()
        }
        if self._totals:
            for point in np.flatnonzero(delta).tolist():
                unfit[point] = Reject("wrong_type", _DELTA)
        if self._unfit:
            for point in np.flatnonzero(np.isin(series, list(self._unfit))).tolist():
                unfit[point] = self._unfit[int(series[point])]
        with_points = len(np.unique(rows))
        return Parsed(
            rows=rows,
            keys=SeriesKeys(self._keys, series.astype(np.int32)).take(np.ones(len(series), bool)),
            time=time,
            time_shown=lambda point: int(time[point]),
            values=values.reshape(-1, 1),
            extra={f"distinct {field}": prints[series] for field, prints in self._distinct.items()},
            rejects=rejects,
            filtered=len(records.values) - with_points - len(rejects),
            unfit=unfit,
            texts=partial(self._texts, records, rows, positions),
        )

    def _texts(
        self,
        records: Records,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        row: int,
        nth: Sequence[int],
    ) -> bytes:
        """Return some points of a record as a record of their own."""
        table = SeriesTable()
        found = self._read(records.values[row] or b"", _content_type(records, row), table)
        first = int(np.searchsorted(rows, row))
        return self._write(table.labels, found, [int(positions[first + one]) for one in nth])


def _delta(found: FoundSamples) -> NDArray[np.bool_]:
    return np.zeros(len(found.series), bool) if found.delta is None else found.delta


def _joined(parts: Sequence[NDArray], kind: type) -> NDArray:
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _content_type(records: Records, row: int) -> str:
    if records.headers is None:
        return ""
    found = [content for name, content in records.headers[row] if name == _CONTENT_TYPE and content]
    return found[-1].decode("ascii", "replace") if found else ""


def content_checker(read: ReadSamples) -> Callable[[bytes, str], int]:
    """Return a function that counts the samples of a content.

    It raises ValueError if the content cannot be read. Several threads may call it.
    """
    known = SeriesTable()

    def check(content: bytes, kind: str) -> int:
        nonlocal known
        if len(known.numbers) > MAX_KNOWN_SERIES:
            known = SeriesTable()
        table = known
        count = len(read(content, kind, table).series)
        table.labels.clear()
        return count

    return check
