"""`alerts test` and the router count the same alerts of a backlog."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipeline.alerts.factory import router_of
from pipeline.alerts.simulation import simulate
from pipeline.config.schema import Config
from storage.alerting import outbox
from storage.sql.database import Database
from tests.support.alerting import NOON, SECOND, RouterBench, anomaly, closed

HOUR, DAY = 3600 * SECOND, 86_400 * SECOND


@pytest.mark.parametrize(("max_age", "openings"), [("1d", 10 + 5 + 1), (None, 42 + 2 * (5 + 1))])
def test_the_simulation_of_a_backlog_agrees_with_the_router(
    sqlite_template: Path, tmp_path: Path, max_age: str | None, openings: int
):
    config = Config.model_validate(
        {
            "streams": {
                "plant": {
                    "source": {"memory": {"name": "x"}},
                    "format": {"json": {"series": ["site", "sensor"], "time": "t", "values": ["v"]}},
                    "alerts": {"storm": 5, "max_age": max_age},
                }
            },
            "endpoints": {"chat": {"type": "json", "url": "http://127.0.0.1:9/", "allow": ["loopback"]}},
        }
    )
    shutil.copy(sqlite_template, tmp_path / "bench.db")
    bench = RouterBench(Database(f"sqlite:///{tmp_path}/bench.db"))
    bench.router = router_of(config)
    bench.now_ns = NOON + 14 * DAY
    quiet = [anomaly(f"b2/q{n}", NOON + n * 8 * HOUR + HOUR) for n in range(42)]
    quiet = quiet[:32] + [anomaly(f"b2/r{n}", NOON + 13 * DAY + (2 * n + 1) * HOUR) for n in range(10)]
    storms = [
        anomaly(f"b2/s{d}-{n}", NOON + d * DAY + 12 * HOUR + n * SECOND) for d in (2, 13) for n in range(20)
    ]
    backlog = [closed(a) for a in sorted([*quiet, *storms], key=lambda a: a.start_ns)]
    bench.happen_at_once(backlog)
    bench.settle()
    bench.later(3600)
    sent = Counter(bench.kinds())
    assert sent["opened"] == openings
    with bench.database.read() as connection:
        commits = outbox.first_commits(connection, 0)
    report = simulate(config, backlog, [], NOON, bench.now_ns, commits)
    assert Counter(payload.kind for _, _, payload in report.sent)["opened"] == openings
    too_old = {a.id for _, reason, a in report.dropped if reason == "too old"}
    assert len(too_old) == bench.ledger().get("too old", 0)
