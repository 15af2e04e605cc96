"""A sample of records: complete however long the steps of a source take."""

from __future__ import annotations

import pytest

from pipeline.services import preflight
from pipeline.services.preflight import sample_records
from pipeline.sources.base import Poll
from pipeline.sources.memory import MemoryLog, MemorySource


class Clock:
    """A clock that only the source moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class SlowSource(MemorySource):
    """Each step of it takes ``seconds``."""

    def __init__(self, log: MemoryLog, clock: Clock, seconds: float) -> None:
        super().__init__(log)
        self.clock, self.seconds, self.polls = clock, seconds, 0

    def poll(self, max_records: int, timeout: float) -> Poll:
        self.polls += 1
        self.clock.now += self.seconds
        return super().poll(max_records, 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(preflight, "time", made)
    return made


def log_of(partitions: int, records: int) -> MemoryLog:
    log = MemoryLog("t", partitions)
    for number in range(partitions):
        log.extend([b"%d" % n for n in range(records)], number)
    return log


@pytest.mark.parametrize("seconds", [0.1, 30.0])
def test_the_newest_records_are_read_however_slow_the_source_is(clock: Clock, seconds: float) -> None:
    partitions: list[int] = []
    source = SlowSource(log_of(2, 500), clock, seconds)
    found = list(sample_records(source, 200, partitions.append))
    assert sum(map(len, found)) == 400
    assert min(records.first_offset for records in found) == 300
    assert partitions[-1] == 2


def test_an_empty_source_ends_at_once_and_a_silent_one_after_a_while(clock: Clock) -> None:
    empty = SlowSource(log_of(1, 0), clock, 0.5)
    assert list(sample_records(empty)) == []
    assert empty.polls == 1
    log = log_of(1, 10)
    MemorySource(log)  # another member owns the partition
    silent = SlowSource(log, clock, 0.5)
    silent.poll(1, 0.0)
    assert list(sample_records(silent)) == []
    assert silent.polls < 30
