"""Exit codes, in one place: the help, the documentation and the errors agree on them."""

from __future__ import annotations

EXITS = {
    0: "everything went well",
    1: "something failed that has no code of its own",
    2: "a mistake in the command line, the config or an input file",
    3: "the source (Kafka, files) cannot be read",
    4: "the database cannot be used",
    70: "the watchdog ended a daemon whose loop stood still; start it again",
    130: "interrupted (Ctrl-C)",
}


def epilog() -> str:
    """For the end of ``forewatch --help`` (the backspace keeps the lines as they are)."""
    return "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in EXITS.items())
