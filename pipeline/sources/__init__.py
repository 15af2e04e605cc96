"""Sources: one file each, behind the protocol of ``base``, registered in ``SOURCES`` by the name of its config model.

To add one: write the class, add its config model to ``pipeline.config.Source`` and one line here; then make ``tests/contract/test_sources.py``
run over it. Modules are imported when first needed, so that ``forewatch --help`` need not wait for a Kafka client.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from pipeline import config
from pipeline.sources.base import Bounds, Headers, Poll, Records, Source, TableRecords

__all__ = ["SOURCES", "Bounds", "Headers", "Poll", "Records", "Source", "TableRecords", "make_source"]

#: config model → "module:function"; the function gets the stream's name and the model, and returns a Source.
SOURCES: dict[type[Any], str] = {
    config.KafkaSource: "pipeline.sources.kafka:from_config",
    config.MemorySource: "pipeline.sources.memory:from_config",
}


def make_source(stream_name: str, source: config.Source) -> Source:
    """The source of a stream as configured. Connects at the first poll only. Raises ConfigError."""
    module, _, function = SOURCES[type(source.chosen)].partition(":")
    return cast(Source, getattr(import_module(module), function)(stream_name, source.chosen))
