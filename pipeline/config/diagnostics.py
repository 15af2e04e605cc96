"""Translation of pydantic's errors into messages with key, problem and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import groupby
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.problems import Finding, Key, KeyPath
from pipeline.config.schema import Config
from pipeline.core.secret_text import hide_in_urls, is_secret_name

Schema = dict[str, Any]

_SECRET_SECTIONS = re.compile(r"key$|^security$|^headers$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Located:
    """An error of pydantic with the part of its location that stands in the file, and what is left over."""

    error: ErrorDetails
    path: KeyPath
    rest: KeyPath
    union: KeyPath | None  # where pydantic tried several types


def explain(error: ValidationError, data: dict[Any, Any]) -> list[Finding]:
    """Return all errors of ``data``, one finding for each error of the user."""
    located = [_locate(details, data) for details in error.errors(include_url=False)]
    findings = []
    for union, group in groupby(located, key=lambda one: one.union):
        errors = list(group)
        if union is None:
            findings += [_finding(one) for one in errors]
        elif deeper := [one for one in errors if len(one.path) > len(union)]:
            # The user meant the alternative that fits so far that only a part of it is wrong.
            findings += [_finding(one) for one in deeper]
        else:
            findings.append(
                Finding(
                    union, f"{_shown(errors[0].error['input'], union)} does not fit", f"give {_kinds(union)}"
                )
            )
    return list(dict.fromkeys(findings))


def closest(word: str, known: Iterable[str]) -> str:
    """``did you mean X?``, or the list of what there is."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"


def other_detector(word: str, known: Iterable[str]) -> str:
    """Return the remedy for a name that is not a detector.

    A forecaster is not a detector by itself, and a forecaster that reads future points cannot become one.
    """
    from detectors.forecasters import FORECASTER_REGISTRY
    from detectors.forecasters.network_spec import Kind, NetworkSpec, conflicts, default_head

    if word not in FORECASTER_REGISTRY:
        return closest(word, known)
    if word in list(Kind):
        for conflict in conflicts(NetworkSpec(kind=word, head=default_head(word), activation="tanh")):
            return (
                f"it is a forecaster that cannot run on a live stream: {conflict.reason}; {conflict.remedy}"
            )
        others = ", ".join(sorted(known))
        return f"it is a forecaster: write `forecaster: {{kind: {word}}}` beside one of {others}"
    return f"it is a forecaster; a detector chooses among its own by their recent error (docs/reference/forecasters.md): there are {', '.join(sorted(known))}"


def _locate(error: ErrorDetails, data: Any) -> _Located:
    node, path, rest = data, [], []
    union = None
    for part in error["loc"]:
        inside = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        )
        if inside:
            node = node[part]
            path.append(part)
        else:
            rest.append(part)
            if (
                union is None
                and part != "[key]"
                and error["type"] != "missing"
                and _alternatives(tuple(path)) > 1
            ):
                union = tuple(path)
    return _Located(error, tuple(path), tuple(rest), union)


def _finding(one: _Located) -> Finding:
    error, kind = one.error, one.error["type"]
    if kind == "missing":
        path = (*one.path, one.rest[-1])
        return Finding(path, "is missing", f"add it: {_node(path).get('description', _kinds(path))}")
    if kind == "extra_forbidden":
        known = [name for schema in _options(one.path[:-1]) for name in schema.get("properties", {})]
        return Finding(one.path, "there is no such key", closest(str(one.path[-1]), known))
    if kind in ("literal_error", "enum"):
        value = error["input"]
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return Finding(
            one.path, f"{_shown(value, one.path)} is not one of {', '.join(known)}", _pick(value, known)
        )
    if kind == "value_error":
        return _refused(one)
    if kind.endswith(("_type", "_parsing")):
        quoted = kind == "string_type" and isinstance(error["input"], int | float)
        return Finding(
            one.path,
            f"{_shown(error['input'], one.path)} does not fit",
            "put it in quotes" if quoted else f"give {_kinds(one.path)}",
        )
    meaning = _node(one.path).get("description") or f"give {_kinds(one.path)}"
    if kind == "too_short":
        return Finding(one.path, "is empty", meaning)
    what = error["msg"].removeprefix("Input ").replace("should be", "must be")
    return Finding(one.path, f"{_shown(error['input'], one.path)} {what}", meaning)


def _pick(value: Any, known: Sequence[str]) -> str:
    near = get_close_matches(str(value), known, n=1)
    return f"did you mean {near[0]}?" if near else "choose one of them"


def _refused(one: _Located) -> Finding:
    """Convert the message of a validator of this project; it may begin with the key it is about."""
    message = str(one.error["ctx"]["error"])
    key, colon, said = message.partition(": ")
    value = one.error["input"]
    if colon and isinstance(value, dict) and key in value:
        return Finding((*one.path, key), *_split(said))
    if isinstance(value, dict):
        return Finding(one.path, f"has {', '.join(map(str, value)) or 'nothing'}", message)
    return Finding(one.path, f"{_shown(value, one.path)} does not fit", message)


def _split(said: str) -> tuple[str, str]:
    what, _, remedy = said.partition("; ")
    return what, remedy or "correct it"


def _shown(value: Any, path: KeyPath) -> str:
    """Format a value for a message: short, and hidden if it may be a secret."""
    if any(isinstance(part, str) and _may_be_secret(part) for part in path) or "Secret" in str(_refs(path)):
        return "the value (not shown)"
    if value is None:
        return "an empty value"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = hide_in_urls(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _may_be_secret(key: str) -> bool:
    return is_secret_name(key) or _SECRET_SECTIONS.search(key) is not None


# ------------------------------------------------------------------------------------------ the schema, by path


@cache
def _schema() -> Schema:
    return Config.model_json_schema()


def _expand(schema: Schema) -> Iterator[Schema]:
    """The alternatives of a schema, references followed, ``null`` left out."""
    if "$ref" in schema:
        yield from _expand(_schema()["$defs"][schema["$ref"].rpartition("/")[2]])
    elif "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _expand(option)
    elif schema.get("type") != "null":
        yield schema


def _step(schema: Schema, key: Key) -> Schema | None:
    if isinstance(key, int):
        return schema.get("items")
    inner = schema.get("properties", {}).get(key)
    if inner is None and isinstance(schema.get("additionalProperties"), dict):
        inner = schema["additionalProperties"]
    return inner


def _node(path: KeyPath) -> Schema:
    """The schema that stands at ``path``, as written there (its description is the key's)."""
    node: Schema = _schema()
    for key in path:
        node = next((inner for option in _expand(node) if (inner := _step(option, key)) is not None), {})
    return node


def _options(path: KeyPath) -> list[Schema]:
    return list(_expand(_node(path)))


def _alternatives(path: KeyPath) -> int:
    return len(_options(path))


def _refs(path: KeyPath) -> list[str]:
    node = _node(path)
    return [option.get("$ref", "") for option in (node, *node.get("anyOf", ()))]


def _kinds(path: KeyPath) -> str:
    """Describe the values that are valid at ``path``."""
    return ", or ".join(dict.fromkeys(_kind(option) for option in _options(path))) or "a value"


def _kind(schema: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return "a list: [" + ", ".join([_kind(next(_expand(schema.get("items", {})), {}))] * 2) + "]"
    if schema.get("type") == "object":
        keys = list(schema.get("properties", {}))
        return "a mapping with the keys " + ", ".join(keys) if keys else "a mapping"
    if schema.get("examples"):
        return "such as " + ", ".join(map(str, schema["examples"]))
    return {
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }.get(schema.get("type", ""), "a value")
