"""Models trained by the schedule, on a real Kafka and a real PostgreSQL.

A network that the user chose (gru, quantiles) and a model of events: due, trained, judged, promoted, used for
the records that follow, and a later challenger that is not better is refused. Some minutes:
pytest -q -m long tests/integration/test_nightly_training.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from detectors.base import FORECASTERS
from pipeline.core.anomaly_text import anomaly_statement
from pipeline.models import registry
from storage.history.reader import HistoryReader
from storage.model_store import jobs, models
from storage.model_store.jobs import JobState
from storage.model_store.models import ModelVersion
from storage.results import anomalies
from storage.sql.database import Database
from tests.integration.test_cli_kafka import Running, daemon
from tests.integration.test_cli_process import Shell
from tests.support.events import cycles, encoded
from tests.support.trainings import BEGIN, MINUTE, henon

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.long, pytest.mark.timeout(1800)]

SERIES, LEARNT, ALL = 4, 1000, 4000
TRAINING_SECONDS = 900.0
#: Due at each minute: a night of the test.
NIGHTLY = {"schedule": "* * * * *", "shadow": "0s", "post_promotion_check": "0s", "history": "400d"}


class Plant:
    """Two streams of one daemon, their database, and what is written to their topics."""

    def __init__(self, folder: Path, topics: Any, url: str) -> None:
        self.folder, self.topics, self.database = folder, topics, Database(url)
        self.waves, self.doors = topics.create(), topics.create()
        broker, retraining = topics.broker, NIGHTLY
        streams = {
            "plant": {
                "source": {"kafka": {"brokers": [broker], "topics": [self.waves]}},
                "format": {"json": {"series": "sensor", "time": "ts", "values": ["temperature"]}},
                "every": "1m",
                "forecaster": {"kind": "gru", "hidden": 24, "output": "quantile"},
                "retraining": retraining | {"epochs": 20},
            },
            "doors": {
                "source": {"kafka": {"brokers": [broker], "topics": [self.doors]}},
                "format": {"json": {"series": "door", "time": "t", "code": "event"}},
                "events": {"idle": "1m"},
                "retraining": retraining,
            },
        }
        storage = {
            "history_path": str(folder / "history"),
            "models_path": str(folder / "models"),
            "snapshot_every": "1s",
        }
        tree = {"database": url, "storage": storage, "streams": streams}
        # ``daemon`` gives this line a port.
        (folder / "forewatch.yaml").write_text("http: null\n" + yaml.safe_dump(tree))
        self._values = np.stack([henon(np.random.default_rng(i), (-1.0) ** i, ALL) for i in range(SERIES)], 1)
        self._row, self._second = 0, 0.0

    def send_points(self, rows: int) -> None:
        lines = self._values[self._row : self._row + rows].tolist()
        found = [
            json.dumps({"sensor": f"press-{n}", "ts": (BEGIN + row * MINUTE) // 10**9, "temperature": x})
            for row, line in enumerate(lines, self._row)
            for n, x in enumerate(line)
        ]
        self._row += rows
        self.topics.produce(self.waves, [one.encode() for one in found])

    def send_cycles(self, count: int) -> None:
        self.topics.produce(self.doors, encoded(cycles("front", count, self._second)))
        self._second += 600.0 * count

    def send_wrong_order(self) -> None:
        codes = ("badge", "open", "unlock", "close", "lock")
        wrong = [("front", self._second + step, code) for step, code in enumerate(codes)]
        self._second += 600.0
        self.topics.produce(self.doors, encoded(wrong))

    def jobs(self, stream: str) -> list[jobs.Job]:
        with self.database.read() as connection:
            return jobs.query(connection, stream=stream, kind="train")

    def versions(self, stream: str) -> list[ModelVersion]:
        with self.database.read() as connection:
            return models.query(connection, stream=stream)

    def champion(self, stream: str) -> str | None:
        with self.database.read() as connection:
            newest = [one.to_version for one in models.promotions(connection) if one.stream == stream]
        return newest[0] if newest else None

    def history(self, stream: str) -> Any:
        return HistoryReader(str(self.folder / "history")).read(stream).to_pandas()


@pytest.fixture
def plant(tmp_path: Path, topics: Any, schema_url: str) -> Iterator[Plant]:
    made = Plant(tmp_path, topics, schema_url)
    yield made
    made.database.close()


def while_fed(plant: Plant, done: Callable[[], Any], every: float = 2.0) -> Callable[[], bool]:
    """Return a condition that sends a few more points and cycles each time that it does not hold."""
    sent = [time.monotonic()]

    def condition() -> bool:
        if done():
            return True
        if time.monotonic() - sent[0] > every:
            sent[0] = time.monotonic()
            plant.send_points(2)
            plant.send_cycles(1)
        return False

    return condition


def refused(plant: Plant, stream: str) -> list[ModelVersion]:
    """Return the versions that were refused after a version of the stream was promoted."""
    found = plant.versions(stream)
    first = min((one.created_ns for one in found if one.state == "champion"), default=None)
    return (
        [] if first is None else [one for one in found if one.state == "rejected" and one.created_ns > first]
    )


def await_promotion(plant: Plant, running: Running, stream: str) -> ModelVersion:
    running.until(
        while_fed(plant, lambda: plant.champion(stream)), f"{stream} has a champion", TRAINING_SECONDS
    )
    version = plant.champion(stream)
    (model,) = [one for one in plant.versions(stream) if one.version == version]
    (job,) = [one for one in plant.jobs(stream) if one.id == model.job_id]
    assert (job.trigger, job.state) == ("schedule", JobState.SUCCEEDED), job.reason
    return model


def test_models_are_trained_by_night_used_by_day_and_defended(plant: Plant) -> None:
    shell = Shell(plant.folder)
    plant.send_points(LEARNT)
    plant.send_cycles(120)
    with daemon(shell) as running:
        network = await_promotion(plant, running, "plant")
        assert "forecast error" in network.evidence["backtest"]["text"]
        manifest = registry.manifest_of(network.path, network.sha256)["network"]
        assert (manifest["kind"], manifest["output"]) == ("gru", "quantile")
        order = await_promotion(plant, running, "doors")
        assert "frequencies" in order.evidence["backtest"]["text"]

        def used() -> bool:
            table = plant.history("plant")
            mine = table[table["model"].astype(str).str.contains("+", regex=False)]
            return "network" in {FORECASTERS[number] for number in mine["guard"]}

        running.until(
            while_fed(plant, used), "the network forecasts the points that follow", TRAINING_SECONDS
        )
        plant.send_wrong_order()

        def told() -> list[str]:
            with plant.database.read() as connection:
                found = anomalies.query(connection, stream="doors")
            return [anomaly_statement(one) or "" for one in found]

        running.until(
            while_fed(plant, lambda: any("“open” came after “badge”" in text for text in told())),
            "the wrong order is told",
            TRAINING_SECONDS,
        )
        for stream in ("plant", "doors"):
            running.until(
                while_fed(plant, lambda stream=stream: refused(plant, stream)),
                f"a challenger of {stream} is refused",
                TRAINING_SECONDS,
            )
            challenger = refused(plant, stream)[-1]
            assert challenger.reason
            print(f"{stream}: {challenger.version} is refused: {challenger.reason}")
            assert plant.champion(stream) not in {one.version for one in refused(plant, stream)}
    for model in (network, order):
        print(model.evidence["backtest"]["text"])
