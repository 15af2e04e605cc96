"""Warnings about labels of the alert config that no series has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pipeline.alerts.routing.matchers import PROPERTIES
from pipeline.config.diagnostics import closest
from pipeline.config.schema import Config, Stream


def matchable_names(streams: Iterable[Stream]) -> frozenset[str]:
    """Return the keys that a matcher of these streams can use."""
    labels = {name for stream in streams for name in stream.format.chosen.anomaly_labels}
    return PROPERTIES | labels | {f"label.{name}" for name in labels}


def unknown_label_warnings(config: Config) -> list[str]:
    """Return one line for each label that the format of its stream does not make."""
    return [
        f"{key}: no series of stream {name} has the label {label!r}, so {effect}: {closest(label, known)}"
        for name, stream in config.streams.items()
        for key, label, known, effect in _used_labels(name, stream)
        if label not in known
    ]


def _used_labels(name: str, stream: Stream) -> Iterator[tuple[str, str, Collection[str], str]]:
    """Yield (key of the config, label, known labels, effect of an unknown one)."""
    alerts, at = stream.alerts, f"streams.{name}.alerts"
    known, as_empty = matchable_names([stream]), "its value counts as empty text"
    policies = [(at, alerts)] + [(f"{at}.rules.{rule.name}", rule) for rule in alerts.rules]
    for key, policy in policies:
        by = policy.group.by if policy.group is not None else None
        labels = stream.format.chosen.anomaly_labels
        yield from ((f"{key}.group.by", label, labels, "it separates nothing") for label in by or ())
    for rule in alerts.rules:
        yield from ((f"{at}.rules.{rule.name}.match", label, known, as_empty) for label in rule.match)
    for silence, planned in alerts.silences.items():
        yield from (
            (f"{at}.silences.{silence}.match", label, known | {"fault"}, as_empty) for label in planned.match
        )
