"""A training from the command line to the registry, through a real Dask worker, on both databases; and the
lease loop without Dask.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.jobs import tasks
from pipeline.jobs.dask_workers import ClusterUnavailable
from pipeline.jobs.requests import request_training
from pipeline.jobs.runner import Runner
from pipeline.models import registry
from pipeline.models.champion import champion_of
from pipeline.models.promotion import roll_back
from storage.model_store import jobs, models
from storage.sql.database import Database
from tests.support.trainings import BEGIN, config_of, henon, tide, write_history


class ThreadWorkers:
    """``Workers`` whose worker is a thread of this process; ``gpu`` says how many offer one."""

    def __init__(self, perform=tasks.run_task, gpu=0):
        self.perform, self.gpu, self.up = perform, gpu, True
        self.tasks = []
        self._cancelled = set()

    def submit(self, task, told):
        future = Future()
        future.status = "pending"
        future.set_running_or_notify_cancel()  # like a task on a worker, it cannot be called back

        def run():
            try:
                future.set_result(self.perform(task, told, lambda: task.topic in self._cancelled))
            except BaseException as error:
                future.set_exception(error)

        self.tasks.append(task)
        threading.Thread(target=run, daemon=True).start()
        return future

    def cancel(self, task):
        self._cancelled.add(task.topic)

    def gpus(self):
        if not self.up:
            raise ClusterUnavailable("no Dask scheduler answers")
        return self.gpu

    def alive(self):
        return self.up

    def close(self):
        """Nothing to release."""


def queue(config, database, **changes):
    with database.begin() as connection:
        given = {"trigger": "manual", "author": "ada", "now_ns": time.time_ns()} | changes
        return request_training(connection, "plant", config.streams["plant"], given["now_ns"], **given)


def stored(database, number):
    with database.read() as connection:
        return jobs.get(connection, number)


def turn_until(runner, done, timeout=120.0):
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline
        runner.turn()
        time.sleep(0.02)


def write_config(config, path: Path) -> Path:
    with path.open("w") as file:
        YAML().dump(json.loads(config.model_dump_json(by_alias=True, exclude_unset=True)), file)
    return path


@pytest.mark.postgres
@pytest.mark.timeout(200)
def test_a_training_from_the_command_line(postgres_url, tmp_path):
    """(On SQLite: ``test_retraining_daemon.py``.)"""
    database = Database(postgres_url)
    database.upgrade()
    config = config_of(postgres_url, tmp_path)
    file = str(write_config(config, tmp_path / "f.yaml"))
    write_history(config, {f"press-{i}": tide(700, i) for i in range(3)})
    done = CliRunner().invoke(app, ["train", file, "--stream", "plant", "--wait", "--json", "--by", "ada"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert (shown["state"], shown["author"], shown["ran_on"], shown["attempt"]) == (
        "succeeded",
        "ada",
        "cpu",
        1,
    )
    assert shown["progress"]["epoch"] >= 1
    assert shown["result"]["series"] == 3
    assert shown["cost"]["cpu_seconds"] > 0
    with database.read() as connection:
        (model,) = models.query(connection, stream="plant")
    assert model.version == shown["result"]["version"]
    weights = registry.weights_of(model.path, model.sha256)
    assert weights["lstm.weight_hh_l0"].shape == (256, 64)
    manifest = registry.manifest_of(model.path, model.sha256)
    assert (manifest["stream"], manifest["training"]["series"], manifest["parent"]) == ("plant", 3, None)
    assert not (tmp_path / "models" / "plant" / "checkpoints" / "1").exists()
    listed = json.loads(CliRunner().invoke(app, ["jobs", "list", "-c", file, "--json"]).stdout)
    assert [job["id"] for job in listed] == [1]
    database.close()


def test_series_with_a_rule_of_their_own_get_a_network_of_their_own(database, database_url, tmp_path):
    """One training, one version: the shared LSTM and a network for each series where that forecasts better;
    it decides, and is rolled back, as one.
    """
    config = config_of(database_url, tmp_path, models_by=["sensor"], epochs=12)
    rng = np.random.default_rng(0)
    history = {f"press-{i}": henon(rng, sign, 3000) for i, sign in enumerate((1, -1))} | {
        "noise": rng.normal(0, 1, 3000)
    }
    write_history(config, history)
    runner = Runner(config, database, "a", ThreadWorkers())
    number = queue(config, database)
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert job.state == "succeeded", job.traceback
    with database.read() as connection:
        model = models.get(connection, job.result["version"])
    assert model.state == "champion", model.reason
    manifest = registry.manifest_of(model.path, model.sha256)
    members = [one["names"] for one in manifest["networks"]]
    assert {("press-0",), ("press-1",)} <= {tuple(names) for names in members}
    assert model.evidence["training"]["own"]["kept"] == len(members)
    assert (
        model.evidence["backtest"]["challenger"]["mase"]
        < 0.8 * model.evidence["backtest"]["champion"]["mase"]
    )
    champion = champion_of(database, "plant", config.streams["plant"])
    assert champion.provenance.model_version.endswith(f"+{model.version}")
    state = champion.detector.initial(3)
    champion.detector.register_series(state, np.arange(3, dtype=np.int32), ["press-1", "unknown", "press-0"])
    assert (state["hidden.own"][:, 0] > 0).tolist() == [True, False, True]
    with database.begin() as connection:
        roll_back(connection, "plant", author="ada", reason="try", now_ns=time.time_ns())
    assert champion_of(database, "plant", config.streams["plant"]).version is None


def test_what_cannot_be_trained_is_rejected_with_its_reason(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path)
    runner = Runner(config, database, "a", ThreadWorkers())
    number = queue(config, database)
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert job.state == "failed"
    assert "no history" in job.reason
    assert not job.traceback  # the reason says it all; a trace is kept for errors of the program
    write_history(config, {"short": tide(20)})
    with database.begin() as connection:
        jobs.retry(connection, number)
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert job.state == "rejected"
    assert "fewer than" in job.reason
    with database.read() as connection:
        assert models.query(connection) == []


def test_a_cancelled_training_ends(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path, lease="500ms")
    begun = threading.Event()

    def endless(task, told, cancelled):
        told({"phase": "train"})
        begun.set()
        while not cancelled():
            time.sleep(0.01)
        return tasks.TaskResult("cancelled", "after 0 epochs")

    runner = Runner(config, database, "a", ThreadWorkers(endless))
    number = queue(config, database)
    turn_until(runner, begun.is_set)
    with database.begin() as connection:
        assert jobs.cancel(connection, number, 1) == "running"
    turn_until(runner, lambda: stored(database, number).state == "cancelled")
    assert stored(database, number).reason == "after 0 epochs"
    assert not runner.busy


def test_another_runner_takes_the_job_of_one_that_froze_and_its_result_is_refused(
    database, database_url, tmp_path
):
    config = config_of(database_url, tmp_path, lease="500ms")
    write_history(config, {f"press-{i}": tide(300, i) for i in range(2)})
    let_go = threading.Event()

    def slow(task, told, cancelled):
        let_go.wait(60)
        return tasks.run_task(task, told, cancelled)

    frozen, heir = (
        Runner(config, database, "frozen", ThreadWorkers(slow)),
        Runner(config, database, "heir", ThreadWorkers()),
    )
    number = queue(config, database)
    frozen.turn()
    assert stored(database, number).owner == "frozen"
    turn_until(heir, lambda: stored(database, number).state == "succeeded")
    job = stored(database, number)
    assert (job.owner, job.attempt) == ("heir", 2)
    let_go.set()
    turn_until(frozen, lambda: not frozen.busy)
    assert stored(database, number) == job, "a zombie changes nothing"
    with database.read() as connection:
        assert len(models.query(connection)) == 1


def test_a_gpu_is_waited_for_and_then_done_without(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path, device="gpu", cpu_after="1s", lease="500ms")
    workers = ThreadWorkers(lambda task, told, cancelled: tasks.TaskResult("succeeded", "done"))
    runner = Runner(config, database, "a", workers)
    number = queue(config, database)
    turn_until(runner, lambda: "no worker offers a GPU" in stored(database, number).reason)
    assert "uses the CPU in" in stored(database, number).reason
    assert workers.tasks == []
    turn_until(runner, lambda: stored(database, number).state == "succeeded")
    assert [task.gpu for task in workers.tasks] == [False]
    workers.gpu = 1
    number = queue(config, database)
    turn_until(runner, lambda: stored(database, number).state == "succeeded")
    assert [task.gpu for task in workers.tasks] == [False, True]


def test_a_runner_whose_daemon_was_killed_gives_back_what_still_waits(database, database_url, tmp_path):
    """Otherwise it would hold the job until a GPU is offered, and no other runner could do it."""
    runner = Runner(
        config_of(database_url, tmp_path, device="gpu", cpu_after=None), database, "orphan", ThreadWorkers()
    )
    number = queue(config_of(database_url, tmp_path, device="gpu"), database)
    runner.run(threading.Event(), 60, orphaned=lambda: runner.busy)
    job = stored(database, number)
    assert (job.state, job.reason) == ("queued", "orphan was stopped")


def test_a_gpu_worker_that_goes_away_is_waited_for_again(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path, device="gpu", cpu_after="1s", lease="500ms")
    let_go = threading.Event()

    def on_gpu(task, told, cancelled):
        if task.gpu:
            let_go.wait(120)
        return tasks.TaskResult("succeeded", "gpu" if task.gpu else "cpu")

    workers = ThreadWorkers(on_gpu, gpu=1)
    runner = Runner(config, database, "a", workers)
    number = queue(config, database)
    turn_until(runner, lambda: workers.tasks)
    workers.gpu = 0
    turn_until(runner, lambda: "no worker offers a GPU" in stored(database, number).reason)
    turn_until(runner, lambda: stored(database, number).state == "succeeded")
    let_go.set()
    assert stored(database, number).reason == "cpu"
    assert stored(database, number).attempt == 1


def test_a_job_about_a_version_that_is_gone_fails(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path)
    with database.begin() as connection:
        number = jobs.add(
            connection,
            "shadow",
            "plant",
            1,
            trigger="follow-up",
            author="a",
            now_ns=1,
            detail={"version": "abcabcabcabc"},
        )
    runner = Runner(config, database, "a", ThreadWorkers())
    runner.turn()
    assert stored(database, number).state == "failed"
    assert "no version abcabcabcabc" in stored(database, number).reason


def test_a_scheduler_that_is_away_is_waited_for(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path, lease="500ms")
    workers = ThreadWorkers(lambda task, told, cancelled: tasks.TaskResult("succeeded", "done"))
    workers.up = False
    runner = Runner(config, database, "a", workers)
    number = queue(config, database)
    turn_until(runner, lambda: "no Dask scheduler" in stored(database, number).reason)
    workers.up = True
    turn_until(runner, lambda: stored(database, number).state == "succeeded")


def test_drifts_come_no_closer_than_the_config_says(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path, min_interval="1h")
    hour = 3600 * 10**9
    first = queue(config, database, trigger="drift", now_ns=hour)
    assert first is not None
    assert queue(config, database, trigger="drift", now_ns=3 * hour) is None, "one is waiting"
    with database.begin() as connection:
        jobs.cancel(connection, first, 3 * hour)
    soon = queue(config, database, trigger="drift", now_ns=hour + 1)
    assert stored(database, soon).due_ns == 2 * hour, "what drifted is trained, but not yet"
    with database.begin() as connection:
        jobs.cancel(connection, soon, 3 * hour)
    later = queue(config, database, trigger="drift", now_ns=3 * hour)
    assert stored(database, later).due_ns == 3 * hour


def test_a_detector_without_weights_is_not_trained(database, database_url, tmp_path):
    file = str(write_config(config_of(database_url, tmp_path, detector="light"), tmp_path / "f.yaml"))
    done = CliRunner().invoke(app, ["train", file, "--stream", "plant"])
    assert isinstance(done.exception, InputError)
    assert "has no weights to train" in str(done.exception)


@pytest.mark.kafka
@pytest.mark.postgres
def test_a_stretch_of_the_log_is_learnt_from(postgres_url, tmp_path, topics):
    """The points that the engine would have seen of that time, by the log's timestamps; nothing of the
    daemon's group moves.
    """
    database = Database(postgres_url)
    database.upgrade()
    topic = topics.create(partitions=2)
    stamp_ms = BEGIN // 10**6
    waves = [tide(300, seed) for seed in range(2)]
    for number, wave in enumerate(waves):
        values = [
            json.dumps(
                {"sensor": f"press-{number}", "ts": stamp_ms // 1000 + 60 * row, "temperature": float(x)}
            ).encode()
            for row, x in enumerate(wave)
        ]
        topics.produce(topic, values, partition=number)
    tree = json.loads(config_of(postgres_url, tmp_path).model_dump_json(by_alias=True, exclude_unset=True))
    tree["streams"]["plant"]["source"] = {"kafka": {"brokers": [topics.broker], "topics": [topic]}}
    config = Config.model_validate(tree)
    runner = Runner(config, database, "a", ThreadWorkers())
    number = queue(config, database, detail={"from_ns": 0})
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert job.state == "succeeded", job.traceback
    assert (job.result["points"], job.result["series"]) == (600, 2)
    database.close()
