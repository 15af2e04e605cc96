"""Parsers of formats of metrics, and the check of a received content."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config.inputs import RemoteWriteFormat
from pipeline.core.conditions import Condition
from pipeline.decode.fields import Fields
from pipeline.decode.metric_samples import MetricParser, content_checker


def metric_parser(form: object, fields: Fields, where: Condition | None) -> MetricParser | None:
    """Return the parser of a format of metrics, None for another format."""
    if isinstance(form, RemoteWriteFormat):
        from pipeline.decode.remote_write import read_remote_write, samples_as_json

        return MetricParser(fields, where, read_remote_write, samples_as_json)
    return None


def content_check(form: object) -> Callable[[bytes, str], int] | None:
    """Return a function that counts the points of a content, None for other formats.

    It gets the content and its type, and raises ValueError with the reason where the content cannot be read.
    """
    if isinstance(form, RemoteWriteFormat):
        from pipeline.decode.remote_write import read_remote_write

        return content_checker(read_remote_write)
    return None
