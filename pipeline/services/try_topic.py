"""Verdicts on the newest records of a topic, and the config that gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import ValidationError

from pipeline.config.schema import Config, SourceConfig, Stream
from pipeline.config.yaml_text import yaml_of
from pipeline.core.errors import InputError
from pipeline.decode import make_decoder, series_name
from pipeline.services.config_guess import guess_stream
from pipeline.services.config_wizard import newest_records
from pipeline.services.topic_samples import samples_of_topic, take_keys
from pipeline.services.try_file import MAX_ROWS, changed_settings, tried
from pipeline.sources.base import Records, TableRecords


@dataclass(frozen=True, slots=True)
class TopicSample:
    """Newest points of a topic, and the keys of a stream that reads it."""

    topic: str
    keys: dict[str, Any]
    preset: str
    frame: pd.DataFrame


def try_topic(sample: TopicSample, query: dict[str, str]) -> dict[str, Any]:
    """Return the verdicts on the points of a topic, and the config to read it.

    Args:
        sample: The points.
        query: Settings of the page.

    Raises:
        InputError: a setting cannot be used.
    """
    preset = query.get("preset") or sample.preset
    given = {"time": "time", "series": "series"} | {k: v for k, v in query.items() if v} | {"preset": preset}
    written = sample.keys | {"preset": preset, "detector": "light"} | changed_settings(given)
    return tried(sample.frame, given) | {"yaml": yaml_of({"streams": {sample.topic: written}})}


def read_topic(config: Config, stream: str, topic: str) -> TopicSample:
    """Read the newest records of a topic, and guess their format.

    Args:
        config: The configuration.
        stream: Stream whose brokers and credentials are used.
        topic: Name of the topic.

    Raises:
        InputError: the stream does not read Kafka, or the records cannot be judged.
        SourceError: the cluster does not answer, or has no such topic.
    """
    kafka = config.streams[stream].source.kafka
    if kafka is None:
        raise InputError(f"stream {stream} does not read Kafka: choose one whose brokers have the topic")
    found = newest_records(SourceConfig(kafka=kafka), topic, MAX_ROWS)
    samples = samples_of_topic(found, f"topic {topic}")
    guess = guess_stream(samples, stamped=True)
    take_keys(guess, found)
    for question, answers in guess.questions.values():
        fields = f" ({', '.join(answers)})" if answers else ""
        raise InputError(
            f"topic {topic}: {question}{fields} `forewatch init --kafka BROKER {topic}` asks for it"
        )
    keys = {
        "source": {"kafka": {"brokers": kafka.brokers, "topics": [topic]}},
        "format": {samples.kind: guess.form},
        **guess.stream,
    }
    try:
        checked = Stream.model_validate(keys)
    except ValidationError as error:
        raise InputError(f"topic {topic}: the guessed config does not fit together: {error}") from None
    frame = _frame(checked, found).sort_values("time", kind="stable", ignore_index=True)
    return TopicSample(topic, keys, checked.preset, frame)


def _frame(stream: Stream, found: list[Records | TableRecords]) -> pd.DataFrame:
    """Return the points of records, one row each."""
    decoder, frames = make_decoder("try", stream), []
    for records in found:
        columns, _ = decoder.decode(records)
        names = [series_name(stream, columns.keys[row])[0] for row in range(len(columns))]
        table = {name: columns.values[:, n] for n, name in enumerate(stream.channels)}
        time = pd.to_datetime(columns.time, utc=True)
        frames.append(pd.DataFrame({"time": time, "series": names} | table))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if frame.empty:
        raise InputError("no record of the topic could be decoded with the guessed format")
    return frame
