"""Verdicts that late points change are sent by remote write again, with ``revisions: true``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.outputs import RemoteWriteConfig
from pipeline.observability.metrics import Metrics, OutputMetrics
from pipeline.outputs.remote_write import RemoteWriteOutput
from tests.integration.test_late_revisions import CASES, SETTINGS, history_of, log_of
from tests.integration.test_remote_write import samples
from tests.support.engines import Bench
from tests.support.receiver import Receiver, answer
from tests.support.verdict_topics import wait_until

#: (metric, series, channel), time in ms → the sample that came last.
Held = dict[tuple[tuple[str, ...], int], float]


class Sent:
    """A stream that sends to a receiver of its own, revised at its end."""

    def __init__(self, folder: Path, template: Path, points: list, **keys: Any) -> None:
        self.receiver = Receiver(answer(204, b""))
        self.made: list[RemoteWriteOutput] = []
        self.metrics = Metrics()
        with self.receiver:
            self.config = RemoteWriteConfig(url=self.receiver.url, **keys)
            bench = Bench(folder, template, [log_of(points)], **SETTINGS, **history_of(folder))
            engine = bench.engine(history=True, revisions=True, make_outputs=self.make)
            bench.fill()
            bench.drain(engine)
            self.wait()
            self.first = self.held()
            bench.revise(engine)
            self.wait()
            self.last = self.held()
            bench.close()

    def make(self, scorer: Any) -> list[RemoteWriteOutput]:
        counters = OutputMetrics(self.metrics, "plant", "graphs")
        self.made.append(RemoteWriteOutput("graphs", self.config, scorer, counters))
        return [self.made[-1]]

    def wait(self) -> None:
        wait_until(lambda: not self.made[-1]._waiting, "everything is sent")

    def held(self) -> Held:
        """Return what a receiver that keeps the last sample of a time holds."""
        found = samples(self.receiver)
        return {(key, time_ms): value for key, pairs in found.items() for value, time_ms in pairs}


@pytest.fixture
def sent(tmp_path: Path, sqlite_template: Path) -> Iterator[Any]:
    def make(name: str, points: list, **keys: Any) -> Sent:
        return Sent(tmp_path / name, sqlite_template, points, **keys)

    return make


@pytest.mark.parametrize("case", CASES)
def test_a_receiver_of_all_series_ends_with_the_verdicts_of_the_order_of_time(sent: Any, case: str) -> None:
    arrived, ordered = CASES[case]()
    live, right = (
        sent(str(n), one, series="all", revisions=True) for n, one in enumerate((arrived, ordered))
    )
    assert live.first != right.last
    assert live.last.keys() == right.last.keys()
    wrong = {key: (value, right.last[key]) for key, value in live.last.items() if value != right.last[key]}
    assert wrong == {}


def test_a_retracted_alarm_is_sent_without_its_flag(sent: Any) -> None:
    arrived, _ = CASES["correction"]()
    run = sent("flagged", arrived, revisions=True, keep="1s")
    (at,) = [time_ms for ((metric, _, _), time_ms), value in run.first.items() if metric == "flag" and value]
    flags = {time_ms: value for ((metric, *_), time_ms), value in run.last.items() if metric == "flag"}
    assert flags[at] == 0


def test_revisions_are_not_sent_without_the_key(sent: Any) -> None:
    arrived, _ = CASES["limits"]()
    run = sent("plain", arrived, series="all")
    assert run.last == run.first


def test_series_over_the_limit_are_not_sent_when_they_are_revised(sent: Any) -> None:
    arrived, _ = CASES["step"]()
    run = sent("limit", arrived, series="all", revisions=True, max_series=1)
    assert len({series for (_, series, _), _ in run.last}) == 1
