"""Columnar records (Parquet, CSV, telemetry) to columns, by Arrow's kernels without Python per row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.conditions import Condition
from pipeline.core.number_texts import NotANumberError, NumberRules
from pipeline.core.timestamps import parse_column
from pipeline.decode.columns import SEPARATOR, SeriesKeys
from pipeline.decode.fields import Fields
from pipeline.decode.parsed_batch import (
    Fingerprints,
    Parsed,
    Reject,
    canonical,
    short_event,
    short_label,
    shown,
    unfit_labels,
)

_LABEL_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_boolean,
)
_NUMBER_TYPES = (
    pa.types.is_floating,
    pa.types.is_integer,
    pa.types.is_decimal,
    pa.types.is_boolean,
)


class TableParser:
    """Parser of rows of one columnar format."""

    def __init__(self, fields: Fields, numbers: NumberRules | None = None) -> None:
        self.fields = fields
        self._number_rules = numbers or NumberRules()
        self._fingerprints = Fingerprints()
        self._texts = _Texts()

    def parse(self, table: pa.Table) -> Parsed:
        """Return N points of N rows, rejected rows included."""
        fields, n = self.fields, len(table)
        rejects = _Rejects(table)
        column = {field: self._column(table, field, rejects) for field in fields.all()}
        values = np.empty((n, len(fields.values)))
        for channel, field in enumerate(fields.values):
            values[:, channel] = self._numbers(column[field], field, rejects)
        extra: dict[str, NDArray] = {
            field: self._numbers(column[field], field, rejects) for field in fields.numbers
        }
        extra |= {f"distinct {field}": self._distinct(column[field]) for field in fields.fingerprints}
        events = None if fields.event is None else self._events(column[fields.event], fields.event, rejects)
        times = column[fields.times[0]]
        if fields.joined_times:
            times = pc.binary_join_element_wise(*(_as_text(column[f]) for f in fields.times), " ")
        return Parsed(
            rows=None,
            keys=_keys([self._labels(column[field], field, rejects) for field in fields.labels], n),
            time=_times(times, fields, rejects),
            time_shown=lambda row: times[row].as_py(),
            values=values,
            extra=extra,
            rejects=rejects.found,
            events=events,
        )

    def _column(self, table: pa.Table, field: str, rejects: _Rejects) -> pa.Array:
        """Return one column as one array, of nulls if it is absent.

        Only labels may stay dictionary-encoded.
        """
        places = table.schema.get_all_field_indices(field)
        if len(places) != 1:
            if places or field not in self.fields.optional:
                there = ", ".join(name for name in table.column_names if not name.startswith("$"))
                what = (
                    f"{len(places)} columns are called {field}"
                    if places
                    else f"no column {field}; there are {there}"
                )
                rejects.add(range(len(table)), "missing_field", lambda _: what)
            return pa.nulls(len(table))
        column = table.column(places[0])
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if pa.types.is_dictionary(array.type):
            if field in self.fields.labels and _clean(array.dictionary):
                return array
            array = array.dictionary_decode()
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.string())
        return _readable(array, field, rejects) if pa.types.is_string(array.type) else array

    def _labels(self, column: pa.Array, field: str, rejects: _Rejects) -> tuple[list[str], NDArray[np.int32]]:
        """Return (texts, code of each row) of one label; rejected rows have the code 0."""
        if field in self.fields.optional and column.null_count:
            column = _as_text(column).fill_null("")
        coded = _dictionary(column)
        kind = coded.dictionary.type
        if coded.indices.null_count:
            rejects.where(coded.indices.is_null(), column, "missing_field", f"{field} has no value")
        if not any(fits(kind) for fits in _LABEL_TYPES):
            rejects.where(
                coded.indices.is_valid(),
                column,
                "wrong_type",
                f"{field} is {kind}; a label is text, a whole number, or true and false",
            )
            return [""], np.zeros(len(column), np.int32)
        shorten = short_event if field == self.fields.event else short_label
        texts, bad = self._texts.of(field, coded.dictionary, shorten)
        codes = coded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        if bad:
            rejects.where(np.isin(codes, bad), column, "bad_label", field)
        return texts or [""], codes

    def _events(self, column: pa.Array, field: str, rejects: _Rejects) -> list[str]:
        """Return the code or the log line of each row."""
        if pa.types.is_null(column.type):
            rejects.where(column.is_null(), column, "missing_field", f"{field} has no value")
            return [""] * len(column)
        texts, codes = self._labels(column, field, rejects)
        return [texts[code] for code in codes.tolist()]

    def _numbers(self, column: pa.Array, field: str, rejects: _Rejects) -> NDArray[np.float64]:
        """Return a channel, NaN for a null, an empty text or NaN."""
        kind = column.type
        if pa.types.is_null(kind):
            return np.full(len(column), np.nan)
        texts = column
        if pa.types.is_string(kind):
            column = self._number_texts(column, field, rejects)
        elif not any(fits(kind) for fits in _NUMBER_TYPES):
            rejects.where(column.is_valid(), column, "wrong_type", f"{field} is {kind}, not a number")
            return np.full(len(column), np.nan)
        # nulls become NaN
        numbers: NDArray[Any] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        infinite = np.isinf(numbers)
        if infinite.any():
            rejects.where(infinite, texts, "not_finite", field)
        return numbers

    def _number_texts(self, texts: pa.StringArray, field: str, rejects: _Rejects) -> pa.Array:
        if self._number_rules.plain:
            try:
                return texts.cast(pa.float64())
            except pa.ArrowInvalid:
                pass
        return _read_texts(texts, field, self._number_rules, rejects)

    def _distinct(self, column: pa.Array) -> NDArray[np.uint64]:
        coded = _dictionary(column)
        prints = self._fingerprints.of(coded.dictionary.to_pylist())
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(prints, np.uint64(0))[codes]


class _Texts:
    """Cache of the texts of label dictionaries.

    Most batches have the same dictionary, and converting it costs more than the rows do.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[pa.Array, list[str], list[int]]] = {}

    def of(
        self, field: str, dictionary: pa.Array, shorten: Callable[[str], str]
    ) -> tuple[list[str], list[int]]:
        """Return (texts, indices of those that cannot name a series)."""
        if field not in self._last or not self._last[field][0].equals(dictionary):
            texts = [canonical(label) for label in dictionary.to_pylist()]
            self._last[field] = dictionary, list(map(shorten, texts)), unfit_labels(texts)
        return self._last[field][1:]


class _Rejects:
    """Rejected rows; the first reason of a row is kept."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.found: dict[int, Reject] = {}

    def add(self, rows: Iterable[int], reason: str, detail: Callable[[int], str]) -> None:
        for row in rows:
            if row not in self.found:
                self.found[int(row)] = Reject(reason, detail(int(row)))

    def where(
        self, mask: pa.BooleanArray | NDArray[np.bool_], column: pa.Array, reason: str, detail: str
    ) -> None:
        """Reject the rows of a mask; the content is added to ``detail``."""
        rows = np.flatnonzero(
            mask if isinstance(mask, np.ndarray) else mask.fill_null(False).to_numpy(zero_copy_only=False)
        )
        self.add(rows.tolist(), reason, lambda row: f"{detail}, it is {shown(column[row].as_py())}")


def _readable(array: pa.StringArray, field: str, rejects: _Rejects) -> pa.StringArray:
    """Return texts that are UTF-8, and reject the others: a Parquet file may hold any bytes."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for row, raw in enumerate(array.cast(pa.binary()).to_pylist()):
            try:
                texts.append(None if raw is None else raw.decode())
            except UnicodeDecodeError:
                texts.append("")
                rejects.add([row], "bad_bytes", lambda _, raw=raw: f"{field} is not UTF-8: {shown(raw)}")  # type: ignore[misc]
        return pa.array(texts, pa.string())
    return array


def _clean(dictionary: pa.Array) -> bool:
    try:
        dictionary.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return not dictionary.null_count


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _keys(labels: list[tuple[list[str], NDArray[np.int32]]], n: int) -> SeriesKeys:
    if len(labels) == 1:
        names, codes = labels[0]
        used = np.zeros(len(names), bool)
        used[codes] = True
        # A dictionary may contain one text twice. Both codes find the same series.
        return SeriesKeys(names, codes) if used.all() else SeriesKeys(names, codes).take(np.arange(n))
    combined = np.zeros(n, np.int64)
    for names, codes in labels:
        combined = combined * len(names) + codes
    coded = pa.array(combined).dictionary_encode()
    numbers = coded.dictionary.to_numpy()
    parts = []
    for names, _ in reversed(labels):
        numbers, digits = np.divmod(numbers, len(names))
        parts.append([names[d] for d in digits.tolist()])
    return SeriesKeys(list(map(SEPARATOR.join, zip(*reversed(parts), strict=True))), coded.indices.to_numpy())


def _times(column: pa.Array, fields: Fields, rejects: _Rejects) -> NDArray[np.int64]:
    """Return the event times, negative if unusable; rows without a value are rejected."""
    kind = column.type
    floats = pa.types.is_floating(kind)
    if column.null_count or floats:
        rejects.where(
            column.is_null(nan_is_null=floats), column, "missing_field", f"{fields.time} has no value"
        )
    return parse_column(column, fields.time_unit, fields.zone, fields.time_format)


def _as_text(column: pa.Array) -> pa.StringArray:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _read_texts(texts: pa.StringArray, field: str, rules: NumberRules, rejects: _Rejects) -> pa.Array:
    """Return numbers of texts; each distinct text is read once."""
    coded = texts.dictionary_encode()
    numbers: list[float] = []
    refused: dict[int, str] = {}
    for code, text in enumerate(coded.dictionary.to_pylist()):
        try:
            numbers.append(rules.read(text))
        except NotANumberError as error:
            numbers.append(math.nan)
            refused[code] = str(error)
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if refused:
        advice = {code: f"{field} is not a number, it is {{}}; {why}" for code, why in refused.items()}
        rows = np.flatnonzero(np.isin(codes, list(refused))).tolist()
        rejects.add(rows, "wrong_type", lambda row: advice[codes[row]].format(shown(texts[row].as_py())))
    return pa.array(np.append(np.array(numbers), np.nan)[codes])


def rows_that_fit(table: pa.Table, where: Condition) -> NDArray[np.bool_]:
    """Return a mask of the rows that fit a condition.

    Each combination of contents is tried once.
    """
    columns, codes = [], np.zeros(len(table), np.int64)
    for field in where.fields:
        if len(table.schema.get_all_field_indices(field)) != 1:
            columns.append([None])
            codes = codes * 1
            continue
        coded = _dictionary(table.column(field).combine_chunks())
        coded = pa.concat_arrays(coded.chunks) if isinstance(coded, pa.ChunkedArray) else coded
        contents = [*coded.dictionary.to_pylist(), None]
        indices = coded.indices.cast(pa.int64()).fill_null(len(contents) - 1)
        codes = codes * len(contents) + indices.to_numpy(zero_copy_only=False)
        columns.append(contents)
    distinct, inverse = np.unique(codes, return_inverse=True)
    fits = []
    for code in distinct.tolist():
        found = {}
        for field, contents in zip(reversed(where.fields), reversed(columns), strict=True):
            code, place = divmod(code, len(contents))
            found[field] = contents[place]
        fits.append(where.holds(found.__getitem__))
    return np.array(fits, bool)[inverse]


def row_bytes(table: pa.Table, row: int) -> bytes:
    """Return a row as JSON of its columns, the value of its dead letter."""
    cells = {}
    for name, column in zip(table.column_names, table.slice(row, 1).columns, strict=True):
        try:
            cells[name] = column[0].as_py()
        except UnicodeDecodeError:
            cells[name] = column.cast(pa.binary())[0].as_py()
    return json.dumps(cells, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")
