"""Private names of kafka-python that forewatch uses, each with the module that uses it.

A release that changes one of them fails here, by name, instead of in a daemon. Before the bound of
``kafka-python`` in pyproject.toml is raised, this has to pass with the new release, and so have the tests
that need a broker (tests/integration/kafka).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.cluster import ClusterMetadata
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.base import BaseCoordinator
from kafka.errors import LogTruncationError, OffsetOutOfRangeError
from kafka.net.compat import KafkaNetClient
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import MemberState, OffsetAndMetadata

from pipeline.config.schema import KafkaSourceConfig as KafkaConfig
from pipeline.sources.kafka import client
from pipeline.sources.kafka import consumer as source
from pipeline.sources.kafka import record_batches as batches
from pipeline.sources.kafka.client_settings import kafka_python_settings

TOPIC = TopicPartition("topic", 0)
NOWHERE = "127.0.0.1:1"
GZIP = 1


@pytest.fixture(scope="module")
def consumer() -> Iterator[Any]:
    """A consumer with the settings of the source. That the broker's version is given spares it the broker."""
    config = KafkaConfig(brokers=[NOWHERE], topics=["topic"])
    made = client.connect(
        KafkaConsumer,
        config.brokers,
        1.0,
        api_version=(3, 9),
        **kafka_python_settings(config, "group", 300.0),
    )
    yield made
    made.close(autocommit=False, timeout_ms=100)


def takes(call: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Return True if ``call`` accepts these arguments."""
    try:
        inspect.signature(call).bind(*args, **options)
    except TypeError:
        return False
    return True


def is_read_from_self(method: Callable[..., Any] | type, name: str) -> bool:
    """Return True if the code looks ``name`` up on the instance, where the source replaces it."""
    return f"self.{name}" in inspect.getsource(method)


#: name → (who uses it, what must hold of it)
OF_THE_CONSUMER: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "KafkaConsumer._client, a KafkaNetClient": (source, lambda c: isinstance(c._client, KafkaNetClient)),
    "KafkaConsumer._fetcher, a Fetcher": (source, lambda c: isinstance(c._fetcher, Fetcher)),
    "KafkaConsumer._coordinator, a BaseCoordinator": (
        source,
        lambda c: isinstance(c._coordinator, BaseCoordinator),
    ),
    "KafkaConsumer.commit(offsets, timeout_ms=)": (source, lambda c: takes(c.commit, {}, timeout_ms=1)),
    "KafkaConsumer.close(autocommit=, timeout_ms=)": (
        source,
        lambda c: takes(c.close, autocommit=False, timeout_ms=1),
    ),
    "KafkaConsumer.beginning_offsets(partitions, timeout_ms=)": (
        source,
        lambda c: takes(c.beginning_offsets, [TOPIC], timeout_ms=1),
    ),
    "KafkaConsumer.end_offsets(partitions, timeout_ms=)": (
        source,
        lambda c: takes(c.end_offsets, [TOPIC], timeout_ms=1),
    ),
    "KafkaConsumer.offsets_for_times(times, timeout_ms=)": (
        source,
        lambda c: takes(c.offsets_for_times, {TOPIC: 0}, timeout_ms=1),
    ),
    "Fetcher._paused_partition_records, a dict": (
        source,
        lambda c: c._fetcher._paused_partition_records == {},
    ),
    "Fetcher.PartitionRecords, looked up on the fetcher": (
        source,
        lambda c: is_read_from_self(Fetcher, "PartitionRecords("),
    ),
    "KafkaNetClient.connected(node_id) → bool": (source, lambda c: c._client.connected("nobody") is False),
    "KafkaNetClient.close()": (source, lambda c: takes(c._client.close)),
    "KafkaNetClient._manager.auth_failure(node_id) → None": (
        client,
        lambda c: c._client._manager.auth_failure("nobody") is None,
    ),
    "KafkaNetClient.cluster, a ClusterMetadata": (
        source,
        lambda c: isinstance(c._client.cluster, ClusterMetadata),
    ),
    "ClusterMetadata.config['allow_auto_create_topics'], asked at each request": (
        source,
        lambda c: (
            "allow_auto_create_topics" in c._client.cluster.config
            and is_read_from_self(ClusterMetadata, "config['allow_auto_create")
        ),
    ),
    "ClusterMetadata.brokers() → list": (source, lambda c: isinstance(c._client.cluster.brokers(), list)),
    "ClusterMetadata.bootstrap_brokers() with node_id": (
        client,
        lambda c: (
            [isinstance(broker.node_id, str) for broker in c._client.cluster.bootstrap_brokers()] == [True]
        ),
    ),
    "ClusterMetadata.partitions_for_topic(topic) → None where it is unknown": (
        source,
        lambda c: c._client.cluster.partitions_for_topic("absent") is None,
    ),
    "ClusterMetadata.topic_id(topic) → None where it is unknown": (
        source,
        lambda c: c._client.cluster.topic_id("absent") is None,
    ),
    "ClusterMetadata.set_topics(topics)": (source, lambda c: takes(c._client.cluster.set_topics, ["topic"])),
    "ClusterMetadata.request_update()": (source, lambda c: takes(c._client.cluster.request_update)),
    "coordinator.rejoining, False at first": (source, lambda c: c._coordinator.rejoining is False),
    "coordinator.rejoining, what decides whether a join is prepared": (
        source,
        lambda c: "if not self.rejoining" in inspect.getsource(BaseCoordinator),
    ),
    "coordinator.state, a MemberState": (
        source,
        lambda c: c._coordinator.state == MemberState.UNJOINED != MemberState.STABLE,
    ),
    "coordinator.request_rejoin()": (source, lambda c: takes(c._coordinator.request_rejoin)),
    "coordinator.reset_generation(…), looked up on the coordinator": (
        source,
        lambda c: (
            takes(c._coordinator.reset_generation) and is_read_from_self(BaseCoordinator, "reset_generation(")
        ),
    ),
    "coordinator._do_join_and_sync_async(), looked up on the coordinator": (
        source,
        lambda c: (
            takes(c._coordinator._do_join_and_sync_async)
            and is_read_from_self(BaseCoordinator, "_do_join_and_sync_async)")
        ),
    ),
    "coordinator._on_join_complete_async(…), looked up on the coordinator": (
        source,
        lambda c: (
            takes(c._coordinator._on_join_complete_async, 1, "", "", b"")
            and is_read_from_self(BaseCoordinator, "_on_join_complete_async(")
        ),
    ),
    "coordinator._join_task, which is forgotten once it is done": (
        source,
        lambda c: "self._join_task is None or self._join_task.is_done" in inspect.getsource(BaseCoordinator),
    ),
    "coordinator._disable_heartbeat()": (
        "tests/integration/kafka",
        lambda c: takes(c._coordinator._disable_heartbeat),
    ),
}


def batch(magic: int = 2) -> Any:
    """One compressed batch of three records, at the offsets 7 to 9."""
    builder = MemoryRecordsBuilder(magic, GZIP, 1 << 20, offset=7)
    for number in range(3):
        builder.append(1000 + number, b"key", b"value" * 9, [])
    builder.close()
    return MemoryRecords(bytes(builder.buffer())).next_batch()


def decompressed() -> Any:
    made = batch()
    iter(made)
    return made


def last_of_the_fetch(name: str) -> Callable[[], bool]:
    return lambda: hasattr(Fetcher.PartitionRecords(7, TOPIC, MemoryRecords(b"")), name)


def drained() -> bool:
    records = Fetcher.PartitionRecords(7, TOPIC, MemoryRecords(b""))
    full = bool(records)
    records.drain()
    return full and not records and records.record_iterator is None


OPTIONS = (
    "key_deserializer",
    "value_deserializer",
    "check_crcs",
    "isolation_level",
    "aborted_transactions",
    "metric_aggregator",
    "on_drain",
)
FIELDS = {
    "base_offset": 0,
    "last_offset": 9,
    "next_offset": 10,
    "records_count": 3,
    "magic": 2,
    "leader_epoch": 0,
    "timestamp_type": 0,
    "first_timestamp": 1000,
    "max_timestamp": 1002,
    "is_control_batch": False,
    "producer_id": -1,
}

OF_RECORDS: dict[str, tuple[Any, Callable[[], bool]]] = {
    f"DefaultRecordBatch.{name} == {value!r}": (
        batches,
        lambda name=name, value=value: getattr(batch(), name) == value,
    )
    for name, value in FIELDS.items()
}
OF_RECORDS |= {
    f"PartitionRecords.{name}": (batches, last_of_the_fetch(name))
    for name in (
        "topic_partition",
        "fetch_offset",
        "next_fetch_offset",
        "leader_epoch",
        "bytes_read",
        "records_read",
        "check_crcs",
    )
}
OF_RECORDS |= {
    f"PartitionRecords.{name}(one argument)": (
        batches,
        lambda name=name: takes(getattr(Fetcher.PartitionRecords, name), None, None),
    )
    for name in ("_consume_aborted_transactions_up_to", "_contains_abort_marker", "_is_batch_aborted")
}
OF_RECORDS |= {
    f"{kind.__name__}'s option kafka_client": (
        client,
        lambda kind=kind: "kafka_client" in kind.DEFAULT_CONFIG,
    )
    for kind in (KafkaConsumer, KafkaAdminClient, KafkaProducer)
}
OF_RECORDS |= {
    "PartitionRecords(fetch_offset, partition, records, …)": (
        batches,
        lambda: takes(Fetcher.PartitionRecords, 7, TOPIC, None, **dict.fromkeys(OPTIONS)),
    ),
    "PartitionRecords.record_iterator, the truth of the whole until drain()": (batches, drained),
    "PartitionRecords.take(n), what the fetcher asks": (
        batches,
        lambda: ".take(" in inspect.getsource(Fetcher),
    ),
    "PartitionRecords.next_fetch_offset, where the fetcher goes on": (
        batches,
        lambda: "part.next_fetch_offset" in inspect.getsource(Fetcher),
    ),
    "PartitionRecords.aborted_producer_ids, a set": (
        batches,
        lambda: Fetcher.PartitionRecords(7, TOPIC, MemoryRecords(b"")).aborted_producer_ids == set(),
    ),
    "PartitionRecords.isolation_level, an IsolationLevel": (
        batches,
        lambda: (
            Fetcher.PartitionRecords(7, TOPIC, MemoryRecords(b"")).isolation_level
            == IsolationLevel.READ_UNCOMMITTED
        ),
    ),
    "IsolationLevel.READ_COMMITTED": (batches, lambda: IsolationLevel.READ_COMMITTED == 1),
    "DefaultRecordBatch._buffer, decompressed by iter()": (
        batches,
        lambda: b"value" * 9 in bytes(decompressed()._buffer),
    ),
    "DefaultRecordBatch._pos, where the records begin": (batches, lambda: decompressed()._pos == 0),
    "DefaultRecordBatch.size_in_bytes": (batches, lambda: batch().size_in_bytes == len(batch()._buffer)),
    "DefaultRecordBatch.validate_crc()": (batches, lambda: batch().validate_crc() is True),
    "DefaultRecordBatch.has_producer_id()": (batches, lambda: batch().has_producer_id() is False),
    "LegacyRecordBatch: magic, base_offset, validate_crc()": (
        batches,
        lambda: (
            (batch(1).magic, batch(1).validate_crc(), batch(1).size_in_bytes > 0, batch(1).base_offset >= 0)
            == (1, True, True, True)
        ),
    ),
    "LegacyRecordBatch's records: offset, timestamp, key, value": (
        batches,
        lambda: (
            [(r.offset, r.timestamp, r.key, r.value) for r in batch(1)]
            == [(7 + n, 1000 + n, b"key", b"value" * 9) for n in range(3)]
        ),
    ),
    "LogTruncationError.divergent_offsets, a dict": (
        source,
        lambda: LogTruncationError({TOPIC: None}).divergent_offsets == {TOPIC: None},
    ),
    "OffsetOutOfRangeError.args[0], a dict": (
        source,
        lambda: OffsetOutOfRangeError({TOPIC: 5}).args[0] == {TOPIC: 5},
    ),
    "OffsetAndMetadata(offset, metadata, leader_epoch)": (
        source,
        lambda: OffsetAndMetadata(3, "", -1).offset == 3,
    ),
}


def _require(name: str, user: Any, holds: Callable[[], bool]) -> None:
    where = user if isinstance(user, str) else user.__name__
    said = f"kafka-python {version('kafka-python')}: {name} is not what {where} relies on"
    try:
        good = holds()
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        pytest.fail(f"{said} ({error!r})")
    assert good, said


@pytest.mark.parametrize("name", OF_THE_CONSUMER)
def test_the_consumer_is_as_the_source_takes_it(consumer, name):
    user, holds = OF_THE_CONSUMER[name]
    _require(name, user, lambda: holds(consumer))


@pytest.mark.parametrize("name", OF_RECORDS)
def test_records_are_as_the_source_takes_them(name):
    _require(name, *OF_RECORDS[name])


@pytest.mark.parametrize("module", [source, batches, client])
def test_no_private_name_of_the_client_is_used_that_is_not_in_the_list(module):
    """``thing._name`` of a thing that is not ``self``, and ``self._name`` that the module itself does not
    make."""
    tree = ast.parse(Path(module.__file__).read_text())
    private = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[1] != "_"
    ]
    of_others = {
        node.attr for node in private if not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    made = {node.attr for node in private if isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    of_self = {node.attr for node in private} - of_others - made if module is batches else set()
    known = " ".join([*OF_THE_CONSUMER, *OF_RECORDS])
    unknown = sorted(name for name in of_others | of_self if name not in known)
    assert not unknown, (
        f"{module.__name__} uses {', '.join(unknown)} of kafka-python: add each to the lists of this file"
    )
