"""Engines on an in-memory log and a SQLite file: everything of the real loop but the broker and the server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.config.schema import Config
from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import Anomaly, Fault, Partition, Position
from pipeline.daemon.revision_service import revisions_of
from pipeline.engine.engine import Engine
from pipeline.engine.factory import build_engine
from pipeline.engine.sink import Sink
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.scoring.batch_result import BatchResult
from pipeline.services.series_revision import StreamRevision
from pipeline.sources.memory import MemoryLog, MemorySource
from storage.history.reader import HistoryReader
from storage.history.writer import HistoryWriter
from storage.results import anomalies, dead_letters, faults, late_records
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.feed import Log, config_tree, record

#: Records of ``log_that_a_leaves`` before a comes back: it has left.
UNTIL_A_LEFT = 240


def log_that_a_leaves() -> Log:
    """360 records: a and b, b alone much later for two minutes, and both again.

    A leap that only b makes counts after the first of the two minutes.
    """
    days = ((0, 60, "ab"), (1000, 120, "b"), (2000, 60, "ab"))
    values = [
        record(name, first + s, 20.0 + s % 5)
        for first, seconds, names in days
        for s in range(seconds)
        for name in names
    ]
    return Log(values, ["scored"] * len(values))


def away_twice(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> Iterator[bool]:
    """The database is away at the first two calls of ``name``; what is left of the iterator tells how often
    it was called.
    """
    action, failures = getattr(module, name), iter((True, True, False))

    def once_more(*arguments: Any) -> Any:
        if next(failures, False):
            raise StorageUnavailable("away")
        return action(*arguments)

    monkeypatch.setattr(module, name, once_more)
    return failures


@dataclass
class Tally:
    """A sink that keeps every result."""

    results: list[BatchResult] = field(default_factory=list)
    closed: bool = False

    def append(self, result: BatchResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        self.closed = True


class Bench:
    """One stream, one database, and as many engines one after the other (or beside each other) as a test
    wants."""

    def __init__(
        self, folder: Path, template: Path, logs: Sequence[Log], url: str | None = None, **changes: Any
    ) -> None:
        """``url`` is a database with the schema in it; left out: a SQLite file of its own, a copy of
        ``template``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if url is None:
            shutil.copy(template, folder / "forewatch.db")
            url = f"sqlite:///{folder}/forewatch.db"
        self.folder = folder
        self.logs = list(logs)
        self.log = MemoryLog("plant", len(logs))
        self.config = Config.model_validate(config_tree(url, {"memory": {"name": "plant"}}, **changes))
        self.database = Database(self.config.database)
        self.open: list[Engine] = []

    def fill(self, until: Callable[[Log], int] = lambda log: len(log.values)) -> None:
        """Append to each partition what it lacks up to ``until(log)``."""
        for number, log in enumerate(self.logs):
            self.log.extend(log.values[self.log._logs[number].end : until(log)], number)

    def engine(
        self,
        *,
        history: bool = False,
        revisions: bool = False,
        on_gap: str = "fail",
        sinks: Sequence[Sink] = (),
        **parts: Any,
    ) -> Engine:
        """Another member. With ``revisions`` it has the sink that ``revise`` needs.

        Engines that are not closed are crashed: their session ends when the next one comes.
        """
        for old in self.open:
            if old.parts.source in self.log._groups["forewatch"].members:
                self.log.expel(old.parts.source)
        writer = HistoryWriter(str(self.folder / "history"), "plant") if history else None
        source = MemorySource(self.log)
        self.metrics = Metrics()
        metrics = StreamMetrics(self.metrics, "plant")
        engine = build_engine(
            "plant",
            self.config,
            self.database,
            source,
            metrics,
            make_sinks=lambda scorer: [
                *sinks,
                *(
                    revisions_of(self.config, "plant", self.database, scorer, writer, self.metrics)
                    if revisions
                    else ()
                ),
            ],
            **({"history_writer": writer} | parts),
        )
        engine.parts.ownership._on_gap = on_gap  # the config has this key for Kafka only
        self.open.append(engine)
        return engine

    def revise(self, engine: Engine) -> None:
        """Let the late points of an engine with ``revisions`` revise their series."""
        (revision,) = (one for one in engine.parts.sinks if isinstance(one, StreamRevision))
        for _ in range(2):  # watch, then score again
            revision.prepare(engine, time.sleep, at_once=True)
            revision.apply(engine)

    def drain(self, engine: Engine, seconds: float = 180.0) -> Engine:
        """Turn until everything in the log is committed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            engine.turn(0.0)
            owned = engine.parts.ownership.positions
            if not engine.waits_for and all(
                p in owned and owned[p].next_offset == self.log._logs[p.number].end
                for p in self.log.partitions
            ):
                return engine
        raise AssertionError(f"not drained: {self.positions()}, faults {self.faults()}")

    def positions(self) -> dict[Partition, tuple[int | None, Position]]:
        with self.database.read() as connection:
            return {p.partition: (p.next_offset, p) for p in positions.all_of(connection, "plant")}

    def position(self, number: int = 0) -> Position:
        return self.positions()[Partition("plant", number)][1]

    def anomalies(self) -> list[Anomaly]:
        with self.database.read() as connection:
            return anomalies.query(connection, stream="plant")

    def faults(self) -> list[Fault]:
        with self.database.read() as connection:
            return faults.query(connection, stream="plant")

    def dead(self) -> list[tuple[Partition, int]]:
        with self.database.read() as connection:
            return sorted(
                (kept.letter.partition, kept.letter.offset) for kept in dead_letters.query(connection)
            )

    def late(self) -> list[tuple[Partition, int]]:
        with self.database.read() as connection:
            return sorted((one.partition, one.offset) for one in late_records.query(connection))

    def history(self) -> Any:
        return HistoryReader(str(self.folder / "history")).read("plant")

    def check(self) -> None:
        """The identity, and each outcome as the records were made, once everything but the tides was released."""
        for number, log in enumerate(self.logs):
            position = self.position(number)
            want = log.counts()
            counts = asdict(position.counts)
            assert (position.start_offset, position.next_offset) == (0, len(log.values))
            assert position.counts.read() == len(log.values)
            want["scored"] -= counts["buffered"]
            assert {k: v for k, v in counts.items() if v and k != "buffered"} == dict(want)
        assert self.dead() == sorted(
            (Partition("plant", n), o) for n, log in enumerate(self.logs) for o in log.dead()
        )
        late_ones = [
            (Partition("plant", n), o)
            for n, log in enumerate(self.logs)
            for o, kind in enumerate(log.kinds)
            if kind == "late"
        ]
        assert self.late() == sorted(late_ones)

    def close(self) -> None:
        for engine in self.open:
            engine.close()
        self.database.close()


def essence(found: Sequence[Anomaly]) -> list[tuple]:
    """Return the fields that are the same however often a run was interrupted.

    (Revisions count commits, and so depend on the batches.)
    """
    return sorted(
        (
            *(str(a.id), a.series, a.state.value, a.severity.value, a.direction),
            *(a.start_ns, a.end_ns, a.peak_ns, a.points, a.first_offset, a.last_offset, a.peak_offset),
            *(round(a.score, 4), a.forecaster, a.config_hash, a.model_version),
        )
        for a in found
    )
