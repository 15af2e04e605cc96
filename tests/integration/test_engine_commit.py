"""The answer to a COMMIT is lost, on a real PostgreSQL, before or after it was carried out: the engine asks,
and never assumes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.feed import make_log
from tests.support.commit_proxy import CommitProxy
from tests.support.engines import Bench, essence

pytestmark = [pytest.mark.postgres]


def test_a_lost_answer_neither_loses_nor_repeats(
    tmp_path: Path, sqlite_template: Path, schema_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.engine.member_partitions.RETRY_SECONDS", 0.01)
    logs = [make_log(number, 100, seed=6) for number in range(2)]
    plain = Bench(tmp_path / "plain", sqlite_template, logs)
    plain.fill()
    plain.drain(plain.engine())
    with CommitProxy(schema_url) as proxy:
        bench = Bench(
            tmp_path / "lossy",
            sqlite_template,
            logs,
            url=proxy.url,
            engine={"max_batch": 60},
            storage={"snapshot_every": "1h"},
        )
        bench.fill()
        engine = bench.engine()
        engine.turn(0.0)
        commits = bench.position().commits
        for i in range(10):
            proxy.lose = "reply" if i % 2 else "request"
            for _ in range(50):
                engine.turn(0.01)
                if proxy.lost > i and not engine.waits_for:
                    break
            assert proxy.lost == i + 1
        assert bench.position().commits > commits
        bench.drain(engine)
        bench.check()
        assert {p.epoch for _, p in bench.positions().values()} == {1}
        assert essence(bench.anomalies()) == essence(plain.anomalies())
        bench.close()
    plain.close()
