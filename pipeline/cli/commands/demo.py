"""Command ``demo``: the whole pipeline on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    kafka: Annotated[
        bool, typer.Option("--kafka/--no-kafka", help="Use a local Apache Kafka, or an in-process log.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the simulated data and of the injected faults.")] = 7,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Duration of the demo (default: until Ctrl-C or q).")
    ] = None,
) -> None:
    """Run a demonstration on this machine.

    Five streams go through a local Kafka broker: simulated plant sensors, network flows, stock prices and
    steps of batches with injected faults, and the telemetry of this machine. Each anomaly is explained on the
    terminal, and its alert arrives there as a signed webhook.
    """
    from pipeline.cli.output import print_line
    from pipeline.demo.session import run_demo
    from pipeline.observability.log_setup import configure_logs

    configure_logs("warning")  # the demo reports on stdout
    summary = run_demo(kafka=kafka, seed=seed, seconds=seconds, say=print_line)
    print(
        f"[demo] finished: {summary.anomalies} anomalies, {summary.webhooks} webhooks with a valid signature "
        f"({summary.resolved} of them close an alert); nothing is left running."
    )
