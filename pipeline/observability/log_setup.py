"""Logs on stderr: text on a terminal, JSON lines otherwise.

The loggers of libraries use the same format.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from pipeline.core.secret_text import hide_secrets

#: Lowest level of libraries that log more than an operator needs.
_LIBRARIES = {
    # It logs an error for every failed attempt to connect; the engine reports an outage once.
    "kafka": logging.CRITICAL,
    "sqlalchemy": logging.WARNING,
    "alembic": logging.WARNING,
    # It logs a warning for every malformed request, so a client could fill the log.
    "uvicorn": logging.ERROR,
    "apscheduler": logging.WARNING,
    "distributed": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "matplotlib": logging.WARNING,
    "asyncio": logging.WARNING,
    "numba": logging.WARNING,
    "py4j": logging.WARNING,
    "jgo": logging.WARNING,
    "cjdk": logging.WARNING,
}

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|authorization|api_?key", re.IGNORECASE
)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current ``sys.stderr``, which a progress bar replaces while it is drawn."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure_logs(level: str = "info", *, human: bool | None = None, worker: int | None = None) -> None:
    """Configure logging for this process.

    Args:
        level: Lowest level of the lines.
        human: Text instead of JSON lines; by default on a terminal only.
        worker: Number of this worker process of a daemon, a field of each line.
    """
    human = sys.stderr.isatty() if human is None else human
    shared: list[Processor] = [
        *([] if worker is None else [_worker_field(worker)]),
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer()
        if human
        else structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:-1], structlog.stdlib.ExtraAdder(), redact],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    for name, quiet in _LIBRARIES.items():
        logging.getLogger(name).setLevel(quiet)


def _worker_field(worker: int) -> Processor:
    """Return a processor that adds the number of the worker.

    Context variables would not reach all threads.
    """

    def add(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event.setdefault("worker", worker)
        return event

    return add


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace secrets in keys and in texts (messages of drivers, tracebacks) by ``***``."""
    return {key: "***" if _SECRET_KEY.search(key) else _redacted(value) for key, value in event.items()}


def _redacted(value: object) -> object:
    if isinstance(value, BaseException):
        value = str(value)
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, dict):
        return {
            key: "***" if _SECRET_KEY.search(str(key)) else _redacted(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value
