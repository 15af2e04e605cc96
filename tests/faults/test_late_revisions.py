"""Late and corrected points under kill -9, on a real Kafka, a real PostgreSQL and a real receiver.

The long version: ``python -m pytest -q -m long tests/faults/test_late_revisions.py``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.config.loader import load_config
from pipeline.core.types import Anomaly
from pipeline.services.backfill import run_backfill
from pipeline.services.revision import verify
from storage.results import anomalies, late_records
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.late_feed import LateLog, make_late_log
from tests.faults.ledger import ID_HEADER, check_alerts, unfinished
from tests.faults.member import wait_for
from tests.faults.stage import NoTroubles, Silent, Stage
from tests.faults.storm import storm
from tests.faults.traps import PHASES, REVISION_PHASES
from tests.support.kafka_server import Topics
from tests.support.receiver import Receiver

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

#: Phases beside those of a revision that the short test kills in.
FEW_PHASES = ("in COMMIT", "replaying")
QUICK = {
    ("pipeline.services.series_revision", "QUIET_NS"): 300_000_000,
    ("pipeline.services.series_revision", "LONGEST_WAIT_NS"): 1_000_000_000,
    ("pipeline.services.series_revision", "FLUSH_SECONDS"): 0.1,
    ("pipeline.daemon.revision_service", "INTERVAL_SECONDS"): 0.1,
}
#: Every state of an anomaly that was ever committed.
LOG_REVISIONS = (
    "CREATE TABLE revision_log (id uuid, revision bigint)",
    "CREATE FUNCTION log_revision() RETURNS trigger AS $$ BEGIN "
    "INSERT INTO revision_log VALUES (NEW.id, NEW.revision); RETURN NULL; END $$ LANGUAGE plpgsql",
    "CREATE TRIGGER log_revision AFTER INSERT OR UPDATE ON anomalies "
    "FOR EACH ROW EXECUTE FUNCTION log_revision()",
)


class LastRevisions(NoTroubles):
    """Waits for the last revision and its messages, while members live."""

    def __init__(self, stage: Stage, receiver: Receiver) -> None:
        self._stage = stage
        tree = json.loads(stage.config.read_text())
        tree["endpoints"] = {"hook": {"type": "json", "url": receiver.url, "allow": ["loopback"]}}
        stage.config.write_text(json.dumps(tree))
        with stage.database.begin() as connection:
            for statement in LOG_REVISIONS:
                connection.execute(text(statement))

    def close_account(self) -> None:
        """Wait until no late point and no event is pending."""
        wait_for(lambda: not self._pending(), "every late point has revised", 60, self._stage.say)
        wait_for(lambda: not unfinished(self._stage.database), "no event waits", 60, self._stage.say)

    def _pending(self) -> int:
        with self._stage.database.read() as connection:
            here = [one.partition for one in positions.all_of(connection, "plant")]
            return len(late_records.pending(connection, "plant", here, 10_000))


def essence(found: Sequence[Anomaly]) -> dict[str, tuple]:
    """Return what does not depend on the order of arrival."""
    return {
        str(a.id): (
            *(a.series, a.state.value, a.severity.value, a.direction, a.cause),
            *(
                a.start_ns,
                a.end_ns,
                a.peak_ns,
                a.points,
                a.score,
                a.surprise,
                a.ratio,
                a.observed,
                a.expected,
            ),
        )
        for a in found
    }


def verdicts_in_order(stage: Stage, topics: Topics, logs: Sequence[LateLog]) -> dict[str, tuple]:
    """Return the anomalies of a backfill of the same points in the order of time."""
    topic = topics.create(partitions=len(logs))
    for number, log in enumerate(logs):
        topics.produce(topic, log.ordered.values, number)
    url = f"sqlite:///{stage.folder}/ordered.db"
    path = stage.write_config("ordered", url, **stage._changes)
    tree = json.loads(path.read_text())
    tree["streams"]["plant"]["source"]["kafka"]["topics"] = [topic]
    path.write_text(json.dumps(tree))
    run_backfill(load_config(path), "plant", None, 0, None, None, Silent())
    database = Database(url)
    with database.read() as connection:
        found = essence(anomalies.query(connection, stream="plant"))
    database.close()
    return found


def check_revision_numbers(database: Database) -> None:
    """Each anomaly was committed in the revisions 1, 2, 3 and so on, in each of them once."""
    with database.read() as connection:
        rows = connection.execute(text("SELECT id, revision FROM revision_log")).all()
    by_id = defaultdict(list)
    for id_, revision in rows:
        by_id[id_].append(revision)
    assert by_id
    assert {id_: sorted(some) for id_, some in by_id.items()} == {
        id_: list(range(1, len(some) + 1)) for id_, some in by_id.items()
    }


def check_messages(database: Database, receiver: Receiver) -> dict[str, int]:
    """Each message came with one body; the last one about an anomaly tells what the table holds."""
    report = check_alerts(database, receiver.received)
    assert report.problems == []
    kinds: dict[str, set[str]] = defaultdict(set)
    bodies: dict[tuple, set[str]] = defaultdict(set)
    last: dict[str, tuple[int, str]] = {}
    for request in receiver.received:
        body, id_ = json.loads(request.body), request.headers[ID_HEADER]
        kinds[body["type"]].add(id_)
        bodies[body["type"], body["data"]["alert_id"], body["data"]["sequence"]].add(id_)
        for view in body["data"]["anomalies"]:
            if body["data"]["sequence"] >= last.get(view["id"], (-1, ""))[0]:
                last[view["id"]] = body["data"]["sequence"], view["state"]
    assert all(len(ids) == 1 for ids in bodies.values()), "one change has two messages"
    with database.read() as connection:
        alive = {str(one.id) for one in anomalies.query(connection, stream="plant")}
    told = {id_ for id_, (_, state) in last.items() if state != "retracted"}
    assert told == alive
    return {kind: len(ids) for kind, ids in kinds.items()}


def stage_of(folder: Path, topics: Topics, url: str, logs: Sequence[LateLog]) -> Stage:
    return Stage(
        folder,
        topics,
        url,
        [one.arrived for one in logs],
        lateness="0s",
        duplicates="last",
        future=None,
        alerts={"max_age": None, "storm": None, "budget": None},
    )


def run_storm(
    stage: Stage, topics: Topics, logs: Sequence[LateLog], phases: Sequence[str], seed: int
) -> None:
    stage.constants = QUICK
    try:
        with Receiver() as receiver:
            stage.troubles = LastRevisions(stage, receiver)
            stage.phases = phases
            storm(stage, len(phases), 0, seed=seed)
            with stage.database.read() as connection:
                found = essence(anomalies.query(connection, stream="plant"))
            right = verdicts_in_order(stage, topics, logs)
            assert found.keys() == right.keys()
            assert found == right
            series, differences = verify(stage.database, load_config(stage.config), "plant")
            assert (series, differences) == (3 * len(logs), [])
            check_revision_numbers(stage.database)
            messages = check_messages(stage.database, receiver)
        print(stage.figures.phases, messages)
        assert messages["alert.retracted.v1"] or messages["alert.revised.v1"]
    finally:
        stage.close()


@pytest.mark.timeout(400)
def test_late_points_under_kills(tmp_path: Path, topics: Topics, schema_url: str):
    logs = [make_late_log(number, 240) for number in range(2)]
    assert all(one.late > 10 and one.corrected > 3 for one in logs)
    stage = stage_of(tmp_path / "storm", topics, schema_url, logs)
    run_storm(stage, topics, logs, (*REVISION_PHASES, *FEW_PHASES), seed=1)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(1, 9))
def test_late_points_under_many_kills(tmp_path: Path, topics: Topics, schema_url: str, seed: int):
    logs = [make_late_log(number, 600, seed=seed) for number in range(3)]
    stage = stage_of(tmp_path / "storm", topics, schema_url, logs)
    run_storm(stage, topics, logs, 2 * (*REVISION_PHASES, *PHASES), seed)
