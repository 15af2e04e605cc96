"""Building blocks of the configuration models: base model, durations and secrets."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from pipeline.core.errors import ConfigError

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


def parse_duration(value: Any) -> Any:
    """Return the timedelta of a text such as ``5m``, ``30s`` or ``1h30m``."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and _DURATION.sub("", value).strip() == "":
            return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    raise ValueError("write a duration such as 30s, 5m, 1h30m or 7d")


def format_duration(value: timedelta) -> str:
    """Return the shortest text that ``parse_duration`` reads back."""
    rest, out = round(value / timedelta(milliseconds=1)), ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        out += f"{count}{unit}" if count else ""
    return out or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\s*(\d+(\.\d+)?\s*(ms|s|m|h|d|w)\s*)+$",
            "examples": ["30s", "5m", "1h30m", "7d"],
        }
    ),
]


IntervalShare = Annotated[
    float,
    Field(
        ge=0.5,
        le=0.9999,
        description="share of normal values inside the prediction interval, for decision usual_range",
    ),
]


class ConfigModel(BaseModel):
    """Base of the models. An unknown key is an error, so that a misspelt key is not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SecretMissing(ConfigError, ValueError):
    """The environment variable or file of a secret does not exist."""


class Secret(ConfigModel):
    """Secret from an environment variable or a file; the config never contains it."""

    env: str | None = Field(None, description="name of the environment variable with the secret")
    file: Path | None = Field(
        None, description="path of the file with the secret (surrounding white space is removed)"
    )

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("give exactly one of env and file")
        return self

    def reveal(self) -> SecretStr:
        """Read the secret.

        Raises:
            SecretMissing: It cannot be read; the message names the variable or file, never the content.
        """
        if self.env is not None:
            if self.env not in os.environ:
                raise SecretMissing(
                    f"environment variable {self.env} is not set — set it, or name another one in the config"
                )
            return SecretStr(os.environ[self.env])
        assert self.file is not None
        try:
            return SecretStr(self.file.read_text().strip())
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise SecretMissing(
                f"cannot read the secret file {self.file}: {why} — give the path of a readable "
                f"file in the config"
            ) from None
