"""The Kafka sources against a real broker: groups, topics, codecs, settings, and what retention and
compaction take away.
"""

from __future__ import annotations

import socket
import time
import uuid

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from pipeline.config.schema import Secret
from pipeline.core.errors import ConfigError, OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.kafka.client import connect
from pipeline.sources.kafka.consumer import KafkaSource
from tests.integration.kafka.clients import CLIENTS, confluent
from tests.support.kafka_server import FaultyBroker, Topics
from tests.support.source_kinds import Reader, numbered

pytestmark = pytest.mark.kafka


@CLIENTS
def test_three_members_join_and_leave_under_load(topics, join, client):
    """Each record once, in order, in whatever hands; at most one owner at a time."""
    topic, group = topics.create(6), uuid.uuid4().hex
    positions: dict[Partition, int] = {}
    members: list[Reader] = []
    gone: list[Reader] = []
    written = 0
    for step in range(36):
        for number in range(6):
            topics.produce(topic, numbered(20, first=written), number)
        written += 20
        if step in (0, 5, 10):
            members.append(Reader(join(client, topics.broker, topic, group=group), positions))
        if step in (20, 26):
            gone.append(members.pop(0))
            gone[-1].source.close()
        for member in members:
            member.once(timeout=0.1)
        _until_disjoint(members)
    everybody = members + gone
    members[0].until(lambda: sum(member.count() for member in everybody) >= 6 * written, timeout=120)
    for number in range(6):
        partition = Partition(topic, number)
        together = sorted(record for member in everybody for record in member.read.get(partition, []))
        assert [value for _, value in together] == numbered(written)


def _until_disjoint(members: list[Reader]) -> None:
    """Wait until no partition has two owners.

    A partition may leave a member, by its own thread, after its last poll, and be polled by another one.
    """
    deadline = time.monotonic() + 10
    while len(owned := [p for member in members for p in member.owned]) != len(set(owned)):
        assert time.monotonic() < deadline, [member.owned for member in members]
        for member in members:
            member.once(timeout=0.0)


def test_a_partition_that_the_group_revokes_between_two_polls(topics, join):
    """Its thread takes it from the client; the engine learns it by the next poll."""
    topic = topics.create(2)
    reader = Reader(join(KafkaSource, topics.broker, topic)).until_owned(2)
    one, other = sorted(reader.owned)
    source = reader.source
    source._consumer._subscription.assign_from_subscribed([TopicPartition(*other)])
    source.pause([one, other])
    source.resume([one, other])
    with pytest.raises(SourceError, match="not assigned"):
        source.seek(one, 0)
    source.seek(other, 0)


@CLIENTS
def test_a_compacted_topic_is_counted_in_full(topics, join, client):
    """Compaction takes records away, not offsets: what is read adds up to the log's end all the same."""
    config = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.001",
        "segment.ms": "100",
        "max.compaction.lag.ms": "200",
    }
    topic = topics.create(config=config)
    partition = Partition(topic, 0)
    for _ in range(5):
        topics.produce(topic, numbered(50), key=lambda i: b"k%d" % (i % 5))
        time.sleep(0.3)
    reader = None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        topics.produce(topic, [b"tick"], key=lambda i: b"tick")  # rolls the segment
        reader = Reader(join(client, topics.broker, topic))
        end = 0
        while reader.positions.get(partition, 0) < (end or 1):
            reader.once()
            end = end or (reader.source.bounds([partition])[partition].end if reader.owned else 0)
        if reader.count() < 250:
            break
        reader.source.close()
        time.sleep(0.5)
    assert reader is not None
    assert 0 < reader.count() < 250, "the broker never compacted"
    assert sum(records.next_offset - records.first_offset for records in reader.batches) == end
    assert reader.positions[partition] == end


@CLIENTS
def test_published_offsets_show_the_lag_to_operators(topics, join, client):
    topic, group = topics.create(), uuid.uuid4().hex
    topics.produce(topic, numbered(10))
    reader = Reader(join(client, topics.broker, topic, group=group)).until_read(10)
    reader.source.publish_offsets({Partition(topic, 0): 7})
    reader.source.close()
    admin = connect(KafkaAdminClient, [topics.broker], 10)
    offsets = admin.list_group_offsets([group])[group]
    admin.close()
    assert offsets[TopicPartition(topic, 0)].offset == 7


@CLIENTS
def test_several_topics(topics, join, client):
    names = [topics.create(2) for _ in range(3)]
    for name in names:
        for number in range(2):
            topics.produce(name, numbered(50, f"{name}-{number}-"), number)
    reader = Reader(join(client, topics.broker, *names)).until_read(300)
    for name in names:
        for number in range(2):
            assert reader.values(Partition(name, number)) == numbered(50, f"{name}-{number}-")


@CLIENTS
@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_codec(topics, join, client, codec):
    topic = topics.create()
    topics.produce(topic, numbered(1000), compression=codec)
    assert Reader(join(client, topics.broker, topic)).until_read(1000).values(
        Partition(topic, 0)
    ) == numbered(1000)


@CLIENTS
def test_what_a_member_waits_for_is_said(topics, join, client):
    """Neither a topic that is not there nor a group that is not joined yet is a source that is ready; a
    member for whom no partition is left is.
    """
    there, absent, group = topics.create(1), f"t-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    first = join(client, topics.broker, there, absent, group=group)
    reader = Reader(first)
    assert reader.once(timeout=0.0).waits_for
    reader.until_owned()
    reader.until(lambda: absent in reader.once(timeout=0.1).waits_for)
    topics.create(1, name=absent)
    reader.until_owned(2)
    reader.until(lambda: reader.once(timeout=0.1).waits_for == "")
    second = Reader(join(client, topics.broker, there, group=group))
    third = Reader(join(client, topics.broker, there, group=group))

    def all_ready() -> bool:
        polls = [member.once(timeout=0.1) for member in (reader, second, third)]
        return not any(poll.waits_for for poll in polls)

    reader.until(all_ready)
    assert min(len(member.owned) for member in (second, third)) == 0


def test_a_topic_that_is_not_there_is_neither_made_nor_fatal(topics, join, caplog):
    """The broker would create it on demand; a misspelt name must not leave a topic behind.

    Once it is there, it is read.
    """
    name = f"t-{uuid.uuid4().hex[:8]}"
    source = join(KafkaSource, topics.broker, name)
    for _ in range(10):
        assert source.poll(10, 0.1).assigned == []
    assert name not in topics.admin.list_topics()
    assert name in caplog.text
    with pytest.raises(SourceUnavailable, match=name):
        source.identity(Partition(name, 0))
    topics.create(name=name)
    topics.produce(name, numbered(3))
    Reader(source).until_read(3)


def test_a_deleted_topic_is_revoked_and_comes_back_under_another_identity(topics, join):
    topic = topics.create()
    topics.produce(topic, numbered(10))
    partition = Partition(topic, 0)
    reader = Reader(join(KafkaSource, topics.broker, topic)).until_read(10)
    before = reader.source.identity(partition)
    topics.delete(topic)
    reader.until(lambda: not reader.owned)
    topics.create(name=topic)
    topics.produce(topic, numbered(3, "new-"))
    reader.positions.clear()
    reader.read.clear()
    reader.until_read(3)
    assert reader.values(partition) == numbered(3, "new-")
    assert reader.source.identity(partition) != before


def test_seeking_amid_a_compressed_batch_begins_exactly_there(topics, join):
    topic = topics.create()
    topics.produce(topic, numbered(1000), compression="lz4")
    partition = Partition(topic, 0)
    reader = Reader(join(KafkaSource, topics.broker, topic), positions={partition: 613}).until_read(387)
    assert reader.read[partition][0] == (613, b"v00613")


@pytest.mark.parametrize(
    "settings", [{"security": {"security_protocol": "CARRIER_PIGEON"}}, {"security": {"no_such_setting": 1}}]
)
def test_settings_that_the_client_does_not_know(kafka_broker, join, settings):
    with pytest.raises(ConfigError, match="kafka client settings"):
        join(KafkaSource, kafka_broker, "any", **settings).poll(1, 1)


def with_a_password(folder):
    """(broker, address of a listener of it that asks ``watch`` for the password ``right``)."""
    plain, sasl, controller = free_ports(3)
    listeners = f"PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl}"
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_watch="right";'
    settings = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": listeners,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": login,
    }
    return FaultyBroker(
        folder, plain, heap="256m", settings=settings, announce=lambda line: None
    ), f"127.0.0.1:{sasl}"


def free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_the_password_is_passed_on_and_a_wrong_one_is_reported(tmp_path, monkeypatch, join):
    broker, address = with_a_password(tmp_path / "kafka")
    security = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "watch",
    }
    try:
        broker.up()
        topics = Topics(broker.address)
        topic = topics.create()
        topics.produce(topic, numbered(5))
        topics.close()
        for password in ("right", "wrong"):
            monkeypatch.setenv("KAFKA_PASSWORD", password)
            for client in (KafkaSource, confluent):
                source = join(
                    client, address, topic, security=security, password=Secret(env="KAFKA_PASSWORD")
                )
                if password == "right":
                    assert Reader(source).until_read(5).values(Partition(topic, 0)) == numbered(5)
                else:
                    with pytest.raises(SourceUnavailable, match=r"(?i)authentication|wrong user or password"):
                        source.poll(1, 10)
    finally:
        broker.kill()


def test_a_group_of_another_program_is_a_clear_error(topics, join):
    """Members that share partitions in another way cannot be in one group."""
    from kafka import KafkaConsumer

    topic, group = topics.create(), uuid.uuid4().hex
    other = KafkaConsumer(topic, bootstrap_servers=topics.broker, group_id=group)
    other.poll(2000)
    source = join(KafkaSource, topics.broker, topic, group=group)
    with pytest.raises(SourceError, match=r"set kafka\.group"):
        Reader(source).until_owned()
    other.close()


def test_out_of_range_by_retention_while_reading(topics, join):
    """Retention passes the reader by while it is paused."""
    topic = topics.create()
    topics.produce(topic, numbered(100))
    partition = Partition(topic, 0)
    reader = Reader(join(KafkaSource, topics.broker, topic)).until_read(10, max_records=10)
    reader.source.pause([partition])
    reader.once()
    topics.trim(topic, 0, 90)
    reader.source.seek(partition, 10)
    reader.source.resume([partition])
    with pytest.raises(OffsetOutOfRange) as caught:
        reader.until_read(11)
    assert (caught.value.partition, caught.value.offset) == (partition, 10)
