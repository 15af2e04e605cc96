"""Cost of ownership with many members and partitions on PostgreSQL.

    python -m benchmarks.membership [--members 100] [--partitions 10000] [--limit-seconds 300]

The engines of all members run in this process, one after the other, on an in-memory log that assigns the
partitions and on a real PostgreSQL. Everything but the log is the code of the daemon: positions with their
fence, snapshots, commits. Phases: all start; a record for each partition is committed; each partition has a
snapshot; half of the members end without a word; they come back; a storm in which a tenth ends and another
tenth joins, ten times, before the group is settled. Each phase prints its takeovers, the time of one, and
what PostgreSQL did: transactions and bytes of its log. The account at the end must balance.

All of it runs twice: with acquisitions of one partition each, and of many together. A phase that ends after
the limit is the last one of its run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from sqlalchemy import text

from pipeline.config.schema import Config
from pipeline.core.types import Partition
from pipeline.engine.engine import Engine
from pipeline.engine.factory import build_engine
from pipeline.engine.ownership import Claim
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.sources.base import OffsetBounds
from pipeline.sources.memory import MemoryLog, MemorySource
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.feed import config_tree, record
from tests.support.postgres_server import create_database, running_postgres

_LOAD = text("SELECT xact_commit, pg_current_wal_lsn() - '0/0' FROM pg_stat_database WHERE datname = :name")


class Group:
    """The members of one group, which take turns."""

    def __init__(self, folder: Path, url: str, partitions: int, *, together: bool) -> None:
        """Make the log and the database of no member.

        Args:
            folder: For recorded history.
            url: The database.
            partitions: Number of partitions.
            together: Acquire many partitions in one transaction.
        """
        self.together = together
        self._claim_share = 0.0  # time of the last claim for each of its partitions
        self.log = MemoryLog("plant", partitions)
        self.database = Database(url)
        self.database.upgrade()
        storage = {"history_path": str(folder / "history"), "snapshot_every": "1h"}
        tree = config_tree(url, {"memory": {"name": "plant"}}, lateness="0s", storage=storage)
        self.config = Config.model_validate(tree)
        self.members: list[Engine] = []
        self.seconds: list[float] = []  # of each takeover

    def join(self, count: int) -> None:
        """Add members."""
        for _ in range(count):
            metrics = StreamMetrics(Metrics(), "plant")
            engine = build_engine("plant", self.config, self.database, MemorySource(self.log), metrics)
            ownership = engine.parts.ownership
            ownership.acquire = self._timed(ownership.acquire)  # type: ignore[method-assign]
            ownership.claim = self._timed_claim(ownership.claim)  # type: ignore[method-assign]
            self.members.append(engine)

    def end(self, count: int) -> None:
        """End members as kill -9 does."""
        for engine in self.members[:count]:
            self.log.expel(engine.parts.source)  # type: ignore[arg-type]
        del self.members[:count]

    def settle(self) -> None:
        """Let members take turns until all is owned and committed."""
        takeovers = -1
        while not self._is_settled() or len(self.seconds) > takeovers:
            takeovers = len(self.seconds)
            for engine in self.members:
                engine.turn(0.0)

    def snapshots(self) -> None:
        """Take a snapshot of each partition."""
        for engine in self.members:
            engine.parts.snapshots.renew()
            engine.parts.snapshots.take_all(engine.parts.ownership)

    def _is_settled(self) -> bool:
        ends = {
            partition: log.end for partition, log in zip(self.log.partitions, self.log._logs, strict=True)
        }
        owned: dict[Partition, int | None] = {}
        for engine in self.members:
            ownership = engine.parts.ownership
            owned |= {
                p: at.next_offset for p, at in ownership.positions.items() if not ownership.recovering(p)
            }
        return sum(len(one.parts.ownership.positions) for one in self.members) == len(ends) and owned == ends

    def storm(self, rounds: int = 10) -> None:
        """Let a tenth of the members end and as many join, several times.

        All take one turn in between.
        """
        for _ in range(rounds):
            count = max(len(self.members) // 10, 1)
            self.end(count)
            self.join(count)
            for engine in self.members:
                engine.turn(0.0)
        self.settle()

    def _timed(self, acquire: Callable[..., bool]) -> Callable[..., bool]:
        def timed(
            partition: Partition, bounds: OffsetBounds | None = None, claim: Claim | None = None
        ) -> bool:
            started = time.perf_counter()
            owned = acquire(partition, bounds, claim)
            share = 0.0 if claim is None else self._claim_share
            self.seconds.append(time.perf_counter() - started + share)
            return owned

        return timed

    def _timed_claim(
        self, claim: Callable[..., dict[Partition, Claim]]
    ) -> Callable[..., dict[Partition, Claim]]:
        def timed(bounds: Mapping[Partition, OffsetBounds]) -> dict[Partition, Claim]:
            if not self.together:
                return {}
            started = time.perf_counter()
            claims = claim(bounds)
            self._claim_share = (time.perf_counter() - started) / max(len(claims), 1)
            return claims

        return timed


def phase(group: Group, name: str, act: Callable[[], object]) -> dict[str, Any]:
    """Run a phase, and return its figures."""
    group.seconds.clear()
    before, started = load_of(group.database), time.perf_counter()
    act()
    seconds = time.perf_counter() - started
    transactions, wal_bytes = (int(b - a) for a, b in zip(before, load_of(group.database), strict=True))
    figures: dict[str, Any] = {"phase": name, "takeovers": len(group.seconds), "seconds": round(seconds, 2)}
    if group.seconds:
        p50, p99 = np.percentile(group.seconds, (50, 99))
        figures |= {"takeover_p50_ms": round(1e3 * p50, 2), "takeover_p99_ms": round(1e3 * p99, 2)}
    return figures | {"transactions": transactions, "wal_mb": round(wal_bytes / 1e6, 2)}


def load_of(database: Database) -> tuple[int, int]:
    """Return the transactions and the bytes of the log of PostgreSQL so far."""
    time.sleep(1.1)  # it publishes its counts once a second
    with database.read() as connection:
        row = connection.execute(_LOAD, {"name": database.url.database}).one()
    return int(row[0]), int(row[1])


def send(group: Group, second: int) -> None:
    """Add a record to each partition, and commit it."""
    for partition in group.log.partitions:
        number = partition.number
        group.log.append(record(f"p{number}", second, 20.0), number)
    group.settle()


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--limit-seconds", type=float, default=300)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        for together in (False, True):
            url = create_database(postgres)
            group = Group(Path(folder), url, options.partitions, together=together)
            run(group, options.members, options.limit_seconds)


def run(group: Group, members: int, limit_seconds: float) -> None:
    """Run the phases, and print the figures of each.

    Args:
        group: The members that there will be.
        members: Number of members.
        limit_seconds: No phase begins after this time.
    """
    began, half, ran = time.perf_counter(), members // 2, 0
    group.join(members)
    phases: dict[str, Callable[[], object]] = {
        "all start": group.settle,
        "a record each": lambda: send(group, 0),
        "a snapshot each": group.snapshots,
        "half of the members end": lambda: (group.end(half), group.settle()),
        "they come back": lambda: (group.join(half), group.settle()),
        "storm": group.storm,
        "another record each": lambda: send(group, 1),
    }
    for name, act in phases.items():
        if time.perf_counter() - began > limit_seconds:
            print(f"{name} and what follows: not run, {limit_seconds:.0f} s are over", flush=True)
            break
        way = {"acquisitions": "together" if group.together else "one by one"}
        sizes = {"members": len(group.members), "partitions": len(group.log.partitions)}
        figures = phase(group, name, act) | {"load": round(os.getloadavg()[0], 1)}
        print(json.dumps({"benchmark": "membership", **way, **sizes, **figures}), flush=True)
        ran += name.endswith("record each")
    with group.database.read() as connection:
        read = [one.counts.read() for one in positions.all_of(connection, "plant")]
    assert read == [ran] * len(read), "the account does not balance"
    group.database.close()


if __name__ == "__main__":
    main()
