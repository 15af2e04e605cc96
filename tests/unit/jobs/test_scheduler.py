"""Which times are due, and that none of them is lost."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger

from pipeline.core.cron import last_due, trigger
from pipeline.core.errors import StorageUnavailable
from pipeline.jobs.scheduler import TrainingScheduler

SECOND = 1_000_000_000


def at(text, zone="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("expression", "zone", "now", "due"),
    [
        ("0 3 * * *", "UTC", "2026-03-01T03:00:00", "2026-03-01T03:00:00"),
        ("0 3 * * *", "UTC", "2026-03-01T02:59:59", "2026-02-28T03:00:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-07-01T12:00:00", "2026-07-01T01:00:00"),
        # the hour that spring leaves out
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-29T01:30:00"),
        ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00", "2024-02-29T00:00:00"),
        ("*/5 * * * *", "UTC", "2026-03-01T00:04:59.999", "2026-03-01T00:00:00"),
        ("0 2 * * sun", "UTC", "2026-03-02T00:00:00", "2026-03-01T02:00:00"),
        ("0 2 * * 0", "UTC", "2026-03-02T00:00:00", "2026-03-01T02:00:00"),
    ],
)
def test_what_was_due_last(expression, zone, now, due):
    found = last_due(trigger(expression, zone), at(now, zone))
    assert found.astimezone(UTC) == at(due)


def test_what_is_never_due():
    assert last_due(trigger("0 0 31 2 *", "UTC"), at("2026-03-01T00:00:00")) is None


def test_a_tick_that_cannot_be_written_comes_again(monkeypatch):
    ticks, fail = [], [True]

    def queue(stream, due_ns):
        if fail[0]:
            fail[0] = False
            raise StorageUnavailable("away")
        ticks.append((stream, due_ns))

    monkeypatch.setattr("pipeline.jobs.scheduler.RETRY_DELAY", timedelta(milliseconds=100))
    clock = TrainingScheduler(queue)
    clock.set_triggers({"plant": trigger("0 3 * * *", "UTC")})
    clock.start()
    try:
        clock.catch_up("plant", 0)
        assert ticks == []
        deadline = time.monotonic() + 20
        while not ticks and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        clock.stop()
        clock.stop()
    due = last_due(trigger("0 3 * * *", "UTC"), datetime.now(UTC))
    assert ticks == [("plant", int(due.timestamp()) * SECOND)]


def test_what_was_missed_is_caught_up_once():
    ticks = []
    clock = TrainingScheduler(lambda stream, due_ns: ticks.append(due_ns))
    clock.set_triggers({"plant": trigger("0 3 * * *", "UTC")})
    clock.catch_up("plant", time.time_ns() - 48 * 3600 * SECOND)
    assert len(ticks) == 1
    clock.catch_up("plant", ticks[0])
    assert len(ticks) == 1


def test_other_schedules_are_taken():
    ticks = []
    clock = TrainingScheduler(lambda stream, due_ns: ticks.append(stream))
    clock.start()
    try:
        clock.set_triggers({"old": CronTrigger(second="*", timezone="UTC")})
        clock.set_triggers({"new": CronTrigger(second="*", timezone="UTC")})
        ticks.clear()
        deadline = time.monotonic() + 20
        while "new" not in ticks and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        clock.stop()
    assert set(ticks) == {"new"}
