"""Commands ``init``, ``schema`` and ``version``."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import DEFAULT_CONFIG
from pipeline.cli.output import print_note, show_table

if TYPE_CHECKING:
    from pipeline.services.config_wizard import Imported


DataOption = Annotated[
    Path | None,
    typer.Option("--from", metavar="DATA", help="Look at this file of data, and write a config for it."),
]
TopicOption = Annotated[
    tuple[str, str] | None,
    typer.Option("--kafka", metavar="BROKER TOPIC", help="Look at the newest records of this topic."),
]
AnswerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Answer to a question, or a correction of a guess: series=site,sensor or "
        "time_format=%d/%m/%Y. Repeat it for more.",
    ),
]


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
    source: DataOption = None,
    kafka: TopicOption = None,
    answer: AnswerOption = None,
) -> None:
    """Write a commented example config, or one for your data.

    With --from or --kafka samples of the data are read. A table shows what was understood and why. What
    samples cannot tell is asked on a terminal; elsewhere the question is an error that names the --set that
    answers it.
    """
    from pipeline.config.template import config_text, template
    from pipeline.core.errors import InputError

    if source is not None or kafka is not None:
        if not force and file.exists():
            raise InputError(f"{file} already exists; give another name, or use --force to overwrite it")
        text = config_text({_stream_name(source, kafka): _imported(source, kafka, answer or [])})
    else:
        text = template(preset.value)
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise InputError(
            f"{file} already exists; give another name, or use --force to overwrite it"
        ) from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be written: {error.strerror}; give a path in a folder that exists"
        ) from None
    print_note(f"wrote {file}; edit it, then run: forewatch check {file}")


def _stream_name(source: Path | None, kafka: tuple[str, str] | None) -> str:
    """Return a name for the stream, from that of the file or topic."""
    raw = kafka[1] if kafka is not None else (source or Path("data")).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", raw).strip("-") or "data"


def _imported(source: Path | None, kafka: tuple[str, str] | None, given: list[str]) -> dict[str, Any]:
    """Guess, ask, show, and return the stream."""
    from pipeline.core.errors import InputError
    from pipeline.services.config_wizard import import_file, import_topic

    if source is not None and kafka is not None:
        raise InputError("give --from or --kafka, not both")
    answers: dict[str, str] = {}
    for one in given:
        key, sign, value = one.partition("=")
        if not sign:
            raise InputError(f"--set {one}: write KEY=VALUE")
        answers[key] = value
    while True:
        if kafka is not None:
            found = import_topic(*kafka, answers)
        else:
            assert source is not None
            found = import_file(source, answers)
        if not found.guess.questions:
            break
        key, (question, options) = next(iter(found.guess.questions.items()))
        if not sys.stdin.isatty():
            _show(found)
            example = f" Answer with --set {key}=VALUE, for example {key}={options[0]}" if options else ""
            raise InputError(f"{question}{example}")
        if not options:
            _show(found)
            raise InputError(question)
        shown = " ".join(f"[{number}] {option}" for number, option in enumerate(options, 1))
        text = typer.prompt(f"{question} {shown}", err=True)
        answers[key] = options[int(text) - 1] if text.isdigit() and 0 < int(text) <= len(options) else text
    _show(found)
    return found.stream


def _show(found: Imported) -> None:
    """Show what was understood and why, and what the config decodes."""
    rows = ((key, value, reason) for key, (value, reason) in found.guess.why.items())
    show_table(("key", "guess", "why"), rows, "", wrap=("why",))
    if (probe := found.probe) is not None:
        print_note(f"{probe.decoded} of {probe.read} records are decoded")
        for reason, (count, example) in probe.refused.items():
            print_note(f"{count} dead letters: {reason}, for example {example}")
        if probe.error is not None:
            print_note(probe.error)


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
