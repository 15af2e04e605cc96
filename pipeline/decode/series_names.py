"""Series names: from keys to names and labels, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipeline.config.schema import Stream
from pipeline.decode.columns import SEPARATOR, Key

_LABEL = re.compile(r"((?:\\.|[^\\,=])*)=((?:\\.|[^\\,=])*),?")
_BACKSLASH = re.compile(r"\\(.)")
_SPECIAL = re.compile(r"([\\,=])")
_ESCAPED = r"\\\1"


def series_name(stream: Stream, key: Key) -> tuple[str, dict[str, str]]:
    r"""Return the name and the labels of a series.

    The name is ``site=b2,sensor=t1``, or only the value if there is one label. Commas, equals signs and
    backslashes inside a value are escaped with a backslash, so that no two series share a name.
    """
    labels = _labels(stream.format.chosen.label_names, key)
    return _text_of(key, labels), labels


def series_names(stream: Stream, keys: Sequence[Key | None]) -> list[str | None]:
    """Return the names of many series, None where there is no key."""
    names = stream.format.chosen.label_names
    if len(names) == 1:
        return list(keys)
    return [None if key is None else _text_of(key, _labels(names, key)) for key in keys]


def _labels(names: Sequence[str], key: Key) -> dict[str, str]:
    # Not strict: a series may have been stored when the format named other labels.
    return dict(zip(names, key.split(SEPARATOR), strict=False))


def _text_of(key: Key, labels: Mapping[str, str]) -> str:
    if len(labels) == 1:
        return key
    return ",".join(f"{label}={_SPECIAL.sub(_ESCAPED, value)}" for label, value in labels.items())


def labels_of(stream: Stream, name: str) -> dict[str, str]:
    """Return the labels of the series named ``name``."""
    labels = stream.format.chosen.label_names
    if len(labels) == 1:
        return {labels[0]: name}
    return {part[1]: _BACKSLASH.sub(r"\1", part[2]) for part in _LABEL.finditer(name)}


def series_key(stream: Stream, name: str) -> Key:
    """Return the key of the series named ``name``."""
    return SEPARATOR.join(labels_of(stream, name).values())
