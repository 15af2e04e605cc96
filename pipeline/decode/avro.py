"""Avro records, with a schema of a file or of a schema registry."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from pipeline.config.inputs import AvroFormat
from pipeline.core.errors import ConfigError
from pipeline.core.extras import require_formats
from pipeline.core.record_json import encode
from pipeline.decode.schema_registry import SchemaIds, split_framing
from pipeline.decode.translation import Translate

if TYPE_CHECKING:
    from collections.abc import Callable


def avro_translator(name: str, form: AvroFormat) -> Translate:
    """Return the translator of Avro records.

    Raises:
        ConfigError: The schema cannot be used.
        NotInstalled: fastavro is missing.
    """
    require_formats("fastavro", "Avro")
    import fastavro

    def reader(schema: Any, value: bytes) -> bytes:
        return _as_json(fastavro.schemaless_reader, schema, value)

    if form.registry is None and form.schema_file is None:
        return lambda value, stamp: value  # records of container files are JSON already
    if form.registry is None:
        fixed = _of_file(name, form, fastavro.parse_schema)

        def plain(value: bytes, stamp: int) -> bytes:
            try:
                return reader(fixed, value)
            except ValueError:
                # Dead letters of a part of a record are JSON; they can be replayed.
                if value[:1] in (b"{", b"["):
                    return value
                raise

        return plain

    ids = SchemaIds(name, form.registry)
    known: dict[int, Any] = {}

    def framed(value: bytes, stamp: int) -> bytes:
        if value[:1] in (b"{", b"["):
            return value
        number, rest = split_framing(value)
        if (schema := known.get(number)) is None:
            schema = known[number] = _of_registry(ids, number, fastavro.parse_schema)
        return reader(schema, rest)

    return framed


def _as_json(read: Callable[..., Any], schema: Any, value: bytes) -> bytes:
    stream = io.BytesIO(value)
    try:
        record = read(stream, schema, None)
    except Exception as error:  # fastavro raises what its readers meet: EOFError, IndexError, struct.error …
        raise ValueError(f"does not fit its schema ({type(error).__name__}: {error})") from None
    if stream.tell() != len(value):
        raise ValueError("does not fit its schema: bytes are left over")
    return encode(record)


def _of_file(name: str, form: AvroFormat, parse: Callable[[Any], Any]) -> Any:
    assert form.schema_file is not None
    where = f"streams.{name}.format.avro.schema_file"
    try:
        return parse(json.loads(form.schema_file.read_text()))
    except OSError as error:
        raise ConfigError(f"{where}: {form.schema_file} cannot be read: {error.strerror}") from None
    except Exception as error:  # fastavro has several errors of its own
        raise ConfigError(f"{where}: {form.schema_file} is no Avro schema: {error}") from None


def _of_registry(ids: SchemaIds, number: int, parse: Callable[..., Any]) -> Any:
    """Return a schema of the registry with those that it refers to. Raises ValueError."""
    answer = ids.schema(number)
    if (kind := answer.get("schemaType", "AVRO")) != "AVRO":
        raise ValueError(f"schema {number} is {kind}, not Avro")
    named: dict[str, Any] = {}
    try:
        for reference in answer.get("references") or ():
            _load_reference(ids, reference, named, parse)
        return parse(json.loads(answer["schema"]), named_schemas=named)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"schema {number} cannot be used: {error}") from None


def _load_reference(
    ids: SchemaIds, reference: dict[str, Any], named: dict[str, Any], parse: Callable[..., Any]
) -> None:
    answer = ids.version(reference["subject"], int(reference["version"]))
    for further in answer.get("references") or ():
        _load_reference(ids, further, named, parse)
    parse(json.loads(answer["schema"]), named_schemas=named)
