"""Log lines about the end of long-running commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import typer

from pipeline.core.errors import ForewatchError
from pipeline.database import StoppedWhileStarting

log = structlog.get_logger(__name__)


@contextmanager
def log_exit(command: str) -> Iterator[None]:
    """Log how a long-running command ends, and turn its error into an exit code.

    Raises:
        typer.Exit: The command ended with an error.
    """
    try:
        yield
    except StoppedWhileStarting:
        pass
    except ForewatchError as error:
        log.error("process ends with an error", command=command, exit_code=error.exit_code, error=str(error))
        if sys.stderr.isatty():
            print(error, file=sys.stderr)  # the lines of a long message, readable
        raise typer.Exit(error.exit_code) from None
    except Exception:
        log.exception("process ends with an unexpected error", command=command, exit_code=1)
        raise typer.Exit(1) from None
    log.info("process stopped", command=command, exit_code=0)
