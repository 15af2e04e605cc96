"""Topics of verdicts for tests: what readers of committed records see."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition

from pipeline.config.outputs import KafkaOutputConfig
from pipeline.engine.sink import ScoreOutput
from pipeline.observability.metrics import Metrics, OutputMetrics
from pipeline.outputs.kafka_output import KafkaOutput
from pipeline.outputs.verdict import Verdict
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.kafka.client import connect


@dataclass(slots=True)
class ReadVerdict:
    """A record of a topic of verdicts."""

    verdict: Verdict
    key: str
    headers: dict[str, str]
    timestamp_ms: int
    partition: int


@dataclass
class OutputMaker:
    """Makes the output of a test and keeps it: ``make_outputs`` of ``build_engine``."""

    broker: str
    topic: str
    settings: dict[str, Any]
    metrics: Metrics = field(default_factory=Metrics)
    made: list[KafkaOutput] = field(default_factory=list)

    def __call__(self, scorer: StreamScorer) -> Sequence[ScoreOutput]:
        config = KafkaOutputConfig(brokers=[self.broker], topic=self.topic, **self.settings)
        # The stream's name is part of the transactional id, and all tests share a broker.
        name = f"scores-{self.topic}"
        self.made.append(KafkaOutput(name, config, scorer, OutputMetrics(self.metrics, "plant", name)))
        return self.made[-1:]


def read_topic(broker: str, topic: str) -> list[ReadVerdict]:
    """Return the committed records of a topic, up to its end now."""
    settings = {"isolation_level": "read_committed", "enable_auto_commit": False}
    consumer = connect(KafkaConsumer, [broker], 20, **settings)
    try:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        found: list[ReadVerdict] = []
        deadline = time.monotonic() + 180
        while any(consumer.position(place) < ends[place] for place in places):
            assert time.monotonic() < deadline, "the topic cannot be read to its end"
            for records in consumer.poll(timeout_ms=200).values():
                found += map(_read, records)
        return found
    finally:
        consumer.close()


def _read(record: Any) -> ReadVerdict:
    return ReadVerdict(
        msgspec.json.decode(record.value, type=Verdict, strict=True),
        record.key.decode(),
        {name: value.decode() for name, value in record.headers},
        record.timestamp,
        record.partition,
    )


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 180.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
