"""Members of a group on a real broker, closed in the end."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from pipeline.config.schema import KafkaSourceConfig


@pytest.fixture
def join():
    """``join(client, broker, topics…)`` opens a member and closes it in the end."""
    opened = []

    def joining(client, broker, *topics, group=None, metadata_age=0.5, **settings):
        settings = {"session_timeout": timedelta(seconds=6), **settings}
        opened.append(
            client(
                KafkaSourceConfig(brokers=[broker], topics=list(topics), **settings),
                group or uuid.uuid4().hex,
                metadata_age=metadata_age,
            )
        )
        return opened[-1]

    yield joining
    for source in opened:
        source.close()
