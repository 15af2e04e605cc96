"""The Kafka sources against a real broker that goes away, freezes or damages its log, and members that were
silent for too long.
"""

from __future__ import annotations

import re
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.core.errors import SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.kafka.consumer import KafkaSource
from tests.integration.kafka.clients import CLIENTS
from tests.support.kafka_server import Topics
from tests.support.source_kinds import Reader, numbered

pytestmark = pytest.mark.kafka


def read_on(reader, count, timeout=120.0):
    """Until ``count`` records are there, whatever the broker does meanwhile; returns the messages of the
    errors on the way.
    """
    said = []
    deadline = time.monotonic() + timeout
    while reader.count() < count:
        assert time.monotonic() < deadline, f"{reader.count()} of {count}; {said[-3:]}"
        try:
            reader.once()
        except SourceUnavailable as error:
            said.append(str(error))
    return said


@CLIENTS
def test_a_broker_that_is_away_is_reported_and_reading_resumes_by_itself(faulty_broker, join, client):
    topics = Topics(faulty_broker.address)
    topic = topics.create(2)
    for number in range(2):
        topics.produce(topic, numbered(500), number)
    topics.close()
    reader = Reader(join(client, faulty_broker.address, topic)).until_read(1000)
    faulty_broker.kill()
    said = []
    deadline = time.monotonic() + 120
    while not said and time.monotonic() < deadline:
        begun = time.monotonic()
        try:
            reader.source.poll(100, 0.5)
        except SourceUnavailable as error:
            said.append(str(error))
        assert time.monotonic() - begun < 20
    assert faulty_broker.address in said[0]
    reader.source.publish_offsets(dict(reader.positions))
    faulty_broker.up()
    topics = Topics(faulty_broker.address)
    for number in range(2):
        topics.produce(topic, numbered(500, first=500), number)
    read_on(reader, 2000)
    for number in range(2):
        assert reader.values(Partition(topic, number)) == numbered(1000)
    topics.close()


@CLIENTS
def test_a_frozen_broker_does_not_freeze_us(faulty_broker, join, client):
    topics = Topics(faulty_broker.address)
    topic = topics.create()
    topics.produce(topic, numbered(100))
    reader = Reader(join(client, faulty_broker.address, topic)).until_read(100)
    faulty_broker.freeze()
    try:
        for _ in range(10):
            begun = time.monotonic()
            with suppress(SourceUnavailable):
                assert not reader.source.poll(100, 0.3).records
            assert time.monotonic() - begun < 25  # the client's own time-outs are 30 s and more
    finally:
        faulty_broker.thaw()
    topics.produce(topic, numbered(100, first=100))
    read_on(reader, 200)
    assert reader.values(Partition(topic, 0)) == numbered(200)
    topics.close()


@CLIENTS
def test_a_broker_that_is_not_there_yet(faulty_broker, join, client):
    """The source may start before the broker does."""
    topics = Topics(faulty_broker.address)
    topic = topics.create()
    topics.produce(topic, numbered(10))
    topics.close()
    faulty_broker.down()
    reader = Reader(join(client, faulty_broker.address, topic))
    with pytest.raises(SourceUnavailable, match=re.escape(faulty_broker.address)):
        reader.until_owned()
    faulty_broker.up()
    read_on(reader, 10)


@CLIENTS
def test_a_member_that_was_silent_too_long_learns_that_it_lost_everything(topics, join, client):
    """Past max_poll_interval the group gives its partitions to another; the zombie hears of it at its next
    poll only.
    """
    topic, group = topics.create(2), uuid.uuid4().hex
    for number in range(2):
        topics.produce(topic, numbered(100), number)
    positions: dict[Partition, int] = {}
    options = {"group": group, "max_poll_interval": timedelta(seconds=6)}
    zombie = Reader(join(client, topics.broker, topic, **options), positions).until_read(200)
    heir = Reader(join(client, topics.broker, topic, **options), positions)
    heir.until(lambda: len(heir.owned) == 2)  # meanwhile the first does not poll
    for number in range(2):
        topics.produce(topic, numbered(10, first=100), number)
    heir.until_read(20)
    assert heir.values(Partition(topic, 0)) == numbered(10, first=100)
    revoked = []
    deadline = time.monotonic() + 120
    while len(revoked) < 2 and time.monotonic() < deadline:
        poll = zombie.source.poll(100, 0.2)
        revoked += poll.revoked
        heir.once()
    assert sorted(revoked) == [Partition(topic, 0), Partition(topic, 1)]


def test_a_member_that_hears_from_the_join_itself_that_it_was_forgotten(topics, join):
    """Between two heartbeats the group forgets it, and half of what it had comes back to it: the client of
    3.0.12 takes that for never lost.
    """
    topic, group = topics.create(2), uuid.uuid4().hex
    for number in range(2):
        topics.produce(topic, numbered(100), number)
    positions: dict[Partition, int] = {}
    zombie = Reader(join(KafkaSource, topics.broker, topic, group=group), positions).until_read(200)
    coordinator = zombie.source._consumer._coordinator
    coordinator._disable_heartbeat()
    heir = Reader(join(KafkaSource, topics.broker, topic, group=group), positions)
    heir.until(lambda: len(heir.owned) == 2)
    coordinator.request_rejoin()  # as a heartbeat of the rebalance before would have
    revoked, assigned = [], []
    deadline = time.monotonic() + 120
    while not assigned and time.monotonic() < deadline:
        poll = zombie.source.poll(100, 0.2)
        revoked += poll.revoked
        assigned += poll.assigned
        heir.once()
    assert sorted(revoked) == [Partition(topic, 0), Partition(topic, 1)]
    assert len(assigned) == 1


@CLIENTS
def test_a_damaged_log_is_named_and_the_place_is_kept(faulty_broker, join, client):
    """Bytes are changed on the broker's disk.

    What precedes is read; the rest of the topic goes on; a seek past it goes on too.
    """
    topics = Topics(faulty_broker.address)
    topic = topics.create(2)
    for first in (0, 10, 20):  # three batches
        topics.produce(topic, numbered(10, first=first), 0)
    topics.produce(topic, numbered(10), 1)
    damaged, fine = Partition(topic, 0), Partition(topic, 1)
    segment = Path(faulty_broker.data_dir) / "data" / f"{topic}-0" / ("0" * 20 + ".log")
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"v00015")] ^= 0xFF
    with open(segment, "r+b") as file:
        file.write(raw)
    reader = Reader(join(client, faulty_broker.address, topic))
    errors = []
    deadline = time.monotonic() + 120
    while not (errors and len(reader.values(fine)) == 10) and time.monotonic() < deadline:
        try:
            reader.once()
        except SourceError as error:
            errors.append(error)
    assert [(error.partition, error.offset) for error in errors] == [(damaged, 10)]
    assert "unreadable" in str(errors[0])
    assert reader.values(damaged) == numbered(10)
    reader.once()
    reader.source.seek(damaged, 20)
    reader.positions[damaged] = 20
    reader.source.resume([damaged])
    reader.until(lambda: len(reader.values(damaged)) == 20)
    assert reader.values(damaged) == numbered(10) + numbered(10, first=20)
    topics.close()
