"""Types of JSON records, made from the configured fields for one msgspec pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from pipeline.core.errors import ConfigError
from pipeline.decode.envelope import is_envelope
from pipeline.decode.fields import Fields
from pipeline.decode.json_paths import Path, path_of
from pipeline.decode.parsed_batch import MAX_LABEL

Label = Annotated[str, msgspec.Meta(max_length=MAX_LABEL)] | int | bool
Scalar = str | int | float | bool | None
Column = Callable[[list[Any]], list[Any]]

REQUIRED = object()


class Leaf(NamedTuple):
    """Field at the end of a path: its type, and its default if it is absent."""

    type: Any
    default: Any


@dataclass(frozen=True, slots=True)
class JsonShape:
    """Type that msgspec decodes to, and a function per configured field that reads its column."""

    type: type[msgspec.Struct]
    columns: dict[str, Column]
    paths: dict[str, Path]  # "$.meta.site", as msgspec's messages say it → ("meta", "site")


def record_shape(fields: Fields, conditional: Iterable[str] = ()) -> JsonShape:
    """Return the type of records with one point each; ``conditional`` fields may hold anything."""
    leaves = {
        field: Leaf(kind, None if field in fields.optional else REQUIRED)
        for field, kind in _types(fields).items()
    }
    anything = {field: Leaf(Any, None) for field in conditional if field not in leaves}
    return _shape(leaves | anything)


def sample_shapes(fields: Fields, samples: str) -> tuple[JsonShape, JsonShape]:
    """Return the types of (record, sample). Any field may be in either."""
    leaves = {field: Leaf(kind | UnsetType, UNSET) for field, kind in _types(fields).items()}
    if samples in leaves:
        raise ConfigError(
            f"format.json.samples: {samples!r} holds the samples; it cannot be a field of its own"
        )
    sample = _shape(leaves)
    return _shape({**leaves, samples: Leaf(list[sample.type], REQUIRED)}), sample  # type: ignore[name-defined]


def is_inside_field(samples: str, fields: Fields) -> bool:
    """Return whether the path of the samples goes through that of a field."""
    path = path_of(samples)
    return any(path[: len(one)] == one for field in fields.all() if (one := path_of(field)) != path)


def _types(fields: Fields) -> dict[str, Any]:
    """Return the type of each field; a field of which only the identity matters may be any scalar."""
    time: Any = {"auto": int | float | str, "iso": str}.get(fields.time_unit, int | float)
    if fields.joined_times or fields.time_format is not None:
        time = str | int | float
    types: dict[str, Any] = dict.fromkeys(fields.fingerprints, Scalar)
    types.update(dict.fromkeys((*fields.values, *fields.numbers), float | bool | None))
    types.update(dict.fromkeys(fields.times, time))
    if fields.event is not None:
        types[fields.event] = str | int | bool
    for label in fields.labels:
        types[label] = Label | None if label in fields.optional else Label
    return {field: kind for field, kind in types.items() if not is_envelope(field)}


def _shape(leaves: dict[str, Leaf]) -> JsonShape:
    tree: dict[str, Any] = {}
    for field, leaf in leaves.items():
        *parents, last = path_of(field)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if isinstance(node, Leaf):
                raise ConfigError(
                    f"format.json: {field!r} descends into {parent!r}, which is a field of its own"
                )
        if last in node:
            raise ConfigError(
                f"format.json: {field!r} is a field of its own, and another one descends into it"
            )
        node[last] = leaf
    attributes: dict[Path, str] = {}
    struct = _struct(tree, (), "", attributes)
    return JsonShape(
        struct,
        {field: _column(attributes[path_of(field)]) for field in leaves},
        {"$." + ".".join(path_of(field)): path_of(field) for field in leaves},
    )


def _column(attribute: str) -> Column:
    """Half the time of ``list(map(attrgetter(attribute), records))``.

    The attribute is one of ours: f0, f1.f0 …
    """
    column: Column = eval(f"lambda records: [record.{attribute} for record in records]")
    return column


def _struct(
    tree: dict[str, Any], path: Path, prefix: str, attributes: dict[Path, str]
) -> type[msgspec.Struct]:
    """The Struct of one level; its attributes are f0, f1, … whatever the keys are called."""
    members: list[tuple[str, Any, Any]] = []
    for number, (key, node) in enumerate(tree.items()):
        name = f"f{number}"
        attributes[(*path, key)] = prefix + name
        if isinstance(node, Leaf):
            members.append((name, node.type, msgspec.NODEFAULT if node.default is REQUIRED else node.default))
            continue
        inner = _struct(node, (*path, key), f"{prefix}{name}.", attributes)
        optional = not any(member.required for member in msgspec.structs.fields(inner))
        members.append((name, inner, msgspec.field(default_factory=inner) if optional else msgspec.NODEFAULT))
    names = {f"f{number}": key for number, key in enumerate(tree)}
    return msgspec.defstruct("Record", members, rename=names, kw_only=True, gc=False)
