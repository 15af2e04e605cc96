"""The stream of events of the demo: quiet in ordinary batches, and each fault told in words."""

from __future__ import annotations

from benchmarks.demo_verdicts import SHOWN, matches, run_world, tells
from pipeline.core.anomaly_text import anomaly_statement, events_before
from pipeline.demo.feed import Feeder
from pipeline.demo.simulate import Batches, Plant


def test_ordinary_batches_are_quiet_and_each_fault_is_told():
    faults, found, shown = run_world(Batches(8), 1, 1)
    messages = sorted((one for one in found.values() if str(one.id) in shown), key=lambda one: one.start_ns)
    assert [one.kind for one in faults] == list(Batches.faults)
    assert len(messages) == len(faults), [anomaly_statement(one) for one in messages]
    for fault, anomaly in zip(faults, messages, strict=True):
        assert anomaly.severity in SHOWN
        assert matches(fault, anomaly)
        assert tells(fault, anomaly)
    first = anomaly_statement(messages[0]) or ""
    assert first.startswith("“drain” came after “stir”, “sample”, as it does "), first
    assert "; usual here: “cool” (" in first, first
    assert events_before(messages[0]).startswith("fill, ")


def test_a_source_whose_faults_nothing_can_find_yet_waits_for_its_model():
    said: list[str] = []
    trained: set[str] = set()
    worlds = [Batches(1), Plant(2)]
    feeder = Feeder(worlds, lambda topic, key, value: None, said.append)
    feeder.has_model = trained.__contains__
    feeder.inject()
    feeder.inject()
    trained.add("batches")
    feeder.inject()
    feeder.inject()
    assert ["mixer" in line for line in said] == [False, False, True, False]


def test_the_history_can_be_sent_before_the_live_records():
    sent: list[str] = []
    feeder = Feeder([Batches(1)], lambda topic, key, value: sent.append(topic), lambda text: None)
    feeder.send_history()
    assert set(sent) == {"demo-batches"}
    assert len(sent) > 3000
