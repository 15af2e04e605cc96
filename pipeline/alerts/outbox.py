"""Outbox of the engine: changes become rows, in the transaction that commits them.

Rules, groups, silences and the budget are applied later by the router, so that a burst of anomalies costs the
engine one small insert each. The id of an event names the change, so that the same change written twice is
one event.

The body of a row is a stored format, read by other versions of forewatch during a rolling upgrade and after a
downgrade. Its keys and words are those of schema 1 whatever they are called in Python. A reader ignores keys that
it does not know and takes the default of a field for keys that are missing. A row of schema 1 names no
schema, because the reader of 0.1.0 refuses unknown keys; a later schema stands in the key ``schema``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid5

import msgspec
from sqlalchemy import Connection

from pipeline.core.errors import StorageError
from pipeline.core.types import (
    END_REASON_TEXTS,
    NAMESPACE,
    Anomaly,
    AnomalyState,
    Fault,
)
from pipeline.core.verdict_words import current_cause, current_forecaster, former_cause, former_forecaster
from storage.alerting import outbox
from storage.alerting.states import EventKind
from storage.sql.column_types import safe

if TYPE_CHECKING:
    from pipeline.config.schema import Config

#: An open anomaly whose peak grew by less than this factor has not changed.
MIN_PEAK_GROWTH = 1.25
#: Newest schema of a body that this version writes.
BODY_SCHEMA = 1
#: Field → key of schema 1, where the names differ.
_KEYS = {"forecaster": "guard", "cause": "evidence"}
#: Fields that only the tracker of open anomalies and the pages need.
_NOT_WRITTEN = ("first_flag_seq", "told_seq", "revised_ns")
#: Fields of the decision "usual_range". Without it they are left out, because 0.1.0 refuses unknown keys.
_OF_USUAL_RANGE = ("ratio", "every_ns", "relative", "onset_ns", "outside_until_ns", "span_readings")
#: Fields of a fault that only processes on its database need; they are no part of a body.
_PROCESS_FIELDS = ("owner", "partitions")
_FLOATS = ("observed", "expected", "lower", "upper", "contribution")


_Record = TypeVar("_Record", Anomaly, Fault)


class OutboxWriter:
    """Writes the events of one stream.

    With ``enabled`` False (no endpoint is configured) nothing is written.
    """

    def __init__(self, stream: str, *, enabled: bool) -> None:
        self._stream = stream
        self._enabled = enabled

    def on_changes(self, connection: Connection, changes: Sequence[Anomaly], now_ns: int) -> int:
        """Write the events of anomalies that were opened, changed or closed; returns how many.

        An anomaly without flagged points (``points == 0``) is retracted: late or corrected data took it back.
        """
        if not self._enabled or not changes:
            return 0
        events = [
            outbox.OutboxEvent(
                uuid5(a.id, _change(a)), self._stream, EventKind.ANOMALY, a.id, encode_anomaly(a), now_ns
            )
            for a in changes
        ]
        return outbox.add_events(connection, events)

    def on_label(self, connection: Connection, labelled: Anomaly, now_ns: int) -> int:
        """Write the event of a label; the same label given again is another event."""
        if not self._enabled:
            return 0
        id_, body = uuid5(labelled.id, f"label/{now_ns}"), encode_anomaly(labelled)
        event = outbox.OutboxEvent(id_, self._stream, EventKind.ANOMALY, labelled.id, body, now_ns)
        return outbox.add_events(connection, [event])

    def on_faults(self, connection: Connection, faults: Sequence[Fault], now_ns: int) -> int:
        """Write the events of pipeline faults that began or ended; returns how many."""
        if not self._enabled or not faults:
            return 0
        events = []
        for fault in faults:
            subject = fault_id(fault)
            change = "open" if fault.ended_ns is None else f"closed/{fault.ended_ns}"
            events.append(
                outbox.OutboxEvent(
                    uuid5(subject, change),
                    self._stream,
                    EventKind.FAULT,
                    subject,
                    encode_fault(fault),
                    now_ns,
                )
            )
        return outbox.add_events(connection, events)


def outbox_of(config: Config, stream: str) -> Callable[[Connection, list[Anomaly]], int]:
    """Return the function that writes the changed anomalies of a batch, in the transaction of the batch."""
    writer = OutboxWriter(stream, enabled=bool(config.endpoints))
    return lambda connection, changes: writer.on_changes(connection, changes, time.time_ns())


def fault_id(fault: Fault) -> UUID:
    """Return the id of a fault, the same from its beginning to its end."""
    return uuid5(
        NAMESPACE, f"fault\x00{fault.stream}\x00{fault.kind}\x00{fault.partition}\x00{fault.started_ns}"
    )


def encode_anomaly(anomaly: Anomaly) -> str:
    """Return the body of ``anomaly`` in schema 1, as JSON text; NaN and infinity become null."""
    values: dict[str, Any] = msgspec.to_builtins(anomaly)
    for name in _NOT_WRITTEN if anomaly.ratio else (*_NOT_WRITTEN, *_OF_USUAL_RANGE):
        del values[name]
    if anomaly.end_reason not in END_REASON_TEXTS:
        del values["end_reason"]  # 0.1.0 refuses unknown keys, and the others are rare
    for name in ("event", "context", "course"):
        if values[name] is None:
            del values[name]
    # Rules of 0.1.0 match the former words, so a body keeps them.
    values["guard"] = former_forecaster(values.pop("forecaster"))
    values["evidence"] = former_cause(values.pop("cause"))
    return _encode(values)


def encode_fault(fault: Fault) -> str:
    """Return the body of ``fault`` in schema 1, as JSON text, without what only its process needs."""
    values: dict[str, Any] = msgspec.to_builtins(fault)
    for name in _PROCESS_FIELDS:
        del values[name]
    return _encode(values)


def decode_anomaly(body: str) -> Anomaly:
    """Return the anomaly of a body of this or another schema; null becomes NaN.

    Raises StorageError if the body lacks what every schema holds, or is damaged.
    """
    return _decoded(_anomaly_of, body)


def _anomaly_of(body: str) -> Anomaly:
    values = _known(Anomaly, body)
    values["forecaster"] = current_forecaster(values["forecaster"])
    if "cause" in values:
        values["cause"] = current_cause(values["cause"])
    for name in _FLOATS:
        values[name] = [math.nan if x is None else x for x in values[name]]
    for name in ("score", "surprise"):
        values[name] = math.nan if values[name] is None else values[name]
    anomaly = msgspec.convert(values, Anomaly)
    if any(len(getattr(anomaly, name)) != len(anomaly.channels) for name in _FLOATS):
        raise ValueError("its channels and their numbers do not match")
    return anomaly


def decode_fault(body: str) -> Fault:
    """Return the fault of a body of this or another schema.

    Raises StorageError if the body lacks what every schema holds, or is damaged.
    """
    return _decoded(_fault_of, body)


def _fault_of(body: str) -> Fault:
    values = _known(Fault, body)
    for name in _PROCESS_FIELDS:
        values.pop(name, None)
    return msgspec.convert(values, Fault)


def _decoded(decode: Callable[[str], _Record], body: str) -> _Record:
    try:
        return decode(body)
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise StorageError(f"an outbox row is damaged: {error}") from error


def _known(record: type[Anomaly | Fault], body: str) -> dict[str, Any]:
    """Return the values of a body by the field of ``record`` that each belongs to."""
    values: dict[str, Any] = msgspec.json.decode(body)
    known = {_KEYS.get(f.name, f.name): f for f in fields(record)}
    missing = [
        key
        for key, f in known.items()
        if key not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        schema = values.get("schema", 1)
        raise StorageError(
            f"an outbox row of schema {schema} lacks {', '.join(missing)}; this version writes schema {BODY_SCHEMA}"
        )
    return {f.name: values[key] for key, f in known.items() if key in values}


def _change(anomaly: Anomaly) -> str:
    """Return the name of the latest change of an anomaly.

    While it is open, its severity and (in steps) its peak are changes; afterwards every revision is. The
    peak grows in ratio under the decision "usual_range", and its cause can change.
    """
    if anomaly.points == 0:
        return f"retracted/{anomaly.revision}"
    if anomaly.state is AnomalyState.CLOSED:
        return f"closed/{anomaly.revision}"
    if anomaly.ratio:
        step = math.floor(math.log(max(anomaly.ratio, 1.0), MIN_PEAK_GROWTH))
        return f"open/{anomaly.severity}/{anomaly.cause}/{step}"
    surprise = anomaly.surprise if math.isfinite(anomaly.surprise) else 0.0
    return f"open/{anomaly.severity}/{math.floor(math.log(max(surprise, 1.0), MIN_PEAK_GROWTH))}"


def _encode(record: Any) -> str:
    try:
        return msgspec.json.encode(record).decode()
    except UnicodeEncodeError:
        # A lone surrogate from a record must not stop the batch that it came with.
        return msgspec.json.encode(_cleaned(msgspec.to_builtins(record))).decode()


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, dict):
        return {safe(str(k)): _cleaned(v) for k, v in value.items()}
    return [_cleaned(v) for v in value] if isinstance(value, (list, tuple)) else value
