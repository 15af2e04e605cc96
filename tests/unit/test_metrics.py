"""Metrics: names that operators see, values that come and go, and the page that documents them."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.metrics import Metrics, metrics_markdown
from pipeline.records import Partition

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date():
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_markdown(), "run `make docs`"


def test_every_metric_of_the_page_is_served_under_that_name_and_the_other_way_round():
    metrics = Metrics()
    served = {family.name for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())}
    ours = {name for name in served if name.startswith("forewatch_")}
    assert ours == {one.name.removesuffix("_total") for one in metrics.described}
    assert "process_resident_memory_bytes" in served


def test_counts_appear_with_their_labels():
    metrics = Metrics()
    metrics.records.labels(stream="plant", outcome="scored").inc(7)
    assert metrics.registry.get_sample_value("forewatch_records_total", {"stream": "plant", "outcome": "scored"}) == 7
    assert Metrics().registry.get_sample_value("forewatch_records_total", {"stream": "plant", "outcome": "scored"}) is None


def test_a_partition_that_left_is_no_longer_reported():
    metrics = Metrics()
    for number in (0, 1):
        metrics.lag.labels("plant", "sensors", number).set(5)
    metrics.forget("plant", Partition("sensors", 0))
    metrics.forget("plant", Partition("sensors", 2))
    lag = [
        sample.labels["partition"]
        for family in metrics.registry.collect()
        if family.name == "forewatch_lag_records"
        for sample in family.samples
    ]
    assert lag == ["1"]
