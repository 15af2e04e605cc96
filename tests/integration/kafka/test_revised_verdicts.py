"""Verdicts that late points change reach a topic of a real broker with their next revision."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.iso_times import show_time
from pipeline.engine.engine import Engine
from pipeline.outputs.kafka_output import KafkaOutput
from tests.integration.test_late_revisions import CASES, SETTINGS, history_of, log_of
from tests.support.engines import Bench
from tests.support.kafka_server import Topics
from tests.support.verdict_topics import OutputMaker, ReadVerdict, read_topic, wait_until

pytestmark = pytest.mark.kafka
Key = tuple[str, str]


class Live:
    """A stream with a topic of verdicts whose points do not come in the order of time."""

    def __init__(self, folder: Path, template: Path, topics: Topics, case: str, rows: str) -> None:
        arrived, ordered = CASES[case]()
        self.folder, self.template = folder, template
        self.maker = OutputMaker(topics.broker, topics.create(), {"rows": rows})
        self.bench, self.right = self.made("live", arrived), self.made("right", ordered)

    def made(self, name: str, points: list) -> Bench:
        folder = self.folder / name
        return Bench(folder, self.template, [log_of(points)], **SETTINGS, **history_of(folder))

    def engine(self) -> Engine:
        return self.bench.engine(history=True, revisions=True, make_outputs=self.maker)

    def output(self) -> KafkaOutput:
        return self.maker.made[-1]

    def read(self) -> list[ReadVerdict]:
        return read_topic(self.maker.broker, self.maker.topic)

    def alarms(self) -> dict[Key, bool]:
        """Return whether each point is an alarm, in the order of time."""
        self.right.fill()
        self.right.drain(self.right.engine(history=True)).close()
        self.right.open.clear()
        table = self.right.history()
        keys = zip(
            table.column("series").to_pylist(), map(show_time, table.column("time").to_pylist()), strict=True
        )
        return dict(zip(keys, table.column("flag").to_pylist(), strict=True))

    def close(self) -> None:
        self.bench.close()
        self.right.close()


def newest(found: list[ReadVerdict]) -> dict[Key, ReadVerdict]:
    """Return what a receiver holds: of a series and a time the greatest revision."""
    held: dict[Key, ReadVerdict] = {}
    for one in found:
        key = one.verdict.series, one.verdict.time
        if key not in held or one.verdict.revision >= held[key].verdict.revision:
            held[key] = one
    return held


@pytest.fixture
def live(tmp_path: Path, sqlite_template: Path, topics: Topics, request: pytest.FixtureRequest):
    made = Live(tmp_path, sqlite_template, topics, *request.param)
    yield made
    made.close()


@pytest.mark.parametrize(
    "live", [(case, rows) for case in CASES for rows in ("all", "flagged")], indirect=True, ids=str
)
def test_a_receiver_holds_the_verdicts_of_the_order_of_time(live: Live) -> None:
    engine = live.engine()
    live.bench.fill()
    live.bench.drain(engine)
    wait_until(lambda: not live.output()._waiting_rows, "first verdicts are written")
    first = live.read()
    assert {one.verdict.revision for one in first} <= {1}
    live.bench.revise(engine)
    engine.close()
    live.bench.open.clear()
    found, alarms = live.read(), live.alarms()
    held = newest(found)
    assert {key for key, one in held.items() if one.verdict.flag} == {k for k, flag in alarms.items() if flag}
    if live.output()._config.rows == "all":
        assert held.keys() == alarms.keys()
    revised = found[len(first) :]
    assert revised
    assert min(one.verdict.revision for one in revised) > 1
    before = newest(first)
    for one in revised:
        key = one.verdict.series, one.verdict.time
        if key in before and one.verdict.source == before[key].verdict.source:
            assert one.verdict.id == before[key].verdict.id


@pytest.mark.parametrize("live", [("correction", "flagged")], indirect=True, ids=str)
def test_a_retracted_alarm_is_written_once_more_without_flag(live: Live) -> None:
    engine = live.engine()
    live.bench.fill()
    live.bench.drain(engine)
    live.bench.revise(engine)
    engine.close()
    live.bench.open.clear()
    assert [(one.verdict.flag, one.verdict.revision) for one in live.read()] == [(True, 1), (False, 2)]


@pytest.mark.parametrize("live", [("limits", "flagged")], indirect=True, ids=str)
def test_an_owner_that_dies_before_its_snapshot_writes_the_same_revisions_again(live: Live) -> None:
    engine = live.engine()
    live.bench.fill()
    live.bench.drain(engine)
    wait_until(lambda: not live.output()._waiting_rows, "first verdicts are written")
    live.bench.revise(engine)
    wait_until(lambda: not live.output()._waiting_rows, "the revised ones are written")
    once = {(one.verdict.id, one.verdict.revision): one.verdict.flag for one in live.read()}
    engine = live.bench.drain(live.engine())
    live.bench.revise(engine)
    engine.close()
    live.bench.open.clear()
    again = live.read()
    assert {(one.verdict.id, one.verdict.revision): one.verdict.flag for one in again} == once


@pytest.mark.parametrize("live", [("limits", "flagged")], indirect=True, ids=str)
def test_revised_verdicts_wait_while_the_brokers_do_not_answer(live: Live, monkeypatch) -> None:
    """The attempt fails, and nothing is lost or taken for written."""
    engine = live.engine()
    live.bench.fill()
    live.bench.drain(engine)
    wait_until(lambda: not live.output()._waiting_rows, "first verdicts are written")
    first = len(live.read())
    monkeypatch.setattr(live.output(), "_ready", list)  # its thread stands still
    live.bench.revise(engine)
    assert live.output()._waiting_rows
    assert not live.output()._open[live.bench.position().partition].empty
    monkeypatch.undo()
    with live.output()._changed:
        live.output()._changed.notify_all()
    engine.close()
    live.bench.open.clear()
    assert len(live.read()) > first
