"""The configuration file: models, checks, template and reference."""

from pipeline.config.loader import ConfigFileError, load_config
from pipeline.config.schema import Config, Stream, config_hash

__all__ = ["Config", "ConfigFileError", "Stream", "config_hash", "load_config"]
