"""Commands ``deadletters list``, ``show`` and ``replay``: records that could not be decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    FromOption,
    JsonOption,
    LimitOption,
    StreamOption,
    ToOption,
    config_and_database,
    database_of_file,
    require_stream,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_list, show_table
from pipeline.cli.times import show_second, show_time

if TYPE_CHECKING:
    from storage.results.dead_letters import Kept

app = typer.Typer(no_args_is_help=True, help="Records that could not be decoded, with their original bytes.")

ReasonOption = Annotated[
    str | None, typer.Option(metavar="REASON", help="Only dead letters with this reason.")
]


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    reason: ReasonOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Also dead letters that have been replayed.")] = False,
    since: FromOption = None,
    until: ToOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List dead letters, newest first."""
    from storage.results import dead_letters

    with database_of_file(config, stream) as database, database.read() as connection:
        replayed = None if all_ else False
        found = dead_letters.query(
            connection,
            stream=stream,
            reason=reason,
            replayed=replayed,
            since_ns=since,
            until_ns=until,
            limit=limit,
        )
    columns = ("id", "stored", "stream", "partition", "offset", "reason", "detail")
    rows = (
        (
            k.id,
            show_second(k.created_ns),
            k.letter.stream,
            k.letter.partition,
            k.letter.offset,
            k.letter.reason,
            k.letter.detail,
        )
        for k in found
    )
    show_list(json, map(as_dict, found), columns, rows, empty="no dead letters", wrap=("detail",))


@app.command()
def show(
    id_: Annotated[
        int, typer.Argument(metavar="ID", help="Number of the dead letter, as the list shows it.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show one dead letter with its original bytes."""
    from storage.results import dead_letters

    with database_of_file(config) as database, database.read() as connection:
        fields = as_dict(dead_letters.get(connection, id_))
    if json:
        show_json(fields)
    else:
        show_fields(
            fields | {"headers": ", ".join(f"{name}: {value}" for name, value in fields["headers"]) or None}
        )


@app.command()
def replay(
    ids: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="ID", help="Numbers of dead letters (default: all that match).", show_default=False
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    reason: ReasonOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be replayed without writing anything.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Replay dead letters of Kafka and of what was pushed.

    Dead letters are decoded with the current config. Those that can be decoded are appended to their topic or
    spool, and the daemon reads them like any other record. A point that is older than the last scored point of
    its series is counted as late, and revises the verdicts of its series afterwards.
    """
    from pipeline.access.audited_changes import replayed
    from pipeline.services.dead_letter_replay import replay as replay_dead_letters

    with config_and_database(config) as (loaded, database):
        if stream is not None:
            require_stream(loaded, stream)
        report = replay_dead_letters(
            loaded, database, ids=ids or None, stream=stream, reason=reason, dry_run=dry_run
        )
        if not dry_run:
            with database.begin() as connection:
                record(connection, None, replayed(stream, ids, reason, report.replayed))
    if json:
        show_json(report.as_dict())
        return
    print_note(
        f"{report.decodable} of {report.considered} can be decoded"
        + ("; nothing was written" if dry_run else f"; {report.replayed} were written to their log again")
    )
    if report.refused:
        show_table(("still cannot be decoded: reason", "records"), sorted(report.refused.items()), "")


def as_dict(kept: Kept) -> dict[str, Any]:
    """Return the JSON object of a dead letter; bytes that are not UTF-8 are escaped."""
    letter = kept.letter
    return {
        "id": kept.id,
        "stream": letter.stream,
        "topic": letter.partition.topic,
        "partition": letter.partition.number,
        "offset": letter.offset,
        "timestamp": show_time(letter.timestamp_ns) if letter.timestamp_ns >= 0 else None,
        "reason": letter.reason,
        "detail": letter.detail,
        "key": _text(letter.key),
        "value": _text(letter.value),
        "headers": [[name, _text(value)] for name, value in letter.headers],
        "kept": show_time(kept.created_ns),
        "replayed": show_time(kept.replayed_ns),
    }


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")
