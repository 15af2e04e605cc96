"""What becomes of an outcome: rejected, compared again, promoted, looked at, rolled back; and the commands by
which people decide.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.errors import InputError
from pipeline.jobs import tasks
from pipeline.jobs.requests import excluded_intervals, request_training, review_labels
from pipeline.jobs.runner import Runner
from pipeline.jobs.task_types import TaskResult, VersionFiles
from pipeline.models import promotion
from pipeline.training.quarantine import ExclusionReason
from storage.model_store import jobs, models
from storage.results import anomalies
from tests.contract.test_storage_rows import anomaly
from tests.integration.test_retraining_jobs import ThreadWorkers, write_config
from tests.integration.test_retraining_takeover import release
from tests.support.trainings import BEGIN, MINUTE, config_of, tide, write_history


class Stage:
    """A config, a database, and a runner whose worker says what the test wants."""

    def __init__(self, database, url, folder, **retraining):
        self.database, self.folder = database, folder
        self.config = config_of(url, folder, lease="500ms", **retraining)
        self.say = {}
        self.asked = []
        self.runner = Runner(self.config, database, "a", ThreadWorkers(self._perform))

    def _perform(self, task, told, cancelled):
        self.asked.append(
            (task.kind, task.champion and task.champion.version, task.challenger and task.challenger.version)
        )
        return self.say[task.kind]

    def trains(self, better, version="aa"):
        name = version * 6
        made = VersionFiles(name, f"{self.folder}/models/plant/{version}", name * 5)
        evidence = {"training": {"until_ns": 7}}
        self.say["train"] = TaskResult(
            "succeeded",
            "better than the champion: it is better" if better else "rejected: it is worse",
            made,
            evidence,
            better=better,
        )

    def judges(self, kind, better):
        self.say[kind] = TaskResult(
            "succeeded", f"{kind} says {better}", evidence={kind: {"better": better}}, better=better
        )

    def train(self):
        with self.database.begin() as connection:
            now_ns = time.time_ns()
            request_training(
                connection,
                "plant",
                self.config.streams["plant"],
                now_ns,
                trigger="manual",
                author="ada",
                now_ns=now_ns,
            )
        self.settle()

    def settle(self, kinds=("train", "shadow", "guard")):
        """Until nothing is due."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.runner.turn()
            with self.database.read() as connection:
                live = jobs.query(connection, states=jobs.LIVE_STATES)
            if not any(
                job.state == "running" or (job.due_ns <= time.time_ns() and job.kind in kinds) for job in live
            ):
                return
            time.sleep(0.02)
        raise AssertionError(live)

    def hurry(self):
        """Make every waiting job due now."""
        from sqlalchemy import update

        from storage.tables.models import JobRow

        with self.database.begin() as connection:
            connection.execute(update(JobRow).where(JobRow.state == "queued").values(due_ns=JobRow.id))
        self.settle()

    def model(self, version):
        with self.database.read() as connection:
            return models.get(connection, version)

    def champion(self):
        with self.database.read() as connection:
            return models.current_champion(connection, "plant")

    def waiting(self):
        with self.database.read() as connection:
            return [job.kind for job in jobs.query(connection, states=["queued"])]


@pytest.fixture
def stage(database, database_url, tmp_path):
    return lambda **retraining: Stage(database, database_url, tmp_path, **retraining)


def test_a_worse_one_is_rejected_and_the_champion_stays(stage):
    play = stage()
    play.trains(better=False)
    play.train()
    assert (play.model("aa").state, play.model("aa").reason) == ("rejected", "rejected: it is worse")
    assert play.champion().sequence == 0
    assert play.waiting() == []


def test_a_better_one_is_first_only_compared_then_decides_and_is_looked_at(stage):
    play = stage(shadow="1h", post_promotion_check="1h")
    play.trains(better=True)
    play.judges("shadow", better=True)
    play.judges("guard", better=False)
    play.train()
    assert play.model("aa").state == "shadow"
    assert play.champion().sequence == 0
    assert play.waiting() == ["shadow"]
    play.hurry()
    assert play.model("aa").state == "champion"
    assert (play.champion().to_version, play.champion().author, play.champion().reason) == (
        "aa" * 6,
        "job 2",
        "shadow says True",
    )
    assert play.model("aa").evidence["shadow"] == {"better": True}
    for number in range(len(promotion.CHECK_FRACTIONS)):
        assert play.waiting() == ["guard"], number
        play.hurry()
    assert play.waiting() == []
    assert play.asked == [("train", None, None), ("shadow", None, "aa" * 6)] + [
        ("guard", None, "aa" * 6)
    ] * len(promotion.CHECK_FRACTIONS)
    assert play.champion().to_version == "aa" * 6


def test_one_that_is_worse_on_what_came_since_is_rejected(stage):
    play = stage(shadow="1h")
    play.trains(better=True)
    play.judges("shadow", better=False)
    play.train()
    play.hurry()
    assert play.model("aa").state == "rejected"
    assert play.champion().sequence == 0


def test_a_champion_that_misbehaves_is_rolled_back_alone(stage):
    play = stage(post_promotion_check="1h")
    play.trains(better=True)
    play.train()
    play.judges("guard", better=False)
    play.hurry()
    play.judges("guard", better=True)
    play.hurry()
    now = play.champion()
    assert (now.action, now.to_version, now.author, now.reason) == (
        "rollback",
        None,
        "guard",
        "guard says True",
    )
    assert play.model("aa").state == "rejected"
    assert play.waiting() == []


def test_a_look_at_one_that_does_not_decide_any_more_changes_nothing(stage):
    play = stage(post_promotion_check="1h")
    play.trains(better=True)
    play.train()
    play.trains(better=True, version="bb")
    play.train()
    assert play.champion().to_version == "bb" * 6
    with play.database.begin() as connection:
        guards = jobs.query(connection, kind="guard")
        jobs.cancel(connection, guards[0].id, 1)  # that of bb
    play.judges("guard", better=True)
    play.hurry()
    assert play.champion().to_version == "bb" * 6


def test_a_person_decides_where_the_config_says_so(stage):
    play = stage(promote="manual")
    play.trains(better=True)
    play.train()
    assert play.model("aa").state == "candidate"
    assert "waits for `forewatch models promote" in play.model("aa").reason
    assert play.champion().sequence == 0


def test_a_pinned_champion_stays(stage):
    play = stage()
    with play.database.begin() as connection:
        now = models.current_champion(connection, "plant")
        models.record_promotion(
            connection, now, "pin", now.to_version, author="ada", reason="audit", now_ns=1, pinned=True
        )
    play.trains(better=True)
    play.train()
    assert play.champion().to_version is None
    assert "the champion is pinned" in play.model("aa").reason
    with play.database.begin() as connection:
        promotion.unpin(connection, "plant", author="ada", reason="audit is over", now_ns=2)
        with pytest.raises(InputError, match="not pinned"):
            promotion.unpin(connection, "plant", author="ada", reason="", now_ns=3)


def test_what_was_compared_with_a_former_champion_is_compared_again(stage):
    play = stage(shadow="1h")
    play.trains(better=True)
    play.train()
    with play.database.begin() as connection:
        models.add(
            connection,
            models.ModelVersion("bb" * 6, "plant", "/nowhere", "bb" * 30, "candidate", None, "ada", 1, 1),
        )

    def meanwhile(task, told, cancelled):
        play.asked.append((task.kind, task.champion and task.champion.version, task.challenger.version))
        if task.champion is None:
            with play.database.begin() as connection:
                promotion.promote(
                    connection,
                    "plant",
                    play.config.streams["plant"],
                    "bb" * 6,
                    author="ada",
                    reason="",
                    now_ns=time.time_ns(),
                )
        return TaskResult("succeeded", "better", better=True)

    play.runner = Runner(play.config, play.database, "a", ThreadWorkers(meanwhile))
    play.hurry()
    assert play.asked[1:] == [("shadow", None, "aa" * 6), ("shadow", "bb" * 6, "aa" * 6)]
    assert play.champion().to_version == "aa" * 6


@pytest.mark.parametrize(("microseconds", "stays"), [(6.0, True), (13.0, False)])
def test_the_shadow_and_the_guard_look_at_what_is_in_the_history(
    database, database_url, tmp_path, microseconds, stays
):
    """With real models and real verdicts, but for their number, and for what the engine said that they took."""
    config = config_of(database_url, tmp_path, post_promotion_check="1h")
    series = {f"press-{i}": tide(900, i) for i in range(3)}
    write_history(config, series)
    version = release(database, tmp_path)
    with database.begin() as connection:
        promotion.promote(
            connection,
            "plant",
            config.streams["plant"],
            version,
            author="ada",
            reason="",
            now_ns=time.time_ns() - 3600 * 10**9,
        )
    workers = ThreadWorkers()
    runner = Runner(config, database, "a", workers)
    later = {name: tide(1800, i)[900:] for i, name in enumerate(series)}
    write_history(
        config,
        later,
        begin=BEGIN + 900 * MINUTE,
        offset=2700,
        epoch=2,
        database=database,
        microseconds=microseconds,
    )
    with database.begin() as connection:
        detail = {"version": version, "until_ns": BEGIN + 900 * MINUTE}
        number = jobs.add(
            connection,
            "shadow",
            "plant",
            5,
            trigger="manual",
            author="ada",
            now_ns=5,
            device="cpu",
            detail=detail,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        runner.turn()
        with database.read() as connection:
            found = {job.kind: job for job in jobs.query(connection, states=jobs.ENDED_STATES)}
        if {"guard", "shadow"} <= found.keys():
            break
        time.sleep(0.05)
    guard, shadow = found["guard"], found["shadow"]
    assert guard.state == "succeeded", guard.traceback
    assert guard.result["before"]["points"] == guard.result["after"]["points"] == 2700
    assert guard.result["before"]["seconds"] == pytest.approx(2700 * 5e-6)
    assert guard.result["after"]["seconds"] == pytest.approx(2700 * microseconds * 1e-6)
    with database.read() as connection:
        now = models.current_champion(connection, "plant")
    assert (now.action, now.author) == (("promote", "ada") if stays else ("rollback", "guard"))
    assert stays or "takes 13.0 µs per point, 5.0 before" in now.reason
    assert shadow.id == number
    assert shadow.state == "succeeded", shadow.traceback
    assert shadow.result["new_points"] > 2500
    assert tasks.newest_ns(str(tmp_path / "history"), "plant") == BEGIN + 1799 * MINUTE


# ------------------------------------------------------------------------------------------------------- commands


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_people_promote_roll_back_pin_and_carry_versions(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path, post_promotion_check="1h")
    file = write_config(config, tmp_path / "f.yaml")
    one, two = (release(database, tmp_path, seed) for seed in (1, 2))
    run("models", "promote", one[:6], "-c", file, "--why", "try it", "--by", "ada")
    with pytest.raises(InputError, match="is the champion of stream plant already"):
        run("models", "promote", one, "-c", file)
    run("models", "pin", two, "-c", file, "--by", "bob")
    run("models", "rollback", "--stream", "plant", "-c", file, "--by", "eve")
    run("models", "unpin", "--stream", "plant", "-c", file)
    changes = json.loads(run("models", "list", "--changes", "-c", file, "--json").stdout)
    assert [(c["action"], c["to_version"], c["pinned"], c["author"]) for c in changes[1:]] == [
        ("rollback", one, True, "eve"),
        ("promote", two, True, "bob"),
        ("promote", one, False, "ada"),
    ]
    listed = {
        m["version"]: m["state"] for m in json.loads(run("models", "list", "-c", file, "--json").stdout)
    }
    assert listed == {one: "champion", two: "rejected"}
    assert "weights lstm.weight_ih_l0" in run("models", "diff", one, two, "-c", file).stdout
    assert "no difference" in run("models", "diff", one, one, "-c", file).output
    with database.begin() as connection:
        card = {
            "backtest": {"text": "Evidence for stream plant: A against B\n2 series", "since_ns": 7},
            "training": {"losses": [1.5]},
        }
        models.set_state(connection, one, "champion", "better", 1, card)
    shown = run("models", "show", one, "-c", file).stdout
    assert one in shown
    assert "\nbacktest: Evidence for stream plant: A against B\n2 series\n" in shown
    assert "since_ns" not in shown
    assert "losses" in shown
    run("models", "export", one, tmp_path / "carried", "-c", file)
    with pytest.raises(InputError, match="in the registry already"):
        run("models", "import", tmp_path / "carried", "--stream", "plant", "-c", file)
    text = (tmp_path / "carried.json").read_text()
    (tmp_path / "carried.json").write_text(text.replace('"stream": "plant"', '"stream": "other"'))
    three = run("models", "import", tmp_path / "carried", "--stream", "plant", "-c", file).stdout.strip()
    assert json.loads(run("models", "show", three, "-c", file, "--json").stdout)["state"] == "candidate"
    (tmp_path / "carried.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="truncated or swapped"):
        run("models", "import", tmp_path / "carried", "--stream", "plant", "-c", file)


def test_people_ask_for_trainings_and_call_them_off(database, database_url, tmp_path):
    file = write_config(config_of(database_url, tmp_path), tmp_path / "f.yaml")
    number = run("train", file, "--stream", "plant", "--by", "ada").stdout.strip()
    assert "queued" in run("jobs", "list", "-c", file).stdout
    assert json.loads(run("jobs", "show", number, "-c", file, "--json").stdout)["author"] == "ada"
    assert "is cancelled" in run("jobs", "cancel", number, "-c", file).stdout
    listed = json.loads(run("jobs", "list", "-c", file, "--state", "cancelled", "--json").stdout)
    assert [(job["id"], job["state"]) for job in listed] == [(int(number), "cancelled")]
    assert "is queued" in run("jobs", "retry", number, "-c", file).stdout
    assert "queued" in run("jobs", "show", number, "-c", file).stdout
    with pytest.raises(InputError):
        run("jobs", "show", 99, "-c", file)


@pytest.mark.parametrize("verdict", ["true", "false", "maintenance"])
def test_people_say_what_an_anomaly_was(database, database_url, tmp_path, verdict):
    file = write_config(config_of(database_url, tmp_path), tmp_path / "f.yaml")
    found = anomaly()
    with database.begin() as connection:
        anomalies.upsert(connection, [found])
    run("label", found.id, verdict, "-c", file, "--by", "ada")
    with database.read() as connection:
        (label,) = review_labels(connection, found.stream)
    wanted = {
        "true": ExclusionReason.ANOMALY,
        "false": ExclusionReason.NORMAL,
        "maintenance": ExclusionReason.MAINTENANCE,
    }[verdict]
    assert (label.series, label.reason, label.by) == (found.series, wanted, "ada")


def test_people_keep_ranges_out_of_training(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path)
    file = write_config(config, tmp_path / "f.yaml")
    write_history(config, {"press-0": tide(300)})
    span = ("--from", "2025-10-09T09:00:00Z", "--to", "2025-10-09T09:30:00Z")
    number = run(
        "quarantine", "add", "--stream", "plant", *span, "--why", "move", "--by", "ada", "-c", file
    ).stdout.strip()
    listed = json.loads(run("quarantine", "list", "-c", file, "--json").stdout)
    assert [(one["why"], one["by"], one["points"]) for one in listed if one["why"] == "excluded"] == [
        ("excluded", "ada", 30)
    ]
    assert [one["why"] for one in excluded_intervals(database, config, "plant", by_hand=True)] == ["move"]
    run("quarantine", "remove", number, "-c", file)
    assert "excluded" not in run("quarantine", "list", "-c", file).stdout
    with pytest.raises(InputError, match="no range"):
        run("quarantine", "remove", number, "-c", file)
    with pytest.raises(InputError, match="the range is empty"):
        run("quarantine", "add", "--stream", "plant", *span[2:], "--from", "2025-10-10", "-c", file)


def test_series_show_prints_the_forecaster_status(database, database_url, tmp_path):
    config = config_of(database_url, tmp_path)
    file = write_config(config, tmp_path / "f.yaml")
    write_history(config, {"old": tide(600), "young": tide(5), "flat": np.full(100, 7.0)})
    old = json.loads(run("series", "show", "old", "--stream", "plant", "-c", file, "--json").stdout)
    assert old["channels"][0]["points"] == 600
    assert old["channels"][0]["forecaster"] in ("lstm", "seasonal")
    assert "its recent error is the smallest" in old["channels"][0]["why"]
    young = json.loads(run("series", "show", "young", "--stream", "plant", "-c", file, "--json").stdout)
    assert (young["channels"][0]["forecaster"], young["channels"][0]["next"]) == (
        "static",
        "seasonal, gaussian in 3 points",
    )
    flat = json.loads(run("series", "show", "flat", "--stream", "plant", "-c", file, "--json").stdout)
    assert flat["channels"][0]["forecaster"] == flat["forecaster"]
    assert flat["channels"][0]["why"] == "no forecaster has had an error: the value has never changed"
    with pytest.raises(InputError, match="no series 'gone'"):
        run("series", "show", "gone", "--stream", "plant", "-c", file)
