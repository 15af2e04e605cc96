"""The configuration file: models, checks, template and reference.

The names are imported when they are used: commands that only read the database need none of the models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.loader import load_config
    from pipeline.config.schema import Config, Stream
    from pipeline.config.stream_hash import config_hash
    from pipeline.config.yaml_file import ConfigFileError

__all__ = ["Config", "ConfigFileError", "Stream", "config_hash", "load_config"]

_MODULES = {
    "Config": "schema",
    "ConfigFileError": "yaml_file",
    "Stream": "schema",
    "config_hash": "stream_hash",
    "load_config": "loader",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
