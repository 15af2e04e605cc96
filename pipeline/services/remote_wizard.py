"""Import wizard for tables of databases and metrics of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from pipeline.config.schema import Stream
from pipeline.core.errors import InputError
from pipeline.services.config_wizard import Imported, imported_stream
from pipeline.services.guess import Guess
from pipeline.services.prometheus_api import PrometheusApi
from pipeline.services.prometheus_guess import guess_metrics, remote_write_yaml
from pipeline.services.sql_guess import choose_table, cursor_question, guess_cursor, samples_of_table
from pipeline.sources.sql.inspection import Inspection


def import_table(
    address: str, secret: Mapping[str, str], wanted: str | None, answers: Mapping[str, str]
) -> Imported:
    """Guess the stream of a table or a query of a database.

    Args:
        address: SQLAlchemy URL.
        secret: What the config has in its place: ``{"env": NAME}``.
        wanted: Table or SELECT statement, None for the only table.
        answers: Keys that are known.

    Raises:
        InputError: The database does not answer, or the table cannot be read.
    """
    with Inspection(address) as seen:
        table = choose_table(seen, answers.get("query", wanted))
        if isinstance(table, list):
            guess = Guess()
            guess.ask("query", "which table or view holds the readings?", table[:50])
            return Imported({}, guess, None)
        columns = seen.rows(table.query)
        if not any(columns.values()):
            raise InputError("the query returns no rows to look at; run init again when there are some")
        found = (
            (answers["cursor"], "your answer") if "cursor" in answers else guess_cursor(columns, table.key)
        )
        if found is None:
            guess = Guess()
            guess.ask("cursor", *cursor_question(columns))
            return Imported({}, guess, None)
        samples = samples_of_table(seen, table.query, found[0], answers.get("time"))
    source = {"sql": {"url": dict(secret), "query": table.query, "cursor": found[0]}}
    rest = {key: text for key, text in answers.items() if key not in ("query", "cursor")}
    imported = imported_stream(samples, source, rest)
    imported.guess.why = (
        {"query": (table.query, "your answer" if wanted else "the only table")}
        | {"cursor": found}
        | imported.guess.why
    )
    imported.name = table.name
    return imported


def import_metrics(
    url: str, headers: Mapping[str, str], selector: str, name: str, answers: Mapping[str, str]
) -> Imported:
    """Guess streams that a Prometheus server sends to.

    Args:
        url: Address of the server.
        headers: Further headers of each request.
        selector: Conditions of the series, "" for all.
        name: Name of the stream.
        answers: Keys that are known.

    Raises:
        InputError: The server does not answer, or has nothing to choose from.
    """
    with PrometheusApi(url, headers) as api:
        guess, streams = guess_metrics(api, selector, answers)
    if guess.questions:
        return Imported({}, guess, None)
    for stream in streams.values():
        try:
            Stream.model_validate(stream)
        except ValidationError as error:
            raise InputError(f"init: the answers do not fit together: {error}") from None
    (_, first), *others = streams.items()
    advice = f"add to the config of Prometheus:\n{remote_write_yaml(streams, name)}"
    return Imported(first, guess, None, further=dict(others), advice=[advice])
