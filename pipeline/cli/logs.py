"""Log lines of a command, set up when it may write one."""

from __future__ import annotations

_chosen_level: str | None = None


def choose_level(level: str) -> None:
    """Keep the level of the command line for ``configure_chosen_logs``."""
    global _chosen_level
    _chosen_level = level


def configure_chosen_logs() -> None:
    """Configure the log lines once, at the chosen level.

    The import of structlog takes a tenth of a second.
    """
    global _chosen_level
    if _chosen_level is not None:
        from pipeline.observability.log_setup import configure_logs

        level, _chosen_level = _chosen_level, None
        configure_logs(level)
