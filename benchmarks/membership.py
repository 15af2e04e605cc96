"""Cost of ownership with many members and partitions on PostgreSQL.

    python -m benchmarks.membership [--members 100] [--partitions 10000] [--limit-seconds 300]

The engines of all members run in this process, one after the other, on an in-memory log and on a real
PostgreSQL. A simulated coordinator rebalances the group with the assignor of the daemon: members keep what
they have where they can, and a partition moves in two rebalances. All else is the code of the daemon:
positions with their fence, snapshots, commits. Phases: all start; a record for each partition is committed;
each partition has a snapshot; a tenth of the members ends without a word, and comes back; half of them do; a
storm in which a tenth ends and another tenth joins, ten times, before the group is settled; each member is
restarted in order, as in an upgrade.

Each phase prints its rebalances and the time of the assignor, its takeovers and the time of one, the CPU of
all members together and of PostgreSQL, and what PostgreSQL did: transactions and bytes of its log. The
account at the end must balance. No phase begins after the limit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import structlog
from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
from sqlalchemy import text

from pipeline.config.schema import Config
from pipeline.core.types import Partition
from pipeline.engine.engine import Engine
from pipeline.engine.factory import build_engine
from pipeline.engine.stored_state import Claim
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.sources.base import OffsetBounds, Poll
from pipeline.sources.kafka.group_assignor import GroupAssignor
from pipeline.sources.memory import MemoryLog, MemorySource
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.feed import config_tree, record
from tests.support.postgres_server import create_database, running_postgres

_LOAD = text("SELECT xact_commit, pg_current_wal_lsn() - '0/0' FROM pg_stat_database WHERE datname = :name")


class Coordinator:
    """Coordinator of the group, in place of the broker's."""

    def __init__(self, log: MemoryLog) -> None:
        """Begin without members."""
        self._log = log
        self._targets: dict[Member, set[Partition]] = {}
        self._changed = False
        self.seconds: list[float] = []  # CPU of the assignor at each rebalance

    def join(self, member: Member) -> None:
        """Add a member."""
        self._targets[member] = set()
        self._changed = True

    def leave(self, member: Member) -> None:
        """Remove a member."""
        del self._targets[member]
        self._changed = True

    def target(self, member: Member) -> set[Partition]:
        """Return the partitions that the last rebalance gave to a member."""
        return self._targets[member]

    def rebalance(self) -> bool:
        """Rebalance if members came, went or gave partitions up; return if so."""
        if not self._changed:
            return False
        self._changed = False
        names = {f"{number:04}": member for number, member in enumerate(self._targets)}
        members = [SimpleNamespace(member_id=name, metadata=_metadata(one)) for name, one in names.items()]
        numbers = {partition.number for partition in self._log.partitions}
        began = time.thread_time()
        given = GroupAssignor().assign(SimpleNamespace(partitions_for_topic=lambda topic: numbers), members)
        self.seconds.append(time.thread_time() - began)
        for name, one in given.items():
            wanted = {Partition(topic, number) for topic, ours in one.assigned_partitions for number in ours}
            self._changed = self._changed or not names[name].owned <= wanted
            self._targets[names[name]] = wanted
        return True


class Member(MemorySource):
    """Source of a member, whose partitions are those that the coordinator gives to it."""

    def __init__(self, log: MemoryLog, coordinator: Coordinator) -> None:
        """Join the group."""
        super().__init__(log)
        self._coordinator = coordinator
        coordinator.join(self)

    @property
    def owned(self) -> set[Partition]:
        """The partitions that the member has."""
        return set(self._next)

    def close(self) -> None:
        """Leave the group."""
        if not self._closed:
            self._coordinator.leave(self)
        super().close()

    def _rebalance(self) -> Poll:
        target = self._coordinator.target(self)
        assigned, revoked = sorted(target.difference(self._next)), [p for p in self._next if p not in target]
        for partition in revoked:
            del self._next[partition]
        self._next |= dict.fromkeys(assigned, 0)
        self._paused = (self._paused & target) | set(assigned)
        return Poll(assigned=assigned, revoked=revoked)


def _metadata(member: Member) -> ConsumerProtocolSubscription:
    numbers = sorted(partition.number for partition in member.owned)
    made = ConsumerProtocolSubscription.TopicPartition
    owned = [made(topic=member._log.topic, partitions=numbers)] if numbers else []
    return ConsumerProtocolSubscription(
        version=1, topics=[member._log.topic], user_data=b"", owned_partitions=owned
    )


class Group:
    """The members of one group, which take turns."""

    def __init__(self, folder: Path, url: str, partitions: int) -> None:
        """Make the log and the database of no member.

        Args:
            folder: For recorded history.
            url: The database.
            partitions: Number of partitions.
        """
        self._claim_share = 0.0  # time of the last claim for each of its partitions
        self.log = MemoryLog("plant", partitions)
        self.coordinator = Coordinator(self.log)
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
            source = Member(self.log, self.coordinator)
            metrics = StreamMetrics(Metrics(), "plant")
            engine = build_engine("plant", self.config, self.database, source, metrics)
            ownership = engine.parts.ownership
            ownership.acquire = self._timed(ownership.acquire)  # type: ignore[method-assign]
            ownership.claim = self._timed_claim(ownership.claim)  # type: ignore[method-assign]
            self.members.append(engine)

    def end(self, count: int) -> None:
        """End members as kill -9 does."""
        for engine in self.members[:count]:
            engine.parts.source.close()
        del self.members[:count]

    def restart_each(self) -> None:
        """Restart all members in order, a tenth at a time."""
        count = max(len(self.members) // 10, 1)
        for _ in range(0, len(self.members), count):
            for engine in self.members[:count]:
                engine.close()
            del self.members[:count]
            self.settle()
            self.join(count)
            self.settle()

    def turn(self) -> bool:
        """Let each member take a turn, and return whether the group rebalanced before."""
        rebalanced = self.coordinator.rebalance()
        for engine in self.members:
            engine.turn(0.0)
        return rebalanced

    def settle(self) -> None:
        """Let members take turns until all is owned and committed."""
        while self.turn() or not self._is_settled():
            pass

    def snapshots(self) -> None:
        """Take a snapshot of each partition."""
        for engine in self.members:
            engine.parts.snapshots.renew()
            engine.parts.snapshots.take_all(engine.parts.ownership)

    def storm(self, rounds: int = 10) -> None:
        """Let a tenth of the members end and as many join, several times.

        All take one turn in between.
        """
        for _ in range(rounds):
            count = max(len(self.members) // 10, 1)
            self.end(count)
            self.join(count)
            self.turn()
        self.settle()

    def _is_settled(self) -> bool:
        ends = {p: log.end for p, log in zip(self.log.partitions, self.log._logs, strict=True)}
        owned: dict[Partition, int | None] = {}
        for engine in self.members:
            ownership = engine.parts.ownership
            owned |= {
                p: at.next_offset for p, at in ownership.positions.items() if not ownership.recovering(p)
            }
        return sum(len(one.parts.ownership.positions) for one in self.members) == len(ends) and owned == ends

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
            started = time.perf_counter()
            claims = claim(bounds)
            self._claim_share = (time.perf_counter() - started) / max(len(claims), 1)
            return claims

        return timed


def phase(group: Group, name: str, act: Callable[[], object]) -> dict[str, Any]:
    """Run a phase, and return its figures."""
    group.seconds.clear()
    group.coordinator.seconds.clear()
    before, started, cpu = load_of(group.database), time.perf_counter(), time.process_time()
    act()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    transactions, wal_bytes, postgres_cpu = (
        b - a for a, b in zip(before, load_of(group.database), strict=True)
    )
    figures: dict[str, Any] = {"phase": name, "takeovers": len(group.seconds), "seconds": round(seconds, 1)}
    if assigning := group.coordinator.seconds:
        figures |= {"rebalances": len(assigning), "assignor_ms": round(1e3 * max(assigning))}
    if group.seconds:
        p50, p99 = np.percentile(group.seconds, (50, 99))
        figures |= {"takeover_p50_ms": round(1e3 * p50, 2), "takeover_p99_ms": round(1e3 * p99, 2)}
    return figures | {
        "members_cpu_s": round(cpu, 1),
        "postgres_cpu_s": round(postgres_cpu, 1),
        "transactions": int(transactions),
        "wal_mb": round(wal_bytes / 1e6, 2),
    }


def load_of(database: Database) -> tuple[int, int, float]:
    """Return transactions, bytes of the log and CPU seconds of PostgreSQL."""
    time.sleep(1.1)  # it publishes its counts once a second
    with database.read() as connection:
        row = connection.execute(_LOAD, {"name": database.url.database}).one()
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    server = psutil.Process(psutil.Process(backend).ppid())
    used = [one.cpu_times() for one in (server, *server.children())]
    gone = server.cpu_times()
    cpu = sum(one.user + one.system for one in used) + gone.children_user + gone.children_system
    return int(row[0]), int(row[1]), cpu


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
    parser.add_argument("--phases", nargs="+", metavar="NAME", help="only these, in their order")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        group = Group(Path(folder), create_database(postgres), options.partitions)
        run(group, options.members, options.limit_seconds, options.phases)


def run(group: Group, members: int, limit_seconds: float, chosen: Sequence[str] | None) -> None:
    """Run the phases, and print the figures of each.

    Args:
        group: The members that there will be.
        members: Number of members.
        limit_seconds: No phase begins after this time.
        chosen: Names of phases, None for all.
    """
    began, half, tenth, ran = time.perf_counter(), members // 2, max(members // 10, 1), 0
    group.join(members)
    phases: dict[str, Callable[[], object]] = {
        "all start": group.settle,
        "a record each": lambda: send(group, 0),
        "a snapshot each": group.snapshots,
        "a tenth of the members end": lambda: (group.end(tenth), group.settle()),
        "the tenth comes back": lambda: (group.join(tenth), group.settle()),
        "half of the members end": lambda: (group.end(half), group.settle()),
        "the half comes back": lambda: (group.join(half), group.settle()),
        "another record each": lambda: send(group, 1),
        "storm": group.storm,
        "each member is restarted": group.restart_each,
    }
    for name, act in phases.items():
        if chosen and name not in chosen:
            continue
        if time.perf_counter() - began > limit_seconds:
            print(f"{name} and what follows: not run, {limit_seconds:.0f} s are over", flush=True)
            break
        figures = phase(group, name, act) | {"load": round(os.getloadavg()[0], 1)}
        sizes = {"members": len(group.members), "partitions": len(group.log.partitions)}
        print(json.dumps({"benchmark": "membership", **sizes, **figures}), flush=True)
        ran += name.endswith("record each")
    with group.database.read() as connection:
        read = [one.counts.read() for one in positions.all_of(connection, "plant")]
    assert read == [ran] * len(read), "the account does not balance"
    group.database.close()


if __name__ == "__main__":
    main()
