"""Past points of a stream: what its series know before their first record.

    files ─► decode ─► windows ─► detector ─► a state a series ─► database ─► the first record of the series

The files that ``history`` names are read once, before the stream polls for the first time, by the code that scores records; nothing of what it
says goes out. Which partition a series will come in nobody knows before it comes, so its state waits in the database, as that of a series that
was silent for long (``pipeline.stored``), and the partition in which it turns up takes a copy. Until all of them are stored none is used, and
whoever is killed before that begins again; two members that read at once store the same.
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

from pipeline.config import FilesSource, Stream
from pipeline.config import Source as SourceConfig
from pipeline.decode import make_decoder
from pipeline.errors import InputError, SourceError, StorageUnavailable
from pipeline.records import Counts, Position
from pipeline.scoring import Result, Scoring
from pipeline.sources import make_source
from pipeline.sources.base import Records, Source, TableRecords
from pipeline.sources.files import ENDINGS
from pipeline.stored import PAST, past_ledger, past_ledgers, states_of
from storage import ledger as ledgers
from storage import positions, series
from storage.positions import Fenced
from storage.session import Database

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCH = 20_000
#: Series whose state is stored in one transaction.
CHUNK = 1000
RETRY_SECONDS = 0.2


def read_past(database: Database, owner: str, live: Scoring) -> Iterator[int]:
    """Learn what the past of the stream of ``live`` tells, unless that is done; what is read for another path or form of the state is forgotten.

    Gives the number of rows so far, at each of many short steps. Waits for a database that is away. Raises InputError and SourceError for files
    that cannot be read; then nothing of them is used.
    """
    name, ledger = live.provenance.stream, past_ledger(live)
    yield from _patiently(partial(_forget_others, database, name, ledger), 0)
    if ledger is None or (yield from _patiently(partial(_known, database, ledger, owner), 0)):
        return
    started, scoring, rows, late = time.monotonic(), Scoring(live.provenance, live.stream, live.detector), 0, 0
    log.info("reading past points", stream=name, history=str(live.stream.history))
    for path in in_order(name, live.stream):
        for result in _learn(scoring, name, path):
            counts = result.outcomes[PAST].counts
            rows, late = rows + counts.scored, late + counts.late
            yield rows
    slots = scoring.series.slots(PAST)
    for start in range(0, len(slots), CHUNK):
        yield from _patiently(partial(_store, database, ledger, scoring, slots[start : start + CHUNK]), rows)
    yield from _patiently(partial(_finish, database, ledger, owner, rows), rows)
    if late:
        log.warning(
            "past points were left out: their series was further already; give each series in the order of time", stream=name, rows=late
        )
    log.info("past points are known", stream=name, rows=rows, series=len(slots), seconds=round(time.monotonic() - started, 1))


def past_files(name: str, path: Path) -> list[str]:
    """The file, or those of the folder, as patterns for a source. Raises InputError where there are none."""
    paths = [one for one in sorted(path.iterdir()) if one.name.endswith(ENDINGS)] if path.is_dir() else [path]
    if not paths:
        raise InputError(f"stream {name}: history: {path} holds no file that ends in {', '.join(ENDINGS)}")
    return [escape(str(one)) for one in paths]


def source_of(name: str, stream: Stream, paths: list[str]) -> Source:
    """Files of past points, as a backfill would read them. Raises InputError."""
    return make_source(name, SourceConfig(files=FilesSource(paths=paths)), stream.format)


def whole(source: Source, most: int = BATCH) -> Iterator[list[Records | TableRecords]]:
    """Read a bounded source to its end, from the beginning of each of its partitions. Raises SourceError."""
    while not (poll := source.poll(most, 0.2)).finished or poll.records:
        for partition in poll.assigned:
            source.seek(partition, source.start_offset(partition))
            source.resume([partition])
        if poll.records:
            yield poll.records


def refuse_broken(result: Result) -> None:
    """Raises SourceError where too many records cannot be decoded."""
    for partition, outcome in result.outcomes.items():
        if outcome.broken and outcome.dead:
            last = outcome.dead[-1]
            what = f"too many records cannot be decoded (last: offset {last.offset}, {last.reason}: {last.detail})"
            raise SourceError(f"{partition}: {what}; correct the input or the format of the stream", partition)


def in_order(name: str, stream: Stream) -> list[str]:
    """The files by the event time at which they begin: a series that goes through several must come in order. Raises InputError, SourceError."""
    assert stream.history is not None
    paths = past_files(name, stream.history)
    return paths if len(paths) == 1 else sorted(paths, key=lambda path: (_begins(name, stream, path), path))


def _begins(name: str, stream: Stream, path: str) -> int:
    """Event time of the first record that decodes, of the first few."""
    source = source_of(name, stream, [path])
    try:
        for (records,) in whole(source, 100):
            columns, _ = make_decoder(name, stream).decode(records)
            return int(columns.time[0]) if len(columns) else 0
    finally:
        source.close()
    return 0


def _learn(scoring: Scoring, name: str, path: str) -> Iterator[Result]:
    """One file after the other through the same series, each with a watermark of its own: they may be one series each, over the same time."""
    source, at = source_of(name, scoring.stream, [path]), 0
    try:
        for (records,) in whole(source):
            at = records.next_offset
            result = scoring.process([replace(records, partition=PAST)], replay=True)
            refuse_broken(result)
            yield result
        yield scoring.flush({PAST: at}, replay=True)
        scoring.restore(PAST, scoring.meta(), [scoring.windows.dump(scoring.windows.empty(PAST))])
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    finally:
        source.close()


# ------------------------------------------------------------------------------------------------ database


def _patiently(action: Callable[[], T], rows: int) -> Generator[int, None, T]:
    """Do it, however long the database is away; its result is that of the generator."""
    while True:
        try:
            return action()
        except (StorageUnavailable, Fenced) as error:  # fenced: another member reads the same files, and stores the same
            log.warning("past points wait for the database", error=str(error))
            time.sleep(RETRY_SECONDS)
            yield rows


def _forget_others(database: Database, name: str, ledger: str | None) -> None:
    with database.read() as connection:
        others = [one for one in ledgers.names(connection, past_ledgers(name)) if one != ledger]
    for other in others:
        with database.begin() as connection:
            ledgers.forget(connection, other)


def _claim(database: Database, ledger: str, owner: str) -> Position:
    return positions.take_over(database, ledger, PAST, owner, "")


def _known(database: Database, ledger: str, owner: str) -> bool:
    return _claim(database, ledger, owner).counts.scored > 0


def _store(database: Database, ledger: str, scoring: Scoring, slots: NDArray[np.int32]) -> None:
    with database.begin() as connection:
        series.store(connection, ledger, PAST, states_of(scoring, slots))


def _finish(database: Database, ledger: str, owner: str, rows: int) -> None:
    position = _claim(database, ledger, owner)
    if not position.counts.scored:
        with database.begin() as connection:
            positions.advance(connection, position, rows, Counts(scored=rows), None)
