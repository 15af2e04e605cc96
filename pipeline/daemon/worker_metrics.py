"""The metrics of all workers on one page, with their numbers as a label."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline.daemon.worker_process import WorkerProcess
from pipeline.observability.instruments import WorkerInstruments
from pipeline.observability.metric_registry import MetricRegistry

#: Time that a scrape waits for a worker.
ANSWER_SECONDS = 2.0
LABEL = "worker"
#: Value of the label for the supervisor's own metrics.
SUPERVISOR = "supervisor"


class WorkerMetrics:
    """The supervisor's own metrics, and the page with those of all workers."""

    def __init__(self, workers: Callable[[], Sequence[WorkerProcess]]) -> None:
        """``workers`` returns those that run now."""
        own = MetricRegistry()
        self.instruments = WorkerInstruments(own)
        self._own = own.collector
        self._workers = workers
        self._scrape = threading.Lock()  # one at a time: a worker answers one request after the other

    def exposition(self) -> bytes:
        """Return the metrics of the supervisor and of each worker that answers in time."""
        registry = CollectorRegistry()
        with self._scrape:
            registry.register(_Merged(self._pages()))
        return generate_latest(registry)

    def _pages(self) -> dict[str, bytes]:
        pages = {SUPERVISOR: generate_latest(self._own)}
        asked = [one for one in self._workers() if one.channel.request()]
        deadline = time.monotonic() + ANSWER_SECONDS
        for worker in asked:
            if (page := worker.channel.answer(deadline)) is not None:
                pages[str(worker.number)] = page
        return pages


class _Merged(Collector):
    """One family for each name, with the samples of all pages."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self._pages = pages

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are those of the pages."""
        return ()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for worker, page in self._pages.items():
            for found in text_string_to_metric_families(page.decode()):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    labels = {LABEL: worker, **sample.labels}
                    family.add_sample(sample.name, labels, sample.value)
        yield from families.values()
