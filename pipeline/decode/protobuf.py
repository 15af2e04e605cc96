"""Protobuf messages, with descriptors of a file or of a schema registry.

The registry gives a schema as a descriptor (``format=serialized``), so that no compiler is needed.
"""

from __future__ import annotations

import base64
from typing import Any

from pipeline.config.inputs import ProtobufFormat
from pipeline.core.errors import ConfigError
from pipeline.core.extras import require_formats
from pipeline.decode.schema_registry import SchemaIds, split_framing
from pipeline.decode.translation import Translate

#: Files of google/protobuf that schemas refer to, each after those that it needs itself.
_WELL_KNOWN = (
    *("any", "source_context", "type", "api", "duration", "empty"),
    *("field_mask", "struct", "timestamp", "wrappers"),
)


def protobuf_translator(name: str, form: ProtobufFormat) -> Translate:
    """Return the translator of Protobuf messages.

    Raises:
        ConfigError: The descriptors cannot be used.
        NotInstalled: protobuf is missing.
    """
    require_formats("google.protobuf", "Protobuf")
    if form.registry is None:
        fixed = _of_file(name, form)

        def plain(value: bytes, stamp: int) -> bytes:
            try:
                return _as_json(fixed, value)
            except ValueError:
                if value[:1] in (b"{", b"["):  # a dead letter of a part of a record
                    return value
                raise

        return plain

    ids = SchemaIds(name, form.registry)
    known: dict[tuple[int, tuple[int, ...]], Any] = {}

    def framed(value: bytes, stamp: int) -> bytes:
        if value[:1] in (b"{", b"["):
            return value
        number, rest = split_framing(value)
        indexes, rest = _indexes(rest)
        if (message := known.get((number, indexes))) is None:
            message = known[number, indexes] = _of_registry(ids, number, indexes)
        return _as_json(message, rest)

    return framed


def _as_json(message: Any, value: bytes) -> bytes:
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError

    found = message()
    try:
        found.ParseFromString(value)
        text = json_format.MessageToJson(
            found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
        )
    except (DecodeError, json_format.Error, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"does not fit its schema ({error})") from None
    return text.encode()


def _indexes(value: bytes) -> tuple[tuple[int, ...], bytes]:
    """Read the place of the message in its file. Raises ValueError."""
    count, at = _varint(value, 0)
    if count == 0:  # the usual case, the first message, is a single zero
        return (0,), value[at:]
    found = []
    for _ in range(count):
        index, at = _varint(value, at)
        found.append(index)
    return tuple(found), value[at:]


def _varint(value: bytes, at: int) -> tuple[int, int]:
    raw = shift = 0
    while True:
        if at >= len(value) or shift > 28:
            raise ValueError("has no place of its message after the id of the schema")
        byte = value[at]
        raw |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), at


def _pool() -> Any:
    """Return a pool with the well-known types."""
    from importlib import import_module

    from google.protobuf import descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for name in _WELL_KNOWN:
        module = import_module(f"google.protobuf.{name}_pb2")
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


def _of_file(name: str, form: ProtobufFormat) -> Any:
    from google.protobuf import descriptor_pb2, message_factory
    from google.protobuf.message import DecodeError

    assert form.schema_file is not None
    where, pool = f"streams.{name}.format.protobuf", _pool()
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(form.schema_file.read_bytes())
        for file in files.file:
            if not file.name.startswith("google/protobuf/"):
                pool.Add(file)
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(form.message))
    except OSError as error:
        raise ConfigError(
            f"{where}.schema_file: {form.schema_file} cannot be read: {error.strerror}"
        ) from None
    except KeyError:
        known = ", ".join(f"{f.package}.{m.name}".lstrip(".") for f in files.file for m in f.message_type)
        raise ConfigError(
            f"{where}.message: there is no {form.message}; the file has {known or 'none'}"
        ) from None
    except (DecodeError, TypeError) as error:
        raise ConfigError(
            f"{where}.schema_file: {form.schema_file} is no set of descriptors ({error}); make it with "
            f"protoc --include_imports --descriptor_set_out=FILE"
        ) from None


def _of_registry(ids: SchemaIds, number: int, indexes: tuple[int, ...]) -> Any:
    """Return the class of a message of the registry. Raises ValueError."""
    from google.protobuf import message_factory
    from google.protobuf.message import DecodeError

    answer, pool = ids.schema(number, "serialized"), _pool()
    if (kind := answer.get("schemaType", "AVRO")) != "PROTOBUF":
        raise ValueError(f"schema {number} is {kind}, not Protobuf")
    try:
        for reference in answer.get("references") or ():
            _add_reference(ids, pool, reference)
        file = _add(pool, answer["schema"], f"schema-{number}.proto")
        messages = list(file.message_types_by_name.values())
        found = messages[indexes[0]]
        for index in indexes[1:]:
            found = found.nested_types[index]
        return message_factory.GetMessageClass(found)
    except (KeyError, IndexError, TypeError, ValueError, DecodeError) as error:
        raise ValueError(f"schema {number} cannot be used: {error}") from None


def _add(pool: Any, schema: str, name: str) -> Any:
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(schema))
    file.name = name
    pool.Add(file)
    return pool.FindFileByName(name)


def _add_reference(ids: SchemaIds, pool: Any, reference: dict[str, Any]) -> None:
    if str(reference["name"]).startswith("google/protobuf/"):
        return
    answer = ids.version(reference["subject"], int(reference["version"]), "serialized")
    for further in answer.get("references") or ():
        _add_reference(ids, pool, further)
    _add(pool, answer["schema"], reference["name"])
