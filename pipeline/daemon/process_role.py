"""Role of a daemon's process: alone, or one of several workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pipeline.config.schema import Config
from pipeline.daemon.operating_server import operating_server
from pipeline.observability.health import Health
from pipeline.observability.metrics import Metrics

#: Makes health and metrics of a process available while its context is entered.
Exposure = Callable[[Config, Health, Metrics], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class ProcessRole:
    """Role of a process that scores.

    ``first``: it also does what one process of a machine does for all: it starts the runner when a training
    is due, deletes expired rows, and writes changes of the config into the audit log.
    """

    exposure: Exposure
    first: bool = True


def _served(config: Config, health: Health, metrics: Metrics) -> AbstractContextManager[None]:
    return operating_server(config, health, metrics.exposition)


#: A daemon of one process, with the HTTP server of its config.
ALONE = ProcessRole(_served)
