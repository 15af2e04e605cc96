"""Sources: one file each, behind the protocol of ``base``, registered in ``SOURCES`` by the name of its
config model.

To add one: write the class, add its config model to ``pipeline.config.schema.SourceConfig`` and one
line here; then make ``tests/contract/test_sources.py`` run over it. Modules are imported when first needed, so that
``forewatch --help`` need not wait for a Kafka client.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from pipeline.config import schema
from pipeline.sources.base import Headers, OffsetBounds, Poll, Records, Source, TableRecords

__all__ = ["SOURCES", "Headers", "OffsetBounds", "Poll", "Records", "Source", "TableRecords", "make_source"]

#: config model → "module:function"; the function gets the stream's name, the model and the stream's format,
#: and returns a Source.
SOURCES: dict[type[Any], str] = {
    schema.FilesSourceConfig: "pipeline.sources.files.source:from_config",
    schema.KafkaSourceConfig: "pipeline.sources.kafka.consumer:from_config",
    schema.TelemetrySourceConfig: "pipeline.sources.telemetry:from_config",
    schema.MemorySourceConfig: "pipeline.sources.memory:from_config",
    schema.SqlSourceConfig: "pipeline.sources.sql.source:from_config",
    schema.PushSourceConfig: "pipeline.sources.push.source:from_config",
}


def make_source(
    stream_name: str,
    source: schema.SourceConfig,
    form: schema.FormatConfig | None = None,
    **options: object,
) -> Source:
    """Make the source of a stream; it connects at the first poll. Raises ConfigError.

    ``form`` is the stream's format: CSV files need its delimiter and header, and it tells columns of numbers
    from labels. ``options`` are passed on; sources of files have ``first_time``, push sources ``folder``,
    ``check`` and ``metrics``.
    """
    module, _, function = SOURCES[type(source.chosen)].partition(":")
    return cast(Source, getattr(import_module(module), function)(stream_name, source.chosen, form, **options))
