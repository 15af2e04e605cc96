"""The demo whose broker ends first."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.demo.session import _to_kafka
from pipeline.demo.simulate import Plant
from tests.support.kafka_server import faulty_broker


@pytest.mark.kafka
def test_a_broker_that_dies_under_the_demo_is_told_in_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    with faulty_broker(tmp_path / "kafka") as broker, _to_kafka(broker.address, said.append) as send:
        send(Plant.topic, b"b1/press-1", b"{}")
        broker.kill()
        send(Plant.topic, b"b1/press-1", b"{}")
    (line,) = said
    assert line.startswith("[demo] the broker is gone; the last records were not sent: ")
