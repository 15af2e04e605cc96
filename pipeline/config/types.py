"""What the models of the configuration are made of: a model that refuses unknown keys, durations, secrets."""

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
    """``5m``, ``30s``, ``1h30m`` → timedelta. Anything else is left for pydantic to refuse."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and _DURATION.sub("", value).strip() == "":
            return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    raise ValueError("write a duration such as 30s, 5m, 1h30m or 7d")


def format_duration(value: timedelta) -> str:
    """The shortest spelling that ``parse_duration`` reads back."""
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


class ConfigModel(BaseModel):
    """Unknown keys are errors: a misspelt key must not pass silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SecretMissing(ConfigError, ValueError):
    """What the config names as the place of a secret is not there."""


class Secret(ConfigModel):
    """A secret comes from the environment or from a file, never from the config itself."""

    env: str | None = Field(None, description="name of the environment variable that holds it")
    file: Path | None = Field(
        None, description="path of the file that holds it (surrounding white space is cut off)"
    )

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("give exactly one of env and file")
        return self

    def reveal(self) -> SecretStr:
        """Read the secret now. Raises SecretMissing that names the variable or file, never its content."""
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
                f"cannot read the secret file {self.file}: {why} — give the path of a readable file in the config"
            ) from None
