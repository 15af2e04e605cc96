"""Environment of the processes that a daemon starts."""

from __future__ import annotations

import logging
import os

from pipeline.core.service_manager import SERVICE_MANAGER_VARIABLES

LOG_LEVEL_VARIABLE = "FOREWATCH_LOG_LEVEL"


def child_environment() -> dict[str, str]:
    """Return the variables of this process without those of its service manager."""
    kept = {name: value for name, value in os.environ.items() if name not in SERVICE_MANAGER_VARIABLES}
    return kept | log_level()


def log_level() -> dict[str, str]:
    """Return the variable by which a child logs at the level of this process."""
    return {LOG_LEVEL_VARIABLE: logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower()}
