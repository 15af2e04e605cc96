"""A backfill in parts has the results of a backfill in one process, on a real PostgreSQL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError, InputError
from pipeline.jobs.cluster_backfill import ClusterBackfill, ClusterChoice
from pipeline.jobs.cluster_session import worker_problem
from pipeline.services import backfill_plan
from pipeline.services.backfill import run_backfill
from pipeline.services.backfill_plan import BackfillPlan
from pipeline.services.backfill_shard import ShardReport, run_shard
from storage.results import anomalies
from storage.sql.database import Database
from storage.tables.stream import DeadLetterRow, LateRow, PositionRow, SnapshotRow
from tests.faults.stage import Silent
from tests.support.past_records import past_config, past_rows, write_csv, write_parquet
from tests.support.postgres_server import create_database, drop_database

pytestmark = pytest.mark.postgres


@pytest.fixture
def two_databases(postgres_server, postgres_template):
    urls = [create_database(postgres_server, postgres_template) for _ in range(2)]
    yield urls
    for url in urls:
        drop_database(postgres_server, url)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of about 1500 rows."""
    monkeypatch.setattr(backfill_plan, "PART_SECONDS", 1500 * backfill_plan.COSTS["light"].row)


def files_of(folder: Path) -> list[Path]:
    """Return a file that is divided by a hash, one by ranges of labels, and small ones that are one part."""
    return [
        write_csv(folder / "a [1].csv", past_rows(30, 150), broken_every=60),
        write_parquet(
            folder / "b.parquet", sorted((r for r in past_rows(30, 150, 2, 100) if r[0]), key=lambda r: r[0])
        ),
        *(write_csv(folder / f"c{n}.csv", past_rows(5, 100, n, 200 + 10 * n)) for n in range(3)),
    ]


def in_one_process(config: Config, files: Sequence[Path], scores: Path) -> dict[str, Any]:
    report = run_backfill(config, "plant", files, None, None, scores, Silent()).as_dict()
    return {key: value for key, value in report.items() if not key.endswith(("seconds", "per_second"))}


def in_parts(
    config: Config, files: Sequence[Path], scores: Path | None
) -> tuple[BackfillPlan, list[ShardReport]]:
    """Run all parts in this process, the last one first."""
    work = ClusterBackfill(config, "plant", tuple(map(str, files)), scores=scores)
    database = Database(config.database)
    try:
        plan, model = work.plan(database)
    finally:
        database.close()
    tasks = [work._task(plan, shard, model) for shard in plan.shards]
    return plan, [run_shard(task) for task in reversed(tasks)]


def results(url: str, *left_out: str) -> dict[str, Any]:
    """Return everything that a backfill leaves behind, in one order, without times of the wall clock."""
    left_out += ("revised_ns",)
    database = Database(url)
    with database.read() as connection:
        found = {
            "anomalies": {
                str(a.id): {name: repr(value) for name, value in asdict(a).items() if name not in left_out}
                for a in anomalies.query(connection, stream="plant")
            },
            "late": Counter(
                (r.topic, r.partition, r.offset, r.series, r.time_ns, tuple(r.values))
                for r in connection.execute(select(*LateRow.__table__.columns))
            ),
            "dead": Counter(
                (r.topic, r.partition, r.offset, r.reason, r.detail, r.value)
                for r in connection.execute(select(*DeadLetterRow.__table__.columns))
            ),
            "kept": [
                *connection.execute(select(PositionRow.stream)).scalars(),
                *connection.execute(select(SnapshotRow.stream)).scalars(),
            ],
        }
    database.close()
    return found


def rows_of(*paths: Path) -> pd.DataFrame:
    frames = [pd.read_parquet(path) for path in paths]
    whole = pd.concat([one.astype({c: str for c in one if one[c].dtype == "category"}) for one in frames])
    return whole.sort_values(["series", "timestamp"]).reset_index(drop=True)


def test_all_results_are_those_of_one_process(tmp_path, two_databases, small_parts):
    files = files_of(tmp_path)
    one, parts = map(past_config, two_databases)
    report = in_one_process(one, files, tmp_path / "one.parquet")
    plan, reports = in_parts(parts, files, tmp_path / "parts.parquet")
    kinds = Counter(
        "whole" if s.whole else "range" if s.group and s.group.by_range else "hash" for s in plan.shards
    )
    assert kinds["hash"] >= 3
    assert kinds["range"] >= 3
    assert kinds["whole"] >= 1
    assert all(report[name] > 20 for name in ("late", "duplicate", "dead_lettered"))
    assert report["anomalies"] > 50
    for name in ("scored", "late", "duplicate", "dead_lettered"):
        assert sum(getattr(r.counts, name) for r in reports) == report[name], name
    assert sum(r.anomalies for r in reports) == report["anomalies"]
    # `revision` counts the batches that changed an anomaly, and the batches of a part are others.
    assert results(two_databases[1], "revision") == results(two_databases[0], "revision")
    written = [tmp_path / f"parts.parquet.part{s.number}.parquet" for s in plan.shards]
    pd.testing.assert_frame_equal(
        rows_of(*written), rows_of(tmp_path / "one.parquet"), check_exact=True, check_dtype=False
    )


def test_a_part_that_is_done_is_not_run_again(tmp_path, two_databases, small_parts):
    files, config = files_of(tmp_path), past_config(two_databases[0])
    plan, first = in_parts(config, files, None)
    before = results(two_databases[0])
    again, second = in_parts(config, files, None)
    assert again == plan
    assert all(not report.worker for report in second)
    assert [(r.number, r.counts, r.anomalies) for r in second] == [
        (r.number, r.counts, r.anomalies) for r in first
    ]
    assert results(two_databases[0]) == before


def test_another_content_of_a_file_is_refused(tmp_path, two_databases, small_parts):
    files, config = files_of(tmp_path), past_config(two_databases[0])
    work = ClusterBackfill(config, "plant", tuple(map(str, files)))
    database = Database(config.database)
    plan, model = work.plan(database)
    database.close()
    write_csv(files[0], past_rows(30, 150, seed=9))
    with pytest.raises(InputError, match=r"a \[1\]\.csv on the worker .* has another content than here"):
        run_shard(work._task(plan, plan.shards[0], model))
    files[0].unlink()
    with pytest.raises(InputError, match=r"does not see .*put the files on a disk that every machine mounts"):
        run_shard(work._task(plan, plan.shards[0], model))


def test_sqlite_is_refused(tmp_path):
    work = ClusterBackfill(past_config(f"sqlite:///{tmp_path}/forewatch.db"), "plant", ("a.csv",))
    with pytest.raises(InputError, match="--cluster needs PostgreSQL"):
        work.run(ClusterChoice.of("local:2"), Silent())


def test_a_plan_states_parts_and_times(tmp_path, small_parts):
    (tmp_path / "forewatch.yaml").write_text(
        past_config(f"sqlite:///{tmp_path}/forewatch.db").model_dump_json(exclude_unset=True)
    )
    files = list(map(str, files_of(tmp_path)))
    command = ["backfill", str(tmp_path / "forewatch.yaml"), "-s", "plant", "--plan", *files]
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0, table.output
    assert "group 1 of" in table.output
    assert "series from the first to s-01" in table.output
    plan = json.loads(CliRunner().invoke(app, [*command, "--json", "--cluster", "local:3"]).stdout)
    assert plan["rows"] >= sum(part["rows"] for part in plan["parts"]) - len(plan["parts"])
    assert set(plan["seconds_by_workers"]) == {"1", "2", "3", "4", "16", "100"}


def test_mistakes_of_the_user_are_one_line_each(tmp_path, two_databases, small_parts):
    files, config = files_of(tmp_path), past_config(two_databases[0])
    (tmp_path / "forewatch.yaml").write_text(config.model_dump_json(exclude_unset=True))
    command = ["backfill", str(tmp_path / "forewatch.yaml"), "-s", "plant", str(files[1]), "--cluster"]
    for value, said in {
        "dask:8786": "--cluster 'dask:8786' is neither local, local:N nor the address of a Dask scheduler",
        "local:0": "is neither local, local:N nor",
        "tls://127.0.0.1:1": "needs certificates; write",
        "tcp://127.0.0.1:1": "no Dask scheduler answers at tcp://127.0.0.1:1",
    }.items():
        done = CliRunner().invoke(app, [*command, value])
        assert done.exit_code != 0
        assert said in str(done.exception), value
        assert isinstance(done.exception, ForewatchError)
    work = ClusterBackfill(config, "plant", (str(files[1]),))
    database = Database(config.database)
    plan, model = work.plan(database)
    database.close()
    task = work._task(plan, plan.shards[0], model)
    other = replace(task, versions=task.versions | {"numpy": "1.0"})
    assert (
        worker_problem([other])
        == f"a worker has another version: numpy {task.versions['numpy']} there, 1.0 here"
    )
    with pytest.raises(InputError, match=r"the model changed from other to .* run the same command again"):
        run_shard(replace(task, model="other"))


@pytest.mark.kafka
def test_partitions_of_a_topic_are_parts(two_databases, small_parts, topics, kafka_broker):
    topic = topics.create(partitions=3)
    for number in range(2):  # the third one is empty
        rows = past_rows(5, 300, number, 10 * number)
        values = [json.dumps({"s": s, "t": t, "v": v}).encode() for s, t, v in rows if s]
        topics.produce(topic, values, partition=number)
    source = {"kafka": {"brokers": [kafka_broker], "topics": [topic]}}
    form = {"json": {"series": "s", "time": "t", "values": ["v"]}}
    one, parts = (past_config(url, source=source, format=form) for url in two_databases)
    report = run_backfill(one, "plant", None, 0, None, None, Silent())
    work = ClusterBackfill(parts, "plant", None, 0, None)
    database = Database(parts.database)
    plan, model = work.plan(database)
    database.close()
    done = [run_shard(work._task(plan, shard, model)) for shard in plan.shards]
    assert plan.rows == report.counts.read()
    assert sum(r.counts.scored for r in done) == report.counts.scored > 1000
    assert results(two_databases[1], "revision") == results(two_databases[0], "revision")
