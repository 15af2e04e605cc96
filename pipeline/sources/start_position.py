"""Start of a partition without a stored position: ``earliest``, ``latest`` or a time."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.core.errors import ConfigError

EARLIEST, LATEST = "earliest", "latest"


def parse_start(start: str) -> str | int:
    """Return ``earliest`` or ``latest`` unchanged, or an ISO 8601 time as ns since the epoch.

    A time without a zone is UTC. Raises ConfigError.
    """
    if start in (EARLIEST, LATEST):
        return start
    try:
        moment = datetime.fromisoformat(start)
    except ValueError:
        raise ConfigError(
            f"start: write earliest, latest or an ISO 8601 time such as 2026-01-31T00:00:00Z, not {start!r}"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1_000_000_000 + since_epoch.microseconds * 1000
