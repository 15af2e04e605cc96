"""Who decides, from now on: every change of a champion, by a job, by the guard or by a person, goes through
here and is one audited row.
"""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline.config.schema import Stream
from pipeline.core.errors import InputError
from storage.model_store import jobs, models
from storage.model_store.models import Promotion

#: Parts of ``guard`` after which a new champion is looked at: soon, then less often.
LOOKS = (1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3, 1.0)


def promote(
    connection: Connection,
    name: str,
    stream: Stream,
    version: str,
    *,
    author: str,
    reason: str,
    now_ns: int,
    pinned: bool | None = None,
) -> Promotion:
    """Let ``version`` decide in stream ``name``; the guard is asked to look after it.

    Raises InputError and Overtaken.
    """
    model = models.get(connection, version)
    if model.stream != name:
        raise InputError(f"version {version} was trained for stream {model.stream}, not {name}")
    now = models.champion(connection, name)
    if now.to_version == model.version and (pinned is None or pinned == now.pinned):
        raise InputError(f"version {model.version} decides in stream {name} already")
    action = "promote" if now.to_version != model.version else "pin"
    after = models.change(
        connection, now, action, model.version, author=author, reason=reason, now_ns=now_ns, pinned=pinned
    )
    if action == "promote" and not after.pinned:
        watch(connection, name, stream, after, 0)
    return after


def roll_back(connection: Connection, name: str, *, author: str, reason: str, now_ns: int) -> Promotion:
    """Let that version decide again that did before the champion. Raises InputError and Overtaken."""
    now = models.champion(connection, name)
    return models.change(
        connection,
        now,
        "rollback",
        models.before(connection, now),
        author=author,
        reason=reason,
        now_ns=now_ns,
    )


def unpin(connection: Connection, name: str, *, author: str, reason: str, now_ns: int) -> Promotion:
    """From now on jobs may change the champion of a stream again. Raises InputError and Overtaken."""
    now = models.champion(connection, name)
    if not now.pinned:
        raise InputError(f"stream {name} is not pinned")
    return models.change(
        connection, now, "unpin", now.to_version, author=author, reason=reason, now_ns=now_ns, pinned=False
    )


def watch(connection: Connection, name: str, stream: Stream, promotion: Promotion, look: int) -> None:
    """Queue the guard's look number ``look`` at a new champion, if it is still to be looked at then."""
    length_ns = round(stream.retraining.post_promotion_check.total_seconds() * 1e9)
    if look >= len(LOOKS) or not length_ns:
        return
    due_ns = promotion.created_ns + round(LOOKS[look] * length_ns)
    detail = {"version": promotion.to_version, "sequence": promotion.sequence, "look": look}
    jobs.add(
        connection,
        "guard",
        name,
        due_ns,
        trigger="follow-up",
        author=promotion.author,
        now_ns=promotion.created_ns,
        device="cpu",
        detail=detail,
    )
