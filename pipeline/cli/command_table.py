"""The commands by name, and the application with all or one of them.

A new command, or group of commands, is one module in ``commands`` and one line below.
"""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from pipeline.cli.exit_codes import epilog
from pipeline.cli.logs import choose_level, configure_chosen_logs

#: Name → module in ``commands``, and its function or group of commands (``GROUP``).
GROUP = "app"
COMMANDS = {
    "demo": ("demo", "demo"),
    "init": ("init", "init"),
    "check": ("check", "check"),
    "run": ("run", "run"),
    "serve": ("serve", "serve"),
    "backfill": ("backfill", "backfill"),
    "export": ("export", "export"),
    "verify": ("verify", "verify"),
    "deliver": ("deliveries", "deliver"),
    "evaluate": ("evaluate", "evaluate"),
    "compare": ("compare", "compare"),
    "train": ("jobs", "train"),
    "worker": ("worker", "worker"),
    "power": ("power", "power"),
    "size": ("size", "size"),
    "tune": ("tune", "tune"),
    "calibration": ("calibration", "calibration"),
    "data": ("data", "app"),
    "jobs": ("jobs", "app"),
    "models": ("models", "app"),
    "quarantine": ("quarantine", "app"),
    "label": ("alerts", "label"),
    "series": ("series", "app"),
    "templates": ("templates", "app"),
    "anomalies": ("anomalies", "app"),
    "alerts": ("alerts", "app"),
    "endpoints": ("endpoints", "app"),
    "deliveries": ("deliveries", "app"),
    "silences": ("silences", "app"),
    "hooks": ("hooks", "app"),
    "deadletters": ("dead_letters", "app"),
    "faults": ("faults", "app"),
    "keys": ("keys", "app"),
    "audit": ("audit", "audit"),
    "db": ("db", "app"),
    "kafka": ("kafka", "app"),
    "schema": ("init", "schema"),
    "version": ("init", "version"),
}
#: Commands that write no log line unless they read the whole config.
_QUIET = frozenset(
    {
        "alerts",
        "anomalies",
        "audit",
        "deadletters",
        "deliveries",
        "faults",
        "jobs",
        "keys",
        "label",
        "models",
        "quarantine",
        "silences",
    }
)


class LogLevel(StrEnum):
    """Lowest level of the log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def main_options(
    context: typer.Context,
    level: Annotated[
        LogLevel,
        typer.Option(
            "--log-level", envvar="FOREWATCH_LOG_LEVEL", help="Lowest level of the log lines on stderr."
        ),
    ] = LogLevel.INFO,
) -> None:
    """Detect anomalies in streams of time series, from Kafka or files.

    Every verdict has a calibrated score and an explanation. Processing resumes without loss after a crash.
    """
    choose_level(level.value)
    if context.invoked_subcommand not in _QUIET:
        configure_chosen_logs()


def build_app(only: str | None = None) -> typer.Typer:
    """Return the application.

    Args:
        only: The command that will run; the others are then left out, because importing and describing all of
            them takes a sixth of the CPU time of a short command. None or an unknown one: all commands.
    """
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        epilog=epilog(),
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,  # its tracebacks would show local variables, and among them secrets
    )
    app.callback()(main_options)
    for name in [only] if only in COMMANDS else COMMANDS:
        module, attribute = COMMANDS[name]
        found = getattr(import_module(f"pipeline.cli.commands.{module}"), attribute)
        if attribute == GROUP:
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app
