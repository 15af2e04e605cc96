"""The command line. Nothing heavy is imported before a command runs: ``forewatch --help`` answers at once."""

from __future__ import annotations

import sys

from pipeline.core.errors import ForewatchError


def main() -> None:
    """Entry point of the command ``forewatch``: a mistake of the user is one message and an exit code, never
    a traceback.
    """
    from pipeline.cli.app import app

    try:
        app(prog_name="forewatch")
    except ForewatchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
