"""Logs as an operator sees them: one line an event, machine-readable off a terminal, no secret in any of
them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pipeline.observability.log_setup import redact

SCRIPT = """
import logging, structlog
from pipeline.observability.log_setup import configure_logs
configure_logs("info", human={human})
log = structlog.get_logger("pipeline.engine.engine")
log.info("batch", stream="plant", records=3)
log.debug("too much")
log.warning("cannot connect", url="postgresql+psycopg://me:hunter2@host/db", password="hunter2")
logging.getLogger("apscheduler.jobs").info("chatter")
logging.getLogger("apscheduler.jobs").warning("broker %s away, sasl_plain_password='hunter2'", "a:1")
try:
    raise ValueError("bad dsn: host=x password=hunter2 user=me")
except ValueError:
    log.exception("crashed")
"""


def output(human: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(human=human)], capture_output=True, text=True, check=True
    )


def test_json_lines_on_stderr():
    run = output(human=False)
    events = [json.loads(line) for line in run.stderr.splitlines()]
    assert run.stdout == ""
    assert [event["event"] for event in events] == [
        "batch",
        "cannot connect",
        "broker a:1 away, sasl_plain_password=***",
        "crashed",
    ]
    assert events[0] | {"timestamp": ""} == {
        "event": "batch", "stream": "plant", "records": 3, "level": "info", "logger": "pipeline.engine.engine", "timestamp": "",
    }  # fmt: skip
    assert events[0]["timestamp"].endswith("Z")
    assert events[2]["logger"] == "apscheduler.jobs"
    assert "ValueError" in events[3]["exception"]
    assert "hunter2" not in run.stderr


def test_text_for_people_hides_the_same():
    text = output(human=True).stderr
    assert "batch" in text
    assert "plant" in text
    assert "chatter" not in text
    assert "Traceback" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "text",
    [
        "amqp://u:hunter2@h", "kafka password: hunter2", '{"token": "hunter2"}', "api_key=hunter2&x=1", "Authorization: Bearer hunter2",
        "whsec_hunter2", "secret='hunter2 with spaces'", "PASSWORD=hunter2;",
        "https://hooks.slack.com/services/T/B/hunter2", "POST https://h/x?a=1&sig=hunter2 failed", "tcp://hunter2@h:8786",
        "postgresql://me:a@hunter2@h/db", "Cookie: hunter2", "Authorization: Basic hunter2", "sslpassword=hunter2",
        "sasl.jaas.config=hunter2", "X-Api-Key: hunter2",
    ],
)  # fmt: skip
def test_secrets_within_texts_are_blackened(text):
    shown = redact(None, "info", {"event": text, "nested": {"deep": [text]}, "error": ValueError(text)})
    assert "hunter2" not in repr(shown)


def test_what_is_no_secret_stays():
    event = {
        "event": "consumed 3 records from http://host:9092/topic at 10:30:00",
        "series": "a/b",
        "n": 3,
        "keys": ["a"],
    }
    assert redact(None, "info", dict(event)) == event


def test_lines_of_a_worker_have_its_number_in_every_thread():
    script = """
import logging, threading, structlog
from pipeline.observability.log_setup import configure_logs
configure_logs("info", human=False, worker=3)
log = structlog.get_logger("pipeline.engine.engine")
thread = threading.Thread(target=lambda: log.info("batch"))
thread.start()
thread.join()
logging.getLogger("kafka").critical("gone")
log.info("worker started", worker=1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [json.loads(line)["worker"] for line in done.stderr.splitlines()] == [3, 3, 1]
