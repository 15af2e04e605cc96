"""Promotion and rollback: each change of a champion is one audited row.

Jobs, the post-promotion check and people all change a champion here.
"""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.errors import InputError
from storage.model_store import jobs, models
from storage.model_store.jobs import JobTrigger, TaskKind
from storage.model_store.models import Promotion, PromotionAction

#: Fractions of ``post_promotion_check`` after which a new champion is checked.
CHECK_FRACTIONS = (1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3, 1.0)


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
    """Make ``version`` the champion of a stream and schedule its first check.

    Raises InputError and ChampionChanged.

    Args:
        connection: a transaction.
        name: name of the stream.
        stream: config of the stream.
        version: the version, or its first digits.
        author: the person or job that promotes.
        reason: one sentence for the row.
        now_ns: current time.
        pinned: whether only a person may change the champion from now on; None leaves it as it is.
    """
    model = models.get(connection, version)
    if model.stream != name:
        raise InputError(f"version {version} was trained for stream {model.stream}, not {name}")
    now = models.current_champion(connection, name)
    if now.to_version == model.version and (pinned is None or pinned == now.pinned):
        raise InputError(f"version {model.version} is the champion of stream {name} already")
    action = PromotionAction.PROMOTE if now.to_version != model.version else PromotionAction.PIN
    after = models.record_promotion(
        connection, now, action, model.version, author=author, reason=reason, now_ns=now_ns, pinned=pinned
    )
    if action == PromotionAction.PROMOTE and not after.pinned:
        schedule_check(connection, name, stream, after, 0)
    return after


def roll_back(connection: Connection, name: str, *, author: str, reason: str, now_ns: int) -> Promotion:
    """Make the predecessor of the champion the champion again.

    Raises InputError and ChampionChanged.

    Args:
        connection: a transaction.
        name: name of the stream.
        author: the person or job that rolls back.
        reason: one sentence for the row.
        now_ns: current time.
    """
    now = models.current_champion(connection, name)
    return models.record_promotion(
        connection,
        now,
        PromotionAction.ROLLBACK,
        models.previous_version(connection, now),
        author=author,
        reason=reason,
        now_ns=now_ns,
    )


def unpin(connection: Connection, name: str, *, author: str, reason: str, now_ns: int) -> Promotion:
    """Let jobs change the champion of a stream again.

    Raises InputError and ChampionChanged.

    Args:
        connection: a transaction.
        name: name of the stream.
        author: the person who unpins.
        reason: one sentence for the row.
        now_ns: current time.
    """
    now = models.current_champion(connection, name)
    if not now.pinned:
        raise InputError(f"stream {name} is not pinned")
    return models.record_promotion(
        connection,
        now,
        PromotionAction.UNPIN,
        now.to_version,
        author=author,
        reason=reason,
        now_ns=now_ns,
        pinned=False,
    )


def schedule_check(
    connection: Connection, name: str, stream: Stream, promotion: Promotion, number: int
) -> None:
    """Queue check ``number`` (from 0) of a new champion, unless all checks were made.

    Args:
        connection: a transaction.
        name: name of the stream.
        stream: config of the stream.
        promotion: the promotion of the champion.
        number: index into ``CHECK_FRACTIONS``.
    """
    length_ns = to_nanoseconds(stream.retraining.post_promotion_check)
    if number >= len(CHECK_FRACTIONS) or not length_ns:
        return
    due_ns = promotion.created_ns + round(CHECK_FRACTIONS[number] * length_ns)
    # "look" is the stored key of the check's number.
    detail = {"version": promotion.to_version, "sequence": promotion.sequence, "look": number}
    jobs.add(
        connection,
        TaskKind.POST_PROMOTION_CHECK,
        name,
        due_ns,
        trigger=JobTrigger.FOLLOW_UP,
        author=promotion.author,
        now_ns=promotion.created_ns,
        device="cpu",
        detail=detail,
    )
