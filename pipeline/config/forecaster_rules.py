"""Rules between ``forecaster`` and the other keys of a stream."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.problems import Finding, KeyPath
from pipeline.config.schema import Stream


def forecaster_rules(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with the ``forecaster`` of the stream at ``at``."""
    if stream.forecaster is None or stream.of_events:
        return
    at = (*at, "forecaster")
    for conflict in stream.forecaster.conflicts():
        yield Finding((*at, conflict.key), conflict.reason, conflict.remedy)
    if stream.detector not in ("standard", "strong"):
        yield Finding(at, f"detector {stream.detector} has no network", "choose detector standard or strong")
    if stream.retraining.models_by:
        yield Finding(
            at,
            "retraining.models_by gives groups LSTMs of their own, and one network is for all series",
            "remove one of the two keys",
        )
    if stream.forecaster.output == "negative_binomial":
        yield from _counts(stream, (*at, "output"))


def _counts(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    """Check that the channels can be counts."""
    if stream.preset != "sensor":
        yield Finding(
            at,
            f"negative_binomial is for counts, and preset {stream.preset} takes logarithms",
            "choose preset sensor or output student_t",
        )
    if rates := [name for name in stream.counters if name in stream.channels]:
        yield Finding(
            at,
            f"negative_binomial is for counts, and counter {rates[0]} is converted to a rate per second",
            "choose output student_t",
        )
