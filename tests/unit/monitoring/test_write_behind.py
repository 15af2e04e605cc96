"""Pending writes of the monitors reach the database when it answers.

Only the newest write of each key is kept, so that the queue does not grow meanwhile.
"""

from __future__ import annotations

import pytest

from pipeline.core.errors import StorageUnavailable
from pipeline.monitoring.write_behind import WriteBehind


class Flaky:
    """A database that answers when it is ``up``."""

    up = False

    def begin(self):
        if not self.up:
            raise StorageUnavailable("down")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def test_while_the_database_is_down_only_the_newest_waits() -> None:
    database, written = Flaky(), []
    keeper = WriteBehind(database)
    keeper.flush()
    keeper.put("a", lambda connection: written.append("a1"))
    keeper.put("b", lambda connection: written.append("b1"))
    with pytest.raises(StorageUnavailable):
        keeper.flush()
    keeper.put("a", lambda connection: written.append("a2"))
    database.up = True
    keeper.flush()
    keeper.flush()
    assert sorted(written) == ["a2", "b1"]


def test_a_write_that_always_fails_does_not_block_the_others() -> None:
    database, written = Flaky(), []
    database.up = True
    keeper = WriteBehind(database)

    def impossible(connection) -> None:
        raise ValueError("no such column")

    keeper.put("a", impossible)
    with pytest.raises(ValueError, match="no such column"):
        keeper.flush()
    keeper.put("b", lambda connection: written.append("b"))
    keeper.flush()
    assert written == ["b"]
