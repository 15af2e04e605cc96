"""Log lines about the end of long-running processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from pipeline.core.errors import ForewatchError

log = structlog.get_logger(__name__)


@contextmanager
def log_exit(command: str) -> Iterator[None]:
    """Log how a long-running command ends, and turn its error into an exit code.

    An error with exit code 0 is a stop that was asked for.

    Raises:
        SystemExit: The command ended with an error.
    """
    try:
        yield
    except ForewatchError as error:
        if error.exit_code:
            log.error(
                "process ends with an error", command=command, exit_code=error.exit_code, error=str(error)
            )
            if sys.stderr.isatty():
                print(error, file=sys.stderr)  # the lines of a long message, readable
            raise SystemExit(error.exit_code) from None
    except Exception:
        log.exception("process ends with an unexpected error", command=command, exit_code=1)
        raise SystemExit(1) from None
    log.info("process stopped", command=command, exit_code=0)
