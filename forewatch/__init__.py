"""The public Python API of forewatch: streaming anomaly detection with explained verdicts.

    from forewatch import detect

    verdicts = detect(frame, time="ts", values=["temperature"], series="sensor")
    frame[verdicts["flag"]]

The names below keep their meaning from one minor version to the next; what changes is announced in
CHANGELOG.md one version ahead. The packages ``pipeline``, ``detectors`` and ``storage`` stay importable but
are internal.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import ConfigError, ForewatchError, InputError, StorageError

if TYPE_CHECKING:
    from forewatch.client import ApiError, Client
    from pipeline.config.loader import load_config
    from pipeline.config.schema import Config, Stream
    from pipeline.services.dataframe import detect
    from pipeline.services.event_frame import EventColumns, EventModel, fit_events
    from pipeline.services.filled_frame import fill_gaps
    from pipeline.services.online_detector import Detector
    from pipeline.services.plotting import plot

try:
    __version__ = version("forewatch")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ApiError",
    "Client",
    "Config",
    "ConfigError",
    "Detector",
    "EventColumns",
    "EventModel",
    "ForewatchError",
    "InputError",
    "StorageError",
    "Stream",
    "__version__",
    "detect",
    "fill_gaps",
    "fit_events",
    "load_config",
    "plot",
]

#: Public name → module that defines it; imported on first use, because pandas and numba take a second.
_LAZY = {
    "ApiError": "forewatch.client",
    "Client": "forewatch.client",
    "Config": "pipeline.config.schema",
    "Detector": "pipeline.services.online_detector",
    "EventColumns": "pipeline.services.event_frame",
    "EventModel": "pipeline.services.event_frame",
    "Stream": "pipeline.config.schema",
    "detect": "pipeline.services.dataframe",
    "fill_gaps": "pipeline.services.filled_frame",
    "fit_events": "pipeline.services.event_frame",
    "load_config": "pipeline.config.loader",
    "plot": "pipeline.services.plotting",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use. Raises AttributeError for any other name."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
