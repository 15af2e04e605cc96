"""Numbers written as text: decimal sign, thousands, units, missing values."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_NOTHING = {"", "nan", "+nan", "-nan", "null", "none", "na", "n/a", "#n/a", "(null)", "\\n"}
#: Errors in cells of spreadsheets, also of German ones.
_NOTHING |= {"#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!", "#wert!", "#bezug!", "#zahl!", "#nv"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
#: Spaces, minus sign and apostrophe of typesetting.
_TYPESET = str.maketrans(dict.fromkeys("\u00a0\u202f\u2009", " ") | {"\u2212": "-", "\u2019": "'"})
#: Negative numbers of accountants, ``(12.50)``, and of SAP, ``12.50-``.
_NEGATIVE = re.compile(r"\(([0-9.,][^()+-]*)\)|([0-9.,][^()+-]*)-")
#: Sign before the limit of an instrument that a value is beyond (``<0.05``), an estimate (``~20``), a text in
#: a spreadsheet (``'20``).
_SIGN = re.compile(r"(?:[<>]=?|[≤≥~≈'])\s*(?=[-+.,0-9])")
_FORMULA = re.compile(r'="([^"]*)"')
#: Exponent of Fortran: 2.5D+01.
_FORTRAN = re.compile(r"(?<=[0-9.])[dD](?=[+-]?[0-9]{1,3}$)")
#: Decimal point and separator of thousands of Arabic, and those of full width.
_FOREIGN = str.maketrans("٫٬．，", ".,.,")
_SWITCHES = {"true": 1.0, "false": 0.0}


class NotANumberError(ValueError):
    """A text that is not a number; the message is the advice, if there is one."""


def plain_text(text: str) -> str:
    """Return a text with plain characters, and a minus sign before a negative number.

    Of a value beyond the range of its instrument it is the limit.
    """
    text = text.translate(_TYPESET).strip()
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(one, one)) for one in text.translate(_FOREIGN))
    if formula := _FORMULA.fullmatch(text):
        text = formula[1]
    text = _FORTRAN.sub("e", _SIGN.sub("", text, count=1))
    if negative := _NEGATIVE.fullmatch(text):
        return f"-{(negative[1] or negative[2]).strip()}"
    return text


@dataclass(frozen=True)
class NumberRules:
    """Spelling of the numbers of a format.

    ``missing`` are the values that mean that there is none, ``units`` the texts that may follow or precede a
    number, each with its factor, ``states`` the words that stand for a number.
    """

    decimal: str = "."
    thousands: str | None = None
    missing: Sequence[float | str] = ()
    units: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Compile the patterns."""
        texts = {str(one).strip().lower() for one in self.missing if isinstance(one, str)}
        numbers = {float(one) for one in self.missing if not isinstance(one, str)}
        words = _SWITCHES | {word.strip().lower(): number for word, number in self.states.items()}
        object.__setattr__(self, "_words", words)
        object.__setattr__(self, "missing_texts", frozenset((texts | _NOTHING) - set(words)))
        object.__setattr__(self, "missing_numbers", tuple(sorted(numbers)))
        longest = sorted(self.units, key=len, reverse=True)
        unit = "|".join(map(re.escape, longest))
        shape_of_unit = (
            rf"(?P<bare>.*?[0-9.,])\s*(?P<unit>{unit})|(?P<before>{unit})\s*(?P<after>[0-9.,+-].*)"
        )
        object.__setattr__(self, "_unit", re.compile(shape_of_unit) if longest else None)
        point, group = re.escape(self.decimal), re.escape(self.thousands or "")
        whole = rf"(?:[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|[0-9]+)" if group else r"[0-9]*"
        if group == ",":  # also groups as in India: 1,23,456
            whole = rf"(?:{whole}|[0-9]{{1,2}}(?:,[0-9]{{2}})+,[0-9]{{3}})"
        shape = rf"[+-]?{whole}(?:{point}[0-9]*)?(?:[eE][+-]?[0-9]+)?"
        object.__setattr__(self, "_shape", re.compile(shape))

    missing_texts: frozenset[str] = field(init=False, repr=False, compare=False)
    _words: Mapping[str, float] = field(init=False, repr=False, compare=False)
    missing_numbers: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _unit: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _shape: re.Pattern[str] = field(init=False, repr=False, compare=False)

    @property
    def plain(self) -> bool:
        """True if texts are numbers as Python writes them, without units or states."""
        return self.decimal == "." and not (self.thousands or self.units or self.states)

    def read(self, text: str) -> float:
        """Return the number of a text, NaN for a missing value, ±inf for an infinite one.

        Raises NotANumberError with the setting that would help.
        """
        word = text.translate(_TYPESET).strip().lower()
        if word in self.missing_texts:
            return math.nan
        if word in self._words:
            return self._words[word]
        text = plain_text(text)
        if _INFINITE.fullmatch(text):
            return -math.inf if text.startswith("-") else math.inf
        factor, bare = 1.0, text
        if self._unit is not None and (found := self._unit.fullmatch(text)):
            bare = (found["bare"] or found["after"]).strip()
            factor = self.units[found["unit"] or found["before"]]
        if not self.plain:
            if not self._shape.fullmatch(bare):
                raise NotANumberError(self._advice(text))
            bare = bare.replace(self.thousands, "") if self.thousands else bare
            bare = bare.replace(self.decimal, ".")
        if not _NUMBER.fullmatch(bare):
            raise NotANumberError(self._advice(text))
        return float(bare) * factor

    def _advice(self, text: str) -> str:
        if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text) and self.decimal == ".":
            comma = "if the comma is the decimal sign, set `decimal: ','`"
            return f"{comma}; if it separates thousands, `thousands: ','`"
        if re.fullmatch(r"[+-]?[0-9]{1,3}([,. '_][0-9]{3})+([.,][0-9]+)?", text):
            return "set `thousands` and `decimal`"
        if re.fullmatch(r"[+-]?[0-9.,]+\s*[^0-9.,\s]{1,8}", text):
            return "if that is a unit, name it under `units`"
        return "if it means that there is no value, name it under `missing`"
