"""A real Prometheus sends to a daemon by remote write."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from storage.history.reader import HistoryReader
from storage.results import dead_letters
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.member import Member
from tests.support.postgres_server import free_port

PROMETHEUS = shutil.which("prometheus")
CONFIG = """\
database: sqlite:///{folder}/forewatch.db
storage: {{snapshot_every: 500ms}}
http: null
streams:
  scrapes:
    source: {{push: {{port: {push}, key: {{file: {folder}/key}}}}}}
    format:
      remote_write:
        series: [__name__, job]
        where: {{__name__: [up, scrape_samples_scraped]}}
    detector: light
"""
SENDER = """\
global: {{scrape_interval: 200ms}}
scrape_configs:
  - job_name: self
    static_configs: [{{targets: ["127.0.0.1:{own}"]}}]
remote_write:
  - url: http://127.0.0.1:{push}/push/scrapes
    authorization: {{credentials: "a long random text"}}
    queue_config:
      {{batch_send_deadline: 300ms, retry_on_http_429: true, min_backoff: 50ms, max_backoff: 300ms}}
"""


@pytest.mark.skipif(
    PROMETHEUS is None, reason="Prometheus is not on this machine (apt-get install prometheus)"
)
@pytest.mark.timeout(500)
def test_prometheus_sends_and_waits_while_the_daemon_is_away(tmp_path: Path, sqlite_template: Path) -> None:
    own, push = free_port(), free_port()
    config = tmp_path / "forewatch.yaml"
    config.write_text(CONFIG.format(push=push, folder=tmp_path))
    (tmp_path / "key").write_text("a long random text")
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    (tmp_path / "prometheus.yml").write_text(SENDER.format(push=push, own=own))
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")

    def scored() -> int:
        with database.read() as connection:
            return sum(one.counts.scored for one in positions.all_of(connection, "scrapes"))

    member = Member(config, tmp_path / "member0")
    assert PROMETHEUS is not None
    address = f"--web.listen-address=127.0.0.1:{own}"
    with open(tmp_path / "log", "w") as out:
        command = [PROMETHEUS, "--config.file=prometheus.yml", "--storage.tsdb.path=data", address]
        sender = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
    try:
        member.until(lambda: scored() >= 20, "Prometheus sends", 150)
        member.kill()
        before = scored()
        member = Member(config, tmp_path / "member1")
        member.until(lambda: scored() >= before + 30, "Prometheus sends on", 150)
        answer = httpx.get(f"http://127.0.0.1:{own}/api/v1/query", params={"query": "up[10m]"}).json()
        scraped = {round(1000 * float(time)) for time, _ in answer["data"]["result"][0]["values"]}
        sender.send_signal(signal.SIGTERM)  # it sends the rest before it ends
        sender.wait(60)
        member.leave(120)
    finally:
        member.kill()
        if sender.poll() is None:
            sender.kill()
            sender.wait(60)
    history = HistoryReader(str(tmp_path / "forewatch.db.history")).read("scrapes").to_pandas()
    history["series"] = history["series"].astype(str)
    assert set(history["series"]) == {
        "__name__=up,job=self",
        "__name__=scrape_samples_scraped,job=self",
    }
    assert not history.duplicated(["series", "time"]).any()
    with database.read() as connection:
        assert dead_letters.query(connection) == []
    # Prometheus keeps what it could not send: no scrape is missing, although the daemon was away for a while.
    times = history[history["series"].str.contains("=up,")]["time"].astype("int64") // 1_000_000
    assert scraped - set(times) == set()
    database.close()
