"""A topic, a database and members that come and go; and the account that must balance whatever happened to
them."""

from __future__ import annotations

import itertools
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from kafka.admin import KafkaAdminClient
from sqlalchemy import func, select

from pipeline.config.loader import load_config
from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import Anomaly, Partition, Position
from pipeline.services.backfill import run_backfill
from pipeline.services.revision import revisable
from pipeline.sources.kafka.client import connect
from storage.history.reader import HistoryReader
from storage.results import anomalies, dead_letters, late_records
from storage.sql.database import Database
from storage.stream_state import positions
from storage.tables.stream import LateRow
from tests.faults.feed import Log, config_tree
from tests.faults.member import Constants, Member, Surroundings, events_of, wait_for
from tests.faults.traps import PHASES, Trap
from tests.support.kafka_server import Topics

SESSION_S = 1.5


class NoTroubles:
    """Nothing beside the kills of a storm; the base of what happens besides."""

    def turn(self) -> None:
        """Run in each turn of the loop of a storm."""

    def on_death(self, member: Member) -> None:
        """Run when a member was killed."""

    def finish(self) -> None:
        """End every trouble."""

    def close_account(self) -> None:
        """Add to the figures, once every record is read and while members live."""


class Silent:
    """A progress that shows nothing."""

    def advance(self, count: float) -> None: ...

    def expect(self, total: float) -> None: ...


@dataclass
class Figures:
    """Figures of one scenario. ``problems`` is empty if there are none."""

    scenario: str
    kills: int = 0
    freezes: int = 0
    records: int = 0
    lost: int = 0
    twice: int = 0
    fenced: int = 0
    untold: int = 0
    conflicting: int = 0
    anomalies: int = 0
    score_difference: float = 0.0  # the largest, of a recorded point to that of a backfill
    takeovers: list[float] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    troubles: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Stage:
    """One scenario's world. Members that are alive at the end are killed by ``close``."""

    #: Numbers of buffered records that a partition may have once all is read.
    buffered_at_end: tuple[int, ...] = (1,)

    def __init__(
        self, folder: Path, topics: Topics, database: str, logs: Sequence[Log], name: str = "", **changes: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.topics = topics
        self.logs = list(logs)
        self.topic = topics.create(partitions=len(logs))
        self.figures = Figures(name or folder.name)
        self.group = f"group-{self.topic}"
        self.kafka: dict[str, Any] = {"group": self.group, "brokers": [topics.broker], "topics": [self.topic]}
        self.kafka |= {"session_timeout": f"{round(SESSION_S * 1000)}ms"} | changes.pop("kafka", {})
        self.config = self.write_config("live", database, **changes)
        self.database = Database(load_config(self.config).database)
        self.members: list[Member] = []
        self.sent = [0] * len(logs)
        self.troubles = NoTroubles()
        self.strangers: list[Member] = []  # members of another config; they own nothing
        self.constants: Constants = {}  # of the members
        self.workers: Path | None = None  # folder of the diaries of workers, which are no members
        self.phases: Sequence[str] = PHASES  # in which members die
        self.clocks: Path | None = None  # folder of the offsets of the members' clocks
        self.outages: list[tuple[float, float]] = []  # of a server, on the monotonic clock
        self.quiet = threading.Lock()  # held while nothing may be sent
        self.allowed = 0.0  # share of each log that may be sent
        self._done = threading.Event()
        self._wake = threading.Event()
        self._number = itertools.count()
        self._changes = changes
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def write_config(self, name: str, database: str, **changes: Any) -> Path:
        storage = {"history_path": str(self.folder / f"history-{name}"), **changes.pop("storage", {})}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(config_tree(database, {"kafka": self.kafka}, storage=storage, **changes)))
        return path

    def member(self, trap: Trap | None = None, network: str | None = None) -> Member:
        name = f"member{next(self._number)}"
        clock = None if self.clocks is None else self.clocks / name
        surroundings = Surroundings(clock, self.constants, network)
        self.members.append(Member(self.config, self.folder / name, trap, surroundings))
        return self.members[-1]

    # ------------------------------------------------------------------------------------------------ records

    def allow(self, share: float) -> None:
        """Let the sender go on, a little at a time, up to ``share`` of every log."""
        self.allowed = max(self.allowed, share)
        self._wake.set()

    def _send(self) -> None:
        while not self._done.is_set():
            busy = False
            for number, log in enumerate(self.logs):
                start = self.sent[number]
                stop = min(start + 40, round(len(log.values) * self.allowed))
                if start < stop:
                    with self.quiet:
                        self.topics.produce(self.topic, log.values[start:stop], number)
                    self.sent[number] = stop
                    busy = True
            if not busy:
                self._wake.wait(0.5)
                self._wake.clear()
            time.sleep(0.03)

    # ------------------------------------------------------------------------------------------------ looking

    def positions(self) -> dict[int, Position]:
        with self.database.read() as connection:
            return {p.partition.number: p for p in positions.all_of(connection, "plant")}

    def read(self) -> int:
        """Records whose outcome is committed; −1 while the database is away."""
        with suppress(StorageUnavailable):
            return sum(p.next_offset or 0 for p in self.positions().values())
        return -1

    def until_read(self, count: int, timeout: float = 120.0) -> float:
        return wait_for(lambda: self.read() >= count, f"{count} records read", timeout, self.say)

    def until_drained(self, timeout: float = 180.0) -> float:
        """Everything is sent, read, committed, and shown to operators: a commit to Kafka that a rebalance
        refused is sent again while a member lives.
        """
        self.allow(1.0)
        seconds = self.until_read(sum(len(log.values) for log in self.logs), timeout)
        if revisable(load_config(self.config).streams["plant"]):
            wait_for(lambda: not self.unrevised(), "every late point has revised its series", 60, self.say)
        wait_for(lambda: self._shown() == self._ends(), "the offsets shown to operators", 30, self.say)
        return seconds

    def say(self) -> str:
        alive = [m for m in self.members if m.exitcode is None]
        return f"read {self.read()}, sent {self.sent}\n" + "\n".join(
            m.output() for m in alive[-3:] or self.members[-1:]
        )

    def leave(self) -> None:
        """Everybody leaves by SIGTERM."""
        for member in self.members:
            if member.exitcode is None:
                member.leave()

    def anomalies(self) -> list[Anomaly]:
        with self.database.read() as connection:
            return anomalies.query(connection, stream="plant")

    # ------------------------------------------------------------------------------------------------ the account

    def account(self) -> Figures:
        """Hold what is in the database and in the history against the records, and against an undisturbed
        backfill of the same topic.
        """
        self._done.set()
        self._sender.join(10)
        figures = self.figures
        figures.records = sum(len(log.values) for log in self.logs)
        for member in self.members:
            if member.thawed is None:  # the clock of a frozen one goes on
                figures.takeovers += [
                    event["seconds"] for event in member.events("takeover") if not self._in_outage(event)
                ]
        figures.fenced = self.fenced_commits()
        self._check_positions()
        self._check_rows()
        self._check_against_backfill()
        return figures

    def unrevised(self) -> int:
        """Return the number of late records that have not revised their series once."""
        statement = select(func.count()).where(LateRow.revised_ns.is_(None))
        with self.database.read() as connection:
            return connection.execute(statement).scalar_one()

    def fenced_commits(self) -> int:
        """Return how many commits were refused because their partition had another owner."""
        return len(self._events("fenced"))

    def _events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind of all members and workers."""
        diaries = [] if self.workers is None else sorted(self.workers.glob("diary-*"))
        of_workers = [event for diary in diaries for event in events_of(diary, kind)]
        return [event for member in self.members for event in member.events(kind)] + of_workers

    def _in_outage(self, takeover: dict[str, Any]) -> bool:
        """Return True if a server was away during a takeover."""
        since, until = takeover["at"] - takeover["seconds"], takeover["at"]
        return any(began < until and since < over for began, over in self.outages)

    def _problem(self, found: object, wanted: object, what: str) -> None:
        if isinstance(found, Counter) and isinstance(wanted, Counter):
            found, wanted = found - wanted, wanted - found
        if found != wanted:
            self.figures.problems.append(f"{what}: {found!r}, and not {wanted!r}")

    def _check_positions(self) -> None:
        end = self._ends()
        for number, position in self.positions().items():
            log, counts = self.logs[number], asdict(position.counts)
            self._problem(
                (position.start_offset, position.next_offset),
                (0, end[number]),
                f"partition {number} reads from, to",
            )
            self.figures.lost += max(0, end[number] - position.counts.read())
            self.figures.twice += max(0, position.counts.read() - end[number])
            buffered = counts["buffered"] if counts["buffered"] in self.buffered_at_end else 1
            wanted = dict.fromkeys(counts, 0) | log.counts() | {"buffered": buffered}
            self._problem(
                counts, wanted | {"scored": wanted["scored"] - buffered}, f"outcomes of partition {number}"
            )
        self._problem(self._shown(), end, "offsets that Kafka shows operators")

    def _ends(self) -> dict[int, int]:
        return {number: len(log.values) for number, log in enumerate(self.logs)}

    def _shown(self) -> dict[int, int]:
        """Return the group's offsets in Kafka, by partition."""
        # an older one may not know the broker after an outage
        with closing(connect(KafkaAdminClient, [self.topics.broker], 20)) as admin:
            published_offsets = admin.list_group_offsets({self.group: None})[self.group]
        return {tp.partition: at.offset for tp, at in published_offsets.items() if tp.topic == self.topic}

    def _check_rows(self) -> None:
        """Every bad and every late record is kept, once."""
        with self.database.read() as connection:
            dead = Counter(
                (k.letter.partition.number, k.letter.offset) for k in dead_letters.query(connection)
            )
            behind = Counter((one.partition.number, one.offset) for one in late_records.query(connection))
        for name, found in (("dead_lettered", dead), ("late", behind)):
            wanted = Counter(
                (n, o) for n, log in enumerate(self.logs) for o, kind in enumerate(log.kinds) if kind == name
            )
            self.figures.lost += (wanted - found).total()
            self.figures.twice += (found - wanted).total()
            self._problem(found, wanted, f"{name} rows")

    def _check_against_backfill(self) -> None:
        database, read, scores = self.backfill("backfill")
        self._problem(read, self.figures.records, "records of the backfill")
        undisturbed = Database(database)
        with undisturbed.read() as connection:
            wanted = _essence(anomalies.query(connection, stream="plant"), self._revised_series())
        undisturbed.close()
        found = _essence(self.anomalies(), self._revised_series())
        if len(wanted) < len(self.logs):
            self.figures.problems.append(f"only {len(wanted)} anomalies: nothing is compared")
        self.figures.lost += len(wanted.keys() - found.keys())
        self.figures.twice += len(found.keys() - wanted.keys())
        for name in wanted.keys() | found.keys():
            self._problem(found.get(name), wanted.get(name), f"anomaly {name}")
        self._check_verdicts(scores)

    def _revised_series(self) -> set[str]:
        if not revisable(load_config(self.config).streams["plant"]):
            return set()
        with self.database.read() as connection:
            return {one.series for one in late_records.query(connection, stream="plant")}

    def backfill(self, name: str, **changes: Any) -> tuple[str, int, pd.DataFrame]:
        """Score the topic undisturbed; return the database, the number of records and the verdicts."""
        database = f"sqlite:///{self.folder}/{name}.db"
        config = load_config(self.write_config(name, database, **self._changes | changes))
        scores = self.folder / f"{name}.parquet"
        report = run_backfill(config, "plant", None, 0, None, scores, Silent())
        table = pd.read_parquet(scores)
        table = table.assign(series=table["series"].astype(str), time=table["timestamp"].astype("int64"))
        return database, report.counts.read(), table

    def history(self) -> pd.DataFrame:
        """Return the recorded verdicts of the members."""
        table = HistoryReader(str(self.folder / "history-live")).read("plant").to_pandas()
        return table.assign(series=table["series"].astype(str), time=table["time"].astype("int64"))

    def _check_verdicts(self, wanted: pd.DataFrame) -> None:
        """The history holds one verdict for each scored record, and it is that of the backfill."""
        found = self.history()
        self.figures.twice += int(found.duplicated(["series", "time"]).sum())
        self._problem(int(found.duplicated(["series", "time"]).sum()), 0, "points with two verdicts")
        # The last of the live ones is buffered.
        wanted, found = (one[~one["series"].str.endswith("tide")] for one in (wanted, found))
        both = wanted.merge(
            found, on=["series", "time"], how="outer", suffixes=("", "_found"), indicator=True
        )
        for side, name in (
            ("left_only", "points without a verdict in the history"),
            ("right_only", "verdicts that the backfill does not know"),
        ):
            some = both[both["_merge"] == side]
            self._problem(len(some), 0, name)
            if len(some):
                partitions = some["series"].str.split("-").str[0]
                print(some.groupby(partitions)["time"].agg(["count", "min", "max"]), file=sys.stderr)
        same = both[
            (both["_merge"] == "both") & (both["time"] <= both["series"].map(self._uncorrected_until()))
        ]
        self._problem(int((same["flag"] != same["flag_found"]).sum()), 0, "flags that differ")
        differences = (same["score"] - same["score_found"]).abs()
        self.figures.score_difference = float(differences.max())
        self._problem(int((differences > 0).sum()), 0, "scores that differ")

    def _uncorrected_until(self) -> Callable[[str], float]:
        """Return until when the state of a series is that of the order of arrival, as in a backfill.

        A member replaces the state of a series by its revision.
        """
        until: dict[str, float] = {}
        for event in self._events("state corrected"):
            for series, newest in event["series"].items():
                until[series] = min(newest, until.get(series, math.inf))
        self.figures.troubles["corrected states"] += len(until)
        return lambda series: until.get(series, math.inf)

    def close(self) -> None:
        self._done.set()
        for member in [*self.members, *self.strangers]:
            if member.exitcode is None:
                member.kill()
        self.database.close()


def _essence(found: Sequence[Anomaly], revised: Collection[str]) -> dict[str, tuple]:
    """Return the fields that are the same in every run: all but revision and the order of writing.

    Those that a revision leaves as they are depend on the moment at which the late points of ``revised``
    series came into the state: score, forecaster and offsets.
    """
    return {
        str(a.id): (
            *(
                a.series,
                a.state.value,
                a.severity.value,
                a.direction,
                a.start_ns,
                a.end_ns,
                a.peak_ns,
                a.points,
            ),
            *(Partition(*a.partition), a.model_version),
            *(
                ()
                if a.series in revised
                else (a.first_offset, a.last_offset, a.peak_offset, round(a.score, 3), a.forecaster)
            ),
        )
        for a in found
    }
