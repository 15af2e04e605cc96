"""Events as an outsider would send them, to a running daemon over a real broker.

The storm of a million codes: pytest -q -m long tests/integration/test_event_attacks_live.py
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pipeline.core.types import FaultKind
from storage.results import dead_letters, faults
from storage.sql.database import Database
from tests.integration.test_cli_kafka import Running, daemon
from tests.integration.test_cli_process import Shell
from tests.integration.test_event_attacks import HOSTILE
from tests.support.events import cycles, encoded, saved_door_model

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]

CONFIG = """\
database: sqlite:///forewatch.db
http: null
streams:
  plant:
    source: {{kafka: {{brokers: ["{broker}"], topics: [{topic}]}}}}
    format: {{json: {{series: door, time: t, {role}: event}}}}
    events: {{idle: 1m, model: doors-model}}
    dead_letters: {{ratio: 1.0, run: 100000}}
"""
OUTCOMES = ("scored", "late", "duplicate", "dead_lettered", "filtered")
MAX_GROWTH_BYTES = 128 << 20
STORM_PART = 50_000


def started(folder: Path, topics, role: str) -> tuple[Shell, str]:
    shell, topic = Shell(folder), topics.create()
    saved_door_model(folder)
    (folder / "forewatch.yaml").write_text(CONFIG.format(broker=topics.broker, topic=topic, role=role))
    return shell, topic


def read(running: Running) -> float:
    return sum(map(running.records, OUTCOMES))


def test_hostile_records_do_not_stop_a_daemon(tmp_path: Path, topics) -> None:
    shell, topic = started(tmp_path, topics, "code")
    values = [value for value, _ in HOSTILE]
    topics.produce(topic, [*values, *encoded(cycles("back", 1, 600))])
    with daemon(shell) as running:
        running.until(lambda: read(running) == len(values) + 5, "every record has an outcome")
        for outcome in ("scored", "late", "dead_lettered"):
            wanted = sum(kind == outcome for _, kind in HOSTILE) + (5 if outcome == "scored" else 0)
            assert running.records(outcome) == wanted, outcome
        assert running.get("/healthz").json()["alive"] is True
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    with database.read() as connection:
        kept = {one.letter.offset: one.letter for one in dead_letters.query(connection)}
    database.close()
    assert kept.keys() == {at for at, (_, kind) in enumerate(HOSTILE) if kind == "dead_lettered"}
    assert all(values[at].startswith(letter.value or b"") and letter.detail for at, letter in kept.items())


@pytest.mark.parametrize(
    ("codes", "role"),
    [
        (10_000, "code"),
        pytest.param(1_000_000, "code", marks=pytest.mark.long),
        pytest.param(1_000_000, "text", marks=pytest.mark.long),
    ],
)
def test_a_storm_of_codes_leaves_a_daemon_bounded_and_is_a_fault(
    tmp_path: Path, topics, codes: int, role: str
) -> None:
    shell, topic = started(tmp_path, topics, role)
    topics.produce(topic, encoded(cycles("front", 3)))
    with daemon(shell) as running:
        process, sent, before = psutil.Process(running.process.pid), 15, 0
        for first in range(0, codes, STORM_PART):
            numbers = range(first, min(first + STORM_PART, codes))
            storm = [("back", 2000 + n * 0.01, f"code{chr(97 + n % 26)}{n:x}z") for n in numbers]
            topics.produce(topic, encoded(storm))
            sent += len(storm)
            running.until(lambda sent=sent: read(running) == sent, "the storm is scored", timeout=900)
            if first == 4 * STORM_PART:  # what is bounded is full
                before = process.memory_info().rss
        growth = process.memory_info().rss - before if before else 0
        print(
            f"{codes:,} codes as {role}: {process.memory_info().rss >> 20} MiB, {growth >> 20} MiB of them later"
        )
        assert growth < MAX_GROWTH_BYTES
        assert running.records("scored") == sent
        topics.produce(topic, encoded([("side", 100_000, "badge"), ("side", 100_001, "open")]))
        running.until(lambda: running.records("scored") == sent + 2, "the daemon goes on")
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    with database.read() as connection:
        (fault,) = [
            one for one in faults.query(connection, stream="plant") if one.kind == FaultKind.NEW_CODES
        ]
    database.close()
    assert "new codes" in fault.message
    assert (tmp_path / "forewatch.db").stat().st_size < 64 << 20
