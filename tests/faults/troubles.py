"""Troubles beside the kills of a storm: restarts of both servers, a member with a wrong address, damaged
snapshots, and wrong clocks; with the times that recovery takes, seen from outside.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

from sqlalchemy import Connection, delete, select, update

from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import Fault, FaultKind
from storage.results import faults
from storage.results.fault_leases import FAULT_LEASE_SECONDS
from storage.tables.stream import PositionRow, SnapshotPageRow, SnapshotRow
from tests.faults.ledger import check_alerts, unfinished
from tests.faults.member import Member, wait_for
from tests.faults.stage import NoTroubles, Stage
from tests.support.kafka_server import FaultyBroker
from tests.support.postgres_server import PostgresServer
from tests.support.receiver import Receiver

PAUSE_SECONDS = 4.0
OUTAGE_SECONDS = 3.0
#: Acquisitions that were retried because of an outage end within this time; they are no takeovers.
AFTER_OUTAGE_SECONDS = 5.0
CLOCK_OFFSETS_SECONDS = (-40.0, 40.0, -2.0, 0.0)
LAST_ALERT_SECONDS = 120.0
DAMAGES = ("flip", "truncate", "remove page", "meta")


class Troubles(NoTroubles):
    """Troubles of one stage."""

    def __init__(
        self, stage: Stage, broker: FaultyBroker, postgres: PostgresServer, receiver: Receiver, seed: int
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._stage, self._broker, self._postgres, self._receiver = stage, broker, postgres, receiver
        self._rng = random.Random(seed)
        self._wrong_config = self._write_configs()
        self._wrong: Member | None = None
        self._leaves: Iterator[bool] = cycle((True, False))
        self._waiting: dict[int, tuple[float, int, str]] = {}  # partition → (since, offset, what)
        self._next_at = time.monotonic() + PAUSE_SECONDS
        self._looked_at = 0.0
        self._plan = cycle(
            (
                self._replace_wrong,
                self._set_clocks,
                self._restart_broker,
                self._set_clocks,
                self._restart_postgres,
            )
        )
        stage.clocks = stage.folder / "clocks"
        stage.clocks.mkdir()

    def turn(self) -> None:
        """Cause the next trouble if it is due, and look for partitions that are read again."""
        if time.monotonic() > self._looked_at + 0.05:
            self._look()
        if time.monotonic() > self._next_at:
            next(self._plan)()
            self._next_at = time.monotonic() + PAUSE_SECONDS

    def on_death(self, member: Member) -> None:
        """Damage a snapshot of a dead member in every second case, and wait for its successors."""
        since, owner = time.monotonic(), f"{os.uname().nodename}:{member.pid}"
        try:
            with self._stage.database.begin() as connection:
                rows = connection.execute(
                    select(PositionRow.partition, PositionRow.next_offset).where(PositionRow.owner == owner)
                ).all()
                for number, offset in rows:
                    again = number in self._waiting
                    self._waiting.pop(number, None)
                    if not again and offset is not None and self._stage.sent[number] > offset:
                        self._waiting[number] = since, offset, "kill"
                if rows and self._rng.random() < 0.5:
                    self._damage(connection, self._rng.choice(rows)[0])
        except StorageUnavailable:
            return

    def finish(self) -> None:
        """End every trouble."""
        self._set_clocks(0.0)
        if self._wrong is not None:
            self._wrong.leave()

    def close_account(self) -> None:
        """Wait for the last alerts, while members live, and compare them with the anomalies."""
        wait_for(
            lambda: not self._stage.unrevised() and not unfinished(self._stage.database),
            "every late point has revised its series, and no event waits",
            LAST_ALERT_SECONDS,
            self._stage.say,
        )
        report = check_alerts(self._stage.database, self._receiver.received)
        figures = self._stage.figures
        figures.anomalies += report.anomalies
        figures.untold += len(report.untold)
        figures.twice += len(report.twice)
        figures.conflicting += len(report.conflicting)
        figures.problems += report.problems
        wait_for(
            lambda: all(f.ended_ns for f in self._faults()),
            "the faults of dead members end with their leases",
            2 * FAULT_LEASE_SECONDS,
            lambda: str([f for f in self._faults() if f.ended_ns is None]),
        )
        found = self._faults()
        self.counts["faults of damaged state"] = sum(f.kind is FaultKind.DAMAGED_STATE for f in found)
        figures.troubles.update(self.counts)
        figures.recoveries = dict(self.seconds)

    def _faults(self) -> list[Fault]:
        with self._stage.database.read() as connection:
            return faults.query(connection, stream="plant")

    # ---------------------------------------------------------------------------------------- troubles

    def _write_configs(self) -> Path:
        tree = json.loads(self._stage.config.read_text())
        tree["endpoints"] = {"hook": {"type": "json", "url": self._receiver.url, "allow": ["loopback"]}}
        self._stage.config.write_text(json.dumps(tree))
        tree["streams"]["plant"]["source"]["kafka"]["brokers"] = ["127.0.0.1:1"]
        path = self._stage.folder / "wrong.yaml"
        path.write_text(json.dumps(tree))
        return path

    def _replace_wrong(self) -> None:
        """Start the member with a wrong address, after the last one has left or died."""
        if self._wrong is not None:
            if next(self._leaves):
                self._wrong.leave()
            else:
                self._wrong.kill()
        self.counts["wrong members"] += 1
        folder = self._stage.folder / f"wrong{self.counts['wrong members']}"
        self._wrong = Member(self._wrong_config, folder)
        self._stage.strangers.append(self._wrong)

    def _set_clocks(self, offset: float | None = None) -> None:
        """Set the clock of each member, also of one that starts later, to a wrong time."""
        assert self._stage.clocks is not None
        for member in self._stage.members:
            if member.exitcode is None:
                seconds = self._rng.choice(CLOCK_OFFSETS_SECONDS) if offset is None else offset
                (self._stage.clocks / member.folder.name).write_text(f"{seconds}")
                self.counts["clock changes"] += 1

    def _restart_broker(self) -> None:
        with self._stage.quiet:  # a producer whose answer is lost would write records twice
            self._outage("broker", self._broker.down, self._broker.up)

    def _restart_postgres(self) -> None:
        self._stage.allow(self._stage.allowed + 0.02)  # records for the time after the outage
        self._outage("database", self._postgres.stop, self._postgres.start)

    def _outage(self, name: str, stop: Callable[[], object], start: Callable[[], object]) -> None:
        began = time.monotonic()
        self._waiting.clear()
        offsets = {n: p.next_offset for n, p in self._stage.positions().items()}
        stop()
        time.sleep(OUTAGE_SECONDS)
        start()
        self.counts[f"{name} restarts"] += 1
        since = time.monotonic()
        self._stage.outages.append((began, since + AFTER_OUTAGE_SECONDS))
        for number, offset in offsets.items():
            if offset is not None and self._stage.sent[number] > offset:
                self._waiting[number] = since, offset, name

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        if not self._waiting:
            return
        try:
            found = self._stage.positions()
        except StorageUnavailable:
            return
        for number, (since, offset, name) in list(self._waiting.items()):
            if (found[number].next_offset or 0) > offset:
                self.seconds[name].append(time.monotonic() - since)
                del self._waiting[number]

    def _damage(self, connection: Connection, partition: int) -> None:
        kind = self._rng.choice(DAMAGES)
        here = (SnapshotPageRow.partition == partition, SnapshotPageRow.stream == "plant")
        page = connection.execute(
            select(SnapshotPageRow.page, SnapshotPageRow.data)
            .where(*here)
            .order_by(SnapshotPageRow.page.desc())
            .limit(1)
        ).first()
        if page is None:
            return
        last = (*here, SnapshotPageRow.page == page.page)
        match kind:
            case "flip":
                data = page.data[:-40] + bytes(255 - byte for byte in page.data[-40:])
                connection.execute(update(SnapshotPageRow).where(*last).values(data=data))
            case "truncate":
                data = page.data[: len(page.data) // 2]
                connection.execute(update(SnapshotPageRow).where(*last).values(data=data))
            case "remove page":
                connection.execute(delete(SnapshotPageRow).where(*last))
            case _:
                where = (SnapshotRow.partition == partition, SnapshotRow.stream == "plant")
                connection.execute(update(SnapshotRow).where(*where).values(meta=[1, 2]))
        self.counts["damaged snapshots"] += 1
