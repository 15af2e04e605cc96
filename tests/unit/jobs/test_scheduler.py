"""Due times of schedules; none of them is lost."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from pipeline.core.cron import CronSchedule
from pipeline.core.errors import StorageUnavailable
from pipeline.jobs.scheduler import ScheduleTrigger, TrainingScheduler
from tests.support.schedules import EverySeconds

SECOND = 1_000_000_000


def test_a_tick_that_cannot_be_written_comes_again(monkeypatch):
    ticks, fail = [], [True]

    def queue(stream, due_ns):
        if fail[0]:
            fail[0] = False
            raise StorageUnavailable("away")
        ticks.append((stream, due_ns))

    monkeypatch.setattr("pipeline.jobs.scheduler.RETRY_DELAY", timedelta(milliseconds=100))
    clock, schedule = TrainingScheduler(queue), CronSchedule("0 3 * * *", "UTC")
    clock.set_schedules({"plant": schedule})
    before = schedule.last_due(datetime.now(UTC))
    clock.start()
    try:
        clock.catch_up("plant", 0)
        assert ticks == []
        deadline = time.monotonic() + 120
        while not ticks and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        clock.stop()
        clock.stop()
    after = schedule.last_due(datetime.now(UTC))
    assert before is not None
    assert after is not None
    [(stream, due_ns)] = ticks
    assert stream == "plant"
    assert due_ns in {int(due.timestamp()) * SECOND for due in (before, after)}  # it may have been 3 o'clock


def test_what_was_missed_is_caught_up_once():
    ticks = []
    clock = TrainingScheduler(lambda stream, due_ns: ticks.append(due_ns))
    clock.set_schedules({"plant": CronSchedule("0 3 * * *", "UTC")})
    clock.catch_up("plant", time.time_ns() - 48 * 3600 * SECOND)
    assert len(ticks) == 1
    clock.catch_up("plant", ticks[0])
    assert len(ticks) == 1


class SecondPass(datetime):
    """The clock of Berlin in the second 02:30 of the day on which summer time ends."""

    @classmethod
    def now(cls, tz=None):
        return datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_training_in_the_repeated_hour_is_queued_once(monkeypatch):
    monkeypatch.setattr("pipeline.jobs.scheduler.datetime", SecondPass)
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    for zone, ticks in (("Europe/Berlin", []), ("UTC", [])):
        clock = TrainingScheduler(lambda stream, due_ns, ticks=ticks: ticks.append(due_ns))
        clock.set_schedules({"plant": CronSchedule("30 2 * * *", zone)})
        clock.catch_up("plant", int((first - timedelta(hours=1)).timestamp()) * SECOND)
        clock.catch_up("plant", int(first.timestamp()) * SECOND)
        assert ticks == ([int(first.timestamp()) * SECOND] if zone == "Europe/Berlin" else [])


def test_trigger_moves_on_from_a_late_timer():
    trigger = ScheduleTrigger(CronSchedule("30 2 * * *", "Europe/Berlin"))
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    following = datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert trigger.get_next_fire_time(None, first - timedelta(seconds=1)) == first
    assert trigger.get_next_fire_time(first, SecondPass.now()) == following
    assert trigger.get_next_fire_time(first - timedelta(days=30), SecondPass.now()) == following


def test_other_schedules_are_taken():
    ticks = []
    clock = TrainingScheduler(lambda stream, due_ns: ticks.append(stream))
    clock.start()
    try:
        clock.set_schedules({"old": EverySeconds(1)})
        clock.set_schedules({"new": EverySeconds(1)})
        for _ in range(2):  # a tick of the old schedule may have been under way
            ticks.clear()
            deadline = time.monotonic() + 120
            while "new" not in ticks and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        clock.stop()
    assert set(ticks) == {"new"}
