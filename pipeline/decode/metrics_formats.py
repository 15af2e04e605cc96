"""Parsers of formats of metrics, and the check of a received content."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config.inputs import MetricFormat, OtlpFormat
from pipeline.core.conditions import Condition
from pipeline.core.extras import require_formats
from pipeline.decode.fields import Fields
from pipeline.decode.metric_samples import MetricParser, OtherContentError, ReadSamples, content_checker

__all__ = ["OtherContentError", "content_check", "metric_parser"]


def metric_parser(form: object, fields: Fields, where: Condition | None, totals: bool) -> MetricParser | None:
    """Return the parser of a format of metrics, None for another format.

    Args:
        form: The format.
        fields: Its fields.
        where: Condition of the series that belong to the stream.
        totals: The stream has counters.

    Raises:
        NotInstalled: A package is missing.
    """
    if not isinstance(form, MetricFormat):
        return None
    from pipeline.decode.sample_json import samples_as_json

    return MetricParser(fields, where, _reader(form), samples_as_json, totals)


def content_check(form: object) -> Callable[[bytes, str], int] | None:
    """Return a function that counts the points of a content, None for other formats.

    It gets the content and its type, and raises ValueError with the reason where the content cannot be read.
    """
    return content_checker(_reader(form)) if isinstance(form, MetricFormat) else None


def _reader(form: MetricFormat) -> ReadSamples:
    if isinstance(form, OtlpFormat):
        require_formats("opentelemetry.proto", "OTLP")
        from pipeline.decode.otlp import read_otlp

        return read_otlp
    from pipeline.decode.remote_write import read_remote_write

    return read_remote_write
