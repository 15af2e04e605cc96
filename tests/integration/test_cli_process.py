"""Every command as a user runs it, in a process of its own: what it prints, what it returns, and never a
traceback.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from pipeline.core.types import Anomaly, AnomalyState, DeadLetter, Fault, FaultKind, Partition, Severity
from storage.results import anomalies, dead_letters, faults
from storage.sql.database import Database
from tests.support.forked_commands import run_command

FOREWATCH = [sys.executable, "-c", "from pipeline.cli import main; main()"]
HOUR = 3_600_000_000_000

CONFIG = """\
database: {database}
http: null
streams:
  plant:
    source: {{kafka: {{brokers: ["{broker}"], topics: [{topic}]}}}}
    format: {{json: {{series: [site, sensor], time: ts, values: [temperature, pressure]}}}}
    detector: light
"""


class Shell:
    """Runs forewatch in a folder of its own."""

    def __init__(self, folder: Path, *, new_interpreters: bool = False) -> None:
        """Fork commands from a process that has imported them, unless ``new_interpreters``."""
        self.folder = folder
        self.env = {**os.environ, "NO_COLOR": "1"}
        self._new_interpreters = new_interpreters

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        run = self._run_new if self._new_interpreters else run_command
        done = run(arguments, self.folder, self.env)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr or done.stdout
        return done

    @staticmethod
    def _run_new(
        arguments: Sequence[object], folder: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FOREWATCH, *map(str, arguments)],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def each(self, *commands: tuple[object, ...], code: int = 0) -> list[subprocess.CompletedProcess[str]]:
        """Several commands, one after the other."""
        return [self.run(*command, code=code) for command in commands]

    def json_of_each(self, commands: list[tuple[object, ...]]) -> list[Any]:
        return [json.loads(one.stdout) for one in self.each(*((*command, "--json") for command in commands))]

    def config(
        self, database: str = "sqlite:///forewatch.db", broker: str = "127.0.0.1:1", topic: str = "sensors"
    ) -> None:
        (self.folder / "forewatch.yaml").write_text(
            CONFIG.format(database=database, broker=broker, topic=topic)
        )

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/forewatch.db"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


# ------------------------------------------------------------------------------------------------- config and usage


def test_a_new_user_gets_a_config_that_is_valid(shell):
    assert "wrote forewatch.yaml" in shell.run("init").stderr
    done = shell.run("check")
    assert "forewatch.yaml: valid" in done.stderr
    assert done.stdout.splitlines()[1].split() == [
        "plant",
        "kafka",
        "json",
        "sensor",
        "standard",
        "temperature,",
        "pressure",
    ]
    assert "already exists" in shell.run("init", code=2).stderr
    shell.run("init", "--force", "--preset", "stock")
    assert shell.json("check") == {"file": "forewatch.yaml", "valid": True, "problems": [], "warnings": []}


def test_mistakes_in_the_config_are_named_by_line_and_key(shell):
    shell.config()
    path = shell.folder / "forewatch.yaml"
    path.write_text(path.read_text().replace("topics", "topcs") + "bad\n")
    assert "forewatch.yaml:8: not YAML" in shell.run("check", code=2).stderr
    path.write_text(path.read_text().replace("bad\n", "storag: {}\n"))
    lines = shell.run("check", code=2).stderr.splitlines()
    assert [line.split(" — ")[0] for line in lines] == [
        "forewatch.yaml:5: streams.plant.source.kafka.topics: is missing",
        "forewatch.yaml:5: streams.plant.source.kafka.topcs: there is no such key",
        "forewatch.yaml:8: storag: there is no such key",
    ]
    found = shell.json("check", code=2)
    assert [problem["line"] for problem in found["problems"]] == [5, 5, 8]
    for done in shell.each(
        ("run",),
        ("backfill", "forewatch.yaml", "-s", "plant", "-i", "x.csv"),
        ("db", "upgrade"),
        ("faults", "list"),
        code=2,
    ):
        assert "forewatch.yaml:8: storag: there is no such key — did you mean storage?" in done.stderr


def test_usage_mistakes(shell):
    said = {
        ("check", "none.yaml"): "no such file — `forewatch init` writes one",
        ("nope",): "No such command 'nope'",
        ("backfill", "forewatch.yaml"): "Missing option '--stream'",
        ("anomalies", "list", "--from", "soon"): "'soon' is not a time; write",
        ("anomalies", "list", "--severity", "terrible"): "'terrible' is not one of",
        ("init", "no/such/folder/x.yaml"): "cannot be written",
    }
    for done, message in zip(shell.each(*said, code=2), said.values(), strict=True):
        assert message in done.stderr
    assert "Exit codes:" in shell.run("--help").stdout


def test_backfill_mistakes(shell):
    shell.config()
    said = {
        ("--stream", "plan", "--input", "x.csv"): "no stream 'plan': did you mean plant?",
        ("--input", "x.csv"): "--input x.csv: no such file",
        ("--input", "forewatch.yaml", "--from", "1h"): "cannot be combined",
        (): "no records are selected; name files",
        ("--from", "1h", "--to", "2h"): "--from must be before --to",
        ("--from", "1h", "--scores", "x.json"): "must end in .csv or .parquet",
    }
    commands = (("backfill", "forewatch.yaml", "--stream", "plant", *options) for options in said)
    for done, message in zip(shell.each(*commands, code=2), said.values(), strict=True):
        assert message in done.stderr


def test_schema_and_version(shell):
    assert json.loads(shell.run("schema").stdout)["properties"]["streams"]
    assert shell.run("version").stdout.strip()[0].isdigit()


# -------------------------------------------------------------------------------------------------------- database


def test_the_database_is_made_and_its_version_shown(shell):
    shell.config()
    assert (
        "forewatch.db yet; forewatch run CONFIG creates it" in shell.run("anomalies", "list", code=4).stderr
    )
    before, made, again, text, empty, slip = shell.each(
        ("db", "current", "--json"),
        ("db", "upgrade"),
        ("db", "upgrade"),
        ("db", "current"),
        ("anomalies", "list"),
        ("faults", "list", "-s", "plnt"),
    )
    needed = json.loads(before.stdout)["needed"]
    assert json.loads(before.stdout)["current"] is None
    assert f"empty → {needed}" in made.stderr
    assert "is up to date" in again.stderr
    assert text.stdout.split() == ["database", "sqlite:///forewatch.db", "current", needed, "needed", needed]
    assert "no anomalies" in empty.stderr
    assert "the config has no stream 'plnt': did you mean plant?" in slip.stderr, (
        "an older config may have had one"
    )
    assert "no stream 'plnt'" in shell.run("deadletters", "replay", "-s", "plnt", code=2).stderr


def test_a_database_on_postgresql(shell, postgres_url):
    url = make_url(postgres_url)
    shell.env["PGPASSWORD"] = url.password or ""
    shell.config(database=url.set(password=None).render_as_string())
    shell.run("db", "upgrade")
    assert shell.json("anomalies", "list") == []
    shell.config(database=url.set(password=None, port=1).render_as_string())
    assert "127.0.0.1" in shell.run("anomalies", "list", code=4).stderr


def test_secrets_come_from_the_environment_and_are_never_shown(shell, postgres_url):
    url = make_url(postgres_url).set(password=None).render_as_string()
    shell.config(database=url + "\ndatabase_password: {env: DB_SECRET}")
    assert "environment variable DB_SECRET is not set" in shell.run("db", "current", code=2).stderr
    shell.env["DB_SECRET"] = make_url(postgres_url).password or "hunter2"
    done = shell.run("--log-level", "debug", "db", "upgrade")
    assert "hunter2" not in done.stdout + done.stderr


def test_a_file_that_is_no_database(shell):
    shell.config()
    (shell.folder / "forewatch.db").write_bytes(b"not a database at all" * 100)
    assert "forewatch.db" in shell.run("anomalies", "list", code=4).stderr


def test_a_locked_sqlite_file(shell):
    shell.config()
    shell.run("db", "upgrade")
    owner = Database(shell.database, exclusive=True)
    try:
        assert f"is in use by another forewatch (process {os.getpid()})" in shell.run("run", code=4).stderr
        assert shell.json("anomalies", "list") == [], "looking is allowed"
    finally:
        owner.close()
    with sqlite3.connect(shell.folder / "forewatch.db", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert "locked" in shell.run("db", "upgrade", code=4).stderr


# --------------------------------------------------------------------------------------- what is in the database


def anomaly(number: int, **changes: object) -> Anomaly:
    start = number * HOUR
    plain = Anomaly(
        id=Anomaly.identify("plant", f"s{number}", start), stream="plant", series=f"s{number}", labels={"site": "a", "sensor": f"s{number}"},
        state=AnomalyState.CLOSED, severity=Severity.WARNING, direction="up", start_ns=start, end_ns=start + 60 * 10**9, peak_ns=start, points=3,
        score=0.999999, surprise=6.0, channels=["temperature", "pressure"], observed=[81.5, float("nan")], expected=[60.25, 1.0],
        lower=[55.0, 0.5], upper=[65.0, 1.5], contribution=[0.9, 0.1], forecaster="seasonal", model_version="m1", config_hash="c1",
        partition=Partition("sensors", 0), first_offset=10, last_offset=12, peak_offset=11, last_flag_seq=12,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture
def filled(shell: Shell) -> Shell:
    shell.config()
    database = Database(shell.database)
    database.upgrade()
    with database.begin() as connection:
        found = [
            anomaly(1),
            anomaly(2, severity=Severity.CRITICAL),
            anomaly(3, state=AnomalyState.OPEN, stream="edge"),
        ]
        anomalies.upsert(connection, found)
        letters = [
            DeadLetter(
                "plant",
                Partition("sensors", 0),
                7,
                10**18,
                b"k",
                b'{"site": "a", "ts": 1}',
                [("trace", b"1")],
                "missing",
                "no field sensor",
            ),
            DeadLetter("plant", Partition("sensors", 0), 9, -1, None, b"\xff\x00", [], "json", "not JSON"),
        ]
        dead_letters.add(connection, letters)
        faults.save(connection, Fault("plant", FaultKind.SOURCE_DOWN, "Kafka is away", 10**18))
        faults.save(
            connection,
            Fault(
                "plant",
                FaultKind.CLOCK_SKEW,
                "the clock is wrong",
                10**18,
                Partition("sensors", 0),
                2 * 10**18,
            ),
        )
    database.close()
    return shell


def test_anomalies_are_listed_and_filtered(filled):
    lines = filled.run("anomalies", "list").stdout.splitlines()
    assert lines[0].split() == ["id", "start", "lasted", "severity", "series", "what"]
    assert [line.split()[-9] for line in lines[1:]] == ["edge/s3", "plant/s2", "plant/s1"]
    assert "1m, open" in lines[1]
    assert "temperature 81.5 instead of 60.25 (55 … 65)" in lines[2]
    ids = {one["series"]: one["id"] for one in filled.json("anomalies", "list")}
    listed = {
        ("--stream", "edge"): ["s3"],
        ("--series", "s?"): ["s3", "s2", "s1"],
        ("--series", "x*"): [],
        ("--severity", "major"): ["s2"],
        ("--state", "open"): ["s3"],
        ("--limit", "1"): ["s3"],
        ("--from", "1970-01-01T01:30:00Z", "--to", "1970-01-01T02:30:00Z"): ["s2"],
        ("--from", "7d"): [],
    }
    found = filled.json_of_each([("anomalies", "list", *options) for options in listed])
    assert [[one["series"] for one in each] for each in found] == list(listed.values())
    shown = filled.json("anomalies", "show", ids["s1"][:6])
    assert (shown["id"], shown["start"], shown["peak_offset"]) == (ids["s1"], "1970-01-01T01:00:00Z", 11)
    assert shown["channels"][1] == {
        "channel": "pressure",
        "observed": None,
        "expected": 1.0,
        "lower": 0.5,
        "upper": 1.5,
        "contribution": 0.1,
    }
    (text,) = filled.each(("anomalies", "show", ids["s1"]))
    assert "seasonal" in text.stdout
    assert "missing" in text.stdout
    nothing, no_id = filled.each(("anomalies", "show", "00000000"), ("anomalies", "show", "plant"), code=2)
    assert "there is no anomaly 00000000" in nothing.stderr
    assert "is not an anomaly id" in no_id.stderr


def test_dead_letters_are_listed_and_shown(filled):
    commands = [
        ("deadletters", "list"),
        ("deadletters", "list", "--reason", "missing"),
        ("deadletters", "show", 1),
    ]
    found, missing, shown = filled.json_of_each(commands)
    assert [one["offset"] for one in found] == [9, 7]
    assert missing == [shown] == [found[1]]
    assert (found[0]["value"], found[0]["key"], found[0]["timestamp"]) == ("\\xff\x00", None, None)
    table, text = filled.each(("deadletters", "list"), ("deadletters", "show", 1))
    assert "no field sensor" in table.stdout
    assert '{"site": "a", "ts": 1}' in text.stdout
    assert "there is no dead letter 999" in filled.run("deadletters", "show", 999, code=2).stderr


def test_faults_are_listed(filled):
    last, everything = filled.json_of_each([("faults", "list", "--open"), ("faults", "list")])
    assert [one["kind"] for one in last] == ["source_down"]
    assert {one["ended"] for one in everything} == {None, "2033-05-18T03:33:20Z"}
    assert "Z  open  " in filled.run("faults", "list").stdout


def test_a_label_is_shown_with_its_anomaly(filled):
    (one,) = filled.json("anomalies", "list", "--series", "s2")
    assert filled.json("anomalies", "show", one["id"])["review"] is None
    filled.run("alerts", "label", one["id"], "false", "--by", "kim", "--comment", "door was open")
    review = filled.json("anomalies", "show", one["id"])["review"]
    assert (review["label"], review["by"], review["comment"]) == ("false", "kim", "door was open")
    assert "false, by kim at " in filled.run("anomalies", "show", one["id"]).stdout


def test_a_silence_of_everything_needs_all(filled):
    for scope in ([], ["--stream", "plant"]):
        refused = filled.run("silences", "add", *scope, "--for", "2h", code=2)
        assert "add --match LABEL=GLOB, or --all" in refused.stderr
    assert filled.json("silences", "list") == []
    both = filled.run("silences", "add", "--all", "--match", "site=a", "--for", "2h", code=2)
    assert "not both" in both.stderr
    warned = filled.run("silences", "add", "--match", "sensr=s1", "--for", "2h")
    assert "no series has the label 'sensr'" in warned.stderr
    assert "did you mean sensor?" in warned.stderr
    assert "warning" not in filled.run("silences", "add", "--stream", "plant", "--all", "--for", "2h").stderr
    assert len(filled.json("silences", "list")) == 2


def test_a_reader_that_goes_away_is_no_error(filled):
    command = " ".join(f"'{part}'" for part in [*FOREWATCH, "anomalies", "list", "--json"]) + " | head -c 10"
    done = subprocess.run(command, shell=True, cwd=filled.folder, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("[")
    assert "Traceback" not in done.stderr


# ----------------------------------------------------------------------------------------------------------- Kafka


@pytest.mark.kafka
def test_the_local_broker_goes_up_and_down(shell):
    folder = shell.folder / "kafka"
    assert shell.json("kafka", "status", "--dir", folder, code=3)["running"] is False
    assert "no broker is running in" in shell.run("kafka", "down", "--dir", folder).stderr
    try:
        address = shell.run("kafka", "up", "--dir", folder).stdout.strip()
        status = shell.json("kafka", "status", "--dir", folder)
        assert (status["address"], status["running"], status["answers"]) == (address, True, True)
        assert "yes" in shell.run("kafka", "status", "--dir", folder).stdout
        assert shell.run("kafka", "up", "--dir", folder).stdout.strip() == address, "it runs: that is fine"
    finally:
        assert "stopped" in shell.run("kafka", "down", "--dir", folder).stderr
    assert shell.json("kafka", "status", "--dir", folder, code=3)["running"] is False
