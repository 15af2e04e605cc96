"""Who gives a command, and ids as people type them."""

from __future__ import annotations


def author_name(given: str | None) -> str:
    """The name that was given, or that of the user who is logged in."""
    if given is not None:
        return given
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


def hex_prefix(text: str) -> str:
    """The digits of the beginning of an id. Raises InputError."""
    from pipeline.core.errors import InputError

    digits = text.replace("-", "").lower().removeprefix("msg_")
    if not 1 <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        raise InputError(f"{text!r} is not an id: give at least its first characters, as the list shows it")
    return digits
