"""A real PostgreSQL with TLS only: a password for one role, client certificates for another.

The server is Debian's, because that of the wheel is built without TLS.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.support.certificates import Authority
from tests.support.postgres_server import free_port

PASSWORD = "right"
#: Name of the server in its certificate.
HOST = "127.0.0.1"
_RULES = """\
hostssl all forewatch all scram-sha-256
hostssl all machine all cert
local all all trust
"""


@dataclass(frozen=True, slots=True)
class SecurePostgres:
    """``port`` accepts TLS only; roles ``forewatch`` (password) and ``machine`` (certificate)."""

    port: int
    bin: Path

    def url(self, role: str, host: str = HOST, **options: str | Path) -> str:
        """Return an SQLAlchemy URL with options of libpq."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql+psycopg://{role}@{host}:{self.port}/forewatch?{query}"


def server_programs() -> Path | None:
    """Return the folder of Debian's server, None if it is not installed or cannot be used."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found or os.geteuid() != 0 or "postgres" not in {one.pw_name for one in pwd.getpwall()}:
        return None
    return found[-1].parent


@contextmanager
def secure_postgres(programs: Path, authority: Authority) -> Iterator[SecurePostgres]:
    """Run a server; it is gone with its data at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="forewatch-pgtls-"))
    folder.chmod(0o755)
    certificate, key = authority.issue(HOST)
    for source, name in ((certificate, "server.crt"), (key, "server.key"), (authority.file, "ca.crt")):
        shutil.copy(source, folder / name)
        shutil.chown(folder / name, "postgres")
        (folder / name).chmod(0o600)
    data = folder / "data"
    data.mkdir()
    shutil.chown(data, "postgres")
    server = SecurePostgres(free_port(), programs)
    _run(programs / "initdb", "-D", data, "--auth=trust", "--encoding=UTF8", "--no-sync")
    (data / "pg_hba.conf").write_text(_RULES)
    settings = {"ssl": "on", "ssl_cert_file": folder / "server.crt", "ssl_key_file": folder / "server.key"}
    settings |= {"ssl_ca_file": folder / "ca.crt", "fsync": "off", "port": server.port}
    settings |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": folder / "data"}
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    (data / "postgresql.auto.conf").write_text(lines)
    _run(programs / "pg_ctl", "start", "-w", "-t", "60", "-D", data, "-l", data / "server.log")
    try:
        address = f"host={data} port={server.port} user=postgres dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE forewatch LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("CREATE ROLE machine LOGIN IN ROLE forewatch")
            connection.execute("CREATE DATABASE forewatch OWNER forewatch")
        yield server
    finally:
        _run(programs / "pg_ctl", "stop", "-m", "immediate", "-D", data)
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: Path, *arguments: str | Path) -> None:
    # Not through a pipe: the server would inherit it.
    command = [str(program), *map(str, arguments)]
    silent = subprocess.DEVNULL
    subprocess.run(command, user="postgres", cwd="/", stdout=silent, stderr=silent, check=True)
