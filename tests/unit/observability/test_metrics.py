"""Metrics: names that operators see, values that come and go, and the page that documents them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.core.types import Counts, Partition
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.observability.metrics_reference import metrics_markdown

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_up_to_date():
    assert (ROOT / "docs" / "reference" / "metrics.md").read_text() == metrics_markdown(), "run `make docs`"


def test_every_metric_of_the_page_is_served_under_that_name_and_the_other_way_round():
    metrics = Metrics()
    served = {
        family.name for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
    }
    ours = {name for name in served if name.startswith("forewatch_")}
    assert ours == {one.name.removesuffix("_total") for one in metrics.described}
    assert "process_resident_memory_bytes" in served


def test_counts_appear_with_their_labels():
    metrics = Metrics()
    metrics.flow.records.labels(stream="plant", outcome="scored").inc(7)
    assert (
        metrics.registry.get_sample_value("forewatch_records_total", {"stream": "plant", "outcome": "scored"})
        == 7
    )
    assert (
        Metrics().registry.get_sample_value(
            "forewatch_records_total", {"stream": "plant", "outcome": "scored"}
        )
        is None
    )


def test_a_partition_that_left_is_no_longer_reported():
    metrics = Metrics()
    plant = StreamMetrics(metrics, "plant")
    for number in (0, 1):
        plant.lag(Partition("sensors", number), 5)
    plant.forget(Partition("sensors", 0))
    plant.forget(Partition("sensors", 2))
    lag = [
        sample.labels["partition"]
        for family in metrics.registry.collect()
        if family.name == "forewatch_lag_records"
        for sample in family.samples
    ]
    assert lag == ["1"]


def test_outcomes_of_a_stream_add_up():
    metrics = Metrics()
    plant = StreamMetrics(metrics, "plant")
    plant.committed(Counts(), Counts(scored=5, late=1, buffered=3))
    plant.committed(Counts(scored=5, late=1, buffered=3), Counts(scored=9, late=1, dead_lettered=2))
    values = {
        outcome: metrics.registry.get_sample_value(
            "forewatch_records_total", {"stream": "plant", "outcome": outcome}
        )
        for outcome in ("scored", "late", "duplicate", "dead_lettered", "filtered")
    }
    assert values == {"scored": 9, "late": 1, "duplicate": 0, "dead_lettered": 2, "filtered": 0}


def test_faults_open_and_close():
    metrics = Metrics()
    plant = StreamMetrics(metrics, "plant")
    plant.fault_opened("source_down")
    assert (
        metrics.registry.get_sample_value("forewatch_open_faults", {"stream": "plant", "kind": "source_down"})
        == 1
    )
    plant.fault_closed("source_down")
    assert (
        metrics.registry.get_sample_value("forewatch_open_faults", {"stream": "plant", "kind": "source_down"})
        == 0
    )
    assert (
        metrics.registry.get_sample_value(
            "forewatch_faults_total", {"stream": "plant", "kind": "source_down"}
        )
        == 1
    )


def test_stages_are_timed_even_when_they_fail():
    metrics = Metrics()
    plant = StreamMetrics(metrics, "plant")
    with pytest.raises(ZeroDivisionError), plant.stage("decode"):
        _ = 1 / 0
    value = metrics.registry.get_sample_value(
        "forewatch_stage_seconds_total", {"stream": "plant", "stage": "decode"}
    )
    assert value is not None
    assert value > 0
