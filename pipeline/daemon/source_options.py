"""Options of the source of a stream that its own configuration does not have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline.config.schema import Config
from pipeline.decode.metrics_formats import OtherContentError, content_check
from pipeline.engine.warm_start import first_time_of
from pipeline.observability.metrics import Metrics, PushMetrics
from pipeline.sources.push.receiver import OtherFormatError


def _checked(check: Callable[[bytes, str], int], content: bytes, kind: str) -> int:
    """Count the points of a content, with the errors of the receiver."""
    try:
        return check(content, kind)
    except OtherContentError as error:
        raise OtherFormatError(str(error)) from None


def source_options(name: str, config: Config, metrics: Metrics) -> dict[str, Any]:
    """Return the options of ``make_source`` for stream ``name`` in a daemon."""
    stream = config.streams[name]
    if stream.source.files is not None and stream.source.files.follow:
        return {"first_time": partial(first_time_of, name, stream)}
    if stream.source.push is not None:
        options: dict[str, Any] = {"folder": config.spool_folder(name), "metrics": PushMetrics(metrics, name)}
        check = content_check(stream.format.chosen)
        return options if check is None else options | {"check": partial(_checked, check)}
    return {}
