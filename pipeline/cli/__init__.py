"""The command line.

Commands import what they need when they run, so that ``forewatch --help`` is fast.
"""

from __future__ import annotations

import os
import sys

from pipeline.core.errors import ForewatchError

#: Commands that run until a signal.
_LONG_RUNNING = frozenset({"run", "deliver", "worker"})


def main() -> None:
    """Run the command ``forewatch``.

    An error of the user is printed as one message with an exit code, without a traceback.
    """
    from pipeline.core.interpreter import collect_garbage_rarely
    from pipeline.core.stop_signals import catch_early_signals, hold_reloads

    collect_garbage_rarely()
    command = _command_of(sys.argv[1:])
    if command in _LONG_RUNNING:
        # Importing the rest takes a second or two; SIGTERM must not kill the process in that time.
        catch_early_signals()
    if command == "run":
        hold_reloads()
    from pipeline.cli.command_table import build_app

    try:
        build_app(_only_command(sys.argv[1:], command))(prog_name="forewatch")
    except ForewatchError as error:
        from pipeline.core.secret_text import hide_in_urls

        print(hide_in_urls(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)


def _command_of(arguments: list[str]) -> str | None:
    """Return the command of a command line, None if there is none."""
    words = iter(arguments)
    for word in words:
        if word == "--log-level":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def _only_command(arguments: list[str], command: str | None) -> str | None:
    """Return ``command`` if no other command is needed.

    Help of all commands and completion describe the others, too.
    """
    if command is None or "_FOREWATCH_COMPLETE" in os.environ:
        return None
    before = arguments[: arguments.index(command)]
    return (
        None
        if any(word.startswith("-") and not word.startswith("--log-level") for word in before)
        else command
    )
