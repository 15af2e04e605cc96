"""Try with a topic of a real broker: named on the page, judged, and its config copied."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from pipeline.api.server import dashboard_server
from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from storage.sql.database import Database
from tests.support.api_servers import CHANGE, STREAM, Site
from tests.support.browsers import open_page

pytestmark = pytest.mark.kafka
NOON = 1_764_072_000


@pytest.fixture
def config(topics, tmp_path: Path, sqlite_template: Path) -> Config:
    """Return a config whose stream reads another topic of the broker."""
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    kafka = {"kafka": {"brokers": [topics.broker], "topics": ["not-this-one"]}}
    streams = {"plant": STREAM | {"source": kafka, "team": "east"}, "files": STREAM | {"team": "west"}}
    return Config.model_validate({"database": f"sqlite:///{tmp_path}/forewatch.db", "streams": streams})


def written_topic(topics) -> str:
    """Write two series a minute, one of which jumps near the end; return the name of the topic."""
    topic = topics.create(1)
    rows = [
        {"sensor": name, "ts": NOON + 60 * n, "load": 50 + n % 7 + 300 * (n == 700 and name == "a")}
        for n in range(750)
        for name in ("a", "b")
    ]
    topics.produce(topic, [json.dumps(row).encode() for row in rows])
    return topic


def test_a_topic_is_named_on_the_page_and_its_config_runs(config, topics, tmp_path, browser):
    topic = written_topic(topics)
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/try")
        page.get_by_label("or the newest records of a topic of Kafka").fill(topic)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="of 1,500 rows").wait_for()
        page.get_by_label("Points in a row").fill("3")
        page.get_by_text("min_points: 3").wait_for()
        text = page.get_by_label("YAML").inner_text()
        assert not errors
    path = tmp_path / "tried.yaml"
    path.write_text(text)
    stream = load_config(path).streams[topic]
    assert stream.source.kafka is not None
    assert stream.source.kafka.topics == [topic]
    assert (stream.format.chosen.time, list(stream.channels), stream.min_points) == ("ts", ["load"], 3)


@pytest.mark.parametrize(
    ("topic", "stream", "status", "words"),
    [
        ("missing-topic", "plant", 409, "has no topic missing-topic"),
        ("x", "files", 422, "does not read Kafka"),
        ("../etc", "plant", 422, "topic"),
        ("x", "nonsense", 404, "there is no stream"),
    ],
)
def test_a_topic_that_cannot_be_read_is_explained(config, topic, stream, status, words):
    with dashboard_server(config, port=0) as server:
        answer = httpx.post(
            f"{server.url}/api/v1/try/topic",
            params={"topic": topic, "stream": stream},
            headers=CHANGE,
            trust_env=False,
        )
    assert (answer.status_code, words in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(("scope", "teams"), [("viewer", []), ("admin", ["east"])])
def test_a_viewer_and_a_team_may_not_read_topics_of_nobody(config, scope, teams):
    database = Database(config.database)
    with dashboard_server(config, port=0) as server:
        site = Site(server.url, database)
        with site.client(site.key(scope, teams=teams)) as client:
            answer = client.post("/api/v1/try/topic", params={"topic": "x", "stream": "plant"})
    database.close()
    assert answer.status_code == 403
