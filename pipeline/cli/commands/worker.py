"""``worker``: does trainings for a Dask scheduler, on the machine with the GPU or on any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.output import print_note


def worker(
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="The Dask scheduler: tcp://host:8786 or tls://host:8786."
        ),
    ],
    gpu: Annotated[bool, typer.Option("--gpu", help="Take what asks for a GPU.")] = False,
    ca: Annotated[
        Path | None, typer.Option("--tls-ca", metavar="FILE", help="Certificate of the cluster's authority.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate of this worker.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key.")] = None,
) -> None:
    """Do trainings for a Dask scheduler, until SIGTERM or Ctrl-C.

    It needs to reach the history and the models (storage.history_path, storage.models_path: the same URLs
    everywhere), and no database.
    """
    from pipeline.config.retraining import SCHEDULER, Tls
    from pipeline.core.errors import InputError
    from pipeline.core.extras import require_training
    from pipeline.jobs.dask_workers import run_worker

    if not SCHEDULER.fullmatch(scheduler):
        raise InputError(
            f"--scheduler {scheduler!r} is no address of a Dask scheduler; write tcp://host:8786 or tls://host:8786"
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
    print_note(
        f"taking work{', also for a GPU,' if gpu else ''} from {scheduler} as long as it is there; Ctrl-C ends this"
    )
    run_worker(scheduler, tls, gpu)
