"""Damage of stored state on both databases: it is refused, the stream goes on, and a fault says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, select, update

from pipeline.core.types import FaultKind
from pipeline.engine import ownership
from storage.sql.database import Database
from storage.tables.stream import SeriesStateRow, SnapshotPageRow, SnapshotRow
from tests.faults.feed import Log, make_log
from tests.support.engines import Bench, essence, log_that_a_leaves

SECONDS = 120


def _last_page(connection: Connection) -> tuple[int, bytes]:
    statement = select(SnapshotPageRow.page, SnapshotPageRow.data).order_by(SnapshotPageRow.page.desc())
    page, data = connection.execute(statement.limit(1)).one()
    return page, data


def _rewrite(connection: Connection, change: Callable[[bytes], bytes]) -> None:
    page, data = _last_page(connection)
    connection.execute(update(SnapshotPageRow).where(SnapshotPageRow.page == page).values(data=change(data)))


def truncate(connection: Connection) -> None:
    _rewrite(connection, lambda data: data[: len(data) // 2])


def flip(connection: Connection) -> None:
    _rewrite(connection, lambda data: data[:-40] + bytes(255 - byte for byte in data[-40:]))


def other_version(connection: Connection) -> None:
    (meta,) = connection.execute(select(SnapshotRow.meta)).one()
    connection.execute(update(SnapshotRow).values(meta=meta | {"windows": "99"}))


def remove_page(connection: Connection) -> None:
    page, _ = _last_page(connection)
    connection.execute(delete(SnapshotPageRow).where(SnapshotPageRow.page == page))


def empty_pages(connection: Connection) -> None:
    connection.execute(update(SnapshotPageRow).values(data=b""))


def move_offset(connection: Connection) -> None:
    connection.execute(update(SnapshotRow).values(snapshot_offset=SnapshotRow.snapshot_offset - 7))


def meta_of_another_type(connection: Connection) -> None:
    connection.execute(update(SnapshotRow).values(meta=[1, 2]))


def without_checksums(connection: Connection) -> None:
    """Make the snapshot one of forewatch 0.1.0."""
    (meta,) = connection.execute(select(SnapshotRow.meta)).one()
    connection.execute(update(SnapshotRow).values(meta={"windows": meta["windows"]}))


DAMAGE = [truncate, flip, other_version, remove_page, empty_pages, move_offset, meta_of_another_type]


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(0, SECONDS)


@pytest.fixture
def make(tmp_path: Path, sqlite_template: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def one(log: Log, **options) -> Bench:
        benches.append(Bench(tmp_path / f"bench{len(benches)}", sqlite_template, [log], **options))
        return benches[-1]

    yield one
    for bench in benches:
        bench.close()


def stopped_halfway(bench: Bench, damage: Callable[[Connection], None]) -> None:
    bench.fill(lambda log: len(log.values) // 2)
    bench.drain(bench.engine()).close()
    with bench.database.begin() as connection:
        damage(connection)
    bench.fill()


def damage_faults(bench: Bench) -> list:
    return [fault for fault in bench.faults() if fault.kind is FaultKind.DAMAGED_STATE]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_snapshot_is_replaced_by_reading_again(
    make, log, database: Database, database_url: str, damage
):
    whole = make(log)
    whole.fill()
    whole.drain(whole.engine())
    bench = make(log, url=database_url)
    stopped_halfway(bench, damage)
    bench.drain(bench.engine()).close()
    bench.check()
    assert essence(bench.anomalies()) == essence(whole.anomalies())
    (fault,) = damage_faults(bench)
    assert "snapshot is damaged" in fault.message
    assert "read again from offset 0" in fault.message
    assert fault.ended_ns is not None, "the next snapshot replaces the damaged one"
    bench.drain(bench.engine())
    assert len(damage_faults(bench)) == 1


@pytest.mark.parametrize("damage", [truncate, remove_page, empty_pages])
def test_damage_without_a_checksum_is_found_when_it_is_decoded(
    make, log, database: Database, database_url: str, damage
):
    def of_the_first_version(connection: Connection) -> None:
        without_checksums(connection)
        damage(connection)

    bench = make(log, url=database_url)
    stopped_halfway(bench, of_the_first_version)
    bench.drain(bench.engine()).close()
    bench.check()
    assert len(damage_faults(bench)) == 1


def test_a_snapshot_of_the_first_version_is_read(make, log, database: Database, database_url: str):
    bench = make(log, url=database_url)
    stopped_halfway(bench, without_checksums)
    bench.drain(bench.engine()).close()
    bench.check()
    assert not bench.faults()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_partition_too_long_to_read_again_is_reset(
    make, log, database: Database, database_url: str, damage, monkeypatch
):
    monkeypatch.setattr(ownership, "MAX_REPLAY_RECORDS", 10)
    changed: list = []
    bench = make(log, url=database_url)
    bench.fill(lambda log: len(log.values) // 2)
    engine = bench.drain(bench.engine())
    buffered = bench.position().counts.buffered
    engine.close()
    with bench.database.begin() as connection:
        damage(connection)
    was_open = {a.id for a in bench.anomalies() if a.state == "open"}
    bench.fill()
    engine = bench.engine(on_changes=lambda connection, some: changed.extend(map(replace, some)))
    bench.drain(engine).close()
    (fault,) = damage_faults(bench)
    assert "start again at offset" in fault.message
    position = bench.position()
    assert position.counts.read() == position.next_offset == len(log.values)
    assert buffered
    assert position.counts.filtered == buffered
    closed = {a.id for a in changed if a.state == "closed"}
    assert was_open <= closed, "what no state knows is closed, and the alerts hear of it"


@pytest.mark.parametrize("state", [b"", b"\x00" * 50])
@pytest.mark.parametrize("checked", [True, False])
def test_a_damaged_series_starts_again(
    make, database: Database, database_url: str, state: bytes, checked: bool
):
    log = log_that_a_leaves()
    bench = make(log, url=database_url, idle_after="500s", storage={"snapshot_every": "0s"})
    bench.fill(lambda log: 180)
    engine = bench.drain(bench.engine())
    for _ in range(3):
        engine.turn(0.0)
    engine.close()
    values = {"state": state} | ({} if checked else {"state_version": ""})
    with bench.database.begin() as connection:
        assert connection.execute(update(SeriesStateRow).values(values)).rowcount == 1
    bench.fill()
    bench.drain(bench.engine()).close()
    (fault,) = damage_faults(bench)
    assert "series" in fault.message
    assert fault.ended_ns is not None
    assert bench.position().counts.read() == len(log.values)
