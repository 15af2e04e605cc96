"""Decoder of a stream: parse by format, check times, reject records that do not fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.inputs import LineProtocolFormat, LogLinesFormat
from pipeline.config.schema import CsvFormat, JsonFormat, Stream, format_duration
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.errors import ConfigError
from pipeline.core.time_spellings import why_ambiguous
from pipeline.core.timestamps import ABSURD, IMPLAUSIBLE, parse_times, repeated_hours
from pipeline.core.types import DeadLetter
from pipeline.decode.arrow_tables import TableParser, row_bytes, rows_that_fit
from pipeline.decode.columns import REPEATED_HOUR, Columns, in_time_order
from pipeline.decode.csv_records import split
from pipeline.decode.envelope import envelope_columns, is_envelope
from pipeline.decode.fields import condition_of, fields_of, number_rules
from pipeline.decode.json_records import JsonParser
from pipeline.decode.line_protocol import SAMPLES
from pipeline.decode.metrics_formats import metric_parser
from pipeline.decode.parsed_batch import Parsed, Reject, shown
from pipeline.decode.time_leaps import leaping_points
from pipeline.decode.translation import make_translator, translate
from pipeline.sources.base import Headers, Records, TableRecords


class Decoded(NamedTuple):
    """Content of one batch: offsets read = columns.records + dead + columns.filtered.

    A dead letter that is ``partial`` is not counted: other samples of its record are points.
    """

    columns: Columns
    dead: list[DeadLetter]


class Decoder:
    """Decodes the records of one stream.

    It has no state: the same records give the same columns, however they are cut into batches. Only the key
    ``future`` depends on the present, which ``clock`` returns in ns: an event cannot lie after it.
    """

    def __init__(self, name: str, stream: Stream, clock: Callable[[], int] = time.time_ns) -> None:
        chosen = stream.format.chosen
        self._name = name
        self._fields = fields_of(name, stream)
        self._numbers = number_rules(stream)
        self._where = condition_of(name, stream)
        self._clock = clock
        self._sorts_samples = stream.format.name == "json"
        self._header = chosen.header if isinstance(chosen, CsvFormat) else None
        self._delimiter = chosen.delimiter if isinstance(chosen, CsvFormat) else ","
        self._form, self._translate = chosen, make_translator(name, chosen)
        self._json: JsonParser | None = None
        if isinstance(chosen, JsonFormat):
            lines = isinstance(chosen, LineProtocolFormat | LogLinesFormat)
            samples = SAMPLES if lines else chosen.samples
            self._json = JsonParser(self._fields, samples, self._numbers, self._where)
        self._metrics = metric_parser(chosen, self._fields, self._where, bool(stream.counters))
        self._tables = TableParser(self._fields, self._numbers)
        conditional = self._where.fields if self._where else ()
        self._used = list(dict.fromkeys((*self._fields.all(), *conditional)))
        self._envelope = [field for field in self._used if is_envelope(field)]
        # Only then the order of the points is that of arrival.
        self._in_order = self._fields.zone != "UTC" and not stream.lateness and stream.aggregate is None
        self._future = None if stream.future is None else to_nanoseconds(stream.future)
        #: Points within the lateness may be out of order.
        self._least_leap = max(self._future or 0, to_nanoseconds(stream.lateness), SECOND_NS)
        if self._header is not None and (
            absent := set(self._fields.all())
            - set(self._header)
            - self._fields.optional
            - set(self._envelope)
        ):
            raise ConfigError(f"streams.{name}.format.csv.header: has no column {', '.join(sorted(absent))}")

    def decode(self, records: Records | TableRecords) -> Decoded:
        """Return columns and dead letters of one batch.

        Raises ConfigError for CSV records whose format has no header.
        """
        if isinstance(records, TableRecords):
            parsed = self._table(records.table, records)
        elif self._metrics is not None:
            parsed = self._metrics.parse(records)
        elif self._json is not None:
            parsed = self._parse_json(self._json, records)
        else:
            parsed = self._csv(records)
        for number in self._numbers.missing_numbers:
            parsed.values[parsed.values == number] = np.nan
        self._check_times(parsed, records.timestamps)
        if self._in_order and (shift := self._repeated_hours(parsed)) is not None:
            parsed.extra[REPEATED_HOUR] = shift
        unfit = self._settle_unfit(parsed) if parsed.unfit else []
        rows = parsed.rows
        keep: NDArray | None = None
        if parsed.rejects or unfit:
            refused = np.zeros(len(records), bool)
            refused[list(parsed.rejects)] = True
            kept = ~(refused if rows is None else refused[rows])
            kept[unfit] = False
            keep = np.flatnonzero(kept)
        return Decoded(self._columns(parsed, records, keep), self._dead_letters(parsed, records))

    def _parse_json(self, parser: JsonParser, records: Records) -> Parsed:
        """Parse records of JSON, or of a format that is translated to it."""
        if self._translate is None or not isinstance(self._form, JsonFormat):
            return parser.parse(records)
        translated, rejects = translate(records, self._translate, self._form)
        parsed = parser.parse(translated)
        parsed.filtered -= len(rejects)  # they look like tombstones
        parsed.rejects |= rejects
        return parsed

    def _csv(self, records: Records) -> Parsed:
        if self._header is None:
            raise ConfigError(
                f"streams.{self._name}.format.csv: the records have no header line; name their "
                f"columns: `header: [...]`"
            )
        rejects: dict[int, Reject] = {}
        used = [field for field in self._used if field in self._header]
        table, rows = split(records.values, self._header, self._delimiter, used, rejects)
        parsed = self._table(table, records, rows)
        if rows is not None:
            tombstones = sum(value is None for value in records.values)
            parsed.rejects |= rejects
            parsed.filtered += tombstones
        return parsed

    def _table(
        self, table: pa.Table, records: Records | TableRecords, rows: NDArray[np.int64] | None = None
    ) -> Parsed:
        """Parse a table whose row i is record ``rows[i]`` (None: record i)."""
        for field, column in envelope_columns(records, self._envelope).items():
            content = column if rows is None else [column[row] for row in rows.tolist()]
            table = table.append_column(field, pa.array(content))
        left_out = 0
        if self._where is not None:
            mask = rows_that_fit(table, self._where)
            left_out = int((~mask).sum())
            if left_out:
                fitting = np.flatnonzero(mask)
                table, rows = table.take(fitting), fitting if rows is None else rows[fitting]
        parsed = self._tables.parse(table)
        parsed.filtered = left_out
        if rows is not None:
            parsed.rejects = {int(rows[row]): reject for row, reject in parsed.rejects.items()}
            parsed.rows = rows
        return parsed

    def _check_times(self, parsed: Parsed, timestamps: NDArray[np.int64]) -> None:
        event, rows = parsed.time, parsed.rows
        if len(event) and event.min() < 0:
            for point in np.flatnonzero(event < 0).tolist():
                parsed.unfit.setdefault(point, self._bad_time(int(event[point]), parsed.time_shown(point)))
        if self._future is None or not len(event):
            return
        logged = timestamps if rows is None else timestamps[rows]
        # A log without times of its own, or whose times are those of a clock that is ahead, is compared with
        # the present.
        now = self._clock() if event.max() > self._clock() + self._future else None
        if now is not None:
            logged = np.where((logged < 0) | (logged > now), now, logged)
        ahead = (event > logged + self._future) & (logged >= 0)
        for point in np.flatnonzero(ahead).tolist():
            present = now is not None and int(logged[point]) == now
            parsed.unfit.setdefault(
                point, Reject("future", self._too_far(int(event[point]), int(logged[point]), present))
            )
        usable = event
        if parsed.unfit:
            usable = event.copy()
            usable[list(parsed.unfit)] = -1
        logged = timestamps if rows is None else timestamps[rows]
        for point, back in leaping_points(parsed.keys, usable, logged, self._least_leap):
            text = f"{self._fields.time} is {_text(int(event[point]))}: its series goes on at {_text(back)}"
            parsed.unfit.setdefault(point, Reject("future", text))

    def _repeated_hours(self, parsed: Parsed) -> NDArray[np.float64] | None:
        """Return the distance of the second reading of local times (N,), None without one."""
        fields, event = self._fields, parsed.time
        good = event[event >= 0]
        shift = np.zeros(len(event))
        for start, end in repeated_hours(fields.zone, good):
            for point in np.flatnonzero((event >= start) & (event < end)).tolist():
                original = parsed.time_shown(point)
                if isinstance(original, datetime):
                    local = original.tzinfo is None
                else:
                    text = [str(original)] if fields.time_format else [original]
                    there = parse_times(text, fields.time_unit, "UTC", fields.time_format)  # type: ignore[arg-type]
                    local = int(there[0]) != int(event[point])
                shift[point] = end - start if local else 0
        return shift if shift.any() else None

    def _bad_time(self, mark: int, original: object) -> Reject:
        name = self._fields.time
        if mark == ABSURD:
            return Reject("absurd_time", f"{name} is {shown(original)}")
        if mark == IMPLAUSIBLE:
            return Reject(
                "implausible_time",
                f"{name} is {shown(original)}: not an epoch after 1990 in s, ms, µs or ns, and not the "
                f"digits of a date; set time_unit (spreadsheet: days since 1899-12-30, "
                f"ticks: of .NET, filetime: of Windows, julian, mjd, matlab, since_1904) or time_format",
            )
        if self._fields.time_format is not None:
            advice = f"; time_format is {self._fields.time_format!r}"
        else:
            advice = f"; {why_ambiguous(str(original)) or 'time_format sets another spelling'}"
        return Reject("bad_time", f"{name} is {shown(original)}{advice}")

    @staticmethod
    def _settle_unfit(parsed: Parsed) -> list[int]:
        """Reject the records of unfit points, and return the points to drop.

        Of a record with other points only the unfit ones are dropped.
        """
        rows = parsed.rows
        if rows is None or parsed.texts is None:
            for point, reject in parsed.unfit.items():
                parsed.rejects.setdefault(point if rows is None else int(rows[point]), reject)
            return []
        unfit = np.array(sorted(parsed.unfit), np.int64)
        for row in np.unique(rows[unfit]).tolist():
            first, end = np.searchsorted(rows, [row, row + 1]).tolist()
            bad = [point for point in range(first, end) if point in parsed.unfit]
            reject = parsed.unfit[bad[0]]
            if len(bad) == end - first:
                parsed.parts.pop(row, None)
                parsed.rejects.setdefault(row, reject)
            else:
                text = parsed.texts(row, [point - first for point in bad])
                before = parsed.parts.get(row)
                parsed.parts[row] = (
                    (text, reject) if before is None else (before[0] + b"\n" + text, before[1])
                )
        return list(map(int, unfit))

    def _too_far(self, event: int, clock: int, present: bool) -> str:
        name = self._fields.time
        ahead = format_duration(timedelta(seconds=(event - clock) // SECOND_NS))
        if present:
            return f"{name} is {_text(event)}: ahead of the present; `future` sets how far it may be"
        return f"{name} is {_text(event)}: {ahead} ahead of the record's own timestamp {_text(clock)}"

    def _columns(self, parsed: Parsed, records: Records | TableRecords, keep: NDArray | None) -> Columns:
        rows, event = parsed.rows, parsed.time
        logged = records.timestamps if rows is None else records.timestamps[rows]
        clock = event
        if self._future is not None and len(event) and (logged < event).any():
            clock = np.where(logged >= 0, np.minimum(event, logged), event)
        columns = Columns(
            partition=records.partition,
            offsets=records.offsets if rows is None else records.offsets[rows],
            head=None if rows is None else np.diff(rows, prepend=-1) > 0,
            keys=parsed.keys,
            time=event,
            clock=clock,
            values=parsed.values,
            extra=parsed.extra,
            events=parsed.events,
        )
        if keep is not None:
            columns = columns.take(keep)
            if rows is not None:
                columns.head = np.diff(rows[keep], prepend=-1) > 0
        unsplit = len(records.rejected) if isinstance(records, TableRecords) else 0
        read = records.next_offset - records.first_offset
        if isinstance(records, TableRecords) and records.sparse:
            read = len(records) + unsplit
        filtered = parsed.filtered + read - len(records) - unsplit
        if rows is not None and self._sorts_samples and REPEATED_HOUR not in columns.extra:
            columns = in_time_order(columns)
        columns.filtered = filtered
        return columns

    def _dead_letters(self, parsed: Parsed, records: Records | TableRecords) -> list[DeadLetter]:
        dead = []
        for row, reject in parsed.rejects.items():
            dead.append(self._letter(records, row, reject))
        for row, (text, reject) in parsed.parts.items():
            if row not in parsed.rejects:
                letter = self._letter(records, row, reject)
                letter.value, letter.partial = text, True
                dead.append(letter)
        if isinstance(records, TableRecords):
            for offset, raw, why in records.rejected:
                dead.append(
                    DeadLetter(self._name, records.partition, offset, -1, None, raw, [], "malformed", why)
                )
        return sorted(dead, key=lambda letter: letter.offset)

    def _letter(self, records: Records | TableRecords, row: int, reject: Reject) -> DeadLetter:
        offset, timestamp = int(records.offsets[row]), int(records.timestamps[row])
        return DeadLetter(self._name, records.partition, offset, timestamp, *_original(records, row), *reject)


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
