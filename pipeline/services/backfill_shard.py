"""One part of a backfill on a cluster, which another process can continue.

Its reader has a name that follows from the plan. After a kill the next attempt acquires the partitions, loads
the last snapshot and goes on from the committed position, as a daemon does. An attempt that has lost a
partition to another one ends. The part is done when the last transaction marks it so.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog
from sqlalchemy import Connection

from pipeline.config.schema import Config
from pipeline.config.stream_names import BACKFILL_MARK
from pipeline.core.errors import InputError, SourceError
from pipeline.core.types import Anomaly, Counts, LateRecord
from pipeline.database import database_of
from pipeline.decode.series_names import labels_of
from pipeline.engine.engine import Engine
from pipeline.engine.warm_start import forget_warm_start
from pipeline.models.champion import champion_of
from pipeline.services.backfill import CLUSTER_MARK, read_files, read_range
from pipeline.services.backfill_plan import Shard
from pipeline.services.backfill_run import BackfillRun, Tally
from pipeline.services.shard_source import ShardSource
from pipeline.sources.base import Source
from storage.results import late_records
from storage.sql.database import Database
from storage.stream_state import backfill_shards, positions
from storage.stream_state import reader as stored_readers
from storage.stream_state.backfill_shards import StoredShard

log = structlog.get_logger(__name__)

#: Packages whose version decides the verdicts.
_PACKAGES = ("forewatch", "numpy", "numba", "pyarrow")


class ShardTaken(Exception):
    """Another process runs this part now."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One part of a backfill, complete.

    files   all files of the backfill, None for a range of the stream's topic
    model   version of the model that all parts use
    scores  file that receives the verdicts of the part, None to write none
    """

    run: str
    stream: str
    config: Config
    shard: Shard
    files: tuple[str, ...] | None
    start_ns: int | None
    end_ns: int | None
    model: str
    versions: dict[str, str]
    scores: Path | None = None

    @property
    def reader(self) -> str:
        """Name under which the part keeps its positions."""
        return reader_of(self.stream, self.run, self.shard.number)


@dataclass(frozen=True, slots=True)
class ShardReport:
    """Result of a part.

    ``worker`` is the process that ended it, "" if it was done before.
    """

    number: int
    counts: Counts
    anomalies: int
    series: int
    seconds: float
    refused: dict[str, int]
    example: str
    worker: str


class _NoProgress:
    """Progress that is read from the committed positions instead."""

    def advance(self, count: float) -> None:
        """Show nothing."""

    def expect(self, total: float) -> None:
        """Show nothing."""


def reader_of(stream: str, run: str, shard: int | None = None) -> str:
    """Return the name of a part's reader, or the beginning of the names of all parts."""
    prefix = f"{stream}{BACKFILL_MARK}{CLUSTER_MARK}{run}/"
    return prefix if shard is None else f"{prefix}{shard})"


def versions_here() -> dict[str, str]:
    """Return the versions of this process that decide verdicts."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def version_problem(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """Return the first version that differs as text, "" if none does."""
    different = [name for name in ours if ours[name] != theirs.get(name)]
    if not different:
        return ""
    name = different[0]
    return f"{name} {theirs.get(name)} there, {ours[name]} here"


def file_problem(shards: Iterable[Shard], config: Config, stream: str) -> str:
    """Return the first file that is not the planned one on this machine, as text.

    It is "" if all files of the parts are.
    """
    where = f"{socket.gethostname()}:{os.getpid()}"
    seen: set[str] = set()
    for part in (part for shard in shards for part in shard.parts):
        if part.topic in seen:
            continue
        seen.add(part.topic)
        path = Path(part.topic)
        if not path.is_file():
            return (
                f"the worker {where} does not see {path.absolute()}; put the files on a disk that every "
                "machine mounts at the same path"
            )
        try:
            with closing(read_files(config, stream, [path])) as source:
                identity = source.identity(part.partition)
        except SourceError as error:
            return f"the worker {where}: {error}"
        if identity != part.identity:
            return f"{path.absolute()} on the worker {where} has another content than here"
    return ""


def run_shard(task: ShardTask) -> ShardReport:
    """Run a part from its position to its end, and mark it as done.

    Raises ForewatchError for what another attempt would not change, and ShardTaken.
    """
    if problem := version_problem(task.versions, versions_here()):
        raise InputError(f"the worker {socket.gethostname()}:{os.getpid()} has another version: {problem}")
    if task.files is not None and (problem := file_problem([task.shard], task.config, task.stream)):
        raise InputError(problem)
    started = time.monotonic()
    database = database_of(task.config)
    try:
        with database.begin() as connection:
            stored = backfill_shards.begin(connection, task.run, task.shard.number, task.stream)
        if stored.done:
            return done_report(stored)
        model = champion_of(database, task.stream, task.config.streams[task.stream]).provenance.model_version
        if model != task.model:
            raise InputError(
                f"stream {task.stream}: the model changed from {task.model} to {model} during the backfill; "
                "run the same command again: it scores everything by the new model"
            )
        return _ShardRun(task, database, stored.first_late_id, started).finish()
    finally:
        database.close()


def done_report(stored: backfill_shards.StoredShard) -> ShardReport:
    """Return the report of a part that was done before."""
    return ShardReport(
        stored.shard, stored.counts, stored.anomalies, stored.series, stored.seconds, {}, "", ""
    )


class _ShardRun:
    """One attempt at a part."""

    def __init__(self, task: ShardTask, database: Database, first_late_id: int, started: float) -> None:
        self._task = task
        self._database = database
        self._first_late_id = first_late_id
        self._started = started
        self._owned: set[object] = set()
        self._noted: set[object] = set()
        self._tally = Tally(_NoProgress())
        if task.scores is not None:
            # The file of an attempt that ended is incomplete. Without a snapshot the committed records are
            # scored once more, for the new file only.
            with database.begin() as connection:
                stored_readers.forget_states(connection, task.reader)
        self._run = BackfillRun(
            task.config,
            task.stream,
            database,
            task.reader,
            partial(_source_of, task),
            partial(_whole_source, task),
            self._tally,
            _NoProgress(),
            self._note,
        )

    def finish(self) -> ShardReport:
        task, number = self._task, self._task.shard.number
        with self._run.scored(task.scores, self._check):
            with self._database.read() as connection:
                found = backfill_shards.anomalies_of(connection, task.run, number)
                late = self._late(connection)
            self._tally.anomalies |= found
            self._run.revise(late, self._tally.anomalies)
            self._run.complete_scores()
            seconds = time.monotonic() - self._started
            with self._database.begin() as connection:
                for position in self._run.positions.values():
                    positions.hold_ownership(connection, position)
                backfill_shards.finish(
                    connection,
                    task.run,
                    StoredShard(
                        number,
                        self._first_late_id,
                        True,
                        self._run.counts,
                        len(self._tally.anomalies),
                        self._run.series,
                        seconds,
                    ),
                )
                stored_readers.forget(connection, task.reader)
            forget_warm_start(self._database, task.reader)
        log.info("part of a backfill is done", shard=number, seconds=round(seconds, 1))
        return ShardReport(
            number,
            self._run.counts,
            len(self._tally.anomalies),
            self._run.series,
            seconds,
            dict(self._tally.refused.most_common()),
            self._tally.example,
            f"{socket.gethostname()}:{os.getpid()}",
        )

    def _note(self, connection: Connection, changes: list[Anomaly]) -> None:
        """Note new anomalies in the transaction of their batch."""
        new = {one.id for one in changes} - self._noted
        backfill_shards.add_anomalies(connection, self._task.run, self._task.shard.number, new)  # type: ignore[arg-type]
        self._noted |= new

    def _check(self, engine: Engine) -> None:
        owned = engine.parts.ownership.positions.keys()
        if self._owned - owned or (owned - self._owned and not self._is_open()):
            raise ShardTaken(f"part {self._task.shard.number} of the backfill is run by another process")
        self._owned |= owned

    def _is_open(self) -> bool:
        """Return whether the part is not done.

        It is asked once the partitions are owned: another process that marks the part as done from then on
        has acquired them later, and fences this one before it scores anything.
        """
        with self._database.read() as connection:
            stored = backfill_shards.of_run(connection, self._task.run)
        return any(one.shard == self._task.shard.number and not one.done for one in stored)

    def _late(self, connection: Connection) -> list[LateRecord]:
        """Return the late records of this part, also those of earlier attempts."""
        task, shard = self._task, self._task.shard
        found = late_records.added_after(
            connection, task.stream, [part.partition for part in shard.parts], self._first_late_id
        )
        ends = {partition: at.next_offset or 0 for partition, at in self._run.positions.items()}
        unique: dict[object, LateRecord] = {}
        for one in found:
            inside = shard.ranges[one.partition].beginning <= one.offset < ends[one.partition]
            if inside and self._is_own(one.series):
                unique.setdefault((*one.partition, one.offset, one.series, one.time_ns), one)
        return list(unique.values())

    def _is_own(self, series: str) -> bool:
        group = self._task.shard.group
        if group is None:
            return True
        stream = self._task.config.streams[self._task.stream]
        return group.has_labels(list(labels_of(stream, series).values()))


def _source_of(task: ShardTask) -> Source:
    """Return the source of the records of a part."""
    shard = task.shard
    if task.files is None:
        inner: Source = read_range(task.config, task.stream, task.start_ns, task.end_ns).inner
        return ShardSource(inner, shard.ranges)
    inner = read_files(task.config, task.stream, [part.topic for part in shard.parts])
    return inner if shard.whole else ShardSource(inner, shard.ranges, shard.group)


def _whole_source(task: ShardTask) -> Source:
    """Return the source of all records of the backfill."""
    if task.files is None:
        return read_range(task.config, task.stream, task.start_ns, task.end_ns)
    return read_files(task.config, task.stream, task.files)
