"""Commands ``init``, ``schema`` and ``version``."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG
from pipeline.cli.output import print_note, show_table

if TYPE_CHECKING:
    from pipeline.cli.import_places import Place
    from pipeline.services.config_wizard import Imported


DataOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DATA",
        help="Look at this data, and write a config for it: a file, the URL of a database or of a Prometheus "
        "server, or env:NAME of a variable with a URL.",
    ),
]
QueryOption = Annotated[
    str | None,
    typer.Option(
        "--query",
        metavar="QUERY",
        help="With a database: a table, or a SELECT statement. With Prometheus: labels, such as "
        "'{job=\"node\"}'.",
    ),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME:VALUE",
        help="With Prometheus: further header of each request, such as Authorization. Repeat it for more.",
    ),
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
    query: QueryOption = None,
    header: HeaderOption = None,
    answer: AnswerOption = None,
) -> None:
    """Write a commented example config, or one for your data.

    With --from or --kafka samples of the data are read. A table shows what was understood and why. What
    samples cannot tell is asked on a terminal; elsewhere the question is an error that names the --set that
    answers it.
    """
    from pipeline.config.template import config_text, template
    from pipeline.core.errors import InputError

    advice: list[str] = []
    if source is not None or kafka is not None:
        from pipeline.cli.import_places import place_of

        if not force and file.exists():
            raise InputError(f"{file} already exists; give another name, or use --force to overwrite it")
        place = place_of(source, kafka, query, header or [])
        found = _imported(place, answer or [])
        name = found.name or place.name
        streams = {name: found.stream} | {name + ending: one for ending, one in found.further.items()}
        text = config_text(streams)
        advice = found.advice
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
    for one in advice:
        print_note(one)
    print_note(f"wrote {file}; edit it, then run: forewatch check {file}")


def _imported(place: Place, given: list[str]) -> Imported:
    """Guess, ask, show, and return what was found."""
    from pipeline.core.errors import InputError

    answers: dict[str, str] = {}
    for one in given:
        key, sign, value = one.partition("=")
        if not sign:
            raise InputError(f"--set {one}: write KEY=VALUE")
        answers[key] = value
    while True:
        found = place.look(answers)
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
    return found


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
