"""Options of the source of a stream that its own configuration does not have."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.config.schema import Config
from pipeline.decode.metrics_formats import content_check
from pipeline.engine.warm_start import first_time_of
from pipeline.observability.metrics import Metrics, PushMetrics


def source_options(name: str, config: Config, metrics: Metrics) -> dict[str, Any]:
    """Return the options of ``make_source`` for stream ``name`` in a daemon."""
    stream = config.streams[name]
    if stream.source.files is not None:
        return {"first_time": partial(first_time_of, name, stream)}
    if stream.source.push is not None:
        options: dict[str, Any] = {"folder": config.spool_folder(name), "metrics": PushMetrics(metrics, name)}
        check = content_check(stream.format.chosen)
        return options if check is None else options | {"check": check}
    return {}
