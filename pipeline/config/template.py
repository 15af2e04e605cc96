"""The commented config that ``forewatch init`` writes.

It has the keys of an example, then every other key with its default, commented out.
"""

from __future__ import annotations

import json
import re
import textwrap
from datetime import timedelta
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.config.schema import Config, FormatConfig, Secret, SourceConfig, Stream, format_duration

_HEAD = """\
# The streams to monitor, the format of their records, and the place of the results.
# `forewatch check FILE` finds errors in this file; with --connect it also connects. `forewatch run FILE` starts it.
# Lines that are commented out show the defaults. Every key is explained in docs/reference/configuration.md.
# For completion in an editor: forewatch schema > forewatch.schema.json
# yaml-language-server: $schema=./forewatch.schema.json
"""

_KAFKA = {"brokers": ["localhost:9092"]}

#: Example streams by preset.
STREAMS: dict[str, dict[str, Any]] = {
    "sensor": {
        "plant": {
            "source": {"kafka": {**_KAFKA, "topics": ["sensors"]}},
            "format": {
                "json": {"series": ["site", "sensor"], "time": "ts", "values": ["temperature", "pressure"]}
            },
            "preset": "sensor",
        }
    },
    "network": {
        "edge": {
            "source": {"kafka": {**_KAFKA, "topics": ["netflow"]}},
            "format": {
                "json": {
                    "series": ["host", "interface"],
                    "time": "time_ms",
                    "values": {"bytes": "octets", "packets": "pkts"},
                }
            },
            "preset": "network",
            "aggregate": {
                "every": "10s",
                "values": {"bytes": "sum", "packets": "sum", "flows": "count", "peers": {"nunique": "dst"}},
            },
        }
    },
    "stock": {
        "market": {
            "source": {"files": {"paths": ["ticks/*.parquet"], "follow": True}},
            "format": {"csv": {"series": "symbol", "time": "date", "values": ["close", "volume"]}},
            "preset": "stock",
            "calendar": "XNYS",
        }
    },
}

_COMMENT_COLUMN, _MAX_WIDTH = 48, 140
_NUMBER = re.compile(r"[+-]?[\d._]+(?:e[+-]?\d+)?|0[xo][0-9a-f]+|[+-]?\.inf|\.nan", re.IGNORECASE)
_WORDS_OF_YAML = ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "~")
_BARE = re.compile(r"[\w./+][\w ./*:+@-]*")


def template(preset: str) -> str:
    """Return a valid config file for ``preset``, a key of STREAMS."""
    return config_text(STREAMS[preset])


def config_text(streams: dict[str, dict[str, Any]]) -> str:
    """Return a commented config file with these streams."""
    values = {"database": Config.model_fields["database"].default, "streams": streams}
    return _HEAD + "\n".join(_model_lines(Config, values, "")) + "\n"


def _model_lines(model: type[BaseModel], values: dict[str, Any], indent: str) -> list[str]:
    """Return the lines of set keys, then those of the others, commented out."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    lines = []
    for key in values:
        lines += _key_lines(key, fields[key], values[key], indent)
    for key, field in fields.items():
        if key in values:
            continue
        if model in (SourceConfig, FormatConfig):  # exactly one of its keys may be set
            lines.append(_commented_line(f"{indent}# or {key}:", _meaning(field)))
        else:
            lines += _key_lines(key, field, _default(field), indent if "#" in indent else f"{indent}# ")
    return lines


def _key_lines(key: str, field: FieldInfo, value: Any, indent: str) -> list[str]:
    inner = _inner_model(field)
    if inner is None or inner is Secret or not value:
        return [_commented_line(f"{indent}{key}: {_inline(value)}", _meaning(field))]
    lines = [_commented_line(f"{indent}{key}:", _meaning(field))]
    if inner is Stream:  # a mapping of names to models
        for name, stream in value.items():
            lines += [f"{indent}  {name}:", *_model_lines(inner, stream, f"{indent}    ")]
        return lines
    return lines + _model_lines(inner, value, f"{indent}  ")


def _inner_model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of the field, also from ``X | None`` or ``dict[str, X]``."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _meaning(field: FieldInfo) -> str:
    if field.description is not None:
        return field.description
    inner = _inner_model(field)
    return (inner.__doc__ or "").split("\n")[0].replace("``", "`") if inner is not None else ""


def _default(field: FieldInfo) -> Any:
    if _inner_model(field) is Secret:
        return {"env": "NAME"}
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined, "a required key must be in the example"
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


def _inline(value: Any) -> str:
    """Format a value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(str(key))}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, str):
        return _text(value)
    return f"{value:.10g}" if isinstance(value, float) else json.dumps(value)


def _text(text: str) -> str:
    """Return a text in quotes, unless YAML reads it as itself without them."""
    bare = _BARE.fullmatch(text) and ": " not in text and text[-1] not in ": "
    if bare and text.lower() not in _WORDS_OF_YAML and not _NUMBER.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=False)


def _commented_line(text: str, meaning: str) -> str:
    """Return ``text`` with its meaning beside it, or above it if the line is too long."""
    if not meaning:
        return text
    if len(text) < _COMMENT_COLUMN and len(meaning) <= _MAX_WIDTH - _COMMENT_COLUMN - 2:
        return f"{text:<{_COMMENT_COLUMN}}# {meaning}"
    indent = text[: len(text) - len(text.lstrip(" #"))] + "# "
    above = textwrap.wrap(meaning, _MAX_WIDTH, initial_indent=indent, subsequent_indent=indent)
    return "\n".join([*above, text])
