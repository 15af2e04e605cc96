"""The whole life of a model under a running daemon: trained, judged, promoted, looked at, rolled back, while
it scores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from pipeline.config.schema import Config
from pipeline.daemon.daemon import daemon
from pipeline.jobs.requests import request_training
from pipeline.models.promotion import promote, roll_back
from pipeline.sources.memory import memory_log
from storage.history.reader import HistoryReader
from storage.model_store import jobs, models
from storage.sql.database import Database
from storage.stream_state import positions
from tests.support.trainings import BEGIN, MINUTE, config_of, tide


@contextmanager
def running(config: Config):
    """The daemon, whose loop runs in a thread."""
    stopping = threading.Event()
    with daemon(config, stopping) as process:
        loop = threading.Thread(target=process.run, args=(lambda: None,))
        loop.start()
        try:
            yield process
        finally:
            stopping.set()
            loop.join()


def feed(log, points, first=0, series=3):
    waves = [tide(first + points, seed)[first:] for seed in range(series)]
    for row in range(points):
        time_s = (BEGIN + (first + row) * MINUTE) // 10**9
        for number, wave in enumerate(waves):
            log.append(
                json.dumps(
                    {"sensor": f"press-{number}", "ts": time_s, "temperature": float(wave[row])}
                ).encode()
            )


def wait_for(condition, what, timeout=240.0):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


@pytest.mark.timeout(900)
def test_a_model_lives_and_dies_under_a_running_daemon(tmp_path, sqlite_template):
    name = f"life-{time.time_ns()}"
    url = f"sqlite:///{tmp_path}/forewatch.db"
    plain = config_of(url, tmp_path, post_promotion_check="1s", epochs=3)
    tree = json.loads(plain.model_dump_json(by_alias=True, exclude_unset=True))
    tree["streams"]["plant"]["source"]["memory"]["name"] = name
    tree["storage"]["snapshot_every"] = "500ms"
    config = Config.model_validate(tree)
    log = memory_log(name)
    feed(log, 1500)
    with running(config):
        database = Database(url)

        def done(number):
            with database.read() as connection:
                job = jobs.get(connection, number)
            return job if job.state in jobs.ENDED_STATES else None

        def written():
            return HistoryReader(str(tmp_path / "history")).read("plant", columns=["model", "flag"])

        wait_for(lambda: written().num_rows == 4500, "the past is scored")
        now_ns = time.time_ns()
        with database.begin() as connection:
            number = request_training(
                connection,
                "plant",
                config.streams["plant"],
                now_ns,
                trigger="manual",
                author="ada",
                now_ns=now_ns,
            )
        job = wait_for(lambda: done(number), "the training ends")
        assert job.state == "succeeded", (job.reason, job.traceback)
        with database.read() as connection:
            (model,) = models.query(connection)
        assert model.version == job.result["version"]
        assert model.evidence["backtest"]["champion"]["version"].startswith("standard-")
        assert "Evidence for stream plant" in model.evidence["backtest"]["text"]
        assert model.state in ("champion", "rejected"), model.reason
        if model.state == "rejected":  # whatever the rule said, a person may
            with database.begin() as connection:
                promote(
                    connection,
                    "plant",
                    config.streams["plant"],
                    model.version,
                    author="ada",
                    reason="try",
                    now_ns=time.time_ns(),
                )

        fed = [1500]

        def decides(suffix):
            """More points come; who has decided on the last of them that is written."""
            feed(log, 5, fed[0])
            fed[0] += 5
            last = written().column("model").to_pylist()[-1]
            return last.endswith(suffix) if suffix else "+" not in last

        wait_for(lambda: decides(model.version), "the promoted one decides")
        looks = wait_for(
            lambda: [j for j in _jobs(database, "guard") if j.state == "succeeded"],
            "the guard has looked",
        )
        assert "points" in looks[0].reason
        with database.begin() as connection:
            roll_back(connection, "plant", author="ada", reason="enough", now_ns=time.time_ns())
        wait_for(lambda: decides(""), "what came with forewatch decides again")
        count = 3 * fed[0]
        wait_for(lambda: _position(database) == count, "everything is scored")
    table = written()
    assert table.num_rows == count, "no point lost, none twice"
    assert len(set(table.column("model").to_pylist())) == 2
    with database.read() as connection:
        assert [one.action for one in models.promotions(connection)] == ["rollback", "promote"]
    database.close()


def _jobs(database, kind):
    with database.read() as connection:
        return jobs.query(connection, kind=kind)


def _position(database):
    with database.read() as connection:
        return sum(p.next_offset or 0 for p in positions.all_of(connection, "plant"))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_demo_shows_the_life_of_a_model():
    """A due training, its evidence, a promotion (or the reason against it), and the way back: ``pytest -m
    long`` runs this, three minutes.
    """
    command = [
        sys.executable,
        "-c",
        "from pipeline.cli import main; main()",
        "demo",
        "--no-kafka",
        "--seconds",
        "200",
    ]
    told = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    ).stdout
    steps = [
        "is due (trigger: ",
        ": epoch ",
        "succeeded after",
        "Evidence for stream plant",
    ]
    if "succeeded after" in told and ": better than the champion: " in told:
        steps += ["[model] promote by job 1", "[model] rollback by demo", "nothing is left running"]
    at = [told.find(step) for step in steps]
    assert -1 not in at, (steps, at, told[-3000:])
    assert at == sorted(at)
