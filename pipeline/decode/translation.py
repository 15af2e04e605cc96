"""Translation of records of other formats to JSON.

A translator makes the JSON text of one record. A record that it cannot read is refused with the reason; the
dead letter keeps the original bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.config.inputs import (
    AvroFormat,
    JsonFormat,
    LineProtocolFormat,
    LogLinesFormat,
    ProtobufFormat,
    SenmlFormat,
)
from pipeline.decode.parsed_batch import Reject, shown
from pipeline.sources.base import Records

#: Makes the JSON text of a record from its value and its timestamp (ns, negative: none).
#: None for a record that is filtered. Raises ValueError.
Translate = Callable[[bytes, int], bytes | None]


def make_translator(name: str, form: object) -> Translate | None:
    """Return the translator of a format, None for JSON and CSV.

    Raises:
        ConfigError: a schema cannot be used.
        NotInstalled: a package is missing.
    """
    if isinstance(form, AvroFormat):
        from pipeline.decode.avro import avro_translator

        return avro_translator(name, form)
    if isinstance(form, ProtobufFormat):
        from pipeline.decode.protobuf import protobuf_translator

        return protobuf_translator(name, form)
    if isinstance(form, LineProtocolFormat):
        from pipeline.decode.line_protocol import line_translator

        return line_translator(form)
    if isinstance(form, SenmlFormat):
        from pipeline.decode.senml import resolve_pack

        return resolve_pack
    if isinstance(form, LogLinesFormat):
        from pipeline.decode.log_lines import log_translator

        return log_translator(form)
    return None


def translate(records: Records, translator: Translate, form: JsonFormat) -> tuple[Records, dict[int, Reject]]:
    """Return the records as JSON, None where one was refused, and the reasons by row.

    Args:
        records: The records.
        translator: The translator of the format.
        form: The format, for messages.
    """
    stamps = records.timestamps.tolist()
    try:
        return replace(records, values=list(map(translator, records.values, stamps))), {}  # type: ignore[arg-type]
    except (ValueError, TypeError):  # TypeError: a tombstone among them
        pass
    values: list[bytes | None] = []
    rejects: dict[int, Reject] = {}
    kind = type(form).__name__.removesuffix("Format")
    for row, (value, stamp) in enumerate(zip(records.values, stamps, strict=True)):
        try:
            values.append(None if value is None else translator(value, stamp))
        except ValueError as error:
            values.append(None)
            rejects[row] = Reject(
                "malformed", f"{kind}: {error}; it begins with {shown(bytes(value or b'')[:24])}"
            )
    return replace(records, values=values), rejects
