"""The bodies of the outbox are read by versions of forewatch that know other fields."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from uuid import UUID

import pytest

from pipeline.alerts.outbox import decode_anomaly, decode_fault, encode_anomaly
from pipeline.core.errors import StorageError
from pipeline.core.types import (
    Anomaly,
    AnomalyState,
    EndReason,
    Fault,
    FaultKind,
    Partition,
    Severity,
)

#: Every key that 0.1.0 writes and insists on: its reader refuses a body with any other key.
KEYS_OF_0_1_0 = {
    *(
        "id",
        "stream",
        "series",
        "labels",
        "state",
        "severity",
        "direction",
        "start_ns",
        "end_ns",
        "peak_ns",
        "points",
        "score",
        "surprise",
    ),
    *(
        "channels",
        "observed",
        "expected",
        "lower",
        "upper",
        "contribution",
        "guard",
        "model_version",
        "config_hash",
        "partition",
    ),
    *("first_offset", "last_offset", "peak_offset", "last_flag_seq", "revision", "evidence"),
}


def an_anomaly() -> Anomaly:
    return Anomaly(
        UUID(int=1), "plant", "boiler-1", {"site": "west"}, AnomalyState.OPEN, Severity.MAJOR, "up", 1, 2, 2, 1, 0.999, 3.0,
        ["rpm"], [9.0], [5.0], [4.0], [6.0], [1.0], "lstm", "m", "c", Partition("plant", 0), 1, 2, 2, 7,
    )  # fmt: skip


def test_0_1_0_can_read_what_is_written() -> None:
    assert set(json.loads(encode_anomaly(an_anomaly()))) == KEYS_OF_0_1_0


def test_a_body_keeps_what_a_message_about_a_usual_range_states() -> None:
    anomaly = replace(
        an_anomaly(), cause="flatline", ratio=2.5, every_ns=60, relative=True, first_flag_seq=7, told_seq=7
    )
    read = decode_anomaly(encode_anomaly(anomaly))
    assert read == replace(anomaly, first_flag_seq=-1, told_seq=-1)


def test_a_body_keeps_an_end_that_is_no_recovery() -> None:
    removed = replace(an_anomaly(), state=AnomalyState.CLOSED, end_reason=EndReason.FILE_REMOVED)
    assert decode_anomaly(encode_anomaly(removed)) == removed
    recovered = replace(removed, end_reason=EndReason.RECOVERED)
    assert set(json.loads(encode_anomaly(recovered))) == KEYS_OF_0_1_0
    later = json.loads(encode_anomaly(removed)) | {"end_reason": "a word of a later version"}
    assert decode_anomaly(json.dumps(later)).end_reason is EndReason.UNKNOWN


def test_a_body_holds_the_words_of_0_1_0() -> None:
    anomaly = replace(an_anomaly(), forecaster="gaussian", cause="level_shift")
    body = encode_anomaly(anomaly)
    written = json.loads(body)
    assert (written["guard"], written["evidence"]) == ("river", "level")
    assert decode_anomaly(body) == anomaly
    later = json.dumps(written | {"guard": "gaussian", "evidence": "level_shift"})
    assert decode_anomaly(later) == anomaly


def test_keys_of_a_later_schema_are_ignored() -> None:
    anomaly = an_anomaly()
    body = json.dumps(
        json.loads(encode_anomaly(anomaly)) | {"schema": 9, "quantity": "level", "usual": [1.0, 2.0]}
    )
    assert decode_anomaly(body) == anomaly
    fault = {
        "schema": 9,
        "stream": "plant",
        "kind": "source_down",
        "message": "m",
        "started_ns": 1,
        "owner": "host:1",
    }
    assert decode_fault(json.dumps(fault)) == Fault("plant", FaultKind.SOURCE_DOWN, "m", 1)


def test_keys_that_an_earlier_schema_lacks_take_their_default() -> None:
    optional = {
        f.name for f in fields(Anomaly) if f.default is not MISSING or f.default_factory is not MISSING
    }
    assert optional
    values = json.loads(encode_anomaly(an_anomaly()))
    read = decode_anomaly(json.dumps({key: value for key, value in values.items() if key not in optional}))
    assert read.revision == 0
    assert read.id == an_anomaly().id


def test_a_body_without_what_every_schema_holds_is_named() -> None:
    values = json.loads(encode_anomaly(an_anomaly()))
    del values["stream"]
    with pytest.raises(StorageError, match="schema 1 lacks stream"):
        decode_anomaly(json.dumps(values))
