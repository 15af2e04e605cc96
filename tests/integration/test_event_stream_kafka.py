"""A stream of events as a user has it: config, a real Kafka, the alert that arrives, and its explanation."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.alerts.transport.signing import new_secret
from tests.integration.test_alerts_end_to_end import listening
from tests.integration.test_cli_kafka import daemon
from tests.integration.test_cli_process import FOREWATCH, Shell
from tests.support.events import cycles, encoded, saved_door_model
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.kafka

CONFIG = """\
database: sqlite:///forewatch.db
http: null
streams:
  plant:
    source: {{kafka: {{brokers: ["{broker}"], topics: [{topic}]}}}}
    format: {{json: {{series: door, time: t, code: event}}}}
    events: {{idle: 1m, model: doors-model}}
    alerts: {{max_age: null}}
endpoints:
  hook: {{type: webhook, url: "http://127.0.0.1:{port}/hook", secret: {{file: secret}}, allow: [loopback]}}
"""


def test_a_wrong_order_arrives_as_an_alert_in_words(tmp_path: Path, topics) -> None:
    shell, topic, port = Shell(tmp_path), topics.create(), free_port()
    saved_door_model(tmp_path)
    (tmp_path / "secret").write_text(new_secret())
    (tmp_path / "forewatch.yaml").write_text(CONFIG.format(broker=topics.broker, topic=topic, port=port))
    topics.produce(topic, encoded(cycles("front", 3)))
    command = [*FOREWATCH, "hooks", "listen", "--port", str(port), "--secret-file", "secret"]
    with listening(command, tmp_path) as listener, daemon(shell) as running:
        running.until(lambda: running.records("scored") == 15, "the past is scored")
        codes = ("badge", "open", "unlock", "close", "lock")
        wrong = [("back", 1800 + step, code) for step, code in enumerate(codes)]
        topics.produce(topic, encoded([*wrong, ("front", 1801, None)]))
        listener.line("alert.opened.v1")
        while "“open” came after “badge”" not in listener.line("")[0]:
            pass  # a line of the message; without the sentence, waiting for the next one fails
        topics.produce(topic, encoded(cycles("front", 2, 2000)))
        listener.line("alert.resolved.v1")
        running.until(lambda: running.records("dead_lettered") == 1, "the bad record is a dead letter")
    (anomaly,) = shell.json("anomalies", "list")
    assert anomaly["statement"].startswith("“open” came after “badge”, as it does ")
    assert anomaly["event"]["likely"][0] == "unlock"
    assert anomaly["cause"] == "unexpected_event"
    text = shell.run("anomalies", "explain", anomaly["id"]).stdout
    assert "usual here: “unlock”" in text
    assert "Events before: badge" in text
    assert "the verdict still holds" in text


def test_events_that_stop_with_the_whole_topic_are_told_once(tmp_path: Path, topics) -> None:
    shell, topic, port = Shell(tmp_path), topics.create(), free_port()
    saved_door_model(tmp_path)
    (tmp_path / "secret").write_text(new_secret())
    config = CONFIG.format(broker=topics.broker, topic=topic, port=port).replace("idle: 1m", "idle: 3s")
    (tmp_path / "forewatch.yaml").write_text(config)
    stopped = [("back", 600, "badge"), ("back", 601, "unlock")]
    topics.produce(topic, encoded([*cycles("front", 1), *stopped]))
    command = [*FOREWATCH, "hooks", "listen", "--port", str(port), "--secret-file", "secret"]
    with listening(command, tmp_path) as listener:
        with daemon(shell) as running:
            running.until(lambda: running.records("scored") == 7, "all events are scored")
            while "no event came after “badge”, “unlock”" not in listener.line("")[0]:
                pass  # no record follows: the end is that of the wall clock
        first = shell.json("anomalies", "list")
        (tmp_path / "forewatch.yaml").write_text(config)  # without the port of the first process
        with daemon(shell) as running:
            # The session is over, whoever reads on.
            topics.produce(topic, encoded([("back", 602, "open"), *cycles("back", 1, 700)]))
            running.until(lambda: running.records("scored") == 5, "the next session is scored")
            running.until(lambda: running.records("late") == 1, "the late event is none of it")
    (anomaly,) = shell.json("anomalies", "list")
    assert [anomaly] == first
    assert (anomaly["cause"], anomaly["state"], anomaly["revision"]) == ("missing_event", "closed", 1)
