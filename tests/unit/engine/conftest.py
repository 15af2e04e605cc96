"""An engine on the in-memory log and SQLite, as often as a test wants one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.feed import Log, make_log
from tests.support.engines import Bench, essence

SECONDS = 120


@pytest.fixture(scope="module")
def logs() -> list[Log]:
    return [make_log(number, SECONDS) for number in range(3)]


@pytest.fixture
def make(tmp_path: Path, sqlite_template: Path) -> Iterator[type]:
    benches: list[Bench] = []

    def one(logs: list[Log], **changes) -> Bench:
        benches.append(Bench(tmp_path / f"bench{len(benches)}", sqlite_template, logs, **changes))
        return benches[-1]

    yield one
    for bench in benches:
        bench.close()


@pytest.fixture
def undisturbed(make, logs) -> list[tuple]:
    bench = make(logs)
    bench.fill()
    bench.drain(bench.engine())
    bench.check()
    found = essence(bench.anomalies())
    assert len(found) > 20
    assert {state for _, _, state, *_ in found} == {"closed"}
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the checks of an engine follow each other at once, and move its clock by hand."""
    from pipeline.engine import engine

    now = [1000.0]
    monkeypatch.setattr(engine, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(engine.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward
