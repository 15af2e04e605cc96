"""Templates of log lines in the snapshots of an engine: listed, whole, and continued after a crash."""

from __future__ import annotations

import json

from pipeline.services.storage_check import check_storage
from pipeline.services.stored_templates import stored_templates
from tests.faults.feed import START_MS, Log


def lines(count: int, first: int = 0) -> list[bytes]:
    return [
        json.dumps(
            {
                "s": f"host-{n % 3}",
                "t": START_MS + n * 1000,
                "line": f"session {n} opened" if n % 2 else f"user root closed /var/run/{n}.pid",
            }
        ).encode()
        for n in range(first, first + count)
    ]


def test_templates_are_stored_listed_and_continued(make):
    log = Log(lines(400), ["scored"] * 400)
    form = {"json": {"series": "s", "time": "t", "text": "line"}}
    bench = make([log], format=form, limits={}, events={"idle": "1m"})
    bench.fill(lambda log: 200)
    engine = bench.engine(history=True)
    while bench.positions() == {} or bench.position().next_offset != 200:
        engine.turn(0.0)
    engine.parts.snapshots.take_all(engine.parts.ownership)
    first = stored_templates(bench.config, bench.database, "plant")
    assert sorted((one.text, one.lines) for one in first) == [
        ("session <NUM> opened", 100),
        ("user root closed <PATH>", 100),
    ]
    assert list(check_storage(bench.config, bench.database)) == []

    bench.fill()
    engine = bench.drain(bench.engine(history=True))
    engine.parts.snapshots.take_all(engine.parts.ownership)
    again = stored_templates(bench.config, bench.database, "plant")
    assert {one.code for one in again} == {one.code for one in first}
    assert sum(one.lines for one in again) == 400
