"""Retraining in the daemon: drifts, schedules, metrics, old versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.schedulers import base as timers
from typer.testing import CliRunner

from detectors.base import FORECASTERS
from pipeline.cli.app import app
from pipeline.config.schema import Config
from pipeline.core.verdict_words import former_forecaster
from pipeline.daemon import retraining_service as module
from pipeline.daemon.retraining_service import RetrainingService
from pipeline.jobs import scheduler
from pipeline.models.registry import remove_unneeded_versions
from pipeline.monitoring import detection_power as powering
from pipeline.monitoring.drift_sink import DriftEvidence
from pipeline.monitoring.forecaster_usage import ForecasterUsageSink
from pipeline.observability.metrics import Metrics
from pipeline.training.synthetic_changes import KINDS
from storage.model_store import jobs, models
from storage.sql.database import Database
from tests.integration.test_retraining_jobs import write_config
from tests.integration.test_retraining_takeover import promote, release
from tests.support.retraining import STREAM, batches, scorer, sensors
from tests.support.trainings import config_of

EVIDENCE = DriftEvidence(
    "plant",
    20,
    10,
    ("page-hinkley",),
    ({"series": "hall/pump", "channel": "temperature", "kind": "level"},),
    5,
)


@pytest.fixture
def database(sqlite_template, tmp_path: Path):
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    opened = Database(f"sqlite:///{tmp_path}/forewatch.db")
    yield opened
    opened.close()


def service_of(database, folder, **retraining):
    metrics = Metrics()
    return RetrainingService(config_of(str(database.url), folder, **retraining), database, metrics), metrics


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def all_jobs(database):
    with database.read() as connection:
        return jobs.query(connection)


def test_a_drift_asks_for_a_training_with_its_evidence_and_not_again_soon(database, tmp_path):
    service, metrics = service_of(database, tmp_path, min_interval="1h")
    for _ in range(3):
        service.drifted(EVIDENCE)
    service.drifted(replace(EVIDENCE, stream="gone"))
    service._ask_for_drifts()
    (job,) = all_jobs(database)
    assert (job.trigger, job.stream, job.state) == ("drift", "plant", "queued")
    assert job.detail["drift"]["series"][0]["series"] == "hall/pump"
    assert job.detail["drift"]["since_ns"] == 10
    assert value(metrics, "forewatch_drifts_total", stream="plant") == 3


def test_the_state_of_the_monitors_is_restored_after_a_restart(database, tmp_path, monkeypatch):
    """From the loop's sinks by way of the background into the tables, and back; `forewatch power --kept`
    shows it.
    """
    monkeypatch.setattr(powering, "SHARE", 1e9)
    stream = STREAM.model_copy(update={"detector": "standard"})
    service, _ = service_of(database, tmp_path)
    live = scorer(stream)
    sinks = service.monitors("plant", stream, live)
    for records in batches(sensors(2, 10)):
        result = live.process([records])
        for sink in sinks:
            sink.append(result)
    for sink in sinks:
        sink.close()
    service.stop()
    again, _ = service_of(database, tmp_path)
    power, drift = again.monitors("plant", stream, scorer(stream))
    assert power.found.keys() == {"s0", "s1"}
    assert {len(some) for some in power.found.values()} == {5}
    other = scorer(stream)
    other.provenance = replace(other.provenance, model_version="another")
    assert again.monitors("plant", stream, other)[0].found == {}
    ((keys, rows),) = drift._kept.values()
    assert set(keys) == {"s0", "s1"}
    assert rows["page"].any()
    file = write_config(config_of(str(database.url), tmp_path), tmp_path / "f.yaml")
    shown = CliRunner().invoke(app, ["power", "-s", "plant", "-c", str(file), "--kept", "--json"])
    assert shown.exit_code == 0, shown.output
    assert {(one["series"], one["kind"]) for one in json.loads(shown.stdout)["series"]} == {
        (s, k) for s in ("s0", "s1") for k in KINDS
    }


def test_verdicts_are_counted_by_forecaster():
    """A new series begins without the LSTM and takes it later; each verdict counts once."""
    metrics, stream = Metrics(), STREAM.model_copy(update={"detector": "standard"})
    live, sink, points = scorer(stream), ForecasterUsageSink(metrics, "plant"), 0
    for records in batches(sensors(2, 3)):
        result = live.process([records])
        sink.append(result)
        points += len(result.scored.points) if result.scored else 0
    counted = {
        name: value(
            metrics,
            "forewatch_verdicts_total",
            stream="plant",
            forecaster=name,
            guard=former_forecaster(name),
        )
        for name in FORECASTERS
    }
    assert sum(counted.values()) == points
    assert counted["lstm"] > 0
    assert counted["static"] + counted["seasonal"] > 0


def test_a_drift_waits_for_the_database(database, tmp_path, monkeypatch):
    from pipeline.core.errors import StorageUnavailable

    service, _ = service_of(database, tmp_path)

    def away(*arguments, **named):
        raise StorageUnavailable("away")

    service.drifted(EVIDENCE)
    with monkeypatch.context() as patch:
        patch.setattr(module, "request_training", away)
        with pytest.raises(StorageUnavailable):
            service._ask_for_drifts()
    assert all_jobs(database) == []
    service._ask_for_drifts()
    assert len(all_jobs(database)) == 1


def test_a_schedule_that_was_missed_is_caught_up(database, tmp_path):
    """Only where it had run before: a new stream waits for its first due time."""
    service, _ = service_of(database, tmp_path, schedule="0 3 * * *")
    service._scheduler.set_schedules(module._schedules(service._config))
    service._catch_up()
    assert all_jobs(database) == []
    now_ns = time.time_ns()
    with database.begin() as connection:
        due_ns = now_ns - 72 * 3600 * 10**9
        number = jobs.add(
            connection, "train", "plant", due_ns, trigger="schedule", author="clock", now_ns=due_ns
        )
        jobs.cancel(connection, number, due_ns)
    service._catch_up()
    service._catch_up()
    caught_up = [job for job in all_jobs(database) if job.state == "queued"]
    assert [job.trigger for job in caught_up] == ["schedule"]
    assert 0 <= now_ns - caught_up[0].due_ns <= 25 * 3600 * 10**9


@pytest.mark.parametrize(
    ("now", "due", "following"),
    [
        ("2026-03-29 00:59:59", "2026-03-29 01:00", "2026-03-30 00:30"),  # 02:30 does not occur in spring
        ("2026-10-25 00:29:59", "2026-10-25 00:30", "2026-10-26 01:30"),  # and twice in autumn
    ],
)
def test_a_nightly_training_is_due_once_over_a_clock_change(
    database, tmp_path, monkeypatch, now, due, following
):
    """The zone is that of the stream; the timers are those of a running daemon."""
    shift = datetime.fromisoformat(f"{now}+00:00") - datetime.now(UTC)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + shift

    monkeypatch.setattr(scheduler, "datetime", Shifted)
    monkeypatch.setattr(timers, "datetime", Shifted)
    config = config_of(str(database.url), tmp_path, schedule="30 2 * * *")
    tree = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    tree["streams"]["plant"]["timezone"] = "Europe/Berlin"
    service = RetrainingService(Config.model_validate(tree), database, Metrics())
    service._scheduler.set_schedules(module._schedules(service._config))
    service._scheduler.start()
    try:
        deadline = time.monotonic() + 120
        while not (found := all_jobs(database)):
            assert time.monotonic() < deadline, "the training is queued"
            time.sleep(0.05)
        (timer,) = service._scheduler._scheduler.get_jobs()
    finally:
        service.stop()
    assert [job.trigger for job in found] == ["schedule"]
    assert datetime.fromtimestamp(found[0].due_ns / 1e9, UTC) == datetime.fromisoformat(f"{due}+00:00")
    assert timer.next_run_time.astimezone(UTC) == datetime.fromisoformat(f"{following}+00:00")


def test_past_points_ask_for_a_training_once_until_they_change(database, tmp_path):
    past = tmp_path / "past.csv"
    past.write_text("")

    def start() -> None:
        service, _ = service_of(database, tmp_path, schedule=None)
        stream = service._config.streams["plant"]
        for changed in (
            {},
            {"warm_start": past},
            {"warm_start": past, "detector": "light"},
            {"warm_start": tmp_path / "gone.csv"},
        ):
            service.use_config(
                service._config.model_copy(update={"streams": {"plant": stream.model_copy(update=changed)}})
            )
            service._ask_for_past()

    start()
    start()
    (job,) = all_jobs(database)
    assert (job.trigger, job.author, job.due_ns) == ("history", "start", past.stat().st_mtime_ns)
    os.utime(past, ns=(0, past.stat().st_mtime_ns - 10**9))
    start()
    assert len(all_jobs(database)) == 2


def test_jobs_are_counted(database, tmp_path):
    service, metrics = service_of(database, tmp_path)
    service._runner.ensure = lambda config: None  # what it would do is tested elsewhere
    service._check_jobs()
    now_ns = time.time_ns()
    with database.begin() as connection:
        for n in range(2):
            jobs.add(connection, "train", "plant", n + 1, trigger="manual", author="ada", now_ns=now_ns)
    service._check_jobs()
    assert value(metrics, "forewatch_jobs", stream="plant", state="queued") == 2
    assert value(metrics, "forewatch_job_overdue_seconds", stream="plant") > 0
    with database.begin() as connection:
        job = jobs.claim(connection, "a", now_ns, streams=["plant"])
        jobs.heartbeat(connection, job, {}, "no worker offers a GPU (…)")
    service._check_jobs()
    assert value(metrics, "forewatch_jobs", stream="plant", state="running") == 1
    assert value(metrics, "forewatch_jobs_waiting_gpu", stream="plant") == 1
    with database.begin() as connection:
        jobs.finish(connection, job, "succeeded", "", now_ns, cost={"cpu_seconds": 2.5})
    service._check_jobs()
    service._check_jobs()
    assert value(metrics, "forewatch_jobs_ended_total", stream="plant", kind="train", state="succeeded") == 1
    assert value(metrics, "forewatch_job_cpu_seconds_total", stream="plant") == 2.5


def test_old_versions_go_with_their_files(database, tmp_path):
    versions = [release(database, tmp_path, seed) for seed in range(4)]
    promote(database, versions[0])
    promote(database, versions[1])
    with database.begin() as connection:
        for version in versions[2:]:
            models.set_state(connection, version, "rejected", "", 1)
    folder = tmp_path / "models" / "plant"
    assert len(list(folder.iterdir())) == 8
    assert remove_unneeded_versions(database, str(tmp_path / "models"), ["plant"], keep=1) >= 1
    with database.read() as connection:
        left = {model.version for model in models.query(connection)}
    assert {versions[0], versions[1]} <= left, "the champion and the one to go back to"
    assert len(list(folder.iterdir())) == 2 * len(left)


def test_checkpoints_go_with_the_job_that_could_have_gone_on_from_them(database, tmp_path):
    with database.begin() as connection:
        number = jobs.add(connection, "train", "plant", 1, trigger="manual", author="ada", now_ns=1)
        jobs.cancel(connection, number, 2)
    folder = tmp_path / "models" / "plant" / "checkpoints"
    for name in (str(number), "4711", "notes"):
        (folder / name).mkdir(parents=True)
        (folder / name / "plant-0.json").write_text("{}")
    remove_unneeded_versions(database, str(tmp_path / "models"), ["plant", "edge"], keep=1)
    assert {one.name for one in folder.iterdir()} == {str(number), "notes"}
    with database.begin() as connection:
        assert jobs.prune(connection, 10, 10) == 1
    remove_unneeded_versions(database, str(tmp_path / "models"), ["plant"], keep=1)
    assert {one.name for one in folder.iterdir()} == {"notes"}


def test_the_daemon_never_imports_dask():
    """Its interpreter scores; Dask and training live in the runner and below it."""
    code = "import sys, pipeline.daemon.daemon, pipeline.daemon.retraining_service; print([m for m in ('dask', 'distributed') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_a_daemon_that_cannot_train_starts_no_runner_and_says_so(database, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "missing_for_training", lambda on_this_machine: "training needs PyTorch")
    service, _ = service_of(database, tmp_path)
    service._runner.ensure = lambda config: pytest.fail("a runner was started")
    service._warn_if_training_is_impossible()
    with database.begin() as connection:
        jobs.add(connection, "train", "plant", 1, trigger="manual", author="ada", now_ns=time.time_ns())
    service._check_jobs()
    assert "training needs PyTorch" in "".join(capsys.readouterr())
    (job,) = all_jobs(database)
    assert job.state == "queued"
