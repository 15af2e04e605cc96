"""Rates of log templates as a user has them: lines of a topic and of a CSV file, counted by template."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.core.types import Anomaly
from storage.results import anomalies
from storage.sql.database import Database
from tests.integration.test_cli_kafka import daemon
from tests.integration.test_cli_process import Shell
from tests.support.file_daemons import running

START = 1_750_000_020
KAFKA = """\
database: sqlite:///forewatch.db
http: null
storage: {{snapshot_every: 200ms}}
streams:
  plant:
    source: {{kafka: {{brokers: ["{broker}"], topics: [{topic}]}}}}
    format: {{json: {{series: host, time: t, values: [], template: message}}}}
    aggregate: {{every: 1s, values: {{lines: count}}}}
    limits: {{lines: {{min: 1}}}}
"""


def message(second: int) -> str:
    return f"login of account {second} from 10.0.0.{second % 200}"


def encoded(first: int, count: int) -> list[bytes]:
    return [
        json.dumps({"host": "web-1", "t": START + second, "message": message(second)}).encode()
        for second in range(first, first + count)
    ]


def anomalies_of(folder: Path) -> list[Anomaly]:
    database = Database(f"sqlite:///{folder}/forewatch.db")
    with database.read() as connection:
        found = anomalies.query(connection, stream="plant")
    database.close()
    return found


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_lines_of_a_topic_are_counted_by_template_until_all_of_them_stop(tmp_path: Path, topics) -> None:
    shell, topic = Shell(tmp_path), topics.create()
    (tmp_path / "forewatch.yaml").write_text(KAFKA.format(broker=topics.broker, topic=topic))
    topics.produce(topic, encoded(0, 20))
    with daemon(shell) as first:
        first.until(lambda: first.records("scored") >= 19, "the first lines are counted")
    (template,) = shell.json("templates", "list", "--stream", "plant")
    topics.produce(topic, encoded(220, 20))
    with daemon(shell) as second:
        second.until(lambda: len(anomalies_of(tmp_path)) == 2, "no record causes the second anomaly")
    found = sorted(shell.json("anomalies", "list"), key=lambda one: one["start"])
    series = f"host=web-1,template={template['code']}"
    assert {(one["series"], one["channels"][0]["observed"]) for one in found} == {(series, 0.0)}
    assert {one["labels"]["template_text"] for one in found} == {"login of account <NUM> from <IP>"}
    starts = [datetime.fromisoformat(one["start"]).timestamp() - START for one in found]
    assert starts == [20, 240]
    assert [one["state"] for one in found] == ["closed", "open"]
    (known,) = shell.json("templates", "list", "--stream", "plant")
    assert (known["code"], known["lines"]) == (template["code"], 40)


def test_lines_of_a_csv_file_are_counted_by_template(tmp_path: Path, sqlite_template: Path) -> None:
    rows = []
    for minute in range(30):
        at = START + 60 * minute
        texts = [message(minute), f'disk "sd{minute}" is 9{minute % 10} % full, {minute} left']
        texts += [message(minute + n) for n in range(20)] if minute == 25 else []
        rows += [f'web-1,{at},"{text.replace(chr(34), chr(34) * 2)}"' for text in texts]
    path = tmp_path / "lines.csv"
    path.write_text("host,t,message\n" + "\n".join([*rows, "web-1,,no time", "web-1,1"]) + "\n")
    stream = {
        "source": {"files": {"paths": [str(path)]}},
        "format": {"csv": {"series": "host", "time": "t", "values": [], "template": "message"}},
        "aggregate": {"every": "1m", "values": {"lines": "count"}},
        "limits": {"lines": {"max": 10}},
        "detector": "light",
        "dead_letters": {"ratio": 1.0},
    }
    with running(tmp_path, sqlite_template, {"plant": stream}) as one:
        one.until(lambda: one.read("plant") == len(rows) + 2)
        one.until(lambda: one.found("plant"))
        scorer = one.daemon._engines["plant"].parts.scorer
        texts = {template.text for found in scorer.templates.templates().values() for template in found}
        names = {name for name in scorer.names() if name}
    assert texts == {"login of account <NUM> from <IP>", "disk <*> is <NUM> % full, <NUM> left"}
    assert len(names) == 2
    (anomaly,) = one.found("plant")
    assert anomaly.observed == [21.0]
    assert anomaly.labels["template_text"] == "login of account <NUM> from <IP>"
