"""``init``, ``schema``, ``version``: what a new user begins with."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG
from pipeline.cli.output import print_note


class Preset(StrEnum):
    """What kind of numbers the first stream carries."""

    SENSOR = "sensor"
    NETWORK = "network"
    STOCK = "stock"


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = DEFAULT_CONFIG,
    preset: Annotated[
        Preset, typer.Option(help="What kind of numbers the example is about.")
    ] = Preset.SENSOR,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented config to begin with."""
    from pipeline.config.template import template
    from pipeline.core.errors import InputError

    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(template(preset.value))
    except FileExistsError:
        raise InputError(f"{file} is there already; give another name, or --force to overwrite it") from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be written: {error.strerror}; give a path in a folder that exists"
        ) from None
    print_note(f"wrote {file}; edit it, then: forewatch check {file}")


def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    from pipeline.config.reference import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(installed("forewatch"))
