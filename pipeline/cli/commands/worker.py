"""``worker``: runs trainings for a Dask scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.output import print_note


def worker(
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of the Dask scheduler: tcp://host:8786 or tls://host:8786.",
        ),
    ],
    gpu: Annotated[bool, typer.Option("--gpu", help="Offer the GPU of this machine.")] = False,
    ca: Annotated[
        Path | None, typer.Option("--tls-ca", metavar="FILE", help="Certificate of the cluster's authority.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate of this worker.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Key of the certificate.")
    ] = None,
) -> None:
    """Run trainings and parts of backfills for a scheduler.

    It works for a Dask scheduler until SIGTERM. It needs access to the history and the models
    (storage.history_path, storage.models_path: the same URLs on every machine), and to the database only for
    the parts of a backfill.
    """
    from pipeline.config.retraining import SCHEDULER, Tls
    from pipeline.core.errors import InputError
    from pipeline.core.extras import require_training
    from pipeline.core.secret_text import hide_user
    from pipeline.core.stop_signals import stop_on_signals
    from pipeline.jobs.dask_workers import run_worker
    from pipeline.observability.process_exit import log_exit

    if not SCHEDULER.fullmatch(scheduler):
        raise InputError(
            f"--scheduler {hide_user(scheduler)!r} is not an address of a Dask scheduler; write "
            f"tcp://host:8786 or tls://host:8786"
        )
    given = [file for file in (ca, cert, key) if file is not None]
    if len(given) not in (0, 3) or scheduler.startswith("tls://") != (len(given) == 3):
        raise InputError(
            "a tls:// address needs --tls-ca, --tls-cert and --tls-key; any other takes none of them"
        )
    for file in given:
        if not file.is_file():
            raise InputError(f"there is no file {file}; give the path of a PEM file")
    require_training()
    tls = Tls(ca=ca, cert=cert, key=key) if ca and cert and key else None
    stopping = stop_on_signals()
    print_note(f"running tasks{' and GPU tasks' if gpu else ''} of {scheduler}; stop with Ctrl-C")
    with log_exit("worker"):
        run_worker(scheduler, tls, gpu, stopping)
