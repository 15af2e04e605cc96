"""Past points of a stream: what its series know before their first record.

    files ─► decode ─► windows ─► detector ─► a state a series ─► database ─► the first record of the series

The files that ``history`` names are read once, before the stream polls for the first time, by the code that
scores records; nothing of what it says goes out. Which partition a series will come in nobody knows before it
comes, so its state waits in the database, as that of a series that was silent for long
(``pipeline.engine.offloaded_state``), and the partition in which it turns up takes a copy. Until all of them
are stored none is used, and whoever is killed before that begins again; two members that read at once store
the same.
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
from pipeline.scoring.stream_scorer import BatchResult, StreamScorer
from pipeline.sources import make_source
from pipeline.sources.base import Records, Source, TableRecords
from pipeline.sources.files.source import ENDINGS
from storage.sql.database import Database
from storage.stream_state import offloaded_series, positions
from storage.stream_state import reader as stored_readers
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: Something that is done in many short steps; gives the number of rows so far, and its result in the end.
Steps = Generator[int, None, T]

BATCH = 20_000
#: Series whose state is stored in one transaction.
CHUNK = 1000
#: Records of a partition that are looked at to know when it begins, and how long at the most.
FIRST = 1000
PEEK_SECONDS = 30.0
#: How long a source that is away is waited for: perhaps it only lets no other reader in.
PATIENCE_SECONDS = 300.0
RETRY_SECONDS = 1.0


def read_warm_start(
    database: Database, owner: str, reader: str, live: StreamScorer, peek: Callable[[], Source | None]
) -> Iterator[int]:
    """Learn what the past tells of the series of ``reader``, unless that is done; what was read for another
    path or form of the state is forgotten.

    ``peek`` makes another reader of what the stream reads: of the past only that is learnt which is older
    than the first records there. Gives the number of rows so far, at each of many short steps. Waits for a
    database or source that is away. Raises InputError and SourceError for files that cannot be read; then
    nothing of them is used.
    """
    name, stream, at = (
        live.provenance.stream,
        live.stream,
        warm_start_reader(reader, live.stream, live.detector.state_version),
    )
    yield from _patiently(partial(_forget_others, database, reader, at), 0)
    if at is None or (yield from _patiently(partial(_known, database, at, owner), 0)):
        return
    started, rows, late = time.monotonic(), 0, 0
    until = (
        (yield from _begin_of(name, stream, peek))
        if (yield from _patiently(partial(_unread, database, reader), 0))
        else None
    )
    log.info(
        "reading past points",
        stream=name,
        warm_start=str(stream.warm_start),
        until=None if until is None else str(np.datetime64(until, "ns")),
    )
    scorer = StreamScorer(
        live.provenance,
        stream,
        live.detector,
        keep=None if until is None else lambda columns: columns.time < until,
    )
    for path in (yield from _in_order(name, stream)):
        for result in _learn(scorer, name, path):
            counts = result.outcomes[WARM_START_PARTITION].counts
            rows, late = rows + counts.scored, late + counts.late
            yield rows
    slots = scorer.series.slots(WARM_START_PARTITION)
    for start in range(0, len(slots), CHUNK):
        yield from _patiently(partial(_store, database, at, scorer, slots[start : start + CHUNK]), rows)
    yield from _patiently(partial(_finish, database, at, owner, rows), rows)
    if late:
        log.warning(
            "past points were left out: their series was further already; give each series in the order of time",
            stream=name,
            rows=late,
        )
    log.info(
        "past points are known",
        stream=name,
        rows=rows,
        series=len(slots),
        seconds=round(time.monotonic() - started, 1),
    )


def forget_warm_start(database: Database, reader: str) -> None:
    """Nobody reads as ``reader`` any more. Raises StorageUnavailable."""
    _forget_others(database, reader, None)


def warm_start_files(name: str, path: Path) -> list[str]:
    """The file, or those of the folder, as patterns for a source.

    Raises InputError where there are none, or they cannot be listed.
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


def source_of(name: str, stream: Stream, paths: list[str]) -> Source:
    """Files of past points, as a backfill would read them. Raises InputError."""
    return make_source(name, SourceConfig(files=FilesSourceConfig(paths=paths)), stream.format)


def whole(source: Source, most: int = BATCH) -> Iterator[list[Records | TableRecords]]:
    """Read a bounded source to its end, from the beginning of each of its partitions. Raises SourceError."""
    while not (poll := source.poll(most, 0.2)).finished or poll.records:
        for partition in poll.assigned:
            source.seek(partition, source.start_offset(partition))
            source.resume([partition])
        if poll.records:
            yield poll.records


def results(scorer: StreamScorer, source: Source) -> Iterator[BatchResult]:
    """Score a bounded source to its end.

    Raises SourceError, also where too many records cannot be decoded.
    """
    at: dict[Partition, int] = {}
    for records in whole(source):
        result = scorer.process(records)
        at |= {partition: outcome.next_offset for partition, outcome in result.outcomes.items()}
        _refuse_broken(result)
        yield result
    yield scorer.flush(at)


def _refuse_broken(result: BatchResult) -> None:
    """Raises SourceError where too many records cannot be decoded."""
    for partition, outcome in result.outcomes.items():
        if outcome.broken and outcome.dead:
            last = outcome.dead[-1]
            what = f"too many records cannot be decoded (last: offset {last.offset}, {last.reason}: {last.detail})"
            raise SourceError(
                f"{partition}: {what}; correct the input or the format of the stream", partition
            )


def _in_order(name: str, stream: Stream) -> Steps[list[str]]:
    """The files by the event time at which they begin: a series that goes through several must come in order.
    Raises InputError, SourceError.
    """
    assert stream.warm_start is not None
    begins: list[tuple[int, str]] = []
    for path in warm_start_files(name, stream.warm_start):
        source = source_of(name, stream, [path])
        try:
            begins.append(((yield from _first_time(name, stream, source)) or 0, path))
        finally:
            source.close()
    return [path for _, path in sorted(begins)]


def _begin_of(name: str, stream: Stream, peek: Callable[[], Source | None]) -> Steps[int | None]:
    """Event time at which the stream's own records begin; None where there are none yet, or nobody can look
    without taking something away.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while (source := peek()) is not None:
        try:
            return (yield from _first_time(name, stream, source))
        except SourceError as error:
            if time.monotonic() > until:
                log.warning(
                    "nobody can see where the stream begins; past points are learnt to their end",
                    stream=name,
                    error=str(error),
                )
                return None
            yield from _later(0, error)
        finally:
            source.close()
    return None


def _first_time(name: str, stream: Stream, source: Source) -> Steps[int | None]:
    """The earliest event time among the first records of each partition; None where none decodes.

    Raises SourceError.
    """
    decoder, until = make_decoder(name, stream), time.monotonic() + PEEK_SECONDS
    wanted: set[Partition] | None = None  # which there are is not known yet
    begins: list[int] = []
    while wanted != set() and time.monotonic() < until:
        poll = source.poll(FIRST, 0.05)
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


def _learn(scorer: StreamScorer, name: str, path: str) -> Iterator[BatchResult]:
    """One file after the other through the same series, each with a watermark of its own: they may be one
    series each, over the same time.
    """
    source, at = source_of(name, scorer.stream, [path]), 0
    try:
        for (records,) in whole(source):
            at = records.next_offset
            result = scorer.process([replace(records, partition=WARM_START_PARTITION)], replay=True)
            _refuse_broken(result)
            yield result
        yield scorer.flush({WARM_START_PARTITION: at}, replay=True)
        scorer.restore(
            WARM_START_PARTITION,
            scorer.meta(),
            [scorer.event_time.dump(scorer.event_time.empty(WARM_START_PARTITION))],
        )
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    finally:
        source.close()


# ------------------------------------------------------------------------------------------------ database


def _patiently(action: Callable[[], T], rows: int) -> Steps[T]:
    """Do it, however long the database is away."""
    while True:
        try:
            return action()
        except (StorageUnavailable, Fenced) as error:
            # fenced: another member reads the same files, and stores the same
            yield from _later(rows, error)


def _later(rows: int, error: Exception) -> Steps[None]:
    """Time that the other streams have."""
    log.warning("past points wait", error=str(error))
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


def _claim(database: Database, reader: str, owner: str) -> Position:
    return positions.acquire(database, reader, WARM_START_PARTITION, owner, "")


def _unread(database: Database, reader: str) -> bool:
    """No record was read as this ledger: the first of a series may be the first there is."""
    with database.read() as connection:
        return all(position.next_offset is None for position in positions.all_of(connection, reader))


def _known(database: Database, reader: str, owner: str) -> bool:
    return _claim(database, reader, owner).counts.scored > 0


def _store(database: Database, reader: str, scorer: StreamScorer, slots: NDArray[np.int32]) -> None:
    with database.begin() as connection:
        offloaded_series.store(connection, reader, WARM_START_PARTITION, states_of(scorer, slots))


def _finish(database: Database, reader: str, owner: str, rows: int) -> None:
    position = _claim(database, reader, owner)
    if not position.counts.scored:
        with database.begin() as connection:
            positions.advance(connection, position, rows, Counts(scored=rows), None)
