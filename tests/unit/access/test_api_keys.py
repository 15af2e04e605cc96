"""API keys on SQLite and PostgreSQL: made once, stored as a hash, found in constant time, revoked."""

from __future__ import annotations

import gzip
import hmac
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.access import api_keys
from pipeline.access.api_keys import KeyRequest, create_key, find_key, revoke_key
from pipeline.access.scopes import Scope
from pipeline.access.visibility import require_known, visible_streams
from pipeline.cli import main
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.core.secret_text import hide_secrets
from storage.access import audit, keys
from storage.access.audit import Actor, ActorKind, AuditFilter, Change
from storage.sql.database import Database

ADA = Actor("ada", ActorKind.COMMAND, address="host")
SECOND = 10**9
STREAM = {
    "source": {"memory": {"name": "x"}},
    "format": {"json": {"series": ["site"], "time": "t", "values": ["v"]}},
}


def made(database, now_ns=1, **given) -> str:
    with database.begin() as connection:
        return create_key(
            connection, KeyRequest(**{"name": "ci", "scope": Scope.VIEWER} | given), ADA, now_ns
        )[0]


def query(connection, **which):
    return audit.query(connection, AuditFilter(**which))


def found(database, key: str, now_ns: int = 2):
    with database.read() as connection:
        return find_key(connection, key, now_ns)


def test_a_key_is_found_by_its_text_and_only_its_hash_is_stored(database):
    key = made(database, scope=Scope.OPERATOR, streams=["plant"], teams=["east"])
    row = found(database, key)
    assert (row.name, row.scope, row.streams, row.teams) == ("ci", "operator", ["plant"], ["east"])
    secret = key.rpartition("_")[2] if "_" not in key[16:] else key[16:]
    with database.read() as connection:
        for table in ("api_keys", "audit_entries"):
            stored = str(connection.execute(text(f"SELECT * FROM {table}")).all())
            assert secret not in stored


@pytest.mark.parametrize(
    "change", [lambda k: k[:-1] + ("A" if k[-1] != "A" else "B"), lambda k: k + "x", str.upper]
)
def test_another_secret_is_not_found(database, change):
    assert found(database, change(made(database))) is None


def test_texts_that_are_no_keys_are_not_found(database):
    for wrong in ("", "fw_", "fw_0123456789ab_", "x" * 10_000, "fw_0123456789ab_" + "é" * 43, "\ud800"):
        assert found(database, wrong) is None


def test_hashes_are_compared_in_constant_time_also_for_unknown_ids(database, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(api_keys.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    made(database)
    assert found(database, "fw_0123456789ab_" + "A" * 43) is None
    assert [len(a) for pair in compared for a in pair] == [32, 32]


def test_an_expired_or_revoked_key_is_not_found(database):
    key = made(database, expires_ns=10 * SECOND)
    assert found(database, key, 10 * SECOND - 1) is not None
    assert found(database, key, 10 * SECOND) is None
    with database.begin() as connection:
        revoke_key(connection, "ci", ADA, 5)
    assert found(database, key, 6) is None
    with database.read() as connection:
        assert keys.exist(connection)
        assert not keys.usable(connection, 6)
        assert keys.query(connection) == []
        assert len(keys.query(connection, revoked=True)) == 1


def test_a_name_is_used_once_until_it_is_revoked(database):
    made(database)
    with pytest.raises(InputError, match="revoke it"):
        made(database)
    with database.begin() as connection:
        with pytest.raises(InputError, match="no key nobody in force"):
            revoke_key(connection, "nobody", ADA, 5)
        revoke_key(connection, keys.query(connection)[0].id[:6], ADA, 5)
    made(database)


def test_changes_of_keys_are_in_the_audit_log(database):
    made(database)
    with database.begin() as connection:
        revoke_key(connection, "ci", ADA, 5)
        [revoked, created] = query(connection, action="key")
    assert (created.action, created.actor, created.actor_kind, created.address) == (
        *("key.create", "ada", "command", "host"),
    )
    assert (revoked.action, revoked.created_ns, revoked.object) == ("key.revoke", 5, created.object)


def test_the_audit_log_hides_secrets_and_is_filtered(database):
    key = made(database)
    with database.begin() as connection:
        audit.add(connection, ADA, Change("alert.acknowledge", "a1", "plant", {"comment": f"used {key}"}), 7)
        audit.add(connection, Actor("bob", ActorKind.KEY), Change("silence.add", "s1", "web", {}), 8)
        entries = query(connection, streams=["plant"])
        assert [one.object for one in query(connection, actor="bob")] == ["s1"]
        assert query(connection, action="al") == []
        assert [one.object for one in query(connection, since_ns=8, until_ns=9)] == ["s1"]
        assert len(query(connection, before_id=entries[0].id)) == 1
        assert audit.prune(connection, 8, 100) == 2
    assert [one.object for one in entries] == ["a1"]
    assert key not in str(entries)
    assert key not in hide_secrets(f"error with {key}")


def test_a_key_sees_its_streams_and_those_of_its_teams():
    streams = {"plant": STREAM | {"team": "east"}, "web": STREAM | {"team": "west"}, "links": STREAM}
    config = Config.model_validate({"streams": streams})
    assert visible_streams(config, [], []) is None
    assert visible_streams(config, ["links"], ["east"]) == {"links", "plant"}
    assert visible_streams(config, [], ["north"]) == frozenset()
    with pytest.raises(InputError, match="did you mean east"):
        require_known(config, [], ["eats"])
    with pytest.raises(InputError, match="no stream 'plantt'"):
        require_known(config, ["plantt"], [])


def test_scopes_include_those_before_them():
    assert Scope.ADMIN.includes(Scope.VIEWER)
    assert Scope.OPERATOR.includes(Scope.OPERATOR)
    assert not Scope.OPERATOR.includes(Scope.ADMIN)


def test_a_database_of_0_1_0_gets_the_tables(tmp_path: Path):
    fixture = Path(__file__).resolve().parents[2] / "fixtures" / "v0_1_0" / "forewatch.db.gz"
    with gzip.open(fixture) as packed:
        (tmp_path / "old.db").write_bytes(packed.read())
    with closing(Database(f"sqlite:///{tmp_path}/old.db")) as old:
        old.upgrade()
        assert found(old, made(old)) is not None


CONFIG = """
database: sqlite:///{folder}/forewatch.db
streams:
  plant:
    team: east
    source: {{memory: {{name: x}}}}
    format: {{json: {{series: [site], time: t, values: [v]}}}}
"""


def test_commands_create_list_and_revoke_keys_and_show_the_log(
    tmp_path: Path, sqlite_template: Path, capsys, monkeypatch
):
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    file = tmp_path / "forewatch.yaml"
    file.write_text(CONFIG.format(folder=tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["forewatch", *arguments, "--config", str(file)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    code, key, note = run("keys", "create", "ci", "--scope", "operator", "--team", "east", "--for", "90d")
    assert (code, "cannot be shown again" in note) == (0, True)
    key = key.strip()
    assert api_keys.is_key(key)
    assert "team east" in run("keys", "list")[1]
    assert key[16:] not in run("keys", "list", "--json")[1]
    code, _, error = run("keys", "create", "x", "--team", "weast")
    assert (code, "did you mean" in error) == (2, True)
    code, _, error = run("keys", "create", "x", "--for", "soon")
    assert (code, "write a duration" in error) == (2, True)
    assert run("keys", "revoke", "ci", "--by", "bob")[0] == 0
    assert "no API keys" in run("keys", "list")[2]
    shown = run("audit", "--json")[1]
    assert '"key.revoke"' in shown
    assert '"bob"' in shown
    assert key[16:] not in shown
