"""The model of a stream of events under a running daemon: past events, training, promotion, verdicts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.config.schema import Config
from pipeline.core.anomaly_text import anomaly_statement
from pipeline.sources.memory import memory_log
from storage.model_store import jobs, models
from storage.model_store.jobs import JobState
from storage.results import anomalies
from storage.sql.database import Database
from storage.stream_state import positions
from tests.integration.test_retraining_daemon import running, wait_for
from tests.support.events import CYCLE, Event, cycles, encoded


def config_of(folder: Path, template: Path, name: str, past: list[Event]) -> Config:
    """Return the config of a stream of doors with past events in a file."""
    (folder / "forewatch.db").write_bytes(template.read_bytes())
    (folder / "past.jsonl").write_bytes(b"\n".join(encoded(past)) + b"\n")
    stream = {
        "source": {"memory": {"name": name}},
        "format": {"json": {"series": "door", "time": "t", "code": "event"}},
        "events": {"idle": "1m"},
        "warm_start": str(folder / "past.jsonl"),
    }
    return Config.model_validate(
        {
            "database": f"sqlite:///{folder}/forewatch.db",
            "http": None,
            "storage": {"snapshot_every": "300ms"},
            "streams": {"doors": stream},
        }
    )


@pytest.mark.timeout(600)
def test_past_events_train_the_first_model_of_a_daemon(tmp_path: Path, sqlite_template: Path) -> None:
    name = f"doors-{time.time_ns()}"
    past = sorted((one for door in "ab" for one in cycles(door, 60)), key=lambda one: one[1])
    config, log = config_of(tmp_path, sqlite_template, name, past), memory_log(name)

    def send(events: list[Event]) -> None:
        for value in encoded(events):
            log.append(value)

    def scored() -> int:
        with database.read() as connection:
            return sum(one.counts.scored for one in positions.all_of(connection, "doors"))

    def trained() -> jobs.Job | None:
        with database.read() as connection:
            (job,) = jobs.query(connection, stream="doors", kind="train") or [None]
        return job if job is not None and job.state in jobs.ENDED_STATES else None

    database = Database(config.database)
    with running(config) as process:
        send(cycles("a", 2, 40_000))
        wait_for(lambda: scored() == 10, "the first events are scored")
        job = wait_for(trained, "the training on the past ends", timeout=500.0)
        with database.read() as connection:
            (promotion,) = models.promotions(connection)
            before = anomalies.query(connection, stream="doors")
        scorer = process._engines["doors"].parts.scorer
        wait_for(
            lambda: scorer.provenance.model_version.endswith(promotion.to_version),
            "the daemon uses the promoted model",
        )
        send([("b", 42_000 + n, code) for n, code in enumerate(["badge", "open", "unlock", "close", "lock"])])
        send(cycles("a", 2, 43_000))
        wait_for(lambda: scored() == 25, "the wrong order is scored")
        with database.read() as connection:
            found = anomalies.query(connection, stream="doors")
    database.close()
    assert (job.trigger, job.state) == ("history", JobState.SUCCEEDED), job.reason
    assert promotion.to_version == job.result["version"]
    assert before == []
    (anomaly,) = found
    assert (anomaly_statement(anomaly) or "").startswith("“open” came after “badge”, as it does ")
    assert anomaly.event is not None
    assert anomaly.event.likely[0] == CYCLE[1]
