"""kill -9 and SIGSTOP in every phase of a batch, on a real Apache Kafka and a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.feed import make_log
from tests.faults.stage import Stage
from tests.faults.storm import storm
from tests.kafka_server import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.mark.timeout(400)
def test_kills_and_freezes_in_every_phase(tmp_path: Path, topics: Topics, schema_url: str):
    stage = Stage(tmp_path / "storm", topics, schema_url, [make_log(n, 400) for n in range(3)])
    try:
        storm(stage, kills=20, freezes=5)
        figures = stage.account()
        print(figures)
    finally:
        stage.close()
    assert figures.problems == []
    assert (figures.lost, figures.twice) == (0, 0)
    assert figures.kills >= 20
    assert figures.freezes >= 5
    assert figures.fenced >= 1, "somebody who was frozen past his session found out by the fence"
    assert max(figures.takeovers) < 3, "the goal is 1 s; see docs/faults.md for what was measured"
    assert len(figures.phases) >= 15, f"phases: {figures.phases}"
