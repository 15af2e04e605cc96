"""Import wizard: from samples to a config that was tried on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from pipeline.config.schema import SourceConfig, Stream
from pipeline.core.conditions import parse_condition
from pipeline.core.errors import InputError
from pipeline.core.types import Partition
from pipeline.services.config_guess import EVENT_KEYS, Guess, guess_stream
from pipeline.services.preflight import SAMPLE_RECORDS, StreamProbe, probe_stream, sample_records
from pipeline.services.sample_rows import Samples, samples_of_file
from pipeline.services.topic_samples import samples_of_topic, take_keys
from pipeline.sources import make_source
from pipeline.sources.base import Records, TableRecords

#: Answers that are keys of the stream, not of its format.
_STREAM_KEYS = ("preset", "calendar", "every", "counters", "detector")
_LISTS = ("series", "values", "optional", "missing", "units", "counters")
SESSION_ADVICE = (
    "the events of a series go on without an end; if they have sessions, "
    "add `events: {idle: 10m}` to the stream"
)
MODEL_ADVICE = (
    "no event is an alarm until there is a model: a running daemon trains one every night, and "
    "forewatch train does at once"
)
_ANY_FORMAT = {"json": {"time": "$timestamp", "values": ["$value"]}}


@dataclass(slots=True)
class Imported:
    """A guessed stream with its source, and what it decodes.

    name     of the stream, "" for that of the place
    further  streams beside it, by the ending of their name
    advice   what to do before the daemon starts
    """

    stream: dict[str, Any]
    guess: Guess
    probe: StreamProbe | None
    name: str = ""
    further: dict[str, dict[str, Any]] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)


def import_file(path: Path, answers: Mapping[str, str]) -> Imported:
    """Guess the stream of a file. Raises InputError."""
    samples = samples_of_file(path, answers.get("encoding"))
    return imported_stream(samples, {"files": {"paths": [str(path)]}}, answers)


def import_topic(broker: str, topic: str, answers: Mapping[str, str]) -> Imported:
    """Guess the stream of a topic. Raises InputError and SourceError."""
    keys = {"kafka": {"brokers": [broker], "topics": [topic]}}
    records = newest_records(SourceConfig.model_validate(keys), topic)
    samples = samples_of_topic(records, f"topic {topic}")
    return imported_stream(samples, keys, answers, partial(take_keys, found=records))


def newest_records(
    reader: SourceConfig, topic: str, most: int = SAMPLE_RECORDS
) -> list[Records | TableRecords]:
    """Return the newest records of a topic, read with a consumer group of its own.

    Args:
        reader: Source of Kafka with the address of the cluster and the credentials.
        topic: Name of the topic.
        most: Limit for each partition.

    Raises:
        SourceError: The cluster does not answer, or has no such topic.
    """
    assert reader.kafka is not None
    group = f"forewatch-look-{uuid4().hex[:8]}"
    looking = reader.model_copy(
        update={"kafka": reader.kafka.model_copy(update={"topics": [topic], "group": group})}
    )
    stream = Stream.model_validate({"source": {"memory": {"name": "look"}}, "format": _ANY_FORMAT})
    source = make_source("look", looking, stream.format)
    try:
        source.identity(Partition(topic, 0))
        return list(sample_records(source, most))
    finally:
        source.close()


def imported_stream(
    samples: Samples,
    source: dict[str, Any],
    answers: Mapping[str, str],
    complete: Callable[[Guess], None] = lambda guess: None,
) -> Imported:
    """Guess the stream of samples, and try it on its source.

    Args:
        samples: Rows of the data.
        source: Source of the stream.
        answers: Keys that are known.
        complete: Adds to the guess what is known beside the samples.

    Raises:
        InputError: The answers do not fit.
    """
    if "where" in answers:
        field, _, value = answers["where"].partition("=")
        samples.rows = [row for row in samples.rows if str(row.get(field)) == value]
        if not samples.rows:
            raise InputError(f"no sample has {field} = {value}")
    given = ("time", "series", "values", *EVENT_KEYS)
    fixed = {key: _answer(key, answers[key]) for key in given if key in answers}
    guess = guess_stream(samples, stamped="kafka" in source, answers=fixed)
    if "series" not in answers:
        complete(guess)
    _apply(guess, answers)
    stream = {"source": source, "format": {samples.kind: guess.form}, **guess.stream}
    if guess.questions:
        return Imported(stream, guess, None)
    try:
        checked = Stream.model_validate(stream)
        parse_condition(guess.form["where"]) if "where" in guess.form else None
    except (ValidationError, ValueError) as error:
        raise InputError(f"init: the answers do not fit together: {error}") from None
    advice = [SESSION_ADVICE, MODEL_ADVICE] if checked.of_events else []
    return Imported(stream, guess, probe_stream("init", checked), advice=advice)


def _answer(key: str, text: str) -> Any:
    """Return an answer in the type of its key."""
    if key == "thousands" and text == "none":
        return None
    if key in _LISTS or (key == "time" and "," in text):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _apply(guess: Guess, answers: Mapping[str, str]) -> None:
    """Put the answers in the place of guesses."""
    for key, text in answers.items():
        value = _answer(key, text)
        if key == "where":
            field, _, wanted = text.partition("=")
            value = {field: wanted}
        (guess.stream if key in _STREAM_KEYS else guess.form)[key] = value
        if key == "thousands" and value == guess.form.get("decimal", "."):
            guess.form["decimal"] = "," if value == "." else "."
        guess.questions.pop(key, None)
        guess.note(key, text, "your answer")
