"""The exit codes that the help and the documentation show."""

from __future__ import annotations

EXITS = {
    0: "success",
    1: "any other error",
    2: "error in the command line, the config or an input file",
    3: "the source (Kafka, files) cannot be read",
    4: "the database cannot be read or written",
    70: "the watchdog ended a daemon whose loop had stopped; restart the daemon",
    130: "interrupted (Ctrl-C)",
}


def epilog() -> str:
    """Return the end of ``forewatch --help``; the backspace keeps click from joining the lines."""
    return "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in EXITS.items())
