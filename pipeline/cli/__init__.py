"""The command line.

Commands import what they need when they run, so that ``forewatch --help`` is fast.
"""

from __future__ import annotations

import sys

from pipeline.core.errors import ForewatchError


def main() -> None:
    """Run the command ``forewatch``.

    An error of the user is printed as one message with an exit code, without a traceback.
    """
    from pipeline.cli.app import app

    try:
        app(prog_name="forewatch")
    except ForewatchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
