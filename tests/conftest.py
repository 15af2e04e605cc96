"""Fixtures that every suite shares.

Servers are started by the run that needs them, on free ports, and stopped by their own process id.
"""

from __future__ import annotations

import gc
import os
import shutil
import ssl
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from httpx._transports import default as httpx_transport
from hypothesis import HealthCheck, settings

from pipeline.core.interpreter import collect_garbage_rarely

if TYPE_CHECKING:
    from storage.sql.database import Database
    from tests.support.kafka_server import FaultyBroker, Topics
    from tests.support.postgres_server import PostgresServer

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes depends on the machine, and the first one compiles: no test may fail for it.
settings.register_profile("forewatch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("forewatch")

_configure_logs = structlog.configure


def _configure_without_cache(**options: Any) -> None:
    """Configure loggers that ``capture_logs`` of a later test can replace."""
    _configure_logs(**options | {"cache_logger_on_first_use": False})


structlog.configure = _configure_without_cache

# A broker of a test lives for seconds, too short for the optimizing compiler of Java: with these options a
# start takes 5 s of CPU time instead of 11 s.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# One thread of arithmetic in each process of a test. Two workers with two threads each on two cores wait for
# each other in every small step of a network: 40 steps took 30 s instead of 1 s on a loaded machine.
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

# httpx gives up after 5 s, unless a call says otherwise: too short for a test on loaded cores.
for _phase in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _phase, 120.0)

# Each client of httpx reads the certificates of all authorities anew, also for http: 40 ms of CPU time.
# One context serves all clients that do not name certificates of their own.
_usual_context = cache(lambda trust_env, file, folder: httpx.create_ssl_context(trust_env=trust_env))


def _ssl_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    if verify is not True or cert is not None:
        return httpx.create_ssl_context(verify, cert, trust_env)
    return _usual_context(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


httpx_transport.create_ssl_context = _ssl_context  # type: ignore[attr-defined]


# Imports and the collection of tests make millions of objects that stay.
collect_garbage_rarely()


def pytest_collection_finish() -> None:
    """Keep modules and collected tests, which live as long as the run, out of garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The open data sets beside the checkout; tests that need them are skipped where they are not."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the open data sets (../shared/data) are not on this machine")
    return path


# ------------------------------------------------------------------------------------------------------------- Kafka


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a real Apache Kafka that the whole run shares (each pytest-xdist worker has its own).
    Do not stop it.
    """
    from tests.support.kafka_server import running_broker

    with running_broker(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def topics(kafka_broker: str) -> Iterator[Topics]:
    """Makes topics on ``kafka_broker`` (``topics.create(partitions=4)``) and writes to them
    (``topics.produce``).
    """
    from tests.support.kafka_server import Topics

    made = Topics(kafka_broker)
    yield made
    made.close()


@pytest.fixture(scope="module")
def broker_to_break(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyBroker]:
    """The broker behind ``faulty_broker``."""
    from tests.support.kafka_server import faulty_broker

    with faulty_broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def faulty_broker(broker_to_break: FaultyBroker) -> Iterator[FaultyBroker]:
    """A real Apache Kafka that a test may take ``down``, ``kill``, ``freeze`` and bring ``up`` again; it is
    up when the test begins.
    """
    broker_to_break.thaw()
    broker_to_break.up()
    yield broker_to_break
    broker_to_break.thaw()


# -------------------------------------------------------------------------------------------------------- databases


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL that the whole run shares. Do not stop it."""
    from tests.support.postgres_server import running_postgres

    with running_postgres() as server:
        yield server


@pytest.fixture
def faulty_postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL of this test alone: ``stop``, ``start``, ``address``."""
    from tests.support.postgres_server import running_postgres

    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database of this test alone."""
    from tests.support.postgres_server import create_database, drop_database

    url = create_database(postgres_server)
    yield url
    drop_database(postgres_server, url)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """Name of a database with the schema in it: a copy is made five times as fast as the migrations run."""
    from storage.sql.database import Database
    from tests.support.postgres_server import create_database

    url = create_database(postgres_server)
    template = Database(url)
    template.upgrade()
    template.close()
    return url.rpartition("/")[2]


@pytest.fixture
def schema_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """URL of a PostgreSQL database with the schema in it, of this test alone."""
    from tests.support.postgres_server import create_database, drop_database

    url = create_database(postgres_server, postgres_template)
    yield url
    drop_database(postgres_server, url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    from storage.sql.database import Database

    path = tmp_path_factory.mktemp("template") / "forewatch.db"
    template = Database(f"sqlite:///{path}")
    template.upgrade()
    template.close()
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once as a SQLite file and once on a real PostgreSQL."""
    from tests.support.postgres_server import create_database, drop_database

    with_schema = "database" in request.fixturenames
    if request.param == "sqlite":
        if with_schema:
            shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path)
        yield f"sqlite:///{tmp_path}/forewatch.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = create_database(
        server, request.getfixturevalue("postgres_template") if with_schema else "template1"
    )
    yield url
    drop_database(server, url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same, with the schema in it, open."""
    from storage.sql.database import Database

    opened = Database(database_url)
    opened.upgrade()
    yield opened
    opened.close()
