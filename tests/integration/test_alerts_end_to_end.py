"""As a user has it: a daemon over a real Kafka, `forewatch hooks listen` at the other end, and the commands
for what was sent.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from pipeline.alerts.transport.signing import new_secret
from tests.integration.test_cli_kafka import MINUTE_MS, daemon
from tests.integration.test_cli_process import FOREWATCH, Shell
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.kafka

CONFIG = """\
database: {database}
http: null
streams:
  plant:
    source: {{kafka: {{brokers: ["{broker}"], topics: [{topic}]}}}}
    format: {{json: {{series: [site, sensor], time: ts, values: [temperature]}}}}
    detector: light
    limits: {{temperature: {{max: 100}}}}
    alerts:
      max_age: null  # the records have fixed times
      budget: 5 per day
      rules: [{{name: attic, match: {{site: attic}}, drop: true}}]
endpoints:
  hook: {{type: webhook, url: "{url}", secret: {{file: {secret}}}, allow: [loopback]}}
  down: {{type: json, url: "http://127.0.0.1:1/", allow: [loopback]}}
"""


class Listener:
    """Lines of a process's stdout, each with the time of its arrival."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: Queue[tuple[str, float]] = Queue()
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def line(self, beginning: str, timeout: float = 120.0) -> tuple[str, float]:
        """The next line that begins so, and when it came."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            with suppress(Empty):
                found = self._lines.get(timeout=left)
                if found[0].startswith(beginning):
                    return found
        raise AssertionError(f"no line that begins with {beginning}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self._lines.put((line, time.time()))


@contextmanager
def listening(command: list[str], folder: Path) -> Iterator[Listener]:
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        yield Listener(process)
    finally:
        process.terminate()
        process.wait(60)


def reading(minute: int, temperature: float, site: str = "a", sensor: str = "s1") -> bytes:
    return json.dumps(
        {
            "site": site,
            "sensor": sensor,
            "ts": 1_750_000_000_000 + minute * MINUTE_MS,
            "temperature": temperature,
        }
    ).encode()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def set_up(shell: Shell, topics: Any) -> tuple[str, int]:
    """A configuration, its topic with a calm past, and the port that its webhook goes to."""
    topic, port, secret = topics.create(), free_port(), shell.folder / "secret"
    secret.write_text(new_secret())
    url = f"http://127.0.0.1:{port}/hook"
    values = {
        "database": f"sqlite:///{shell.folder}/forewatch.db",
        "broker": topics.broker,
        "topic": topic,
        "url": url,
        "secret": secret,
    }
    (shell.folder / "forewatch.yaml").write_text(CONFIG.format(**values))
    topics.produce(topic, [reading(i, 20.0 + i % 5) for i in range(60)])
    return topic, port


def test_a_signed_webhook_arrives_after_the_anomaly_and_the_resolve_follows(shell, topics):
    topic, port = set_up(shell, topics)
    command = [*FOREWATCH, "hooks", "listen", "--port", str(port), "--secret-file", "secret"]
    with listening(command, shell.folder) as listener, daemon(shell) as running:
        running.until(lambda: running.records("scored") == 60, "the past is scored")
        assert "200" in shell.run("endpoints", "ping", "hook").stdout
        assert "signature verified" in listener.line("alert.test.v1")[0]

        taken = []
        for sensor in ("s1", "s2", "s3"):
            began = time.time()
            topics.produce(topic, [reading(60, 400.0, sensor=sensor)])
            opened, at = listener.line("alert.opened.v1")
            assert "signature verified" in opened
            taken.append(at - began)
        print(f"{min(taken):.2f} s from the record to its webhook")  # 1 s where no other test runs
        topics.produce(
            topic, [reading(60, 500.0, "attic"), *(reading(i, 20.0 + i % 5) for i in range(61, 130))]
        )
        resolved, _ = listener.line("alert.resolved.v1")
        assert "signature verified" in resolved
        check_listings(shell)


def check_listings(shell: Shell) -> None:
    """Check what the list commands print afterwards."""
    alerts, sent, ledger = shell.json_of_each(
        [("alerts", "list", "--all"), ("deliveries", "list", "--endpoint", "hook"), ("alerts", "ledger")]
    )
    (alert,) = [a for a in alerts if a["labels"] == {"site": "a", "sensor": "s1"}]
    assert (alert["state"], alert["outcome"]) == ("closed", "resolved")
    assert Counter((d["kind"], d["state"]) for d in sent) == {
        ("opened", "delivered"): 3,
        ("resolved", "delivered"): 1,
    }
    events = {(row["state"], row["reason"]): row["count"] for row in ledger if row["what"] == "events"}
    assert events["suppressed", "rule:attic"] >= 1
    waiting = {(row["state"], row["count"]) for row in ledger if row["endpoint"] == "down"}
    assert waiting == {("pending", 4)}
    shown = shell.run("deliveries", "show", sent[0]["id"]).stdout
    assert "delivered" in shown
    assert "alert.resolved.v1" in shown


def test_a_receiver_written_from_the_page_verifies_and_what_it_missed_is_redelivered(shell, topics):
    """docs/how-to/alert.md has a receiver of ten lines that knows the standardwebhooks library and nothing of ours:
    this runs it.
    """
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/alert.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    topic, port = set_up(shell, topics)
    (shell.folder / "receiver.py").write_text(
        program.replace("8787", str(port)).replace("secret.txt", "secret")
    )
    with daemon(shell) as running:
        topics.produce(topic, [reading(60, 400.0)])
        running.until(lambda: bool(shell.json("deliveries", "list", "--endpoint", "hook")), "queued")
        with listening([sys.executable, "receiver.py"], shell.folder) as listener:
            assert (
                "site=a, sensor=s1: temperature is 400, above its limit of 100"
                in listener.line("alert.opened.v1")[0]
            )
            running.until(lambda: shell.json("deliveries", "list", "--state", "delivered") != [], "recorded")
            assert (
                "1 of 1"
                in shell.run("deliveries", "redeliver", "--since", "1h", "--state", "delivered").stdout
            )
            assert listener.line("alert.opened.v1")
