"""kill -9 and SIGSTOP in every phase of a batch, on a real Apache Kafka and a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from pipeline.engine.offloaded_state import WARM_START_PARTITION
from storage.stream_state import offloaded_series
from storage.stream_state import reader as stored_readers
from tests.faults.feed import make_log
from tests.faults.stage import Stage
from tests.faults.storm import storm
from tests.integration.test_replay_parity import csv_file
from tests.support.kafka_server import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.mark.timeout(400)
def test_kills_and_freezes_in_every_phase(tmp_path: Path, topics: Topics, schema_url: str):
    stage = Stage(tmp_path / "storm", topics, schema_url, [make_log(n, 400) for n in range(3)])
    try:
        storm(stage, kills=20, freezes=5, fences=1)
        figures = stage.account()
        print(figures)
    finally:
        stage.close()
    assert figures.problems == []
    assert (figures.lost, figures.twice) == (0, 0)
    assert figures.kills >= 20
    assert figures.freezes >= 5
    assert figures.fenced >= 1
    assert median(figures.takeovers) < 3, "docs/lab-notes/faults.md has the measured maxima"
    assert len(figures.phases) >= 15, f"phases: {figures.phases}"


@pytest.mark.timeout(200)
def test_kills_of_members_that_begin_with_a_past(tmp_path: Path, topics: Topics, schema_url: str):
    """The first die while they read it; in the end the verdicts are those of a backfill that was never
    disturbed.
    """
    (tmp_path / "past").mkdir()
    for number in range(2):
        csv_file(tmp_path / f"past/{number}.csv", make_log(number, 3000, first_second=-3200).values)
    stage = Stage(
        tmp_path / "storm",
        topics,
        schema_url,
        [make_log(n, 200) for n in range(2)],
        warm_start=str(tmp_path / "past"),
    )
    try:
        stage.allow(0.1)
        for _ in range(3):
            member = stage.member()
            member.until(
                lambda member=member: "warm start: reading files" in member.output(), "it reads the past"
            )
            member.kill()
        storm(stage, kills=6, freezes=1)
        figures = stage.account()
        with stage.database.read() as connection:
            (past,) = stored_readers.names(connection, "plant (history ")
            assert offloaded_series.count(connection, past, WARM_START_PARTITION) == 10, (
                "four series and a tide of each partition"
            )
    finally:
        stage.close()
    assert figures.problems == []
    assert (figures.lost, figures.twice) == (0, 0)
