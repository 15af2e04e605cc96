"""The commands that touch a broker, on a real Apache Kafka: check --connect, run with reload, dead letters
put in again, backfill.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.test_cli_process import FOREWATCH, Shell
from tests.support.forked_commands import ForkedCommand
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.kafka

MINUTE_MS = 60_000
START_MS = 1_750_000_000_000


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def reading(i: int, **changes: Any) -> bytes:
    return json.dumps(
        {
            "site": "a",
            "sensor": f"s{i % 2}",
            "ts": START_MS + i // 2 * MINUTE_MS,
            "temperature": 20.0 + i % 7,
            "pressure": 1.0,
        }
        | changes
    ).encode()


def bad(i: int) -> bytes:
    """The sender renamed a field."""
    return reading(i).replace(b"temperature", b"temp")


# --------------------------------------------------------------------------------------------------- check --connect


def test_check_connect_shows_decoded_records_and_dead_letters(shell, topics):
    topic = topics.create(partitions=2)
    topics.produce(topic, [reading(i) for i in range(10)], partition=0)
    topics.produce(topic, [reading(0), bad(1), b"not json", reading(2, pressure=None)], partition=1)
    shell.config(broker=topics.broker, topic=topic)
    text = shell.run("check", "--connect").stdout
    assert "has no tables yet" in text
    assert "stream plant: 2 partitions, 14 records read, 12 decoded" in text
    assert "series" in text
    assert "1 dead letter: missing_field, for example" in text
    found = shell.json("check", "--connect")
    (plant,) = found["streams"]
    assert found["database"]["usable"] is True
    assert {reason: count for reason, (count, _) in plant["dead_letters"].items()} == {
        "missing_field": 1,
        "malformed": 1,
    }
    assert len(plant["sample"]) == 3
    assert plant["sample"][0]["time"].startswith("2025-06-15T")
    assert set(plant["sample"][0]["values"]) == {"temperature", "pressure"}
    assert not (shell.folder / "forewatch.db").exists(), "it changes nothing"


def test_check_connect_on_an_empty_topic_says_so(shell, topics):
    shell.config(broker=topics.broker, topic=topics.create())
    text = shell.run("check", "--connect").stdout
    assert "0 records read" in text
    assert "no records to check the format with" in text


def test_check_connect_tries_past_points_too(shell, topics):
    topic = topics.create()
    topics.produce(topic, [reading(i) for i in range(10)])
    shell.config(broker=topics.broker, topic=topic)
    with (shell.folder / "forewatch.yaml").open("a") as config:
        config.write("    warm_start: past\n")
    past = shell.folder / "past"
    past.mkdir()
    (past / "a.csv").write_text(
        "site,sensor,ts,temperature,pressure\na,s0,2025-06-01T00:00:00Z,20,1\na,s0,2025-06-01T00:01:00Z,hot,1\n"
    )
    found = shell.json("check", "--connect")["streams"][0]["history"]
    assert (found["partitions"], found["records_read"], found["records_decoded"]) == (1, 2, 1)
    (past / "a.csv").write_text("site,sensor,ts,temp,pressure\na,s0,2025-06-01T00:00:00Z,20,1\n")
    text = shell.run("check", "--connect", code=2).stdout
    assert (
        "stream plant, warm_start past: 1 partition, 1 record read, 0 decoded\n"
        "  none of them matches the format\n" in text
    )
    assert "no column temperature" in text


def test_check_connect_names_what_does_not_answer(shell, topics):
    shell.config(broker="127.0.0.1:1")
    assert "Kafka at 127.0.0.1:1: no answer" in shell.run("check", "--connect", code=3).stdout
    shell.config(broker=topics.broker, topic="no-such-topic")
    assert "no-such-topic" in shell.run("check", "--connect", code=3).stdout
    shell.config(
        broker=topics.broker, topic=topics.create(), database="postgresql+psycopg://me@127.0.0.1:1/db"
    )
    assert "127.0.0.1" in shell.run("check", "--connect", code=4).stdout.splitlines()[0]


@pytest.fixture
def heeded_interrupts() -> Iterator[None]:
    """Let child processes heed SIGINT, which a shell makes its background jobs ignore."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("heeded_interrupts")
def test_an_interrupted_command_ends_with_130(shell):
    # a broker that never answers: who connects waits for it
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(120)
        shell.config(broker=f"127.0.0.1:{silent.getsockname()[1]}")
        with subprocess.Popen(
            [*FOREWATCH, "check", "--connect"], cwd=shell.folder, stderr=subprocess.PIPE, text=True
        ) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        connection.close()
    assert process.returncode == 130
    assert "Traceback" not in errors


# -------------------------------------------------------------------------------------------------------------- run


#: Longest start of a daemon: the first one of a checkout compiles its kernels.
START_SECONDS = 600.0


class Running:
    """A daemon in a process of its own."""

    def __init__(self, process: ForkedCommand, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False)

    def until(self, condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {timeout:.0f} s; {self.log.read_text()[-3000:]}")

    def records(self, outcome: str) -> float:
        name = f'forewatch_records_total{{outcome="{outcome}",stream="plant"}} '
        lines = [line for line in self.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(lines[0].removeprefix(name)) if lines else 0.0


@contextmanager
def daemon(shell: Shell, *options: str) -> Iterator[Running]:
    port = free_port()
    path = shell.folder / "forewatch.yaml"
    # The second daemon of a test has a port of its own, too.
    path.write_text(re.sub(r"http: (null|\{port: \d+\})", f"http: {{port: {port}}}", path.read_text()))
    log = shell.folder / "log"
    log.unlink(missing_ok=True)
    process = ForkedCommand(["run", *options], shell.folder, shell.env, log)
    running = Running(process, f"http://127.0.0.1:{port}", log)
    try:
        running.until(lambda: running.get("/readyz").status_code == 200, "ready", START_SECONDS)
        yield running
        assert process.poll() is None, log.read_text()
        process.terminate()
        assert process.wait(timeout=120) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
        print(log.read_text())  # pytest shows it where the test failed


def test_a_daemon_reloads_and_dead_letters_are_put_in_again(shell, topics):
    topic = topics.create()
    topics.produce(topic, [reading(i) for i in range(40)] + [bad(i) for i in range(40, 60)])
    shell.config(broker=topics.broker, topic=topic)
    path = shell.folder / "forewatch.yaml"
    with daemon(shell, "--watch") as running:
        running.until(
            lambda: running.records("scored") + running.records("dead_lettered") == 60,
            "all records accounted for",
        )
        assert running.records("dead_lettered") == 20
        assert running.get("/healthz").json()["alive"] is True

        good = path.read_text()
        path.write_text(good.replace("pressure]", "pressure], tim: x"))
        running.until(
            lambda: 'forewatch_config_reloads_total{result="refused"} 1.0' in running.get("/metrics").text,
            "refused",
        )
        assert "there is no such key — did you mean time?" in running.log.read_text()

        path.write_text(good.replace("[temperature, pressure]", "{temperature: temp, pressure: pressure}"))
        running.until(
            lambda: 'forewatch_config_reloads_total{result="taken"} 1.0' in running.get("/metrics").text,
            "taken",
        )
        running.until(lambda: running.get("/readyz").status_code == 200, "ready again")
        tried, done = shell.json_of_each(
            [
                ("deadletters", "replay", *options)
                for options in (("--dry-run",), ("--reason", "missing_field"))
            ]
        )
        assert tried == {"considered": 20, "decodable": 20, "replayed": 0, "refused": {}}
        assert done == {"considered": 20, "decodable": 20, "replayed": 20, "refused": {}}
        running.until(lambda: running.records("scored") == 60, "scored after all")
    commands = [
        ("deadletters", "list"),
        ("deadletters", "list", "--all"),
        ("deadletters", "replay"),
        ("faults", "list", "--open"),
    ]
    left, everything, again, faults = shell.json_of_each(commands)
    assert (left, len(everything), again["considered"], faults) == ([], 20, 0, [])


def test_sighup_reloads_without_watch_and_what_was_found_is_explained(shell, topics):
    topic = topics.create()
    topics.produce(topic, [reading(i, **({"temperature": 400.0} if i == 50 else {})) for i in range(80)])
    shell.config(broker=topics.broker, topic=topic)
    path = shell.folder / "forewatch.yaml"
    path.write_text(path.read_text() + "    limits: {temperature: {max: 100}}\n")
    with daemon(shell) as running:
        running.until(lambda: running.records("scored") == 80, "scored")
        path.write_text(path.read_text() + "    close_after: 4\n")
        running.process.send_signal(signal.SIGHUP)
        running.until(
            lambda: 'forewatch_config_reloads_total{result="taken"} 1.0' in running.get("/metrics").text,
            "taken",
        )
        good = path.read_text()
        path.write_text("nonsense")
        running.process.send_signal(signal.SIGHUP)
        running.until(
            lambda: 'forewatch_config_reloads_total{result="refused"} 1.0' in running.get("/metrics").text,
            "refused",
        )
        assert running.get("/healthz").status_code == 200
    path.write_text(good)
    (found,) = shell.json("anomalies", "list")
    explained = shell.json("anomalies", "explain", found["id"])
    assert (explained["verdict"], explained["points"], explained["flagged"]) == ("holds", 26, True)
    assert "The config of the stream has changed since" in explained["reasons"][0]


def test_replay_needs_a_log_to_write_to(shell, topics):
    shell.config(broker=topics.broker, topic=topics.create())
    shell.run("db", "upgrade")
    assert shell.json("deadletters", "replay") == {
        "considered": 0,
        "decodable": 0,
        "replayed": 0,
        "refused": {},
    }
    assert "there is no dead letter 5" in shell.run("deadletters", "replay", "5", code=2).stderr


def test_a_backfill_over_the_log_and_its_anomaly_explained(shell, topics):
    topic = topics.create()
    topics.produce(
        topic, [reading(i, **({"temperature": 400.0} if i == 50 else {})) for i in range(80)] + [bad(80)]
    )
    shell.config(broker=topics.broker, topic=topic)
    with (shell.folder / "forewatch.yaml").open("a") as config:
        config.write("    limits: {temperature: {max: 100}}\n")
    backfill = ("backfill", "forewatch.yaml", "--stream", "plant", "--from", "1h")
    done = shell.run(*backfill, "--scores", "scores.csv", "--json")
    report = json.loads(done.stdout)
    assert (report["records"], report["scored"], report["dead_lettered"], report["anomalies"]) == (
        81,
        80,
        1,
        1,
    )
    assert "81" in done.stderr, "progress"
    lines = (shell.folder / "scores.csv").read_text().splitlines()
    assert len(lines) == 81
    assert "records" in shell.run(*backfill).stdout
    (found,) = shell.json("anomalies", "list")
    assert (found["series"], found["forecaster"], found["channels"][0]["observed"]) == (
        "site=a,sensor=s0",
        "static",
        400.0,
    )
    assert "temperature" in shell.run("anomalies", "explain", found["id"]).stdout
    assert shell.json("anomalies", "explain", found["id"][:8])["anomaly"] == found["id"]
