"""Rules of ``workers``: what several processes can share."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.problems import Finding
from pipeline.config.schema import Config, KafkaSourceConfig


def worker_rules(config: Config) -> Iterator[Finding]:
    """Yield a finding for each part of a config that workers cannot share."""
    if config.workers == 1:
        return
    if config.database.startswith("sqlite"):
        yield Finding(
            ("workers",),
            "an SQLite database serves one process",
            "use PostgreSQL (`database: postgresql+psycopg://user@host/name`), or write `workers: 1`",
        )
    for name, stream in config.streams.items():
        if not isinstance(stream.source.chosen, KafkaSourceConfig):
            yield Finding(
                ("streams", name, "source", *stream.source.model_fields_set),
                "only the partitions of Kafka can be divided among workers; here the state of a series "
                "goes from one file or reading to the next, in one process",
                "move this stream to a config of its own with `workers: 1`, or write `workers: 1` here",
            )
