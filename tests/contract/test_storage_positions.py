"""The fence: one owner a partition, whatever happens to the others. The same on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import Counts, Partition, Position
from storage.sql.database import CommitUnknown, Database
from storage.stream_state import positions
from storage.stream_state.positions import CommitOutcome, Fenced
from tests.support.commit_proxy import CommitProxy

P = Partition("sensors", 3)


def test_a_new_partition_has_no_offset_until_its_start_is_pinned(database):
    position = positions.acquire(database, "plant", P, "a", "topic-id")
    assert position == Position("plant", P, 1, None, None, "topic-id")
    with database.begin() as connection:
        pinned = positions.advance(connection, position, 100, Counts(), None)
    assert (pinned.next_offset, pinned.start_offset, pinned.commits) == (100, 100, 1)
    assert positions.acquire(database, "plant", P, "b", "topic-id") == replace(pinned, epoch=2)


def test_what_advance_returns_is_what_a_successor_reads(database):
    position = positions.acquire(database, "plant", P, "a", "")
    with database.begin() as connection:
        position = positions.advance(connection, position, 10, Counts(scored=4, late=1, filtered=2), 77)
    assert position.start_offset == 3, "offsets read = sum of the outcomes"
    with database.begin() as connection:
        position = positions.advance(connection, position, 14, Counts(5, 1, 1, 1, 2, 1), 78)
    assert positions.acquire(database, "plant", P, "b", "") == replace(position, epoch=2)
    assert position.next_offset - position.start_offset == position.counts.read()


def test_identity_is_the_first_one_until_a_restart(database):
    position = positions.acquire(database, "plant", P, "a", "old")
    with database.begin() as connection:
        positions.advance(connection, position, 500, Counts(scored=500), 9)
    position = positions.acquire(database, "plant", P, "a", "new")
    assert position.identity == "old"
    with database.begin() as connection:
        position = positions.restart(connection, position, "new", 0, Counts())
    assert (position.identity, position.next_offset, position.start_offset, position.counts) == (
        "new",
        0,
        0,
        Counts(),
    )
    assert positions.acquire(database, "plant", P, "a", "new").next_offset == 0


def test_the_former_owner_commits_nothing(database):
    former = positions.acquire(database, "plant", P, "a", "")
    with database.begin() as connection:
        former = positions.advance(connection, former, 10, Counts(scored=10), None)
    successor = positions.acquire(database, "plant", P, "b", "")
    with pytest.raises(Fenced) as caught, database.begin() as connection:
        positions.advance(connection, former, 20, Counts(scored=20), None)
    assert caught.value.partition == P
    with pytest.raises(Fenced), database.begin() as connection:
        positions.hold_ownership(connection, former)
    with database.begin() as connection:
        assert positions.get(connection, "plant", P) == successor
        positions.hold_ownership(connection, successor)


def test_the_same_epoch_cannot_commit_from_a_stale_offset(database):
    position = positions.acquire(database, "plant", P, "a", "")
    with database.begin() as connection:
        positions.advance(connection, position, 10, Counts(scored=10), None)
    with pytest.raises(Fenced), database.begin() as connection:
        positions.advance(connection, position, 10, Counts(scored=10), None)


def test_an_exception_takes_the_whole_batch_back(database):
    position = positions.acquire(database, "plant", P, "a", "")

    def crash(_: Position) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), database.begin() as connection:
        crash(positions.advance(connection, position, 10, Counts(scored=10), None))
    assert positions.confirm(database, position, 10) is CommitOutcome.NOT_COMMITTED


def test_confirm_tells_what_became_of_a_commit(database):
    before = positions.acquire(database, "plant", P, "a", "")
    assert positions.confirm(database, before, 10) is CommitOutcome.NOT_COMMITTED
    with database.begin() as connection:
        after = positions.advance(connection, before, 10, Counts(scored=10), None)
    assert positions.confirm(database, before, 10) is CommitOutcome.COMMITTED
    assert positions.confirm(database, after, 10) is CommitOutcome.NOT_COMMITTED, (
        "a commit that moves no offset is still told apart"
    )
    positions.acquire(database, "plant", P, "b", "")
    assert positions.confirm(database, before, 10) is CommitOutcome.FENCED


def test_positions_are_listed_by_stream(database):
    for stream, partition in (("b", Partition("t", 0)), ("a", Partition("t", 1)), ("a", Partition("t", 0))):
        positions.acquire(database, stream, partition, "me", "")
    with database.read() as connection:
        assert [(p.stream, p.partition.number) for p in positions.all_of(connection)] == [
            ("a", 0),
            ("a", 1),
            ("b", 0),
        ]
        assert [p.partition.number for p in positions.all_of(connection, "a")] == [0, 1]
        assert positions.get(connection, "c", P) is None


def test_every_take_over_gets_its_own_epoch(database):
    epochs: list[int] = []
    threads = [
        threading.Thread(
            target=lambda i=i: epochs.append(positions.acquire(database, "plant", P, f"owner {i}", "").epoch)
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epochs) == list(range(1, 9))


SEVERAL = [Partition("sensors", number) for number in range(12)]


def test_several_partitions_are_acquired_at_once_and_their_former_owners_fenced(database):
    former = positions.acquire(database, "plant", P, "a", "first")
    with database.begin() as connection:
        former = positions.advance(connection, former, 10, Counts(scored=10), 5)
    found = positions.acquire_all(database, "plant", dict.fromkeys(reversed(SEVERAL), "other"), "b")
    assert found.keys() == set(SEVERAL)
    assert found.pop(P) == replace(former, epoch=2), "it keeps its identity and its position"
    assert {(one.epoch, one.next_offset, one.identity) for one in found.values()} == {(1, None, "other")}
    with pytest.raises(Fenced), database.begin() as connection:
        positions.advance(connection, former, 20, Counts(scored=20), None)
    assert positions.acquire_all(database, "plant", {}, "c") == {}


def test_acquisitions_that_overlap_get_epochs_of_their_own(database):
    """Each locks its rows in the same order, whatever order it names them in."""
    epochs: list[tuple[Partition, int]] = []

    def acquire(number: int) -> None:
        for turn in range(5):
            some = SEVERAL if (number + turn) % 2 else SEVERAL[::-1]
            found = positions.acquire_all(database, "plant", dict.fromkeys(some, ""), f"owner {number}")
            epochs.extend((partition, one.epoch) for partition, one in found.items())

    threads = [threading.Thread(target=acquire, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(epochs)) == len(epochs)
    if database.dialect == "sqlite":  # on PostgreSQL a slow one may find a row locked, and returns nothing
        assert len(epochs) == 4 * 5 * len(SEVERAL)


@pytest.mark.postgres
def test_a_row_that_stays_locked_is_left_to_the_acquisition_of_one(postgres_url):
    database = Database(postgres_url)
    database.upgrade()
    before = positions.acquire_all(database, "plant", dict.fromkeys(SEVERAL, ""), "a")

    def replaced_inside_its_transaction() -> None:
        with database.begin() as connection:
            positions.advance(connection, before[P], 10, Counts(scored=10), None)
            assert positions.acquire_all(database, "plant", dict.fromkeys(SEVERAL, ""), "b") == {}
            with database.read() as other:
                assert all(one.epoch == 1 for one in positions.all_of(other)), "all or none"
            assert positions.acquire(database, "plant", P, "b", "").epoch == 2, "it ended the transaction"
            positions.hold_ownership(connection, before[P])

    with pytest.raises(StorageUnavailable):
        replaced_inside_its_transaction()
    assert positions.acquire_all(database, "plant", dict.fromkeys(SEVERAL, ""), "b")[P].epoch == 3
    database.close()


FROZEN_OWNER = """
import sys, time
from pipeline.core.types import Counts, Partition
from storage.stream_state import positions
from storage.sql.database import CommitUnknown, Database
from tests.support.commit_proxy import CommitProxy
database = Database(sys.argv[1])
partition = Partition("sensors", 3)
position = positions.acquire(database, "plant", partition, "frozen", "")
with database.begin() as other, database.begin() as connection:  # not on the connection that the last commit used
    positions.advance(connection, position, 10, Counts(scored=10), None)
    print("in transaction", flush=True)
    sys.stdin.readline()
print("committed", flush=True)
"""


@pytest.mark.postgres
def test_a_frozen_owner_inside_its_transaction_is_replaced(postgres_url):
    database = Database(postgres_url)
    database.upgrade()
    owner = subprocess.Popen(
        [sys.executable, "-c", FROZEN_OWNER, postgres_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout.readline() == "in transaction\n"
        os.kill(owner.pid, signal.SIGSTOP)
        started = time.monotonic()
        position = positions.acquire(database, "plant", P, "successor", "")
        elapsed = time.monotonic() - started
        print(f"takeover of a frozen owner: {elapsed:.3f} s")
        assert elapsed < 40, "below the 60 s after which the server itself would end the transaction"
        assert (position.epoch, position.next_offset) == (2, None), (
            "what the frozen one had not committed is not there"
        )
        with database.begin() as connection:
            positions.advance(connection, position, 5, Counts(scored=5), None)
        os.kill(owner.pid, signal.SIGCONT)
        out, errors = owner.communicate("go\n", timeout=120)
        assert "committed" not in out
        assert "StorageUnavailable" in errors or "CommitUnknown" in errors
        with database.read() as connection:
            assert positions.get(connection, "plant", P).next_offset == 5
    finally:
        owner.kill()
        owner.wait()
        database.close()


@pytest.mark.postgres
def test_confirm_waits_for_a_commit_that_is_still_on_its_way(postgres_url):
    database = Database(postgres_url)
    database.upgrade()
    before = positions.acquire(database, "plant", P, "a", "")
    in_flight, arrived = threading.Event(), threading.Event()

    def commit_slowly() -> None:
        with database.begin() as connection:
            positions.advance(connection, before, 10, Counts(scored=10), None)
            in_flight.set()
            arrived.wait(0.2)

    thread = threading.Thread(target=commit_slowly)
    thread.start()
    in_flight.wait(60)
    assert positions.confirm(database, before, 10) is CommitOutcome.COMMITTED
    thread.join()
    database.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("lose", "outcome"), [("request", CommitOutcome.NOT_COMMITTED), ("reply", CommitOutcome.COMMITTED)]
)
def test_a_commit_whose_answer_is_lost(postgres_url, lose, outcome):
    with CommitProxy(postgres_url) as proxy:
        database = Database(proxy.url)
        database.upgrade()
        before = positions.acquire(database, "plant", P, "a", "")
        for turn in range(3):
            proxy.lose = lose
            with pytest.raises(CommitUnknown), database.begin() as connection:
                positions.advance(connection, before, turn + 1, Counts(scored=turn + 1), None)
            assert proxy.lost == turn + 1
            assert positions.confirm(database, before, turn + 1) is outcome
            if outcome is CommitOutcome.COMMITTED:
                before = positions.advanced(before, turn + 1, Counts(scored=turn + 1), None)
        with database.begin() as connection:
            positions.advance(connection, before, 10, Counts(scored=10), None)
        database.close()


@pytest.mark.postgres
def test_a_database_that_stops_and_starts_is_unavailable_meanwhile(faulty_postgres):
    from tests.support.postgres_server import create_database

    database = Database(create_database(faulty_postgres))
    database.upgrade()
    position = positions.acquire(database, "plant", P, "a", "")
    faulty_postgres.stop()
    with pytest.raises(StorageUnavailable), database.begin() as connection:
        positions.advance(connection, position, 10, Counts(scored=10), None)
    with pytest.raises(StorageUnavailable):
        positions.confirm(database, position, 10)
    faulty_postgres.start()
    assert positions.confirm(database, position, 10) is CommitOutcome.NOT_COMMITTED
    with database.begin() as connection:
        positions.advance(connection, position, 10, Counts(scored=10), None)
    database.close()
