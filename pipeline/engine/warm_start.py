"""Warm start: initial state of series from historical files.

    files ─► decode ─► event time ─► detector ─► one state per series ─► database ─► first record of the series

The files of ``warm_start`` are read once, before the first poll of the stream, by the code that scores
records. Their verdicts are discarded. The partition of a series is not known yet, so its state is stored like
that of an offloaded series (``pipeline.engine.offloaded_state``), and the partition in which the series
arrives takes a copy. No state is used before all of them are stored; after an interruption the files are read
again. Two members that read at the same time store the same states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.config.schema import FilesSourceConfig, SourceConfig, Stream
from pipeline.core.errors import InputError, SourceError, StorageUnavailable
from pipeline.core.types import Counts, Partition, Position
from pipeline.decode import make_decoder
from pipeline.engine.offloaded_state import (
    WARM_START_PARTITION,
    states_of,
    warm_start_prefix,
    warm_start_reader,
)
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources import make_source
from pipeline.sources.base import Records, Source, TableRecords
from pipeline.sources.files.readers import ENDINGS
from storage.sql.database import Database
from storage.stream_state import offloaded_series, positions
from storage.stream_state import reader as stored_readers
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: Work in many short steps: yields the number of rows so far, and returns a result.
Steps = Generator[int, None, T]

MAX_BATCH_RECORDS = 20_000
#: Series whose state is stored in one transaction.
SERIES_PER_TRANSACTION = 1000
#: Most records of a partition that are read to find its start.
PEEK_RECORDS = 1000
#: Most time for reading them.
PEEK_SECONDS = 30.0
#: Most time to wait for a source that does not answer; it may refuse a second reader for good.
PATIENCE_SECONDS = 300.0
RETRY_SECONDS = 1.0


def read_warm_start(
    database: Database, owner: str, reader: str, live: StreamScorer, peek: Callable[[], Source | None]
) -> Iterator[int]:
    """Compute and store the initial states of the series of ``reader``, unless they are stored already.

    States of other files or of another form are deleted. Yields the number of rows so far, after each of many
    short steps. Waits for a database or source that does not answer. Raises InputError and SourceError for
    files that cannot be read; then no state is used.

    Args:
        database: Where the states are stored.
        owner: Name of this process in the positions.
        reader: Name under which the positions of the stream are kept.
        live: The scorer of the stream.
        peek: Makes a second reader of the stream's source. Only points older than its first records are used.
    """
    name, stream = live.provenance.stream, live.stream
    at = warm_start_reader(reader, stream, live.detector.state_version)
    yield from _retrying(partial(_forget_others, database, reader, at), 0)
    if at is None or (yield from _retrying(partial(_is_stored, database, at, owner), 0)):
        return
    started = time.monotonic()
    is_unread = yield from _retrying(partial(_is_unread, database, reader), 0)
    until = (yield from _stream_start(name, stream, peek)) if is_unread else None
    log.info(
        "warm start: reading files",
        stream=name,
        warm_start=str(stream.warm_start),
        until=None if until is None else str(np.datetime64(until, "ns")),
    )
    scorer = StreamScorer(
        live.provenance,
        stream,
        live.detector,
        keep=None if until is None else lambda columns: columns.time < until,
        max_series=stream.max_series,
    )
    rows = yield from _score_files(scorer)
    slots = scorer.series.slots(WARM_START_PARTITION)
    for start in range(0, len(slots), SERIES_PER_TRANSACTION):
        some = slots[start : start + SERIES_PER_TRANSACTION]
        yield from _retrying(partial(_store, database, at, scorer, some), rows)
    yield from _retrying(partial(_finish, database, at, owner, rows), rows)
    log.info(
        "warm start: initial states are stored",
        stream=name,
        rows=rows,
        series=len(slots),
        seconds=round(time.monotonic() - started, 1),
    )


def _score_files(scorer: StreamScorer) -> Steps[int]:
    """Score the historical files, and return the number of rows.

    Logs the numbers of points over ``max_series`` and of late ones, if there are any.
    """
    name, rows, late, refused = scorer.provenance.stream, 0, 0, 0
    for path in (yield from _sorted_files(name, scorer.stream)):
        for result in _score_file(scorer, name, path):
            outcome = result.outcomes[WARM_START_PARTITION]
            rows, late = rows + outcome.counts.scored, late + outcome.counts.late
            refused += outcome.refused
            yield rows
    if refused:
        log.warning(
            "warm start: points of series over max_series are skipped",
            stream=name,
            rows=refused,
            max_series=scorer.stream.max_series,
        )
    if late:
        log.warning(
            "warm start: points skipped because they are older than earlier rows of their series; "
            "sort each series by time",
            stream=name,
            rows=late,
        )
    return rows


def forget_warm_start(database: Database, reader: str) -> None:
    """Delete the initial states of ``reader``. Raises StorageUnavailable."""
    _forget_others(database, reader, None)


def warm_start_files(name: str, path: Path) -> list[str]:
    """Return the file, or the files of the folder, as patterns for a source.

    Raises InputError if there are none, or they cannot be listed.
    """
    try:
        paths = (
            [one for one in sorted(path.iterdir()) if one.name.endswith(ENDINGS)] if path.is_dir() else [path]
        )
    except OSError as error:
        raise InputError(f"stream {name}: warm_start: {path} cannot be listed: {error.strerror}") from error
    if not paths:
        raise InputError(f"stream {name}: warm_start: {path} holds no file that ends in {', '.join(ENDINGS)}")
    return [escape(str(one)) for one in paths]


def warm_start_source(name: str, stream: Stream, paths: list[str]) -> Source:
    """Return a source of historical files, as in a backfill. Raises InputError."""
    return make_source(name, SourceConfig(files=FilesSourceConfig(paths=paths)), stream.format)


def read_all(source: Source, max_records: int = MAX_BATCH_RECORDS) -> Iterator[list[Records | TableRecords]]:
    """Yield the records of a bounded source, from the beginning to the end. Raises SourceError."""
    while not (poll := source.poll(max_records, 0.2)).finished or poll.records:
        for partition in poll.assigned:
            source.seek(partition, source.start_offset(partition))
            source.resume([partition])
        if poll.records:
            yield poll.records


def score_all(scorer: StreamScorer, source: Source) -> Iterator[BatchResult]:
    """Yield the results of a bounded source, to its end.

    Raises SourceError, also if too many records cannot be decoded.
    """
    at: dict[Partition, int] = {}
    for records in read_all(source):
        result = scorer.process(records)
        at |= {partition: outcome.next_offset for partition, outcome in result.outcomes.items()}
        _refuse_broken(result)
        yield result
    yield scorer.flush(at)


def _refuse_broken(result: BatchResult) -> None:
    """Raise SourceError if too many records cannot be decoded."""
    for partition, outcome in result.outcomes.items():
        if outcome.broken and outcome.dead:
            last = outcome.dead[-1]
            what = f"too many records cannot be decoded (last: offset {last.offset}, {last.reason}: {last.detail})"
            raise SourceError(
                f"{partition}: {what}; correct the input or the format of the stream", partition
            )


def first_time_of(name: str, stream: Stream, path: str) -> int | None:
    """Return the earliest event time among the first rows of a file, None if it cannot be read or decoded."""
    source = warm_start_source(name, stream, [escape(path)])
    steps = _first_time(name, stream, source)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        first: int | None = end.value
        return first
    except (SourceError, InputError):
        return None
    finally:
        source.close()


def _sorted_files(name: str, stream: Stream) -> Steps[list[str]]:
    """Return the files sorted by their first event time, because a series may continue in the next file.

    Raises InputError and SourceError.
    """
    assert stream.warm_start is not None
    begins: list[tuple[int, str]] = []
    for path in warm_start_files(name, stream.warm_start):
        source = warm_start_source(name, stream, [path])
        try:
            begins.append(((yield from _first_time(name, stream, source)) or 0, path))
        finally:
            source.close()
    return [path for _, path in sorted(begins)]


def _stream_start(name: str, stream: Stream, peek: Callable[[], Source | None]) -> Steps[int | None]:
    """Return the first event time of the stream's own records.

    None if there are none yet, or if a second reader is not possible.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while (source := peek()) is not None:
        try:
            return (yield from _first_time(name, stream, source))
        except SourceError as error:
            if time.monotonic() > until:
                log.warning(
                    "cannot locate stream start; loading the full warm-start files",
                    stream=name,
                    error=str(error),
                )
                return None
            yield from _wait_to_retry(0, error)
        finally:
            source.close()
    return None


def _first_time(name: str, stream: Stream, source: Source) -> Steps[int | None]:
    """Return the earliest event time among the first records of each partition, None if none decodes.

    Raises SourceError.
    """
    decoder, until = make_decoder(name, stream), time.monotonic() + PEEK_SECONDS
    wanted: set[Partition] | None = None  # None: the partitions are not known yet
    begins: list[int] = []
    while wanted != set() and time.monotonic() < until:
        poll = source.poll(PEEK_RECORDS, 0.05)
        if poll.assigned:
            starts, bounds = (
                {partition: source.start_offset(partition) for partition in poll.assigned},
                source.bounds(poll.assigned),
            )
            for partition, start in starts.items():
                source.seek(partition, start)
            more = {partition for partition, start in starts.items() if start < bounds[partition].end}
            source.resume(list(more))
            wanted = more | (wanted or set())
        for records in poll.records:
            columns, _ = decoder.decode(records)
            if len(columns):
                begins.append(int(columns.time.min()))
                wanted = (wanted or set()) - {records.partition}
                source.pause([records.partition])
        if poll.finished:
            break
        yield 0
    return min(begins, default=None)


def _score_file(scorer: StreamScorer, name: str, path: str) -> Iterator[BatchResult]:
    """Score one file into the same series.

    Each file has its own watermark, because files may hold one series each, over the same time.
    """
    source, at = warm_start_source(name, scorer.stream, [path]), 0
    try:
        for (records,) in read_all(source):
            at = records.next_offset
            result = scorer.process([replace(records, partition=WARM_START_PARTITION)], replay=True)
            _refuse_broken(result)
            yield result
        # Sessions of events go on in the records of the stream.
        yield scorer.flush({WARM_START_PARTITION: at}, replay=True, ended_ns=None)
        scorer.empty_buffer(WARM_START_PARTITION)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    finally:
        source.close()


# ------------------------------------------------------------------------------------------------ database


def _retrying(action: Callable[[], T], rows: int) -> Steps[T]:
    """Repeat ``action`` until the database answers."""
    while True:
        try:
            return action()
        except (StorageUnavailable, Fenced) as error:
            # Fenced: another member reads the same files and stores the same states.
            yield from _wait_to_retry(rows, error)


def _wait_to_retry(rows: int, error: Exception) -> Steps[None]:
    """Wait before the next attempt, in short steps so that other streams continue."""
    log.warning("warm start: waiting for the database or the source", error=str(error))
    until = time.monotonic() + RETRY_SECONDS
    while time.monotonic() < until:
        time.sleep(0.02)
        yield rows


def _forget_others(database: Database, reader: str, keep: str | None) -> None:
    with database.read() as connection:
        others = [one for one in stored_readers.names(connection, warm_start_prefix(reader)) if one != keep]
    for other in others:
        with database.begin() as connection:
            stored_readers.forget(connection, other)


def _acquire(database: Database, reader: str, owner: str) -> Position:
    return positions.acquire(database, reader, WARM_START_PARTITION, owner, "")


def _is_unread(database: Database, reader: str) -> bool:
    """Return True if no record was read as ``reader``."""
    with database.read() as connection:
        return all(position.next_offset is None for position in positions.all_of(connection, reader))


def _is_stored(database: Database, reader: str, owner: str) -> bool:
    return _acquire(database, reader, owner).counts.scored > 0


def _store(database: Database, reader: str, scorer: StreamScorer, slots: NDArray[np.int32]) -> None:
    with database.begin() as connection:
        offloaded_series.store(connection, reader, WARM_START_PARTITION, states_of(scorer, slots))


def _finish(database: Database, reader: str, owner: str, rows: int) -> None:
    position = _acquire(database, reader, owner)
    if not position.counts.scored:
        with database.begin() as connection:
            positions.advance(connection, position, rows, Counts(scored=rows), None)
