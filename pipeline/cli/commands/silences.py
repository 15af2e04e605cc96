"""Commands ``silences add|list|expire``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ByOption,
    ConfigOption,
    JsonOption,
    StreamOption,
    config_and_database,
    database_of_file,
    require_stream,
)
from pipeline.cli.output import print_note, show_list
from pipeline.cli.times import parse_time, show_second

if TYPE_CHECKING:
    from pipeline.config.schema import Config

app = typer.Typer(no_args_is_help=True, help="Add, list and end silences of alerts.")

_UNTIL = "End of the silence: ISO 8601 (UTC unless it names a zone)."


@app.command()
def add(
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match", "-m", metavar="LABEL=GLOB", help="Matched label or property; repeated: all must match."
        ),
    ] = None,
    stream: StreamOption = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Silence every alert (of --stream), without --match.")
    ] = False,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="Length of the silence: 30m, 2h, 3d.")
    ] = None,
    until: Annotated[Any, typer.Option("--until", parser=parse_time, metavar="TIME", help=_UNTIL)] = None,
    comment: Annotated[str, typer.Option(help="Reason, stored with the silence.")] = "",
    by: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Silence matching alerts from now on.

    Silenced alerts are kept and listed. An alert that is still open at the end of the silence is sent then. The
    end of an alert that was sent before is always sent.
    """
    from time import time_ns
    from uuid import uuid4

    from pipeline.access.audited_changes import silenced
    from pipeline.cli.argument_values import author_name
    from pipeline.core.errors import InputError
    from storage.alerting import silences

    now_ns = time_ns()
    ends_ns = until if until is not None else now_ns + _span(for_)
    if until is not None and for_ is not None:
        raise InputError("give --for or --until, not both")
    if not match and not all_:
        scope = "every stream" if stream is None else f"stream {stream}"
        raise InputError(
            f"without --match the silence covers every alert of {scope}; add --match LABEL=GLOB, or --all"
        )
    if match and all_:
        raise InputError("give --match or --all, not both")
    if ends_ns <= now_ns:
        raise InputError("the end of the silence is in the past; give a future time")
    with config_and_database(config) as (loaded, database):
        if stream is not None:
            require_stream(loaded, stream)
        _warn_of_unknown_labels(loaded, stream, _matchers(match or []))
        silence = silences.ManualSilence(
            uuid4(), stream, _matchers(match or []), now_ns, ends_ns, author_name(by), comment, now_ns
        )
        with database.begin() as connection:
            silences.add(connection, silence)
            record(connection, by, silenced(silence))
    print(silence.id)
    expire = f"forewatch silences expire {silence.id.hex[:8]}"
    print_note(f"silenced until {show_second(ends_ns)}; `{expire}` ends it earlier")


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also silences that have ended.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """List silences.

    These are silences added by hand, and planned ones that are in force now.
    """
    from dataclasses import asdict
    from time import time_ns

    from pipeline.alerts.routing.silencing import PlannedSilences
    from storage.alerting import silences

    now_ns = time_ns()
    with config_and_database(config) as (loaded, database), database.read() as connection:
        manual = silences.query(connection, now_ns=None if all_ else now_ns)
    planned = [
        (n, silence)
        for n, stream in loaded.streams.items()
        for silence in PlannedSilences(stream.alerts).in_force(now_ns)
    ]
    rows = [
        (
            s.id.hex[:8],
            s.stream or "all",
            _shown(s.match),
            show_second(s.starts_ns),
            show_second(s.ends_ns),
            s.author,
            s.comment,
        )
        for s in manual
    ]
    rows += [
        (silence.name, name, "as configured", "", show_second(silence.until_ns), "config", "")
        for name, silence in planned
    ]
    columns = ("id", "stream", "match", "from", "until", "by", "comment")
    show_list(json, (asdict(s) for s in manual), columns, rows, "no silences")


@app.command()
def expire(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the silence; the first characters are enough.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """End a silence now; alerts that are still open are sent."""
    from time import time_ns

    from pipeline.access.audited_changes import silence_ended
    from pipeline.cli.argument_values import hex_prefix
    from pipeline.core.errors import InputError
    from storage.alerting import silences

    with database_of_file(config) as database, database.begin() as connection:
        now_ns = time_ns()
        in_force = {one.id: one for one in silences.query(connection, now_ns=now_ns)}
        ended = silences.expire(connection, hex_prefix(id_), now_ns)
        for one in ended:
            record(connection, None, silence_ended(in_force[one]))
    if not ended:
        raise InputError(f"no silence {id_} is in force; `forewatch silences list` lists those in force")
    for one in ended:
        print(one)


def _span(text: str | None) -> int:
    from pipeline.cli.argument_values import duration_ns
    from pipeline.core.errors import InputError

    if text is None:
        raise InputError("give --for DURATION, for example --for 2h, or --until TIME")
    return duration_ns("--for", text)


def _matchers(pairs: list[str]) -> dict[str, Any]:
    from pipeline.core.errors import InputError

    found: dict[str, Any] = {}
    for pair in pairs:
        label, equals, glob = pair.partition("=")
        if not equals or not label:
            raise InputError(f"--match {pair}: write LABEL=GLOB, for example --match site=eu-*")
        found[label] = glob
    return found


def _warn_of_unknown_labels(config: Config, stream: str | None, match: dict[str, Any]) -> None:
    """Print a warning for labels that no series has: such a silence matches nothing."""
    from pipeline.alerts.routing.unknown_labels import matchable_names
    from pipeline.config.diagnostics import closest

    known = matchable_names(config.streams.values() if stream is None else [config.streams[stream]])
    known |= {"fault"}
    for name in match:
        if name not in known:
            print_note(
                f"warning: no series has the label {name!r}, so the silence matches nothing: {closest(name, known)}"
            )


def _shown(match: dict[str, Any]) -> str:
    return ", ".join(f"{label}={glob}" for label, glob in match.items()) or "everything"
