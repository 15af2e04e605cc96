"""TLS on a real PostgreSQL: names and certificates are checked, and each refusal says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.config.schema import Config
from pipeline.core.errors import StorageRefused
from pipeline.database import database_of
from storage.sql.database import Database
from tests.support.certificates import Authority
from tests.support.secure_postgres import PASSWORD, SecurePostgres, secure_postgres, server_programs

pytestmark = pytest.mark.postgres
STREAM = {"source": {"memory": {}}, "format": {"csv": {"series": "s", "time": "t", "values": ["v"]}}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[SecurePostgres]:
    programs = server_programs()
    if programs is None:
        pytest.skip("needs root and Debian's server with TLS (apt-get install postgresql)")
    with secure_postgres(programs, authority) as running:
        yield running


def verified(server: SecurePostgres, authority: Authority, role: str = "forewatch", **options: object) -> str:
    return server.url(role, **{"sslmode": "verify-full", "sslrootcert": authority.file, **options})


def certificate(authority: Authority, name: str = "machine") -> dict[str, Path]:
    file, key = authority.issue(name)
    key.chmod(0o600)
    return {"sslcert": file, "sslkey": key}


def opened(url: str, password: Path | None = None) -> Database:
    config = {"database": url, "streams": {"plant": STREAM}}
    if password is not None:
        config["database_password"] = {"file": str(password)}
    return database_of(Config.model_validate(config))


def encrypted(database: Database) -> bool:
    """Return whether the connection is encrypted, as the server sees it; the schema is made before."""
    try:
        database.upgrade()
        with database.read() as connection:
            found = connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
            return bool(found.scalar_one())
    finally:
        database.close()


@pytest.fixture
def password(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return tmp_path / "password"


def test_a_password_over_verified_tls(server, authority, password):
    assert encrypted(opened(verified(server, authority), password))


def test_a_client_certificate_without_a_password(server, authority, password):
    assert encrypted(opened(verified(server, authority), password))  # makes the tables
    assert encrypted(opened(verified(server, authority, "machine", **certificate(authority))))


def test_commands_and_their_tools_use_the_certificate(server, authority, password, tmp_path):
    assert encrypted(opened(verified(server, authority), password))
    url = verified(server, authority, "machine", **certificate(authority))
    (tmp_path / "forewatch.yaml").write_text(json.dumps({"database": url, "streams": {"plant": STREAM}}))
    environment = {**os.environ, "PATH": f"{server.bin}{os.pathsep}{os.environ['PATH']}"}
    for arguments in (("db", "current"), ("db", "backup", "backup")):
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "backup").read_bytes().startswith(b"PGDMP")


def refusal(url: str, password: Path | None = None) -> str:
    """Return the message of a connection that is refused at once: a daemon ends and does not wait."""
    database = opened(url, password)
    try:
        with pytest.raises(StorageRefused) as caught:
            database.current()
        return str(caught.value)
    finally:
        database.close()


def test_an_unknown_authority(server, tmp_path, password):
    stranger = Authority(tmp_path)
    assert "certificate verify failed" in refusal(verified(server, stranger), password)


def test_a_certificate_for_another_name(server, authority, password):
    url = verified(server, authority, host="localhost")
    assert "does not match host name" in refusal(url, password)


def test_a_missing_file_of_the_authority(server, password, tmp_path):
    url = server.url("forewatch", sslmode="verify-full", sslrootcert=tmp_path / "none.crt")
    assert "does not exist" in refusal(url, password)


def test_a_connection_without_tls(server, password):
    assert "no encryption" in refusal(server.url("forewatch", sslmode="disable"), password)


def test_a_role_that_needs_a_certificate(server, authority):
    assert "valid client certificate" in refusal(verified(server, authority, "machine"))


def test_a_certificate_of_another_role(server, authority):
    url = verified(server, authority, "machine", **certificate(authority, "other"))
    assert "authentication failed" in refusal(url)


def test_a_client_certificate_of_a_stranger(server, authority, tmp_path):
    url = verified(server, authority, "machine", **certificate(Authority(tmp_path)))
    assert "unknown ca" in refusal(url).lower()


def test_a_key_that_others_can_read(server, authority):
    files = certificate(authority)
    files["sslkey"].chmod(0o644)
    assert "permissions" in refusal(
        verified(server, authority, "machine", **files)
    ) or "group or world" in refusal(verified(server, authority, "machine", **files))


def test_a_wrong_password_is_not_shown(server, authority, tmp_path):
    (tmp_path / "password").write_text("wrong-and-secret")
    found = refusal(verified(server, authority), tmp_path / "password")
    assert "authentication failed" in found
    assert "wrong-and-secret" not in found
