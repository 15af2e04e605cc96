"""Avro, Protobuf and line protocol, with schemas of files and of a registry over HTTP."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config.stream_hash import config_hash
from pipeline.core import extras
from pipeline.core.errors import ConfigError, NotInstalled, SourceUnavailable
from pipeline.decode import Decoded, make_decoder
from tests.support.decoding import records, stream
from tests.support.schema_registries import Registry, schema_registry

T = 1_764_028_800
TIMES = [T * 10**9 + i * 10**9 for i in range(3)]
READING = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "meta",
            "type": {"type": "record", "name": "Meta", "fields": [{"name": "site", "type": "string"}]},
        },
        {"name": "temp", "type": ["null", "double"]},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            "default": "\u0000",
        },
    ],
}
FIELDS = {"series": ["id", "meta.site"], "time": "at", "values": {"temp": "temp"}}


def reading(i: int) -> dict[str, Any]:
    at = datetime.fromtimestamp(T + i, UTC)
    from decimal import Decimal

    return {"id": f"s{i}", "at": at, "meta": {"site": "b"}, "temp": i + 0.5, "price": Decimal("1.50")}


def avro(i: int, number: int | None = None, schema: Any = READING) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), reading(i))
    head = b"" if number is None else b"\0" + number.to_bytes(4, "big")
    return head + out.getvalue()


def decode(form: dict[str, Any], *values: bytes | None, **keys: Any) -> Decoded:
    return make_decoder("s", stream(form, future=None)).decode(records(values, **keys))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with schema_registry() as one:
        yield one


# ------------------------------------------------------------------------------------------------ Avro


def test_avro_with_a_schema_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "reading.avsc"
    path.write_text(json.dumps(READING))
    form = {"avro": {**FIELDS, "schema_file": str(path), "values": {"temp": "temp", "price": "price"}}}
    columns, dead = decode(form, avro(0), None, avro(1), b"\xff\xff", avro(2)[:-3], avro(2) + b"x")
    assert columns.values.tolist() == [[0.5, 1.5], [1.5, 1.5]]
    assert columns.time.tolist() == TIMES[:2]
    assert columns.keys.flat() == ["s0\0b", "s1\0b"]
    assert columns.filtered == 1
    assert [(one.offset, one.reason, one.value) for one in dead] == [
        (3, "malformed", b"\xff\xff"),
        (4, "malformed", avro(2)[:-3]),
        (5, "malformed", avro(2) + b"x"),
    ]
    assert "does not fit its schema" in dead[0].detail


def test_avro_with_a_registry_and_an_evolved_schema(registry: Registry) -> None:
    older = {**READING, "fields": [one for one in READING["fields"] if one["name"] != "price"]}
    registry.put(7, json.dumps(older))
    registry.put(8, json.dumps(READING))
    form = {"avro": {**FIELDS, "registry": {"url": registry.url}}}
    columns, dead = decode(form, avro(0, 7, older), avro(1, 8), avro(2, 8), avro(2, 9), avro(2, 9), b"\0\1")
    assert columns.values[:, 0].tolist() == [0.5, 1.5, 2.5]
    assert ["no schema 9" in one.detail for one in dead] == [True, True, False]
    assert len(registry.calls) == 3  # each schema once, an unknown one not at once again


def test_a_schema_that_refers_to_another(registry: Registry) -> None:
    meta = READING["fields"][2]["type"]
    fields = [{"name": "meta", "type": "Meta"} if one["name"] == "meta" else one for one in READING["fields"]]
    registry.subjects["Meta", 1] = {"schema": json.dumps(meta)}
    references = [{"name": "Meta", "subject": "Meta", "version": 1}]
    registry.put(3, json.dumps({**READING, "fields": fields}), references=references)
    form = {"avro": {**FIELDS, "registry": {"url": registry.url}}}
    assert len(decode(form, avro(0, 3)).columns) == 1


def test_a_password_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY", "geheim")
    with schema_registry("geheim") as registry:
        registry.put(1, json.dumps(READING))
        login = {"username": "reader", "password": {"env": "REGISTRY"}}
        form = {"avro": {**FIELDS, "registry": {"url": registry.url, **login}}}
        assert len(decode(form, avro(0, 1)).columns) == 1
        with pytest.raises(SourceUnavailable, match="answers 401"):
            decode({"avro": {**FIELDS, "registry": {"url": registry.url}}}, avro(0, 1))


def test_records_wait_for_a_registry_that_does_not_answer() -> None:
    form = {"avro": {**FIELDS, "registry": {"url": "http://127.0.0.1:9"}}}
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        decode(form, avro(0, 1))


@given(st.binary(max_size=60))
def test_any_bytes_are_survived(tmp_path_factory: pytest.TempPathFactory, value: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.avsc"
    path.write_text(json.dumps(READING))
    columns, dead = decode({"avro": {**FIELDS, "schema_file": str(path)}}, value)
    assert columns.records + len(dead) + columns.filtered == 1


def test_schemas_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        decode({"avro": {**FIELDS, "schema_file": str(tmp_path / "none")}})
    (tmp_path / "bad").write_text("{}")
    with pytest.raises(ConfigError, match="no Avro schema"):
        decode({"avro": {**FIELDS, "schema_file": str(tmp_path / "bad")}})
    with pytest.raises(ConfigError, match="no set of descriptors"):
        decode({"protobuf": {**FIELDS, "schema_file": str(tmp_path / "bad"), "message": "x"}})
    with pytest.raises(ValidationError, match="exactly one of schema_file and registry"):
        stream({"protobuf": FIELDS})
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"forewatch\[formats\]"):
        decode({"avro": {**FIELDS, "schema_file": str(tmp_path / "bad")}})


# ------------------------------------------------------------------------------------------------ Protobuf


def proto() -> descriptor_pb2.FileDescriptorProto:
    """message Reading { string id; Timestamp at; Meta meta; double temp; int64 total }, with Meta inside."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="plant.proto", package="plant", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    other = file.message_type.add(name="Other")
    other.field.add(name="x", number=1, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    message = file.message_type.add(name="Reading")
    meta = message.nested_type.add(name="Meta")
    meta.field.add(name="site", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    for number, (name, kind, type_name) in enumerate(
        [
            ("id", kinds.TYPE_STRING, None),
            ("at", kinds.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
            ("meta", kinds.TYPE_MESSAGE, ".plant.Reading.Meta"),
            ("temp", kinds.TYPE_DOUBLE, None),
            ("total", kinds.TYPE_INT64, None),
        ],
        1,
    ):
        message.field.add(
            name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL, type_name=type_name
        )
    return file


def message(i: int) -> bytes:
    from google.protobuf import timestamp_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(proto())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("plant.Reading"))()
    made.id, made.temp, made.total = f"s{i}", float(i), 10 * i
    made.meta.site = "b"
    made.at.FromSeconds(T + i)
    return made.SerializeToString()


PROTO_FIELDS = FIELDS | {"values": ["temp", "total"]}


def test_protobuf_with_descriptors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plant.desc"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[proto()]).SerializeToString())
    form = {"protobuf": {**PROTO_FIELDS, "schema_file": str(path), "message": "plant.Reading"}}
    columns, dead = decode(form, message(0), message(1), b"\xff\xff\xff")
    assert columns.values.tolist() == [[0, 0], [1, 10]]  # 0 is a value, although it is not in the bytes
    assert columns.time.tolist() == TIMES[:2]
    assert [one.value for one in dead] == [b"\xff\xff\xff"]
    with pytest.raises(ConfigError, match=r"there is no plant.X; the file has plant.Other, plant.Reading"):
        decode({"protobuf": {**PROTO_FIELDS, "schema_file": str(path), "message": "plant.X"}})


def test_protobuf_with_a_registry(registry: Registry) -> None:
    text = base64.b64encode(proto().SerializeToString()).decode()
    registry.put(5, text, "PROTOBUF")
    form = {"protobuf": {**PROTO_FIELDS, "registry": {"url": registry.url}}}
    head = b"\0\0\0\0\5"
    second = b"\x02\x02"  # one index, which is 1: the second message of the file
    columns, dead = decode(form, head + second + message(2), head + b"\x02\x14", head)
    assert columns.values.tolist() == [[2, 20]]
    assert [one.reason for one in dead] == ["malformed"] * 2
    assert registry.calls[0] == "/schemas/ids/5?format=serialized"


# -------------------------------------------------- line protocol

LINES = {"series": ["measurement", "tags.host"], "values": {"idle": "fields.usage_idle"}}


def test_line_protocol() -> None:
    text = (
        f"# a comment\ncpu,host=a\\ b,cpu=0 usage_idle=98.5,n=3i {T}000000000\n\n"
        f'cpu,host=c usage_idle=97,note="a, b=\\"x\\" y",ok=true {T + 1}000000000\n'
    )
    columns, dead = decode({"line_protocol": LINES}, text.encode())
    assert (columns.keys.flat(), columns.values[:, 0].tolist()) == (["cpu\0a b", "cpu\0c"], [98.5, 97.0])
    assert (columns.time.tolist(), dead) == (TIMES[:2], [])


def test_a_line_without_a_time_has_that_of_its_record() -> None:
    columns, _ = decode({"line_protocol": LINES}, b"cpu,host=a usage_idle=1", timestamps=[TIMES[1]])
    assert columns.time.tolist() == [TIMES[1]]
    seconds = {"line_protocol": {**LINES, "precision": "s"}}
    assert decode(seconds, b"cpu,host=a usage_idle=1 %d" % T).columns.time.tolist() == TIMES[:1]


def test_bad_lines_are_the_dead_letter() -> None:
    good = f"cpu,host=a usage_idle=1 {T}000000000"
    columns, dead = decode(
        {"line_protocol": LINES}, f"{good}\ncpu,host=a usage_idle=".encode(), b"what is it"
    )
    assert len(columns) == 1
    assert [(one.offset, one.partial) for one in dead] == [(0, True), (1, False)]
    assert b"usage_idle=" in (dead[0].value or b"")
    assert "is no line protocol" in dead[1].detail
    only = decode(
        {"line_protocol": {**LINES, "where": {"measurement": "cpu"}}}, good.encode(), b"mem free=1 1"
    )
    assert (len(only.columns), only.columns.filtered, only.dead) == (1, 1, [])


def test_the_hash_of_other_formats_stays() -> None:
    """Stored anomalies carry it: the value is that of a config before the new formats."""
    assert config_hash(stream({"json": {"series": "k", "time": "t", "values": ["v"]}})) == "02a75cbcfb57"
