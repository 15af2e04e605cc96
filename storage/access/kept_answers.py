"""Answers to requests with an idempotency key, so that a repeat changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from pipeline.core.durations import SECOND_NS
from storage.sql.column_types import delete_older, insert
from storage.tables.access import KeptAnswerRow

KEEP_NS = 86_400 * SECOND_NS


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """Answer to a request; without ``status`` it is being made, or its process ended."""

    request_hash: bytes
    status: int | None
    media_type: str | None
    body: bytes | None


_COLUMNS = [getattr(KeptAnswerRow, name) for name in KeptAnswer.__slots__]


def begin(connection: Connection, id_: bytes, request_hash: bytes, now_ns: int) -> KeptAnswer | None:
    """Store that a request is being answered.

    Returns:
        None if it is new, else what is stored for its key.

    Args:
        connection: A transaction.
        id_: Hash of the actor and the idempotency key.
        request_hash: Hash of the request.
        now_ns: Current time.
    """
    delete_older(connection, KeptAnswerRow.created_ns, now_ns - KEEP_NS, 100)
    row = {"id": id_, "request_hash": request_hash, "created_ns": now_ns}
    added = insert(connection, KeptAnswerRow).values(row).on_conflict_do_nothing(index_elements=["id"])
    if connection.scalar(added.returning(KeptAnswerRow.id)) is not None:
        return None
    return KeptAnswer(*connection.execute(select(*_COLUMNS).where(KeptAnswerRow.id == id_)).one())


def finish(connection: Connection, id_: bytes, answer: KeptAnswer) -> None:
    """Store the answer."""
    values = {"status": answer.status, "media_type": answer.media_type, "body": answer.body}
    connection.execute(update(KeptAnswerRow).where(KeptAnswerRow.id == id_).values(values))


def forget(connection: Connection, id_: bytes) -> None:
    """Forget a request that changed nothing, so that it can be made again."""
    connection.execute(delete(KeptAnswerRow).where(KeptAnswerRow.id == id_))
