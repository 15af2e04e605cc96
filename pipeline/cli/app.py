"""The command line application.

A new group of commands is one module in ``commands`` and one line below.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.commands import (
    alerts,
    anomalies,
    audit,
    backfill,
    calibration,
    check,
    compare,
    data,
    db,
    dead_letters,
    deliveries,
    demo,
    endpoints,
    evaluate,
    export,
    faults,
    hooks,
    init,
    jobs,
    kafka,
    keys,
    models,
    power,
    quarantine,
    run,
    series,
    serve,
    silences,
    size,
    templates,
    tune,
    verify,
    worker,
)
from pipeline.cli.exit_codes import epilog
from pipeline.cli.logs import choose_level, configure_chosen_logs


class LogLevel(StrEnum):
    """Lowest level of the log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=epilog(),
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # its tracebacks would show local variables, and among them secrets
)


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


@app.callback()
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


app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("check")(check.check)
app.command("run")(run.run)
app.command("serve")(serve.serve)
app.command("backfill")(backfill.backfill)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("deliver")(deliveries.deliver)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("train")(jobs.train)
app.command("worker")(worker.worker)
app.command("power")(power.power)
app.command("size")(size.size)
app.command("tune")(tune.tune)
app.command("calibration")(calibration.calibration)
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(quarantine.app, name="quarantine")
app.command("label")(alerts.label)
app.add_typer(series.app, name="series")
app.add_typer(templates.app, name="templates")
app.add_typer(anomalies.app, name="anomalies")
app.add_typer(alerts.app, name="alerts")
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(silences.app, name="silences")
app.add_typer(hooks.app, name="hooks")
app.add_typer(dead_letters.app, name="deadletters")
app.add_typer(faults.app, name="faults")
app.add_typer(keys.app, name="keys")
app.command("audit")(audit.audit)
app.add_typer(db.app, name="db")
app.add_typer(kafka.app, name="kafka")
app.command("schema")(init.schema)
app.command("version")(init.version)
