"""Kills and freezes in every phase of a batch: each verdict is in its topic once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.feed import make_log
from tests.faults.stage import Stage
from tests.faults.storm import storm
from tests.support.kafka_server import Topics
from tests.support.verdict_topics import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.mark.timeout(300)
def test_no_verdict_is_missing_or_twice_after_kills(tmp_path: Path, topics: Topics, schema_url: str):
    topic = topics.create(partitions=3)
    output = {"kafka": {"brokers": [topics.broker], "topic": topic, "rows": "all"}}
    stage = Stage(
        tmp_path / "storm",
        topics,
        schema_url,
        [make_log(n, 150) for n in range(2)],
        outputs={topic: output},
        revise="0s",  # a revision replaces the state, so that a replay may score otherwise
    )
    try:
        storm(stage, kills=8, freezes=2)
        figures = stage.account()
        print(figures)
        assert figures.problems == []
        history = stage.history()
    finally:
        stage.close()
    found = read_topic(topics.broker, topic)
    ids = Counter(one.verdict.id for one in found)
    assert [number for number, times in ids.items() if times > 1] == []
    places = Counter((one.verdict.series, one.verdict.source.offset) for one in found)
    assert places == Counter(zip(history["series"], history["offset"], strict=True))
    scores = {(one.verdict.series, one.verdict.source.offset): one.verdict.score for one in found}
    for name, offset, score in zip(history["series"], history["offset"], history["score"], strict=True):
        assert scores[name, offset] == pytest.approx(score, nan_ok=True, abs=0) or score != score
