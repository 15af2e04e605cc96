"""Codes of the events of one partition: their numbers and their texts.

The number of a code is a hash of it, so it is the same in every partition and process. The code of a log line
is that of its template, which is learned in the order of the records. So the templates are part of the state
of the partition, and a replay of the same records finds the same ones. A model gives its templates the same
code in all partitions.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.sequences.code_numbers import END_NUMBER, code_number
from detectors.sequences.vocabulary import END_TEXT
from pipeline.decode.columns import Columns
from pipeline.decode.log_templates import KnownTemplate, LogTemplates, Template

#: Codes of a partition whose texts are kept. Further ones are scored, and shown by their number.
MAX_KEPT_CODES: Final = 4096


class EventCodes:
    """Codes of one partition, in the order of their first events."""

    def __init__(self, *, templates: bool) -> None:
        """Begin without a code.

        Args:
            templates: The events are log lines; their templates are the codes.
        """
        self._templates = LogTemplates() if templates else None
        self._numbers: dict[str, float] = {}
        self._codes: dict[float, str] = {}

    def number(self, columns: Columns) -> Columns:
        """Return columns with numbers as values (N, 1) in place of texts."""
        assert columns.events is not None
        columns.values = self._numbered(columns.events)[:, None]
        columns.events = None
        return columns

    def text(self, number: float) -> str | None:
        """Return the code or the template of a number, None if it is not kept."""
        if number == END_NUMBER:
            return END_TEXT
        code = self._codes.get(number)
        if code is None or self._templates is None:
            return code
        return self._templates.text(code) or code

    @property
    def full(self) -> bool:
        """Return whether further codes are not kept."""
        return len(self._numbers) >= MAX_KEPT_CODES

    def templates(self) -> list[Template]:
        """Return the templates of the log lines, the most frequent first."""
        return [] if self._templates is None else self._templates.templates()

    def use_known(
        self, known: Iterable[KnownTemplate], code_of: Mapping[str, str], codes: Container[str]
    ) -> dict[float, float]:
        """Give templates the codes of a model; return old number → new number.

        Args:
            known: Templates of the model.
            code_of: Code → code that stands for its template, where the two differ.
            codes: Codes of the model.
        """
        if self._templates is None:
            return {}
        renamed = self._templates.use_known(known, code_of, codes)
        for code in renamed.values():
            self._add(code)
        return {code_number(old): code_number(new) for old, new in renamed.items()}

    def codes(self) -> list[str]:
        """Return the codes whose texts are kept."""
        return list(self._numbers)

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs, as JSON values."""
        templates = None if self._templates is None else self._templates.state()
        return {"codes": list(self._numbers), "templates": templates}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self._numbers = {code: code_number(code) for code in state["codes"]}
        self._codes = {number: code for code, number in self._numbers.items()}
        if self._templates is not None:
            self._templates.restore(state["templates"] or [])

    def _numbered(self, events: Sequence[str]) -> NDArray[np.float64]:
        codes = events if self._templates is None else map(self._templates.code, events)
        known = self._numbers
        out = np.empty(len(events))
        for row, code in enumerate(codes):
            number = known.get(code)
            out[row] = self._add(code) if number is None else number
        return out

    def _add(self, code: str) -> float:
        number = code_number(code)
        if not self.full:
            self._numbers[code] = number
            self._codes.setdefault(number, code)
        return number
