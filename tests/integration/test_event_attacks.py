"""Events as an outsider would send them: nothing lost, memory bounded, a fault says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.types import FaultKind, Partition
from storage.results import dead_letters
from tests.faults.feed import Log
from tests.support.engines import Bench
from tests.support.events import CYCLE, START, cycles, encoded, saved_door_model

PARTITION = Partition("plant", 0)
DOORS: dict[str, Any] = {"series": "door", "time": "t", "code": "event"}


def bench_of(folder: Path, template: Path, log: Log, **changes: Any) -> Bench:
    """Return an engine's bench over a stream of doors with a model."""
    settings = {
        "format": {"json": DOORS},
        "events": {"idle": "1m", "model": str(saved_door_model(folder))},
        "without": ("limits", "detector", "every"),
        "lateness": "0s",
        "dead_letters": {"ratio": 1.0, "run": 100_000},
    }
    return Bench(folder / "bench", template, [log], **settings | changes)


def record(code: Any, second: float = 0.0, **more: Any) -> bytes:
    return json.dumps({"door": "a", "t": START + second, "event": code} | more).encode()


HOSTILE = [
    (record(None), "dead_lettered"),
    (record(["badge"]), "dead_lettered"),
    (record({"code": "badge"}), "dead_lettered"),
    (record(1.5), "dead_lettered"),
    (record("a\0b"), "dead_lettered"),
    (record(float("nan")), "dead_lettered"),
    (record(10**400), "scored"),
    (b"", "dead_lettered"),
    (b"\xff\xfe\x00badge", "dead_lettered"),
    (b"badge", "dead_lettered"),
    (b'{"door": "a", "t": 1750000000, "event": "bad', "dead_lettered"),
    (b"[" * 100_000, "dead_lettered"),
    (json.dumps({"door": "a", "t": START}).encode(), "dead_lettered"),
    (json.dumps({"door": "a", "event": "badge"}).encode(), "dead_lettered"),
    (record(""), "scored"),
    (record(7), "scored"),
    (record(2**63), "scored"),
    (record(True), "scored"),
    (record("\ud800"), "scored"),
    (record("🚪 开门 \u202e" * 50), "scored"),
    (record("x" * 1_000_000), "scored"),
    (record("badge", extra={"event": [1, {"event": None}]}), "scored"),
    (record("badge", 500.0), "scored"),
    (record("unlock", 100.0), "late"),  # the clock goes back
    (record("unlock", 501.0), "scored"),
]


def test_hostile_records_are_events_or_dead_letters_with_their_bytes(tmp_path, sqlite_template):
    log = Log([value for value, _ in HOSTILE], [kind for _, kind in HOSTILE])
    bench = bench_of(tmp_path, sqlite_template, log)
    bench.fill()
    bench.drain(bench.engine())
    bench.check()
    with bench.database.read() as connection:
        kept = {one.letter.offset: one.letter for one in dead_letters.query(connection)}
    for offset in log.dead():
        assert kept[offset].value == log.values[offset][: len(kept[offset].value or b"")]
        assert kept[offset].detail
    bench.close()


@pytest.mark.parametrize("field", ["code", "text"])
def test_a_storm_of_codes_is_counted_bounded_and_reported(tmp_path, sqlite_template, field):
    codes = [f"code{chr(97 + n % 26)}{n:x}z" for n in range(10_000)]
    events = [*cycles("a", 2), *(("a", 2000 + n * 0.01, code) for n, code in enumerate(codes))]
    values = encoded(events)
    log = Log(values, ["scored"] * len(values))
    named = DOORS | {field: "event"} if field == "code" else {"series": "door", "time": "t", "text": "event"}
    bench = bench_of(tmp_path, sqlite_template, log, format={"json": named})
    bench.fill()
    engine = bench.drain(bench.engine(), 240)
    bench.check()
    events_of = engine.parts.scorer.events
    assert events_of is not None
    assert len(events_of.dump(PARTITION)) < 1_000_000
    (fault,) = [one for one in bench.faults() if one.kind == FaultKind.NEW_CODES]
    assert fault.ended_ns is None
    assert "new codes" in fault.message
    assert len(bench.anomalies()) <= 110
    bench.close()


def test_log_lines_without_words_and_with_a_million_characters(tmp_path, sqlite_template):
    lines = ["", " \t ", "\x01\x02\x03", "�" * 10, "error " * 200_000, "1 2 3", "/a/b/c", *CYCLE]
    values = encoded([("a", float(n), line) for n, line in enumerate(lines)])
    log = Log(values, ["scored"] * len(values))
    form = {"json": {"series": "door", "time": "t", "text": "event"}}
    bench = bench_of(tmp_path, sqlite_template, log, format=form)
    bench.fill()
    engine = bench.drain(bench.engine())
    bench.check()
    assert engine.parts.scorer.events is not None
    found = engine.parts.scorer.events.codes()[PARTITION].templates()
    assert {"open", "close", "<NUM> <NUM> <NUM>", "<PATH>"} <= {one.text for one in found}
    assert max(len(one.text) for one in found) <= 2000
    bench.close()
