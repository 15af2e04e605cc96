"""JSON records to columns: one typed msgspec call per record, then whole columns.

A valid batch takes one ``map``. Only if that raises are the records decoded one by one, and only a rejected
record is examined for the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from pipeline.core.timestamps import parse_times
from pipeline.decode.columns import SEPARATOR, SeriesKeys
from pipeline.decode.fields import Fields
from pipeline.decode.json_types import Column, JsonShape, record_shape, sample_shapes
from pipeline.decode.parsed_batch import Fingerprints, Parsed, Reject, canonical, shown, unfit_labels

_AT = re.compile(r"(.*?)(?: - at `(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
#: What msgspec raises on bytes that are not what they should be.
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class JsonParser:
    """Parser of records of one JSON format."""

    def __init__(self, fields: Fields, samples: str | None) -> None:
        self.fields = fields
        self.samples = samples
        self.sample_shape: JsonShape | None = None
        if samples is None:
            self.shape = record_shape(fields)
        else:
            self.shape, self.sample_shape = sample_shapes(fields, samples)
        self._decode = msgspec.json.Decoder(self.shape.type).decode
        self._fingerprints = Fingerprints()

    def parse(self, values: Sequence[bytes | None]) -> Parsed:
        """Return the points of N records (None: a tombstone). Never raises, whatever the bytes."""
        rejects: dict[int, Reject] = {}
        rows: NDArray[np.int64] | None = None
        try:
            records = list(map(self._decode, values))  # type: ignore[arg-type]
        except (*_REFUSED, TypeError):  # TypeError: a None among them
            records, rows = self._one_by_one(values, rejects)
        filtered = len(values) - len(records) - len(rejects)
        if self.sample_shape is None:
            columns = {field: self.shape.columns[field](records) for field in self.fields.all()}
        else:
            columns, rows, empty = self._flatten(records, rows, self.sample_shape, rejects)
            filtered += empty
        return self._parsed(columns, rows, rejects, filtered)

    def _one_by_one(
        self, values: Sequence[bytes | None], rejects: dict[int, Reject]
    ) -> tuple[list[Any], NDArray[np.int64]]:
        records, rows = [], []
        for row, value in enumerate(values):
            if value is None:
                continue
            try:
                records.append(self._decode(value))
            except _REFUSED as error:
                rejects[row] = why_refused(value, error, self.shape)
            else:
                rows.append(row)
        return records, np.array(rows, np.int64)

    def _flatten(
        self, records: list[Any], rows: NDArray[np.int64] | None, inner: JsonShape, rejects: dict[int, Reject]
    ) -> tuple[dict[str, list[Any]], NDArray[np.int64], int]:
        """Return columns over all samples, the record of each, and the number of records without any."""
        assert self.samples is not None
        arrays = self.shape.columns[self.samples](records)
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        owner = np.repeat(np.arange(len(records)), lengths)
        rows = owner if rows is None else rows[owner]
        samples = list(chain.from_iterable(arrays))
        columns = {}
        for field in self.fields.all():
            column = _inner_or_outer(samples, records, owner, inner.columns[field], self.shape.columns[field])
            if UNSET in column:
                for point, found in enumerate(column):
                    if found is UNSET:
                        column[point] = None
                        if field not in self.fields.optional:
                            reject = Reject("missing_field", f"no field {field} in the sample or its record")
                            rejects.setdefault(int(rows[point]), reject)
            columns[field] = column
        return columns, rows, int((lengths == 0).sum())

    def _parsed(
        self,
        columns: dict[str, list[Any]],
        rows: NDArray[np.int64] | None,
        rejects: dict[int, Reject],
        filtered: int,
    ) -> Parsed:
        fields = self.fields
        times = (
            [0 if t is None else t for t in columns[fields.time]] if self.samples else columns[fields.time]
        )
        labels = [_texts(columns[field], field, rows, rejects) for field in fields.labels]
        extra: dict[str, NDArray] = {field: np.array(columns[field], np.float64) for field in fields.numbers}
        extra |= {f"distinct {field}": self._fingerprints.of(columns[field]) for field in fields.fingerprints}
        values = np.empty((len(times), len(fields.values)))
        for channel, field in enumerate(fields.values):
            values[:, channel] = columns[field]  # None becomes NaN
        return Parsed(
            rows=rows,
            keys=SeriesKeys(
                labels[0] if len(labels) == 1 else list(map(SEPARATOR.join, zip(*labels, strict=True)))
            ),
            time=parse_times(times, fields.time_unit, fields.zone),
            time_shown=times.__getitem__,
            values=values,
            extra=extra,
            rejects=rejects,
            filtered=filtered,
        )


def _inner_or_outer(
    samples: list[Any], records: list[Any], owner: NDArray[np.int64], inner: Column, outer: Column
) -> list[Any]:
    """Return a field of every sample, or of its record if the sample lacks it."""
    column = inner(samples)
    if UNSET not in column:
        return column
    outers = outer(records)
    return [outers[o] if c is UNSET else c for c, o in zip(column, owner.tolist(), strict=True)]


def _texts(
    labels: list[Any], field: str, rows: NDArray[np.int64] | None, rejects: dict[int, Reject]
) -> list[str]:
    """Return labels as texts; those that cannot name a series reject their records.

    The type has checked the lengths of texts.
    """
    try:
        if "\0" not in "".join(labels):
            return labels
    except TypeError:  # not all of them are texts
        labels = [canonical(label) for label in labels]
    for point in unfit_labels(labels):
        rejects.setdefault(
            point if rows is None else int(rows[point]),
            Reject("bad_label", f"{field} is {shown(labels[point])}"),
        )
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
