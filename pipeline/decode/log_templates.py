"""Codes of raw log lines: the template of a line, learned online.

Templates come from Drain (He et al., "Drain: an online log parsing approach with fixed depth tree", ICWS
2017) as implemented by drain3. Numbers, addresses, paths and identifiers are masked before.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from drain3.drain import Drain, LogCluster
from drain3.masking import LogMasker, MaskingInstruction

MAX_TEMPLATES: Final = 4096  # further templates get the code OVERFLOW
MAX_LINE_CHARS: Final = 2000  # the rest of a line is ignored
SIMILARITY: Final = 0.5  # least share of equal words of a line and its template
TREE_DEPTH: Final = 5
ID_BYTES: Final = 5
#: Templates with which a line is compared at most: those of its length and first words. Without a limit each
#: line of a storm is compared with all templates, which takes milliseconds.
MAX_COMPARED_TEMPLATES: Final = 256

WILDCARD: Final = "<*>"  # of drain3
OVERFLOW: Final = "other"
EMPTY: Final = "empty"

_BEFORE, _AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
MASKS: Final = (
    (r"(?<![\w.])/(?:[\w.@+~-]+/)+[\w.@+~-]*", "PATH"),
    (rf"{_BEFORE}[0-9a-fA-F]{{8}}-(?:[0-9a-fA-F]{{4}}-){{3}}[0-9a-fA-F]{{12}}{_AFTER}", "UUID"),
    (rf"{_BEFORE}(?:[0-9a-fA-F]{{2}}:){{5,}}[0-9a-fA-F]{{2}}{_AFTER}", "MAC"),
    (rf"(?:,?/?{_BEFORE}(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?::\d+)?{_AFTER})+", "IP"),
    (rf"{_BEFORE}0[xX][0-9a-fA-F]+{_AFTER}", "HEX"),
    (r"(?<![A-Za-z])-?\d+(?:[.,]\d+)*(?![A-Za-z])", "NUM"),
)


@dataclass(frozen=True, slots=True)
class Template:
    """A template with its stable code, its words and the number of its lines."""

    code: str
    words: tuple[str, ...]
    lines: int

    @property
    def text(self) -> str:
        """The words as one text."""
        return " ".join(self.words)


#: A code and the text of a template that has it; ``WILDCARD`` stands for any word.
KnownTemplate = tuple[str, str]


class _NoRoom(Exception):
    """A line has no template, and there are as many like it as allowed."""


class _BoundedDrain(Drain):
    """Drain with a limit on the templates with which a line is compared."""

    def fast_match(self, cluster_ids, tokens, sim_th, include_params):  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Return the most similar template, None if a new one may be made.

        Args:
            cluster_ids: Numbers of the templates.
            tokens: Words of the line.
            sim_th: Least share of equal words.
            include_params: Wildcards count as equal.

        Raises:
            _NoRoom: a new one may not be made.
        """
        found = super().fast_match(cluster_ids, tokens, sim_th, include_params)
        if found is None and len(cluster_ids) >= MAX_COMPARED_TEMPLATES:
            raise _NoRoom
        return found


class LogTemplates:
    """Templates of one partition.

    The code of a template is that of a known template of the model which the first line fits, or else a hash
    of this line. So it does not change when the template becomes more general, and is the same after a
    restart. Partitions without a model may give a template different codes.
    """

    def __init__(self, masks: Iterable[tuple[str, str]] = MASKS, most: int = MAX_TEMPLATES) -> None:
        """Begin without a template.

        Args:
            masks: Regular expressions, and the word that replaces a match.
            most: Largest number of templates.

        Raises:
            ValueError: a mask is not a regular expression.
        """
        try:
            self._masker = LogMasker([MaskingInstruction(p, word) for p, word in masks], "<", ">")
        except re.error as error:
            raise ValueError(f"mask {error.pattern!r} is not a regular expression: {error}") from error
        self._most = most
        self._drain = _BoundedDrain(depth=TREE_DEPTH, sim_th=SIMILARITY)
        self._codes: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._known: dict[int, list[tuple[str, list[str]]]] = {}  # by number of words
        self._code_of: dict[str, str] = {}

    def __len__(self) -> int:
        """Return the number of templates."""
        return len(self._codes)

    def code(self, line: str) -> str:
        """Return the code of the template of a line, which is learned if it is new.

        ``OVERFLOW`` stands for a line without a template when there are as many as allowed, in all or of its
        length and first words, ``EMPTY`` for a line without a word.
        """
        masked = self._masker.mask(line[:MAX_LINE_CHARS]).strip()
        if not masked:
            return EMPTY
        try:
            if len(self._codes) >= self._most and self._search(masked) is None:
                return OVERFLOW
            cluster, change = self._drain.add_log_message(masked)
        except _NoRoom:
            return OVERFLOW
        if change == "cluster_created":
            known = self._fitting(cluster.log_template_tokens) if self._known else None
            self._add(cluster, known or self._unused_code(masked))
        return self._codes[cluster.cluster_id]

    def use_known(
        self, known: Iterable[KnownTemplate], code_of: Mapping[str, str], codes: Container[str]
    ) -> dict[str, str]:
        """Use the codes of a model from now on; return old code → new code.

        Args:
            known: Templates of the model.
            code_of: Code → code that stands for its template, where the two differ.
            codes: Codes of the model. A template that has one of them keeps it.
        """
        self._known, self._code_of = {}, dict(code_of)
        for code, text in known:
            words = text.split(" ")
            self._known.setdefault(len(words), []).append((code, words))
        renamed: dict[str, str] = {}
        for number, code in list(self._codes.items()):
            if code in codes:
                continue
            new = code_of.get(code) or self._fitting(self._words(number))
            if new is not None and new not in self._numbers:
                renamed[code] = self._codes[number] = self._code_of[code] = new
                del self._numbers[code]
                self._numbers[new] = number
        return renamed

    def text(self, code: str) -> str | None:
        """Return the template of a code, None for another text."""
        number = self._numbers.get(code) or self._numbers.get(self._code_of.get(code, ""))
        return None if number is None else self._drain.id_to_cluster[number].get_template()

    def templates(self) -> list[Template]:
        """Return all templates, the most frequent first."""
        found = [
            Template(self._codes[cluster.cluster_id], tuple(cluster.log_template_tokens), cluster.size)
            for cluster in self._drain.clusters
        ]
        return sorted(found, key=lambda one: (-one.lines, one.code))

    def state(self) -> list[list[Any]]:
        """Return what ``restore`` needs, as JSON values."""
        return [
            [self._codes[cluster.cluster_id], cluster.size, list(cluster.log_template_tokens)]
            for cluster in sorted(self._drain.clusters, key=lambda one: one.cluster_id)
        ]

    def restore(self, state: list[list[Any]]) -> None:
        """Continue from ``state``; the templates so far are dropped."""
        self._drain = _BoundedDrain(depth=TREE_DEPTH, sim_th=SIMILARITY)
        self._codes, self._numbers = {}, {}
        for code, size, tokens in state:
            self._drain.clusters_counter += 1
            cluster = LogCluster(tokens, self._drain.clusters_counter)
            cluster.size = size
            self._drain.id_to_cluster[cluster.cluster_id] = cluster
            self._drain.add_seq_to_prefix_tree(self._drain.root_node, cluster)
            self._add(cluster, code)

    def _search(self, masked: str) -> LogCluster | None:
        tokens = self._drain.get_content_as_tokens(masked)
        return self._drain.tree_search(self._drain.root_node, tokens, self._drain.sim_th, False)

    def _words(self, number: int) -> Sequence[str]:
        return tuple(self._drain.id_to_cluster[number].log_template_tokens)

    def _fitting(self, words: Sequence[str]) -> str | None:
        """Return the free code of the known template that ``words`` fit best."""
        fitting = [
            (sum(one != WILDCARD for one in template), code)
            for code, template in self._known.get(len(words), ())
            if code not in self._numbers
            and all(one in (WILDCARD, word) for one, word in zip(template, words, strict=True))
        ]
        return max(fitting)[1] if fitting else None

    def _add(self, cluster: LogCluster, code: str) -> None:
        self._codes[cluster.cluster_id] = code
        self._numbers[code] = cluster.cluster_id

    def _unused_code(self, masked: str) -> str:
        salt = 0
        while True:
            code = blake2b(f"{masked}{'#' * salt}".encode(errors="replace"), digest_size=ID_BYTES).hexdigest()
            if code not in self._numbers:
                return code
            salt += 1
