"""``demo``: everything at once, on this machine, in one command."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    kafka: Annotated[
        bool, typer.Option("--kafka/--no-kafka", help="A real local Apache Kafka, or an embedded log.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the simulated inputs and of the faults in them.")] = 7,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop after so long; left out: until Ctrl-C or q.")
    ] = None,
) -> None:
    """See it work.

    Simulated plant sensors, network flows and stock ticks with faults injected, and this machine's own
    telemetry, go through a real broker; each anomaly is explained on the terminal, and its alert arrives
    there as a signed webhook.
    """
    from pipeline.demo.run import run_demo
    from pipeline.observability.log_setup import configure_logs

    configure_logs("warning")  # the story is told on stdout
    told = run_demo(kafka=kafka, seed=seed, seconds=seconds, say=lambda line: print(line, flush=True))
    print(
        f"{told.anomalies} anomalies shown; {told.webhooks} signed webhooks arrived and were verified, {told.resolved} of them to say that it "
        "is over; nothing is left running."
    )
