"""Produce records of the simulated plant of the demo, and a fault now and then.

``python producer.py HOST:PORT`` runs until SIGTERM.
"""

from __future__ import annotations

import sys

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError

from pipeline.core.stop_signals import stop_on_signals
from pipeline.demo.feed import Feeder
from pipeline.demo.simulate import Plant
from pipeline.sources.kafka.client import connect

PARTITIONS = 4
CONNECT_SECONDS = 60.0


def main(broker: str) -> None:
    """Produce the historical records at once, then live ones."""
    stopping = stop_on_signals()
    with connect(KafkaAdminClient, [broker], CONNECT_SECONDS) as admin:
        try:
            admin.create_topics([NewTopic(Plant.topic, PARTITIONS, 1)])
        except TopicAlreadyExistsError:
            print("the topic exists", flush=True)
    producer = connect(KafkaProducer, [broker], CONNECT_SECONDS, linger_ms=10)
    feeder = Feeder(
        [Plant(0)],
        lambda topic, key, value: producer.send(topic, value, key),
        lambda text: print(text, flush=True),
    )
    feeder.send_history()
    feeder.run(stopping)
    producer.close(timeout=5)


if __name__ == "__main__":
    main(sys.argv[1])
