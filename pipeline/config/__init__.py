"""The configuration file: models, checks, template and reference."""

from pipeline.config.loader import ConfigFileError, load_config
from pipeline.config.schema import Config, Stream
from pipeline.config.stream_hash import config_hash

__all__ = ["Config", "ConfigFileError", "Stream", "config_hash", "load_config"]
