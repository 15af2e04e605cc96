"""Databases of the fault suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres_server import PostgresServer, create_database, drop_database


@pytest.fixture
def schema_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database with the schema in it, of this test alone."""
    url = create_database(postgres_server, postgres_template)
    yield url
    drop_database(postgres_server, url)
