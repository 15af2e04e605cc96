"""A member whose packets to PostgreSQL, to the broker or to both are dropped for a while, beside another one.

Nothing is lost, nothing counts twice, and the verdicts are those of an undisturbed run.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import make_url, select

from storage.tables.stream import PositionRow
from tests.faults.feed import make_log
from tests.faults.member import Member, wait_for
from tests.faults.stage import SESSION_S, Stage
from tests.support.kafka_server import Topics
from tests.support.network_namespaces import NetworkNamespace, reason_without_namespaces

PARTITIONS = 4
CUT_S = SESSION_S + 2.5

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if reason := reason_without_namespaces():
        pytest.skip(reason)


def owners(stage: Stage) -> set[int]:
    """Return the process ids of the owners of the partitions."""
    with stage.database.read() as connection:
        found = connection.execute(select(PositionRow.owner)).scalars()
        return {int(owner.rpartition(":")[2]) for owner in found if owner}


def read_share(stage: Stage, share: float) -> None:
    stage.allow(share)
    stage.until_read(sum(round(len(log.values) * share) for log in stage.logs), 120)


def cut_off(
    stage: Stage, network: NetworkNamespace, ports: list[int], members: list[Member], to: float
) -> None:
    """Cut one of two members off, let records come, and mend the network."""
    cut, other = members
    wait_for(lambda: owners(stage) == {cut.pid, other.pid}, "each owns partitions", 120, stage.say)
    for port in ports:
        network.cut(port)
    stage.allow(to)
    time.sleep(CUT_S)
    for port in ports:
        network.mend(port)
    read_share(stage, to)
    assert (cut.exitcode, other.exitcode) == (None, None)


@pytest.mark.timeout(400)
def test_a_member_that_is_cut_off_does_no_harm(tmp_path: Path, topics: Topics, schema_url: str):
    broker, database = int(topics.broker.rpartition(":")[2]), make_url(schema_url).port or 5432
    stage = Stage(
        tmp_path / "stage", topics, schema_url, [make_log(n, 150, seed=8) for n in range(PARTITIONS)]
    )
    try:
        with NetworkNamespace([broker, database]) as network:
            members = [stage.member(network=network.name), stage.member()]
            read_share(stage, 0.2)
            for ports, share in (([database], 0.4), ([broker], 0.6), ([broker, database], 0.8)):
                cut_off(stage, network, ports, members, share)
            stage.until_drained(120)
            stage.leave()
        figures = stage.account()
        assert figures.problems == []
        assert (figures.lost, figures.twice) == (0, 0)
    finally:
        stage.close()
