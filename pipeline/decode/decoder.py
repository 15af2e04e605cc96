"""Decoder of a stream: parse by format, check times, reject records that do not fit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import CsvFormat, JsonFormat, Stream, format_duration
from pipeline.core.durations import to_nanoseconds
from pipeline.core.errors import ConfigError
from pipeline.core.timestamps import ABSURD
from pipeline.core.types import DeadLetter
from pipeline.decode.arrow_tables import TableParser, row_bytes
from pipeline.decode.columns import Columns
from pipeline.decode.csv_records import split
from pipeline.decode.fields import fields_of
from pipeline.decode.json_records import JsonParser
from pipeline.decode.parsed_batch import Parsed, Reject, shown
from pipeline.sources.base import Headers, Records, TableRecords


class Decoded(NamedTuple):
    """Content of one batch: offsets read = columns.records + len(dead) + columns.filtered."""

    columns: Columns
    dead: list[DeadLetter]


class Decoder:
    """Decodes the records of one stream.

    It has no state: the same records give the same columns, however they are cut into batches.
    """

    def __init__(self, name: str, stream: Stream) -> None:
        chosen = stream.format.chosen
        self._name = name
        self._fields = fields_of(name, stream)
        self._header = chosen.header if isinstance(chosen, CsvFormat) else None
        self._delimiter = chosen.delimiter if isinstance(chosen, CsvFormat) else ","
        self._json = JsonParser(self._fields, chosen.samples) if isinstance(chosen, JsonFormat) else None
        self._tables = TableParser(self._fields)
        self._future = None if stream.future is None else to_nanoseconds(stream.future)
        if self._header is not None and (
            absent := set(self._fields.all()) - set(self._header) - self._fields.optional
        ):
            raise ConfigError(f"streams.{name}.format.csv.header: has no column {', '.join(sorted(absent))}")

    def decode(self, records: Records | TableRecords) -> Decoded:
        """Return columns and dead letters of one batch.

        Raises ConfigError for CSV records whose format has no header.
        """
        if isinstance(records, TableRecords):
            parsed = self._tables.parse(records.table)
        elif self._json is not None:
            parsed = self._json.parse(records.values)
        else:
            parsed = self._csv(records)
        self._check_times(parsed, records.timestamps)
        rows = parsed.rows
        keep: NDArray | None = None
        if parsed.rejects:
            refused = np.zeros(len(records), bool)
            refused[list(parsed.rejects)] = True
            keep = np.flatnonzero(~(refused if rows is None else refused[rows]))
        return Decoded(self._columns(parsed, records, keep), self._dead_letters(parsed.rejects, records))

    def _csv(self, records: Records) -> Parsed:
        if self._header is None:
            raise ConfigError(
                f"streams.{self._name}.format.csv: the records have no header line; name their "
                f"columns: `header: [...]`"
            )
        rejects: dict[int, Reject] = {}
        used = [field for field in self._fields.all() if field in self._header]
        table, rows = split(records.values, self._header, self._delimiter, used, rejects)
        parsed = self._tables.parse(table)
        if rows is not None:
            rejects |= {int(rows[row]): reject for row, reject in parsed.rejects.items()}
            tombstones = sum(value is None for value in records.values)
            parsed.rows, parsed.rejects, parsed.filtered = rows, rejects, tombstones
        return parsed

    def _check_times(self, parsed: Parsed, timestamps: NDArray[np.int64]) -> None:
        time, rows = parsed.time, parsed.rows
        if len(time) and time.min() < 0:
            for point in np.flatnonzero(time < 0).tolist():
                reason = "absurd_time" if time[point] == ABSURD else "bad_time"
                row = point if rows is None else int(rows[point])
                parsed.rejects.setdefault(
                    row, Reject(reason, f"{self._fields.time} is {shown(parsed.time_shown(point))}")
                )
        if self._future is None:
            return
        logged = timestamps if rows is None else timestamps[rows]
        ahead = (time > logged + self._future) & (logged >= 0)
        for point in np.flatnonzero(ahead).tolist():
            row = point if rows is None else int(rows[point])
            parsed.rejects.setdefault(
                row, Reject("future", self._too_far(int(time[point]), int(logged[point])))
            )

    def _too_far(self, time: int, logged: int) -> str:
        ahead = format_duration(timedelta(microseconds=(time - logged) // 1000))
        return f"{self._fields.time} is {_text(time)}: {ahead} ahead of the record's own timestamp {_text(logged)}"

    def _columns(self, parsed: Parsed, records: Records | TableRecords, keep: NDArray | None) -> Columns:
        rows, time = parsed.rows, parsed.time
        logged = records.timestamps if rows is None else records.timestamps[rows]
        clock = time
        if self._future is not None and len(time) and (logged < time).any():
            clock = np.where(logged >= 0, np.minimum(time, logged), time)
        columns = Columns(
            partition=records.partition,
            offsets=records.offsets if rows is None else records.offsets[rows],
            head=None if rows is None else np.diff(rows, prepend=-1) > 0,
            keys=parsed.keys,
            time=time,
            clock=clock,
            values=parsed.values,
            extra=parsed.extra,
        )
        if keep is not None:
            columns = columns.take(keep)
        unsplit = len(records.rejected) if isinstance(records, TableRecords) else 0
        columns.filtered = (
            parsed.filtered + (records.next_offset - records.first_offset) - len(records) - unsplit
        )
        return columns

    def _dead_letters(self, rejects: dict[int, Reject], records: Records | TableRecords) -> list[DeadLetter]:
        dead = []
        for row, reject in rejects.items():
            offset, timestamp = int(records.offsets[row]), int(records.timestamps[row])
            dead.append(
                DeadLetter(
                    self._name, records.partition, offset, timestamp, *_original(records, row), *reject
                )
            )
        if isinstance(records, TableRecords):
            for offset, raw, why in records.rejected:
                dead.append(
                    DeadLetter(self._name, records.partition, offset, -1, None, raw, [], "malformed", why)
                )
        return sorted(dead, key=lambda letter: letter.offset)


def _original(records: Records | TableRecords, row: int) -> tuple[bytes | None, bytes | None, Headers]:
    """Return key, value and headers as received."""
    if isinstance(records, TableRecords):
        return None, row_bytes(records.table, row), []
    return (
        records.keys[row],
        records.values[row],
        [] if records.headers is None else list(records.headers[row]),
    )


def _text(ns: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)).isoformat()


def make_decoder(stream_name: str, stream: Stream) -> Decoder:
    """Return the decoder of a stream. Raises ConfigError if the format contradicts itself."""
    return Decoder(stream_name, stream)
