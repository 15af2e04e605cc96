"""JSON records to columns: one typed msgspec call per record, then whole columns.

A batch of plain records takes one ``map``. Only if that raises are the records decoded one by one, and those
that are not plain go to ``pipeline.decode.json_samples``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from itertools import chain, compress
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from pipeline.core.conditions import Condition
from pipeline.core.number_texts import NumberRules
from pipeline.core.timestamps import parse_times
from pipeline.decode.columns import SEPARATOR, SeriesKeys
from pipeline.decode.envelope import VALUE, envelope_columns, is_envelope
from pipeline.decode.fields import Fields
from pipeline.decode.json_paths import path_of
from pipeline.decode.json_samples import SampleReader
from pipeline.decode.json_texts import ANY_MEMBER
from pipeline.decode.json_types import Column, JsonShape, is_inside_field, record_shape, sample_shapes
from pipeline.decode.parsed_batch import (
    Fingerprints,
    Parsed,
    Reject,
    canonical,
    short_event,
    shown,
    unfit_labels,
)
from pipeline.sources.base import Records

_AT = re.compile(r"(.*?)(?: - at `(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
#: What msgspec raises on bytes that are not what they should be.
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Records at the beginning of a batch without a plain one after which the others are not tried as plain.
_MAX_UNTYPED = 50
#: Reasons that ``SampleReader`` explains better than the types.
_EXPLAINED_BY_READER = ("not_finite", "not_an_object")


class JsonParser:
    """Parser of records of one JSON format.

    Records of the plain shape take one typed pass. The others are read by ``SampleReader``, with the same
    result where both can read a record.
    """

    def __init__(
        self,
        fields: Fields,
        samples: str | None,
        numbers: NumberRules | None = None,
        where: Condition | None = None,
    ) -> None:
        """Build the types.

        Args:
            fields: Fields of the format.
            samples: Path of the array of samples, ``.`` for the record itself, None for one sample a record.
            numbers: How numbers are written as text.
            where: Condition of the samples that belong to the stream.
        """
        self.fields = fields
        self.samples = None if samples == "." else samples
        self.sample_shape: JsonShape | None = None
        self._where = where
        self._reader = SampleReader(fields, self.samples, numbers or NumberRules(), where)
        conditional = where.fields if where else ()
        self._envelope = tuple(filter(is_envelope, dict.fromkeys((*fields.all(), *conditional))))
        inside = [field for field in conditional if not is_envelope(field)]
        clash = self.samples is not None and is_inside_field(self.samples, fields)
        if self.samples is None or clash:
            self.shape = record_shape(fields, inside)
        else:
            self.shape, self.sample_shape = sample_shapes(fields, self.samples)
        bare = VALUE in (*fields.all(), *conditional)
        members = ANY_MEMBER in path_of(samples or "")
        self._typed = not (
            bare or members or clash or samples == "." or (where is not None and self.samples is not None)
        )
        self._decode = msgspec.json.Decoder(self.shape.type).decode
        self._fingerprints = Fingerprints()

    def parse(self, records: Records) -> Parsed:
        """Return the points of N records (value None: a tombstone). Never raises, whatever the bytes."""
        batch = _Batch(records.values, envelope_columns(records, self._envelope))
        typed: list[Any] = []
        rows: NDArray[np.int64] | None = None
        try:
            if not self._typed:
                raise TypeError
            typed = list(map(self._decode, records.values))  # type: ignore[arg-type]
        except (*_REFUSED, TypeError):  # TypeError: a None among them
            typed, rows = self._one_by_one(batch)
        filtered = len(records.values) - len(typed) - len(batch.rejects) - batch.known
        if self.sample_shape is None:
            columns = self._columns(typed, rows, batch)
        else:
            columns, rows, empty = self._flatten(typed, rows, self.sample_shape, batch)
            filtered += empty
        if batch.points:
            columns, rows = batch.merged(columns, rows, self.fields.all())
        return self._parsed(columns, rows, batch, filtered)

    def _one_by_one(self, batch: _Batch) -> tuple[list[Any], NDArray[np.int64]]:
        typed: list[Any] = []
        rows: list[int] = []
        untyped = 0
        for row, value in enumerate(batch.values):
            if value is None:
                continue
            # Where no record of a batch is plain, the types are not tried again.
            if self._typed and (typed or untyped < _MAX_UNTYPED):
                try:
                    typed.append(self._decode(value))
                    rows.append(row)
                    continue
                except _REFUSED as error:
                    untyped += 1
                    self._read_samples(batch, row, value, error)
                    continue
            self._read_samples(batch, row, value, None)
        return typed, np.array(rows, np.int64)

    def _read_samples(self, batch: _Batch, row: int, value: bytes, error: Exception | None) -> None:
        found = self._reader.read(value, batch.envelope_of(row))
        batch.points += found.points
        batch.rows += [row] * len(found.points)
        batch.known += bool(found.points)
        if not found.bad:
            return
        reject = found.bad[0].reject
        if found.points:
            batch.parts[row] = b"\n".join(one.text for one in found.bad), reject
        elif error is not None and found.whole and reject.reason not in _EXPLAINED_BY_READER:
            advised = reject.reason == "wrong_type" and "; " in reject.detail
            batch.rejects[row] = reject if advised else why_refused(value, error, self.shape)
        else:
            batch.rejects[row] = reject

    def _columns(
        self, typed: list[Any], rows: NDArray[np.int64] | None, batch: _Batch
    ) -> dict[str, list[Any]]:
        columns = {}
        for field in self.fields.all():
            if field in batch.envelope:
                columns[field] = batch.outside(field, rows)
            elif field in self.shape.columns:
                columns[field] = self.shape.columns[field](typed)
            else:
                columns[field] = []
        if self._where is not None and typed:
            looked = {
                field: batch.outside(field, rows)
                if field in batch.envelope
                else self.shape.columns[field](typed)
                for field in self._where.fields
            }
            holds = self._where.holds
            batch.keep = [holds(lambda name, i=i: looked[name][i]) for i in range(len(typed))]  # type: ignore[misc]
        return columns

    def _flatten(
        self, typed: list[Any], rows: NDArray[np.int64] | None, inner: JsonShape, batch: _Batch
    ) -> tuple[dict[str, list[Any]], NDArray[np.int64], int]:
        """Return columns of all samples, their records, and the number of empty ones."""
        assert self.samples is not None
        numbers = np.arange(len(typed)) if rows is None else rows
        lengths = np.zeros(0, np.int64)
        while True:
            arrays = self.shape.columns[self.samples](typed)
            lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
            owner = np.repeat(np.arange(len(typed)), lengths)
            samples = list(chain.from_iterable(arrays))
            columns, lacking = {}, set()
            for field in self.fields.all():
                if field in batch.envelope:
                    columns[field] = batch.outside(field, numbers[owner])
                    continue
                column = _inner_or_outer(
                    samples, typed, owner, inner.columns[field], self.shape.columns[field]
                )
                if UNSET in column:
                    unset = [point for point, found in enumerate(column) if found is UNSET]
                    if field not in self.fields.optional:
                        lacking |= set(owner[unset].tolist())
                    for point in unset:
                        column[point] = None
                columns[field] = column
            if not lacking:
                return columns, numbers[owner], int((lengths == 0).sum())
            for record in sorted(lacking):
                row = int(numbers[record])
                self._read_samples(batch, row, batch.values[row] or b"", None)
            kept = [record for record in range(len(typed)) if record not in lacking]
            typed, numbers = [typed[record] for record in kept], numbers[kept]

    def _parsed(
        self, columns: dict[str, list[Any]], rows: NDArray[np.int64] | None, batch: _Batch, filtered: int
    ) -> Parsed:
        fields = self.fields
        if batch.keep is not None and not all(batch.keep):
            columns, rows, left_out = batch.kept(columns, rows)
            filtered += left_out
        unfit: dict[int, Reject] = {}
        for field in self._envelope:
            if field in columns:
                columns[field] = self._reader.checked(field, columns[field], unfit)
        labels = [_texts(columns[field], field, field in fields.optional, unfit) for field in fields.labels]
        events = None
        if fields.event is not None:
            events = [short_event(one) for one in _texts(columns[fields.event], fields.event, False, unfit)]
        extra: dict[str, NDArray] = {field: np.array(columns[field], np.float64) for field in fields.numbers}
        extra |= {f"distinct {field}": self._fingerprints.of(columns[field]) for field in fields.fingerprints}
        times = columns[fields.times[0]]
        if fields.joined_times:
            times = [
                " ".join(map(str, parts)) for parts in zip(*(columns[f] for f in fields.times), strict=True)
            ]
        values = np.empty((len(times), len(fields.values)))
        for channel, field in enumerate(fields.values):
            values[:, channel] = columns[field]  # None becomes NaN
        return Parsed(
            rows=rows,
            keys=SeriesKeys(
                labels[0] if len(labels) == 1 else list(map(SEPARATOR.join, zip(*labels, strict=True)))
            ),
            time=parse_times(times, fields.time_unit, fields.zone, fields.time_format),
            time_shown=times.__getitem__,
            values=values,
            extra=extra,
            rejects=batch.rejects,
            filtered=filtered,
            unfit=unfit,
            parts=batch.parts,
            texts=None if rows is None else partial(self._texts_of, batch),
            events=events,
        )

    def _texts_of(self, batch: _Batch, row: int, positions: Sequence[int]) -> bytes:
        """Return some samples of a record as a record of their own."""
        texts = self._reader.read(batch.values[row] or b"", batch.envelope_of(row)).texts
        return b"\n".join(texts[position]() for position in positions)


@dataclass(slots=True)
class _Batch:
    """Records that are being parsed, and what was found in those that are not plain.

    ``known`` counts the records that have points in ``points``.
    """

    values: Sequence[bytes | None]
    envelope: dict[str, list[Any]]
    rejects: dict[int, Reject] = dataclass_field(default_factory=dict)
    parts: dict[int, tuple[bytes, Reject]] = dataclass_field(default_factory=dict)
    points: list[list[Any]] = dataclass_field(default_factory=list)
    rows: list[int] = dataclass_field(default_factory=list)
    known: int = 0
    keep: list[bool] | None = None

    def envelope_of(self, row: int) -> dict[str, Any]:
        return {field: column[row] for field, column in self.envelope.items()}

    def outside(self, field: str, rows: NDArray[np.int64] | None) -> list[Any]:
        """Return a field of the envelope for some records."""
        column = self.envelope[field]
        return list(column) if rows is None else [column[row] for row in rows.tolist()]

    def kept(
        self, columns: dict[str, list[Any]], rows: NDArray[np.int64] | None
    ) -> tuple[dict[str, list[Any]], NDArray[np.int64], int]:
        """Return the points that fit the condition, and the number of the others."""
        assert self.keep is not None
        mask = np.array(self.keep, bool)
        numbers = np.arange(len(mask)) if rows is None else rows
        kept = {name: list(compress(column, self.keep)) for name, column in columns.items()}
        return kept, numbers[mask], int((~mask).sum())

    def merged(
        self, columns: dict[str, list[Any]], rows: NDArray[np.int64] | None, fields: Sequence[str]
    ) -> tuple[dict[str, list[Any]], NDArray[np.int64]]:
        """Return the plain points and the others in the order of their records."""
        plain = np.empty(0, np.int64) if rows is None else rows
        together = np.concatenate([plain, np.array(self.rows, np.int64)])
        order = np.argsort(together, kind="stable").tolist()
        if self.keep is not None or self.points:
            keep = [*(self.keep or [True] * len(plain)), *([True] * len(self.points))]
            self.keep = None if all(keep) else [keep[i] for i in order]
        out = {}
        for field, column in zip(fields, zip(*self.points, strict=True), strict=True):
            both = [*columns[field], *column]
            out[field] = [both[i] for i in order]
        return out, together[order]


def _inner_or_outer(
    samples: list[Any], records: list[Any], owner: NDArray[np.int64], inner: Column, outer: Column
) -> list[Any]:
    """Return a field of every sample, or of its record if the sample lacks it."""
    column = inner(samples)
    if UNSET not in column:
        return column
    outers = outer(records)
    return [outers[o] if c is UNSET else c for c, o in zip(column, owner.tolist(), strict=True)]


def _texts(labels: list[Any], field: str, optional: bool, unfit: dict[int, Reject]) -> list[str]:
    """Return labels as texts; a bad one makes its point unfit.

    The type has checked the lengths of texts; longer ones come from ``SampleReader``.
    """
    if optional:
        labels = ["" if label is None else label for label in labels]
    try:
        if "\0" not in "".join(labels):
            return labels
    except TypeError:  # not all of them are texts
        labels = [canonical(label) for label in labels]
    for point in unfit_labels(labels):
        unfit.setdefault(point, Reject("bad_label", f"{field} is {shown(labels[point])}"))
    return labels


def why_refused(value: bytes, error: Exception, shape: JsonShape) -> Reject:
    """Return the reason why msgspec rejected a record."""
    if isinstance(error, UnicodeDecodeError):
        return Reject(
            "bad_bytes",
            f"a text is not UTF-8: {error.reason} ({shown(error.object[error.start : error.end])})",
        )
    if isinstance(error, RecursionError):
        return Reject("malformed", f"nested too deeply: {shown(value)}")
    if not isinstance(error, msgspec.ValidationError):
        return _malformed(value, error)
    match = _AT.fullmatch(str(error))
    assert match is not None
    message, at = match[1], match[2]
    if missing := _MISSING.fullmatch(message):
        return Reject("missing_field", f"no field {missing[1]}" + (f" in {at}" if at else ""))
    if at is None:
        return Reject("not_an_object", f"{message}: {shown(value)}")
    return Reject(_reason(message), f"{at.removeprefix('$.')}: {message}{_found(value, shape.paths.get(at))}")


def _reason(message: str) -> str:
    if "`str` of length" in message:
        return "bad_label"
    return "not_finite" if message == "Number out of range" else "wrong_type"


def _found(value: bytes, path: tuple[str, ...] | None) -> str:
    """Return the content at ``path`` for the message, empty if msgspec gives no array index."""
    if path is None:
        return ""
    found = msgspec.Raw(value)
    try:
        for key in path:
            found = msgspec.json.decode(found, type=dict[str, msgspec.Raw])[key]
    except (*_REFUSED, KeyError):
        # malformed past what was refused; KeyError: the key stands there twice, and the first one was refused
        return ""
    return f", it is {shown(bytes(found).decode('utf-8', 'backslashreplace'))}"


def _malformed(value: bytes, error: Exception) -> Reject:
    """Return the reason of invalid JSON; NaN and Infinity, which many programs write, get their own."""
    try:
        json.loads(value.decode(), parse_constant=_no_constant)
    except _ConstantFound as found:
        return Reject("not_finite", f"{found} is not JSON; a missing value is written null: {shown(value)}")
    except UnicodeDecodeError as undecodable:
        return Reject(
            "bad_bytes", f"not UTF-8: {undecodable.reason} at byte {undecodable.start}: {shown(value)}"
        )
    except (ValueError, RecursionError):
        pass
    return Reject("malformed", f"{error}: {shown(value)}")


class _ConstantFound(Exception):
    """NaN, Infinity or -Infinity was found."""


def _no_constant(constant: str) -> None:
    raise _ConstantFound(constant)
