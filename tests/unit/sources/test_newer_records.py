"""Newer records of a poll: when they are asked for, and what an error does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import SourceError
from pipeline.sources.kafka import newer_records
from pipeline.sources.kafka.newer_records import POLLS_WITHOUT_WAIT, Fetched, NewerRecords
from pipeline.sources.kafka.record_batches import Chunk


def chunk(first: int, count: int) -> Chunk:
    offsets = np.arange(first, first + count)
    return Chunk(offsets, offsets, [b"%d" % n for n in offsets], [None] * count, None, first + count)


class Client:
    """Answers in order; an answer that is an error is raised."""

    def __init__(self, *answers: Fetched | SourceError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, float]] = []

    def fetch(self, consumer: Any, most: int, wait: float) -> Fetched:
        self.asked.append((most, wait))
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, SourceError):
            raise answer
        return answer


@pytest.fixture
def stale(monkeypatch) -> None:
    """Let every poll come long after the one before."""
    monkeypatch.setattr(newer_records, "STALE_SECONDS", -1.0)


def poll(newer: NewerRecords, fetched: Fetched, most: int = 100) -> Fetched:
    newer.begin()
    newer.add(None, fetched, most)
    newer.end()
    return fetched


def read(fetched: Fetched) -> dict[Any, list[int]]:
    return {where: [int(n) for one in chunks for n in one.offsets] for where, chunks in fetched.items()}


def test_newer_records_follow_those_that_are_here(stale):
    client = Client({"a": [chunk(3, 2)], "b": [chunk(7, 1)]})
    found = poll(NewerRecords(client.fetch), {"a": [chunk(0, 3)]})
    assert read(found) == {"a": [0, 1, 2, 3, 4], "b": [7]}
    assert client.asked[0][0] == 97


def test_nothing_is_asked_between_two_quick_polls():
    client = Client()
    poll(NewerRecords(client.fetch), {"a": [chunk(0, 3)]})
    assert client.asked == []


@pytest.mark.parametrize("fetched", [{}, {"a": [chunk(0, 60)], "b": [chunk(0, 40)]}], ids=["none", "full"])
def test_nothing_is_asked_without_records_or_room(stale, fetched):
    client = Client()
    poll(NewerRecords(client.fetch), fetched)
    assert client.asked == []


def test_an_error_comes_after_the_records_and_once(stale):
    client = Client(SourceError("gone"))
    newer = NewerRecords(client.fetch)
    assert read(poll(newer, {"a": [chunk(0, 3)]})) == {"a": [0, 1, 2]}
    with pytest.raises(SourceError, match="gone"):
        newer.begin()
    newer.begin()


def test_a_broker_that_is_further_away_than_the_wait_is_rarely_asked(stale):
    client = Client()
    newer = NewerRecords(client.fetch)
    for _ in range(2 * POLLS_WITHOUT_WAIT):
        poll(newer, {"a": [chunk(0, 1)]})
    assert len(client.asked) == 2


def test_the_wait_is_short(stale, monkeypatch):
    client = Client()
    newer = NewerRecords(client.fetch)
    monkeypatch.setattr(newer, "_ended_at", newer._ended_at - 60)
    poll(newer, {"a": [chunk(0, 1)]})
    assert client.asked == [(99, newer_records.WAIT_SECONDS)]
