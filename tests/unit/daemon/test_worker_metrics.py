"""One page with the metrics of all workers: valid, complete, and each sample with its worker."""

from __future__ import annotations

import time

from prometheus_client.parser import text_string_to_metric_families

from pipeline.daemon.worker_metrics import WorkerMetrics
from pipeline.observability.metrics import Metrics


class Channel:
    """The connection to a worker that answers with ``page``; None: it does not answer."""

    def __init__(self, page: bytes | None) -> None:
        self.page = page

    def request(self) -> bool:
        return True

    def answer(self, deadline: float) -> bytes | None:
        assert deadline > time.monotonic()
        return self.page


class Worker:
    def __init__(self, number: int, page: bytes | None) -> None:
        self.number, self.channel = number, Channel(page)


def page(scored: int) -> bytes:
    metrics = Metrics()
    metrics.flow.records.labels(stream="plant", outcome="scored").inc(scored)
    metrics.flow.batch_seconds.labels("plant").observe(0.2)
    metrics.detection.power_smallest.labels('a "b"\nc', "step").set(float("nan"))
    return metrics.exposition()


def test_each_family_appears_once_with_the_samples_of_all():
    metrics = WorkerMetrics(lambda: [Worker(0, page(3)), Worker(1, page(4)), Worker(2, None)])
    metrics.instruments.up.labels(0).set(1)
    text = metrics.exposition().decode()
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helps) == len(set(helps))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    records = families["forewatch_records"].samples
    assert [(s.labels["worker"], s.labels["outcome"], s.value) for s in records] == [
        ("0", "scored", 3),
        ("1", "scored", 4),
    ]
    counts = [s for s in families["forewatch_batch_seconds"].samples if s.name.endswith("_count")]
    assert [(s.labels["worker"], s.value) for s in counts] == [("0", 1), ("1", 1)]
    (smallest, _) = families["forewatch_power_smallest_spreads"].samples
    assert smallest.labels["stream"] == 'a "b"\nc'
    assert {s.labels["worker"] for s in families["process_cpu_seconds"].samples} == {"0", "1", "supervisor"}
    assert [s.labels for s in families["forewatch_worker_up"].samples] == [{"worker": "0"}]
