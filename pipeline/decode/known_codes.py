"""Codes of all partitions of a stream of events: one for each template.

The code of a template is a hash of its first line in a partition, so partitions may give one template several
codes. Templates with the same text are one, and so are those with the same code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from detectors.sequences.code_numbers import code_number
from pipeline.decode.event_codes import EventCodes
from pipeline.decode.log_templates import Template

#: Bytes of the texts of codes, and of templates, that the file of a model holds. Further codes are known by
#: their number only. Of templates those with the most lines are kept.
MAX_TEXT_BYTES: Final = 1 << 20
#: Codes for which another code stands in the file of a model.
MAX_OTHER_CODES: Final = 20_000


@dataclass(frozen=True, slots=True)
class SeenCodes:
    """Codes of the events of several partitions, and their templates, with repeats."""

    codes: tuple[str, ...] = ()
    templates: tuple[Template, ...] = ()

    def __add__(self, other: SeenCodes) -> SeenCodes:
        """Return the codes of both."""
        return SeenCodes(self.codes + other.codes, self.templates + other.templates)


def seen_codes(partitions: Iterable[EventCodes]) -> SeenCodes:
    """Return the codes of several partitions."""
    all_codes = list(partitions)
    return SeenCodes(
        tuple(code for one in all_codes for code in one.codes()),
        tuple(template for one in all_codes for template in one.templates()),
    )


@dataclass(frozen=True, slots=True)
class KnownCodes:
    """Codes of the events of a stream.

    name_of: number → code, or the code that stands for its template. code_of: code → code that stands for its
    template, where the two differ. templates: codes with the texts of their templates; a code may have
    several.
    """

    name_of: dict[float, str] = field(default_factory=dict)
    code_of: dict[str, str] = field(default_factory=dict)
    templates: tuple[tuple[str, str], ...] = ()


def merge_codes(seen: SeenCodes, preferred: Container[str] = ()) -> KnownCodes:
    """Return one code for each template of several partitions.

    Args:
        seen: Codes and templates.
        preferred: Codes that stand for their template if there is a choice. Then the one with the most lines
            does, then the first in the order of the alphabet.
    """
    lines: Counter[str] = Counter()
    lines_of_text: Counter[tuple[str, tuple[str, ...]]] = Counter()
    parent: dict[str, str] = {}

    def root(code: str) -> str:
        while (above := parent.setdefault(code, code)) != code:
            code = above
        return code

    first: dict[tuple[str, ...], str] = {}
    for one in seen.templates:
        lines[one.code] += one.lines
        lines_of_text[one.code, one.words] += one.lines
        parent[root(one.code)] = root(first.setdefault(one.words, one.code))
    members: dict[str, list[str]] = {}
    for code in sorted(parent):
        members.setdefault(root(code), []).append(code)
    code_of: dict[str, str] = {}
    for group in members.values():
        chosen = min(group, key=lambda code: (code not in preferred, -lines[code], code))
        code_of |= {code: chosen for code in group if code != chosen}
    code_of = dict(islice(code_of.items(), MAX_OTHER_CODES))
    ordered = [(code_of.get(code, code), " ".join(words)) for (code, words), _ in lines_of_text.most_common()]
    name_of = {code_number(code): code_of.get(code, code) for code in _fitting((*seen.codes, *parent))}
    fitting = set(_fitting(text for _, text in ordered))
    templates = dict.fromkeys(one for one in ordered if one[1] in fitting)
    return KnownCodes(name_of, code_of, tuple(sorted(templates)))


def _fitting(texts: Iterable[str]) -> list[str]:
    """Return the first different texts, of ``MAX_TEXT_BYTES`` at most as JSON."""
    unique = list(dict.fromkeys(texts))
    sizes = np.cumsum([len(json.dumps(text)) for text in unique])
    return unique[: int(np.searchsorted(sizes, MAX_TEXT_BYTES, side="right"))]
