"""Mapping of event codes to numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Number of the boundary token: it stands before the first and after the last event of a session.
BOUNDARY: Final = 0
#: Number of every code that is not in the vocabulary.
UNKNOWN: Final = 1
#: Number of the first code.
FIRST_CODE: Final = 2

#: Text of the boundary token at the end of a session.
END_TEXT: Final = "end of the session"
MAX_CODES: Final = 4096  # codes; rarer ones are unknown


class Vocabulary:
    """Codes of events in the order of their numbers."""

    def __init__(
        self,
        codes: Sequence[str],
        code_of: Mapping[str, str] | None = None,
        templates: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Assign numbers to the codes, from ``FIRST_CODE`` on.

        Args:
            codes: The codes.
            code_of: Further code → code of the same template of log lines.
            templates: Codes with the texts of their templates; a code may have several.

        Raises:
            ValueError: a code occurs twice.
        """
        self.codes = tuple(codes)
        self._numbers = {code: FIRST_CODE + n for n, code in enumerate(self.codes)}
        if len(self._numbers) != len(self.codes):
            raise ValueError("a code of the vocabulary occurs twice")
        self.code_of = {one: code for one, code in (code_of or {}).items() if code in self._numbers}
        self.templates = tuple((code, text) for code, text in templates if code in self._numbers)
        self._texts = dict(self.templates)

    @classmethod
    def learn(cls, codes: Iterable[str], most: int = MAX_CODES) -> Vocabulary:
        """Keep the ``most`` most frequent codes.

        Equally frequent ones are in alphabetical order.
        """
        counts = sorted(Counter(codes).items(), key=lambda pair: (-pair[1], pair[0]))
        return cls([code for code, _ in counts[:most]])

    def __len__(self) -> int:
        """Return the number of tokens: the codes, the boundary and the unknown code."""
        return FIRST_CODE + len(self.codes)

    def encode(self, codes: Iterable[str]) -> NDArray[np.int32]:
        """Return the number of each code, ``UNKNOWN`` for one that is not known."""
        names = (self.code_of.get(code, code) for code in codes)
        return np.fromiter((self._numbers.get(code, UNKNOWN) for code in names), np.int32)

    def text(self, number: int) -> str:
        """Return the code or template of a number, or words for special tokens."""
        if number == BOUNDARY:
            return END_TEXT
        if number == UNKNOWN:
            return "unknown event"
        code = self.codes[number - FIRST_CODE]
        return self._texts.get(code, code)
