"""Fields of a record that a stream needs, computed once from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from pipeline.config.schema import Stream
from pipeline.core.conditions import Condition, parse_condition
from pipeline.core.errors import ConfigError
from pipeline.core.number_texts import NumberRules


class Reduction(NamedTuple):
    """Channel of an aggregate: function ``kind`` of ``field``, None to count the records."""

    channel: str
    kind: str
    field: str | None

    @property
    def fingerprint(self) -> bool:
        """True if only the identity of the field's content matters, not its number."""
        return self.field is not None and self.kind in ("nunique", "count")


@dataclass(frozen=True, slots=True)
class Fields:
    """Field names as configured.

    ``numbers`` are read by the aggregate only, as are ``fingerprints``, of which only the identity matters.
    ``event`` holds the code or the log line of a stream of events, or the log line whose template is a label.
    """

    labels: tuple[str, ...]
    times: tuple[str, ...]
    values: tuple[str, ...]
    numbers: tuple[str, ...]
    fingerprints: tuple[str, ...]
    optional: frozenset[str]
    time_unit: str
    zone: str
    time_format: str | None = None
    event: str | None = None

    @property
    def time(self) -> str:
        """Name of the time in messages."""
        return " and ".join(self.times)

    @property
    def joined_times(self) -> bool:
        """True if the time is the text of several fields."""
        return len(self.times) > 1

    def all(self) -> list[str]:
        """Return every field once."""
        event = () if self.event is None else (self.event,)
        return list(
            dict.fromkeys(
                (*self.labels, *self.times, *self.values, *self.numbers, *self.fingerprints, *event)
            )
        )


def reductions_of(stream: Stream) -> list[Reduction]:
    """Return the channels of the aggregate, empty without one."""
    if stream.aggregate is None:
        return []
    out = []
    for channel, function in stream.aggregate.values.items():
        if isinstance(function, dict):
            ((kind, field),) = function.items()
            out.append(Reduction(channel, kind, field))
        else:
            out.append(
                Reduction(
                    channel,
                    function,
                    None if function == "count" else stream.format.chosen.value_fields[channel],
                )
            )
    return out


def fields_of(name: str, stream: Stream) -> Fields:
    """Return the fields that stream ``name`` needs.

    Raises ConfigError if one field has two roles.
    """
    chosen = stream.format.chosen
    labels, values = tuple(chosen.label_fields.values()), tuple(chosen.value_fields.values())
    event, template = chosen.event_field, chosen.template
    reductions = [r for r in reductions_of(stream) if r.field is not None]
    numbers = dict.fromkeys(
        r.field for r in reductions if r.field is not None and not r.fingerprint and r.field not in values
    )
    fingerprints = dict.fromkeys(r.field for r in reductions if r.field is not None and r.fingerprint)
    uses = {"series": set(labels), "time": set(chosen.time_fields), "value": {*values, *numbers}}
    if event is not None:
        uses = {"series": set(labels), "time": set(chosen.time_fields), "value": {event}}
        values = ()
    elif template is not None:
        uses["log line"] = {template}
    for one, other in combinations(uses, 2):
        for field in sorted(uses[one] & uses[other]):
            raise ConfigError(
                f"streams.{name}.format: the field {field!r} is named as {one} and as {other}; it "
                f"can be one of them"
            )
    return Fields(
        labels=labels,
        times=tuple(chosen.time_fields),
        values=values,
        numbers=tuple(numbers),
        fingerprints=tuple(fingerprints),
        optional=frozenset(
            chosen.value_fields.get(o, chosen.label_fields.get(o, o)) for o in chosen.optional
        ),
        # The timestamp of a record has a unit of its own.
        time_unit="ns" if chosen.time_fields == ["$timestamp"] else chosen.time_unit,
        zone=chosen.timezone,
        time_format=chosen.time_format,
        event=event or template,
    )


def number_rules(stream: Stream) -> NumberRules:
    """Return how the stream's format writes numbers as text."""
    chosen = stream.format.chosen
    units = chosen.units if isinstance(chosen.units, dict) else dict.fromkeys(chosen.units, 1.0)
    return NumberRules(chosen.decimal, chosen.thousands, tuple(chosen.missing), units, chosen.states)


def condition_of(name: str, stream: Stream) -> Condition | None:
    """Return the condition of the stream's records, None for all. Raises ConfigError."""
    where = stream.format.chosen.where
    try:
        return None if where is None else parse_condition(where)
    except ValueError as error:
        raise ConfigError(f"streams.{name}.format: where {error}") from None
