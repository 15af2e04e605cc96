"""Dask workers: a local one that is started on demand, or those of the configured scheduler."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from pipeline.config.retraining import Cluster, Tls
from pipeline.core.errors import ForewatchError
from pipeline.core.secret_text import hide_in_urls, hide_secrets
from pipeline.core.service_manager import heartbeat_seconds, report_ready, report_stopping, send_heartbeat
from pipeline.jobs import tasks
from pipeline.jobs.task_types import Task

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster
    from distributed.security import Security

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 10.0
#: Time that a worker waits for its scheduler before it restarts, and the pause before the restart.
SCHEDULER_TIMEOUT_SECONDS = 60.0
RESTART_SECONDS = 2.0

#: Time that a local worker has to end in order before it is killed.
STOP_SECONDS = 0.5

_LOCAL_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,
    # After this time without its process Dask drops a worker for good. A start takes long on a busy machine.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


class ClusterUnavailable(ForewatchError):
    """The Dask scheduler does not answer."""


class DaskWorkers:
    """The Dask client of one process, and its local workers without a scheduler.

    Both are made on first use and closed when no job is left, so that they take no memory in between.
    """

    def __init__(self, cluster: Cluster, workers: int = 1, advice: str = "change cluster.scheduler") -> None:
        """Start nothing yet.

        Args:
            cluster: The cluster; without a scheduler there are workers on this machine.
            workers: Number of workers on this machine.
            advice: What to do if the scheduler does not answer.
        """
        self._config = cluster
        self._workers = workers
        self._advice = advice
        self._client: Client | None = None
        self._stack = ExitStack()

    def submit(self, task: Task, on_progress: Callable[[dict[str, Any]], None]) -> Future:
        """Submit ``task`` and return its future.

        ``on_progress`` is called in another thread. Raises ClusterUnavailable.
        """
        client = self.client()
        client.subscribe_topic(task.topic, lambda event: on_progress(event[1]))
        return client.submit(
            tasks.run,
            task,
            key=f"{task.topic}-{uuid4().hex[:8]}",
            pure=False,
            resources={"GPU": 1} if task.gpu else None,
        )

    def cancel(self, task: Task) -> None:
        """Request the cancellation of a task, which ends before its next chunk."""
        from distributed import Event

        Event(task.topic, client=self.client()).set()

    def gpus(self) -> int:
        """Return the number of workers that offer a GPU. Raises ClusterUnavailable."""
        workers = self.client().scheduler_info(n_workers=-1)["workers"].values()
        return sum(bool(worker.get("resources", {}).get("GPU")) for worker in workers)

    def alive(self) -> bool:
        """Return whether the scheduler is connected."""
        return self._client is not None and self._client.status == "running"

    def client(self) -> Client:
        """Return the connected client. Raises ClusterUnavailable."""
        if self._client is None:
            try:
                self._client = self._connect() if self._config.scheduler else self._start_local()
            except (OSError, TimeoutError) as error:
                self.close()
                where = hide_in_urls(self._config.scheduler or "this machine")
                files = ", check the files of cluster.tls" if self._config.tls is not None else ""
                raise ClusterUnavailable(
                    f"no Dask scheduler answers at {where}: {hide_secrets(str(error))}; "
                    f"start it{files}, or {self._advice}"
                ) from None
        return self._client

    def close(self) -> None:
        """Close the client and the local worker; the next use makes them again."""
        self._client = None
        self._stack.close()

    def _connect(self) -> Client:
        from distributed import Client

        security = security_of(self._config.tls)
        return self._stack.enter_context(
            Client(self._config.scheduler, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
        )

    def _start_local(self) -> Client:
        """Start workers of one thread, which end with this process.

        Only this process can connect: scheduler and worker listen on loopback and ask for a certificate that is
        made here and stays in memory. They serve no dashboard and no other page.
        """
        import dask
        from distributed import Client, LocalCluster
        from distributed.security import Security

        self._stack.enter_context(dask.config.set(_LOCAL_SETTINGS))
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="forewatch-worker-", ignore_cleanup_errors=True)
        )
        cluster = LocalCluster(
            n_workers=self._workers,
            threads_per_worker=1,
            host="127.0.0.1",
            security=Security.temporary(),
            # Without an address the empty HTTP server would take port 8787.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            resources={"GPU": 1} if has_gpu() else None,
            local_directory=folder,
            silence_logs=logging.ERROR,
        )
        self._stack.enter_context(cluster)
        self._stack.callback(_end_processes, cluster)
        return self._stack.enter_context(Client(cluster, set_as_default=False))


def _end_processes(cluster: LocalCluster) -> None:
    """End the worker processes of a local cluster.

    They keep nothing that is needed. Dask itself would wait four seconds for each to end in order.
    """
    import asyncio

    async def close_all() -> None:
        nannies = [one.close(timeout=STOP_SECONDS) for one in cluster.workers.values()]
        await asyncio.gather(*nannies, return_exceptions=True)

    cluster.sync(close_all)


def run_worker(scheduler: str, tls: Tls | None, gpu: bool, stopping: threading.Event) -> None:
    """Run a worker process for ``scheduler`` until SIGTERM or SIGINT.

    The process has one thread. It is restarted when it dies or loses the scheduler.

    Args:
        scheduler: Address of the Dask scheduler.
        tls: Certificates, if the address is tls://.
        gpu: Whether the worker offers the GPU of this machine.
        stopping: Set if a signal arrived before the worker listens to signals itself.
    """
    import asyncio
    import signal

    from distributed import Nanny

    async def run_nanny() -> None:
        resources = {"GPU": 1} if gpu else None
        async with Nanny(
            scheduler,
            nthreads=1,
            resources=resources,
            security=security_of(tls),
            death_timeout=SCHEDULER_TIMEOUT_SECONDS,
        ) as nanny:
            await nanny.finished()

    async def restart_until_stopped() -> None:
        stop = asyncio.create_task(_wait_for_signal(signal.SIGTERM, signal.SIGINT))
        await asyncio.sleep(0)  # the handlers of signals are installed from here on
        report_ready(f"worker of {hide_in_urls(scheduler)}")
        heartbeats = asyncio.create_task(_send_heartbeats())
        while not stop.done() and not stopping.is_set():
            working = asyncio.create_task(run_nanny())
            await asyncio.wait([working, stop], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
            (error,) = await asyncio.gather(working, return_exceptions=True)
            if not stop.done():
                log.warning(
                    "cannot reach the Dask scheduler; trying again",
                    scheduler=hide_in_urls(scheduler),
                    error=hide_secrets(_first_cause(error)) if error else "the connection was closed",
                )
                await asyncio.wait([stop], timeout=RESTART_SECONDS)
        heartbeats.cancel()
        report_stopping()

    asyncio.run(restart_until_stopped())


def _first_cause(error: BaseException) -> str:
    """Return the error with which a chain of errors began, as text.

    The last one of Dask only says that a process did not start.
    """
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return f"{type(error).__name__}: {error}"


async def _send_heartbeats() -> None:
    """Send the heartbeats that systemd expects, as long as the event loop runs."""
    import asyncio

    while (seconds := heartbeat_seconds()) is not None:
        send_heartbeat()
        await asyncio.sleep(seconds)


async def _wait_for_signal(*signals: int) -> None:
    """Return after one of ``signals`` has arrived."""
    import asyncio

    arrived = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, arrived.set)
    await arrived.wait()


def has_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU.

    The device file of the driver tells, because only a worker may initialise CUDA.
    """
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def security_of(tls: Tls | None) -> Security | None:
    """Return Dask's settings for an encrypted cluster, None for a plain one."""
    from distributed.security import Security

    if tls is None:
        return None
    names = {
        "tls_ca_file": tls.ca,
        "tls_client_cert": tls.cert,
        "tls_client_key": tls.key,
        "tls_worker_cert": tls.cert,
        "tls_worker_key": tls.key,
    }
    return Security(require_encryption=True, **{name: str(path) for name, path in names.items()})
