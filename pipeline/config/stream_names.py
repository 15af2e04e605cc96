"""Rules of the names of streams and of their consumer groups."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.problems import Finding
from pipeline.config.schema import Config

MAX_NAME_CHARACTERS = 200
#: Alerts about the delivery of alerts have this name as their stream.
OPERATIONS_STREAM = "forewatch"
#: A backfill keeps its positions under the name of the stream and this text.
BACKFILL_MARK = " (backfill "


def stream_name_rules(config: Config) -> Iterator[Finding]:
    """Check that names are unambiguous wherever a stream is stored, shown or sent."""
    for name in config.streams:
        if (problem := _problem(name, config)) is not None:
            yield Finding(("streams", name), problem, "rename the stream")
    yield from _groups(config)


def default_group(stream: str) -> str:
    """Return the consumer group of a stream that names none."""
    return f"forewatch-{stream}"


def _problem(name: str, config: Config) -> str | None:
    if not name or name != name.strip() or not name.isprintable():
        return f"{name!r} is empty, or has spaces around it or characters that cannot be printed"
    if len(name) > MAX_NAME_CHARACTERS:
        return f"the name has {len(name)} characters, more than {MAX_NAME_CHARACTERS}"
    if name == OPERATIONS_STREAM:
        return f"{name!r} is the name of the alerts about deliveries"
    if BACKFILL_MARK in name:
        return f"{BACKFILL_MARK!r} marks the positions of a backfill"
    for other in config.streams:
        if name.startswith(f"{other}/"):
            # Queues and keys of alerts are stream/series: those of both streams could be the same.
            return f"it begins with {other + '/'!r}, and {other!r} is another stream"
    return None


def _groups(config: Config) -> Iterator[Finding]:
    """Check that no two streams use one consumer group: each would read only a part of the partitions."""
    owner: dict[str, str] = {}
    for name, stream in config.streams.items():
        if stream.source.kafka is None:
            continue
        group = stream.source.kafka.group or default_group(name)
        if group in owner:
            yield Finding(
                ("streams", name, "source", "kafka", "group"),
                f"stream {owner[group]} already uses the group {group!r}",
                "give each stream a group of its own, or none",
            )
        owner.setdefault(group, name)
