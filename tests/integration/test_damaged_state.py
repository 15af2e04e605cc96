"""Damage of stored state on both databases: it is refused, the stream goes on, and a fault says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, select, update
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.types import FaultKind
from pipeline.engine import stored_state
from pipeline.services.storage_check import check_storage, repair_storage
from storage.history.writer import HistoryWriter
from storage.model_store import models
from storage.model_store.models import ModelVersion
from storage.sql.database import Database
from storage.stream_state import snapshots
from storage.tables.stream import SeriesStateRow, SnapshotPageRow, SnapshotRow
from tests.faults.feed import Log, config_tree, make_log
from tests.support.engines import UNTIL_A_LEFT, Bench, essence, log_that_a_leaves

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
    monkeypatch.setattr(stored_state, "MAX_REPLAY_RECORDS", 10)
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
    bench.fill(lambda log: UNTIL_A_LEFT)
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


# ------------------------------------------------------------------------------------------------ db check


def checked(bench: Bench, *options: str) -> tuple[int, list[dict]]:
    """Run ``forewatch db check``; return its exit code and what it lists."""
    file = bench.folder / "forewatch.yaml"
    file.write_text(json.dumps(config_tree(bench.config.database, {"memory": {"name": "plant"}})))
    result = CliRunner().invoke(app, ["db", "check", "--json", "--config", str(file), *options])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("damage", DAMAGE)
def test_db_check_lists_damage_and_repairs_it(
    make, log, database: Database, database_url: str, damage, tmp_path: Path
):
    storage = {"history_path": str(tmp_path / "history"), "models_path": str(tmp_path / "models")}
    bench = make(log, url=database_url, storage=storage)
    stopped_halfway(bench, lambda connection: None)
    assert check(bench) == []
    with bench.database.begin() as connection:
        damage(connection)
    (found,) = check(bench)
    assert (found.kind, found.where) == ("snapshot", "plant plant[0]")
    assert repair_storage(bench.database, [found]) == 1
    assert [one.kind for one in check(bench)] == ["position"], "it is read again from the start"
    bench.drain(bench.engine()).close()
    bench.check()
    assert check(bench) == []


def test_a_refused_snapshot_does_not_come_back(make, log, database: Database, database_url: str, monkeypatch):
    """A disk that reads again must not put the state back to an offset where the history has no cut."""
    bench = make(log, url=database_url, storage={"snapshot_every": "1h"})
    stopped_halfway(bench, flip)
    engine = bench.engine()
    monkeypatch.setattr(engine.parts.snapshots, "take_due", lambda ownership: None)
    bench.drain(engine).abandon()
    with bench.database.read() as connection:
        assert not snapshots.exists(connection, "plant", bench.position().partition)
        assert not connection.execute(select(SnapshotPageRow.page)).all()
    bench.drain(bench.engine()).close()
    bench.check()


@pytest.mark.parametrize("on_gap", ["fail", "resume-earliest"])
def test_a_repaired_partition_whose_records_are_deleted_goes_on(
    make, log, database: Database, database_url: str, on_gap: str
):
    """What was buffered is lost, and is counted and reported: the policy for gaps is not asked."""
    bench = make(log, url=database_url)
    stopped_halfway(bench, truncate)
    buffered = bench.position().counts.buffered
    was_open = {a.id for a in bench.anomalies() if a.state == "open"}
    assert buffered
    repair_storage(bench.database, check(bench))
    bench.log.trim(bench.position().next_offset)
    bench.drain(bench.engine(on_gap=on_gap)).close()
    (fault,) = bench.faults()
    assert fault.kind is FaultKind.DAMAGED_STATE
    assert "there is no snapshot" in fault.message
    assert fault.ended_ns is not None, "the next snapshot ends it"
    position = bench.position()
    assert position.counts.filtered == buffered
    assert position.counts.read() == position.next_offset == len(log.values)
    assert not was_open & {a.id for a in bench.anomalies() if a.state == "open"}
    assert check(bench) == []


def check(bench: Bench) -> list:
    return list(check_storage(bench.config, bench.database))


def test_db_check_names_every_kind(make, log):
    bench = make(log_that_a_leaves(), idle_after="500s", storage={"snapshot_every": "0s"})
    bench.fill(lambda log: UNTIL_A_LEFT)
    writer = HistoryWriter(bench.config.history_path, "plant")
    engine = bench.drain(bench.engine(history_writer=writer))
    for _ in range(3):
        engine.turn(0.0)
    engine.close()
    assert checked(bench) == (0, [])
    version = ModelVersion("abc", "plant", "/no/such/file", "0" * 64, "champion", None, "me", 1, 1, "")
    with bench.database.begin() as connection:
        connection.execute(update(SeriesStateRow).values(state=b"x"))
        models.add(connection, version)
        truncate(connection)
    (segment, *_) = sorted((bench.folder / "forewatch.db.history").rglob("*.parquet"))
    segment.write_bytes(b"no Parquet")
    code, found = checked(bench)
    assert code == 4
    assert [one["kind"] for one in found] == ["snapshot", "series_state", "model", "history"]
    code, found = checked(bench, "--repair")
    assert code == 4, "a model cannot be computed again"
    code, found = checked(bench)
    assert [one["kind"] for one in found] == ["position", "model", "history"]
