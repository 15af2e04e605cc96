"""Values of arguments: the author of a command, and abbreviated ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from storage.access.audit import Actor

Row = TypeVar("Row")


def author_name(given: str | None) -> str:
    """Return the given name, or the name of the user who is logged in."""
    if given is not None:
        return given
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


def command_actor(given: str | None) -> Actor:
    """Return the author of a change by a command, for the audit log."""
    import socket

    from storage.access.audit import Actor, ActorKind

    return Actor(author_name(given), ActorKind.COMMAND, address=socket.gethostname())


def duration_ns(option: str, text: str) -> int:
    """Return the nanoseconds of a duration such as 2h.

    Raises:
        InputError: The text is not a duration.
    """
    from datetime import timedelta

    from pipeline.config.field_types import parse_duration
    from pipeline.core.errors import InputError

    try:
        span: timedelta = parse_duration(text)
        return (span // timedelta(microseconds=1)) * 1000
    except (ValueError, OverflowError) as error:
        raise InputError(f"{option} {text}: {error}") from None


def hex_prefix(text: str) -> str:
    """Return the hexadecimal digits of the beginning of an id.

    Raises:
        InputError: The text is not the beginning of an id.
    """
    from pipeline.core.errors import InputError

    digits = text.replace("-", "").lower().removeprefix("msg_")
    if not 1 <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        raise InputError(f"{text!r} is not an id: give the first characters of an id from the list")
    return digits


def only_match(found: Sequence[Row], ids: Sequence[str], text: str, noun: str, command: str) -> Row:
    """Return the only row whose id begins with ``text``.

    Args:
        found: Rows whose id begins with it.
        ids: Ids of these rows.
        text: Beginning of an id as it was typed.
        noun: Name of the kind of row, for messages.
        command: Command that lists the rows.

    Raises:
        InputError: there is no such row, or more than one.
    """
    from pipeline.core.errors import InputError

    if not found:
        raise InputError(f"there is no {noun} {text}; `{command}` lists them")
    if len(found) > 1:
        raise InputError(f"several ids begin with {text}: {', '.join(ids)}; give more characters")
    return found[0]
