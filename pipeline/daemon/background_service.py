"""Protocol of the services that a daemon runs beside its loop."""

from __future__ import annotations

from typing import Protocol

from pipeline.config.schema import Config


class BackgroundService(Protocol):
    """A service with a thread of its own, such as alerts or retraining."""

    def start(self) -> None:
        """Start the thread if the configuration has work for it."""
        ...

    def use_config(self, config: Config) -> None:
        """Use another configuration from now on."""
        ...

    def stop(self) -> None:
        """Finish and end the thread; may be called twice."""
        ...


class PublicService(BackgroundService, Protocol):
    """A service that people see while the daemon still starts."""

    def announce(self) -> None:
        """Answer that the daemon starts, until ``start``; ``stop`` ends it, too."""
        ...
