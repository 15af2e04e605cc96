"""Commands ``init``, ``schema`` and ``version``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG
from pipeline.cli.output import print_note


class ExamplePreset(StrEnum):
    """Kind of time series of the example stream."""

    SENSOR = "sensor"
    NETWORK = "network"
    STOCK = "stock"


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Path of the new file.")] = DEFAULT_CONFIG,
    preset: Annotated[
        ExamplePreset, typer.Option(help="Kind of time series of the example stream.")
    ] = ExamplePreset.SENSOR,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented example config."""
    from pipeline.config.template import template
    from pipeline.core.errors import InputError

    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(template(preset.value))
    except FileExistsError:
        raise InputError(
            f"{file} already exists; give another name, or use --force to overwrite it"
        ) from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be written: {error.strerror}; give a path in a folder that exists"
        ) from None
    print_note(f"wrote {file}; edit it, then run: forewatch check {file}")


def schema() -> None:
    """Print the JSON Schema of the config.

    Editors use it for completion and validation.
    """
    from pipeline.config.reference import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def version() -> None:
    """Print the version of forewatch."""
    from importlib.metadata import version as installed

    print(installed("forewatch"))
