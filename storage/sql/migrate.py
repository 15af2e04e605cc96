"""Versions of the schema, by Alembic.

``storage/migrations/versions`` holds one file per step, without branches.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from pipeline.core.errors import StorageError
from pipeline.core.secret_text import hide_in_urls

#: Not Alembic's own default: the database may be shared with programs that use Alembic, too.
VERSION_TABLE = "forewatch_version"
_ADVISORY_LOCK = 0x666F7265  # "fore"


def config(connection: Connection | None = None) -> Config:
    """Return the Alembic configuration for the database of ``connection``."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations").replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def head() -> str:
    """Return the newest revision of this version of forewatch."""
    revision = _scripts().get_current_head()
    assert revision is not None
    return revision


@cache
def _scripts() -> ScriptDirectory:
    """Return the steps, which take a while to load."""
    return ScriptDirectory.from_config(config())


def current(connection: Connection) -> str | None:
    """Return the revision of the database, None without tables."""
    return MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()


def upgrade(connection: Connection) -> None:
    """Bring the schema to ``head`` in this transaction; daemons that start together wait for each other."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    revision = current(connection)
    _refuse_newer(revision, hide_in_urls(connection.engine.url.render_as_string(hide_password=True)))
    if revision != head():
        command.upgrade(config(connection), "head")


def require_head(revision: str | None, name: str) -> None:
    """Raise StorageError unless ``revision`` is ``head``."""
    _refuse_newer(revision, name)
    if revision != head():
        raise StorageError(
            f"{name} is at schema {revision or 'none'}, this forewatch needs {head()}; run: forewatch db upgrade"
        )


def _refuse_newer(revision: str | None, name: str) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if revision is not None and revision not in known:
        raise StorageError(
            f"{name} is at schema {revision}, which this version of forewatch does not know: a newer one has upgraded it. "
            "Install that version again, or use another database."
        )
