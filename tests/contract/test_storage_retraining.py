"""Jobs, models, promotions and quarantine, the same on both databases."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from pipeline.core.errors import InputError
from pipeline.core.types import Partition, Power
from storage.model_store import jobs, models, monitor_state, quarantine
from storage.model_store.jobs import LeaseLost
from storage.model_store.models import ChampionChanged, ModelVersion
from storage.model_store.monitor_state import DriftState
from storage.model_store.quarantine import ExcludedRange
from storage.results import anomalies
from tests.contract.test_storage_rows import anomaly

HOUR = 3_600_000_000_000


def queue(database, due_ns=HOUR, stream="plant", **changes):
    given = {"trigger": "schedule", "author": "clock", "now_ns": due_ns} | changes
    with database.begin() as connection:
        return jobs.add(connection, "train", stream, due_ns, **given)


def claimed(database, owner="a", now_ns=2 * HOUR, **changes):
    with database.begin() as connection:
        return jobs.claim(connection, owner, now_ns, **({"streams": ["plant"]} | changes))


def stored(database, job_id):
    with database.read() as connection:
        return jobs.get(connection, job_id)


def model(version="ab12cd34ef56", **changes):
    made = ModelVersion(
        version, "plant", f"/models/plant/{version}", version * 5, "candidate", None, "job 1", 10, 10
    )
    return replace(made, **changes)


# -------------------------------------------------------------------------------------------------------------- jobs


def test_one_job_a_due_time(database):
    assert queue(database) is not None
    assert queue(database) is None
    assert queue(database, due_ns=2 * HOUR) is not None
    assert queue(database, stream="edge") is not None


def test_many_clocks_make_one_job(database):
    made = []

    def tick():
        made.append(queue(database))

    threads = [threading.Thread(target=tick) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in made if one is not None]) == 1


def test_a_job_is_claimed_once_and_ended_by_its_owner(database):
    number = queue(database, detail={"series": "hall/pump"}, device="gpu")
    assert claimed(database, now_ns=HOUR - 1) is None, "not due yet"
    assert claimed(database, streams=["edge"]) is None
    job = claimed(database)
    assert (job.id, job.state, job.token, job.attempt, job.owner, job.device) == (
        number,
        "running",
        1,
        1,
        "a",
        "gpu",
    )
    assert claimed(database, "b") is None
    with database.begin() as connection:
        assert not jobs.heartbeat(connection, job, {"epoch": 1, "loss": 0.5}, ran_on="cpu")
        jobs.finish(
            connection,
            job,
            "succeeded",
            "better",
            3 * HOUR,
            result={"version": "ab"},
            cost={"cpu_seconds": 1.5},
        )
    after = stored(database, number)
    assert (after.state, after.reason, after.finished_ns, after.ran_on) == (
        "succeeded",
        "better",
        3 * HOUR,
        "cpu",
    )
    assert (after.progress, after.result, after.cost) == (
        {"epoch": 1, "loss": 0.5},
        {"version": "ab"},
        {"cpu_seconds": 1.5},
    )
    with pytest.raises(LeaseLost), database.begin() as connection:
        jobs.finish(connection, job, "failed", "twice", 4 * HOUR)
    assert stored(database, number).state == "succeeded"


def test_claims_at_the_same_time_do_not_share_a_job(database):
    for hour in range(4):
        queue(database, due_ns=hour)
    got = []

    def work(name):
        while (job := claimed(database, name)) is not None:
            got.append(job.id)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(set(got)) == 4


def test_a_dead_owner_is_buried_and_its_ghost_refused(database):
    number = queue(database)
    ghost = claimed(database)
    with database.begin() as connection:
        jobs.heartbeat(connection, ghost, {})
    seen = stored(database, number)
    with database.begin() as connection:
        assert jobs.reclaim_expired_lease(connection, seen, 3 * HOUR) == "queued"
        assert jobs.reclaim_expired_lease(connection, seen, 3 * HOUR) is None, "somebody else was faster"
    heir = claimed(database, "b")
    assert (heir.token, heir.attempt, heir.owner) == (ghost.token + 2, 2, "b")

    def publish(word):
        with database.begin() as connection:
            models.add(connection, model())
            word(connection)

    for word in (
        lambda c: jobs.heartbeat(c, ghost, {}),
        lambda c: jobs.finish(c, ghost, "succeeded", "", 4 * HOUR),
        lambda c: jobs.release(c, ghost, ""),
    ):
        with pytest.raises(LeaseLost):
            publish(word)
    with database.begin() as connection:
        assert models.query(connection) == [], "what a ghost wants to publish goes with its transaction"
        jobs.finish(connection, heir, "succeeded", "", 4 * HOUR)


def test_an_owner_that_still_beats_is_not_buried(database):
    number = queue(database)
    job = claimed(database)
    seen = stored(database, number)
    with database.begin() as connection:
        jobs.heartbeat(connection, job, {})
        assert jobs.reclaim_expired_lease(connection, seen, 3 * HOUR) is None


def test_a_job_that_kills_its_workers_is_given_up(database):
    number = queue(database)
    for attempt in range(jobs.MAX_ATTEMPTS):
        assert claimed(database).attempt == attempt + 1
        with database.begin() as connection:
            state = jobs.reclaim_expired_lease(connection, jobs.get(connection, number), 3 * HOUR)
    assert state == "failed"
    after = stored(database, number)
    assert (after.finished_ns, after.reason) == (
        3 * HOUR,
        f"the lease of a expired in attempt {jobs.MAX_ATTEMPTS}",
    )
    with database.begin() as connection:
        jobs.retry(connection, number)
    assert claimed(database).attempt == 1


def test_cancelling(database):
    number = queue(database)
    with database.begin() as connection:
        assert jobs.cancel(connection, number, HOUR) == "cancelled"
    with (
        pytest.raises(InputError, match="only a queued or running job can be cancelled"),
        database.begin() as connection,
    ):
        jobs.cancel(connection, number, HOUR)
    with database.begin() as connection:
        jobs.retry(connection, number)
    job = claimed(database)
    with database.begin() as connection:
        assert jobs.cancel(connection, number, HOUR) == "running"
        assert jobs.heartbeat(connection, job, {}), "its owner hears of it"
    with (
        pytest.raises(InputError, match="only a failed, rejected or cancelled job"),
        database.begin() as connection,
    ):
        jobs.retry(connection, number)
    with pytest.raises(InputError, match="no job 99"), database.read() as connection:
        jobs.get(connection, 99)


def test_old_jobs_go_and_live_ones_stay(database):
    done, waiting = queue(database), queue(database, due_ns=5)
    job = claimed(database, only=done)
    with database.begin() as connection:
        jobs.finish(connection, job, "succeeded", "", 3 * HOUR)
        assert jobs.prune(connection, 10 * HOUR, 100) == 1
        assert [one.id for one in jobs.query(connection)] == [waiting]


# ----------------------------------------------------------------------------------------- models and who decides


def test_champions(database):
    with database.begin() as connection:
        for version in ("aa", "bb"):
            assert models.add(connection, model(version * 6, evidence={"mae": 0.5}))
        assert not models.add(connection, model("aa" * 6))
        first = models.current_champion(connection, "plant")
        assert (first.sequence, first.to_version, first.pinned) == (0, None, False)
        with pytest.raises(InputError, match="no earlier version to roll back to"):
            models.previous_version(connection, first)
        second = models.record_promotion(
            connection, first, "promote", "aa" * 6, author="job 1", reason="better", now_ns=20
        )
        third = models.record_promotion(
            connection, second, "promote", "bb" * 6, author="ada", reason="try", now_ns=30, pinned=True
        )
    with database.begin() as connection:
        assert models.current_champion(connection, "plant") == third
        assert models.current_champion(connection, "edge").to_version is None
        assert [one.state for one in models.query(connection)] == ["retired", "champion"]
        assert models.previous_version(connection, third) == "aa" * 6
        back = models.record_promotion(
            connection, third, "rollback", "aa" * 6, author="guard", reason="too many alarms", now_ns=40
        )
        assert back.pinned, "a pin stays until somebody takes it away"
        assert models.get(connection, "bb").state == "rejected"
        assert models.get(connection, "bb").reason == "too many alarms"
        assert models.get(connection, "aa").state == "champion"
        models.set_state(connection, "aa" * 6, "champion", "", 50, {"alarms": 3})
        assert models.get(connection, "aa").evidence == {"mae": 0.5, "alarms": 3}
    with database.read() as connection:
        changes = models.promotions(connection, "plant")
    assert [(one.action, one.from_version, one.to_version) for one in changes] == [
        ("rollback", "bb" * 6, "aa" * 6),
        ("promote", "aa" * 6, "bb" * 6),
        ("promote", None, "aa" * 6),
    ]


def test_of_two_promotions_at_the_same_time_one_counts(database):
    with database.begin() as connection:
        for version in ("aa", "bb"):
            models.add(connection, model(version * 6))
        now = models.current_champion(connection, "plant")
    with database.begin() as connection:
        models.record_promotion(connection, now, "promote", "aa" * 6, author="a", reason="", now_ns=1)
    with pytest.raises(ChampionChanged), database.begin() as connection:
        models.record_promotion(connection, now, "promote", "bb" * 6, author="b", reason="", now_ns=1)
    with database.read() as connection:
        assert models.current_champion(connection, "plant").to_version == "aa" * 6
        assert models.get(connection, "bb").state == "candidate"


def test_versions_are_named_by_their_first_digits(database):
    with database.begin() as connection:
        models.add(connection, model("abc111abc111"))
        models.add(connection, model("abc222abc222"))
        assert models.get(connection, "abc1").version == "abc111abc111"
        for prefix, message in (
            ("abc", "several"),
            ("ff", "no version ff"),
            ("xyz", "is not a version"),
            ("", "is not a version"),
        ):
            with pytest.raises(InputError, match=message):
                models.get(connection, prefix)


def test_what_is_needed_is_kept(database):
    names = [f"{n:012x}" for n in range(6)]
    with database.begin() as connection:
        for age, name in enumerate(names):
            models.add(connection, model(name, state="retired", created_ns=100 - age))
        now = models.record_promotion(
            connection,
            models.current_champion(connection, "plant"),
            "promote",
            names[3],
            author="a",
            reason="",
            now_ns=1,
        )
        models.record_promotion(connection, now, "promote", names[0], author="a", reason="", now_ns=2)
        anomalies.upsert(connection, [anomaly(model_version=f"standard-123456789abc+{names[4]}")])
    with database.begin() as connection:
        gone = models.removable_versions(connection, "plant", keep=2)
        assert [one.version for one in gone] == [names[2], names[5]]
        for one in gone:
            models.remove(connection, one.version)
        assert models.removable_versions(connection, "plant", keep=2) == []


def test_quarantine(database):
    with database.begin() as connection:
        one = quarantine.add(
            connection, ExcludedRange(0, "plant", "hall/p\x00mp", 10, 20, "maintenance", "ada", 5)
        )
        quarantine.add(connection, ExcludedRange(0, "plant", None, 0, 5, "move", "bob", 6))
        quarantine.add(connection, ExcludedRange(0, "edge", None, 0, 5, "", "bob", 6))
        assert [(q.series, q.start_ns, q.end_ns) for q in quarantine.query(connection, stream="plant")] == [
            (None, 0, 5),
            ("hall/p␀mp", 10, 20),
        ]
        assert quarantine.remove(connection, one, "eve", 30)
        assert not quarantine.remove(connection, one, "eve", 31)
        assert len(quarantine.query(connection)) == 2
        removed = [q for q in quarantine.query(connection, removed=True) if q.removed_ns is not None]
        assert [(q.author, q.removed_by, q.removed_ns) for q in removed] == [("ada", "eve", 30)]


def test_the_last_figures_of_each_series_are_kept_until_they_are_old(database):
    spike = Power("p\x00mp", "v", "spike", None, None, 0.0, 1.5)
    shift = replace(spike, kind="shift", minimum_size=0.5, delay=3, detected=1.0)
    later = replace(spike, minimum_size=2.0, delay=1, detected=0.5)
    with database.begin() as connection:
        monitor_state.save_power(connection, "plant", [], "standard-1", 10)
        monitor_state.save_power(connection, "plant", [spike, shift], "standard-1", 10)
        monitor_state.save_power(connection, "edge", [spike], "standard-1", 10)
        monitor_state.save_power(connection, "plant", [later], "standard-2", 20)
    with database.read() as connection:
        assert monitor_state.power(connection, "plant") == [
            replace(shift, series="p␀mp"),
            replace(later, series="p␀mp"),
        ]
        assert monitor_state.power(connection, "plant", "standard-1") == [replace(shift, series="p␀mp")]
    with database.begin() as connection:
        assert monitor_state.prune_power(connection, 15, 1) == 1
        assert monitor_state.prune_power(connection, 15, 10) == 1
        assert [one.kind for one in monitor_state.power(connection, "plant")] == ["spike"]


def test_figures_of_a_series_with_the_longest_name_that_can_be_are_kept(database):
    rng = random.Random(0)
    label = "".join(chr(rng.randrange(0x10000, 0x20000)) for _ in range(256))
    found = [
        Power(
            ",".join(f"{key}={label}" for key in ("site", "hall", "sensor", "unit")),
            "v",
            "spike",
            1.0,
            0,
            0.8,
            1.0,
        )
    ]
    with database.begin() as connection:
        monitor_state.save_power(connection, "plant", found, "standard-1", 10)
        assert monitor_state.power(connection, "plant") == found


def test_the_state_of_the_eye_on_drift_is_one_row_a_partition(database):
    one = DriftState("plant", Partition("t", 0), b"\x00one", None, 1)
    with database.begin() as connection:
        monitor_state.save_drift(connection, one)
        monitor_state.save_drift(connection, replace(one, partition=Partition("t", 1), quiet_until_ns=9))
        monitor_state.save_drift(connection, replace(one, state=b"two", quiet_until_ns=5, saved_ns=2))
        monitor_state.save_drift(connection, replace(one, stream="edge"))
        found = sorted(monitor_state.drift(connection, "plant"), key=lambda state: state.partition)
    assert found == [
        DriftState("plant", Partition("t", 0), b"two", 5, 2),
        replace(one, partition=Partition("t", 1), quiet_until_ns=9),
    ]
    with database.begin() as connection:
        assert monitor_state.prune_drift(connection, 2, 10) == 2
        assert [state.saved_ns for state in monitor_state.drift(connection, "plant")] == [2]
