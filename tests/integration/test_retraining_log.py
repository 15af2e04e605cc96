"""Training data from a stretch of a real Kafka log: the rows that the history of the same records holds."""

from __future__ import annotations

import time

import numpy as np
import pytest

from detectors import build
from pipeline.config.schema import Config
from pipeline.engine.factory import build_engine
from pipeline.jobs import tasks
from pipeline.models.champion import detector_spec
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.sources import make_source
from pipeline.training.dataset import from_history, from_log
from storage.history.writer import HistoryWriter
from storage.sql.database import Database
from tests.faults.feed import config_tree, make_log

pytestmark = pytest.mark.kafka


def test_a_stretch_of_a_log_gives_the_rows_of_the_history_and_leaves_the_live_group_alone(
    kafka_broker, topics, tmp_path, sqlite_template
):
    topic = topics.create(partitions=2)
    now_ms = time.time_ns() // 10**6
    for number in range(2):
        topics.produce(
            topic, make_log(number, 120).values, number, timestamp_ms=lambda i: now_ms - 60_000 + i
        )
    url = f"sqlite:///{tmp_path}/db"
    (tmp_path / "db").write_bytes(sqlite_template.read_bytes())
    tree = config_tree(
        url, {"kafka": {"brokers": [kafka_broker], "topics": [topic], "group": "live"}}, lateness="0s"
    )
    stream = Config.model_validate(tree).streams["plant"]
    config, database = Config.model_validate(tree), Database(url)
    writer, source = (
        HistoryWriter(str(tmp_path / "history"), "plant"),
        make_source("plant", stream.source, stream.format),
    )
    engine = build_engine(
        "plant", config, database, source, StreamMetrics(Metrics(), "plant"), history_writer=writer
    )
    ends = [len(make_log(number, 120).values) for number in range(2)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        engine.turn(0.1)
        if sorted(at.next_offset or 0 for at in engine.parts.ownership.positions.values()) == sorted(ends):
            break
    owned = set(engine.parts.ownership.positions)
    log = from_log("plant", stream, None, None, build(detector_spec(stream)))
    engine.turn(0.1)
    assert set(engine.parts.ownership.positions) == owned, "the live member keeps its partitions"
    engine.close()
    database.close()
    history = from_history(str(tmp_path / "history"), "plant", stream.channels)
    assert len(history) > 800
    assert log.series == history.series
    for name in ("time", "values", "missed", "every"):
        np.testing.assert_array_equal(getattr(log, name), getattr(history, name), name)
    first = from_log("plant", stream, None, (now_ms - 60_000 + 50) * 10**6, build(detector_spec(stream)))
    assert 0 < len(first) < len(log) / 4
    without = tasks.Task(1, 1, "train", "plant", stream, str(tmp_path / "nothing"), "", None, None, (), {})
    data, span = tasks._load_data(without)
    np.testing.assert_array_equal(data.values, log.values)
    assert span == (log.time.min(), log.time.max())
