"""``models list|show|diff|promote|rollback|pin|unpin|export|import`` of versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ByOption,
    ConfigOption,
    JsonOption,
    LimitOption,
    StreamName,
    StreamOption,
    WhyOption,
    config_and_database,
    database_of_file,
    require_stream,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_table
from pipeline.cli.times import show_second, show_time

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.model_store.models import ModelVersion, Promotion

app = typer.Typer(no_args_is_help=True, help="List, promote and exchange trained model versions.")

VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="Version, or its first digits.")]


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="List promotions and rollbacks instead, with author and reason.")
    ] = False,
    limit: LimitOption = 20,
    json: JsonOption = False,
) -> None:
    """List versions, newest first."""
    from storage.model_store import models

    with database_of_file(config, stream) as database, database.read() as connection:
        if changes:
            _show_changes(models.promotions(connection, stream, limit), json)
            return
        found = models.query(connection, stream=stream, limit=limit)
    if json:
        show_json([as_dict(model) for model in found])
        return
    rows = (
        (m.version, m.stream, show_second(m.created_ns), m.state, m.parent or "packaged", m.author, m.reason)
        for m in found
    )
    show_table(
        ("version", "stream", "made", "state", "from", "by", "why"),
        rows,
        "no versions yet: numbers are judged with the packaged model, and no event is an alarm",
        wrap=("why",),
    )


@app.command()
def show(version: VersionArgument, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one version and its evidence."""
    from storage.model_store import models

    with database_of_file(config) as database, database.read() as connection:
        model = models.get(connection, version)
    if json:
        show_json(as_dict(model))
        return
    show_fields(
        {name: value for name, value in as_dict(model).items() if name != "evidence"}
        | {"parent": model.parent or "packaged"}
    )
    for name, card in model.evidence.items():
        print()
        if isinstance(card, dict) and "text" in card:
            print(f"{name}: {card['text']}")
        else:
            show_table((name, "value"), _flat({name: card}), "")


@app.command()
def diff(
    one: VersionArgument,
    other: VersionArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Compare two versions.

    Print the differences of evidence, training and weights.
    """
    from pipeline.models.registry import weight_distances
    from storage.model_store import models

    with database_of_file(config) as database, database.read() as connection:
        pair = [models.get(connection, version) for version in (one, other)]
    left, right = (
        {"state": m.state, "parent": m.parent, "made": show_time(m.created_ns)} | dict(_flat(m.evidence))
        for m in pair
    )
    names = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    apart = weight_distances(*((m.path, m.sha256) for m in pair))
    if json:
        fields = {name: [left.get(name), right.get(name)] for name in names}
        show_json({"versions": [m.version for m in pair], "differences": fields, "weights": apart})
        return
    rows = [(name, left.get(name), right.get(name)) for name in names]
    rows += [
        (f"weights {name}", None, f"relative distance {value:.3g}") for name, value in apart.items() if value
    ]
    show_table(("what", *(m.version for m in pair)), rows, "no difference")


@app.command()
def promote(
    version: VersionArgument,
    why: WhyOption = "by hand",
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = None,
) -> None:
    """Make a version the champion. A running daemon uses it from the next batch on."""
    _promote(version, why, config, by, pinned=None)


@app.command()
def rollback(
    stream: StreamName, why: WhyOption = "by hand", config: ConfigOption = DEFAULT_CONFIG, by: ByOption = None
) -> None:
    """Make the previous champion the champion again."""
    from pipeline.models.promotion import roll_back

    after = _changed(roll_back, stream, why, config, by)
    print(after.to_version or "packaged")
    print_note(
        f"{after.to_version or 'the packaged model'} is the champion of stream {stream} "
        f"instead of {after.from_version}"
    )


@app.command()
def pin(
    version: VersionArgument,
    why: WhyOption = "by hand",
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = None,
) -> None:
    """Make a version the champion until it is unpinned."""
    _promote(version, why, config, by, pinned=True)


@app.command()
def unpin(
    stream: StreamName, why: WhyOption = "by hand", config: ConfigOption = DEFAULT_CONFIG, by: ByOption = None
) -> None:
    """Allow automatic promotions in a stream again."""
    from pipeline.models import promotion

    _changed(promotion.unpin, stream, why, config, by)
    print_note(f"stream {stream} is no longer pinned")


@app.command()
def export(
    version: VersionArgument,
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="Target path or URL without an ending; two files are written."),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Copy a version out of the registry.

    The copy can be imported elsewhere.
    """
    from pipeline.models.registry import copy_version
    from storage.model_store import models

    with database_of_file(config) as database, database.read() as connection:
        model = models.get(connection, version)
    copy_version(model.path, path, model.sha256)
    print(f"{path}.json")
    print_note(f"wrote {path}.json and {path}.safetensors, sha256 of the manifest {model.sha256}")


@app.command("import")
def import_(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Path or URL of the exported version, without an ending.")
    ],
    stream: StreamName,
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = None,
) -> None:
    """Import a version as a candidate of a stream."""
    from time import time_ns

    from pipeline.access.audited_changes import model_imported
    from pipeline.cli.argument_values import author_name
    from pipeline.core.errors import InputError
    from pipeline.models.registry import delete_files, import_version
    from storage.model_store import models

    with config_and_database(config) as (loaded, database):
        require_stream(loaded, stream)
        model = import_version(path, loaded.models_path, stream, author_name(by), time_ns())
        with database.begin() as connection:
            new = models.add(connection, model)
            if new:
                record(connection, by, model_imported(model, path))
        if not new:
            delete_files(model)
            raise InputError(f"version {model.version} is in the registry already")
    print(model.version)
    print_note(f"make it the champion with: forewatch models promote {model.version}")


def as_dict(model: ModelVersion) -> dict[str, Any]:
    """Return a version as JSON, with times in ISO 8601."""
    names = ("version", "stream", "state", "reason", "parent", "author", "job_id", "path", "sha256")
    times = {"made": show_time(model.created_ns), "changed": show_time(model.changed_ns)}
    return {name: getattr(model, name) for name in names} | times | {"evidence": model.evidence}


def _changed(
    change: Callable[..., Promotion], stream: str, why: str, config: Path, by: str | None
) -> Promotion:
    from time import time_ns

    from pipeline.cli.argument_values import author_name

    with config_and_database(config) as (loaded, database), database.begin() as connection:
        require_stream(loaded, stream)
        after = change(connection, stream, author=author_name(by), reason=why, now_ns=time_ns())
        _record(connection, by, after)
        return after


def _record(connection: Connection, by: str | None, after: Promotion) -> None:
    from pipeline.access.audited_changes import champion_changed

    record(connection, by, champion_changed(after))


def _promote(version: str, why: str, config: Path, by: str | None, pinned: bool | None) -> None:
    from time import time_ns

    from pipeline.cli.argument_values import author_name
    from pipeline.models import promotion
    from pipeline.models.registry import require_usable
    from storage.model_store import models

    with config_and_database(config) as (loaded, database):
        with database.read() as connection:
            model = models.get(connection, version)
        stream = require_stream(loaded, model.stream)
        require_usable(model)
        with database.begin() as connection:
            after = promotion.promote(
                connection,
                model.stream,
                stream,
                model.version,
                author=author_name(by),
                reason=why,
                now_ns=time_ns(),
                pinned=pinned,
            )
            _record(connection, by, after)
    print(model.version)
    print_note(
        f"{model.version} is the champion of stream "
        f"{model.stream}{' until it is unpinned' if pinned else ''}; a running daemon uses "
        f"it from the next batch on"
    )


def _show_changes(changes: list[Promotion], json: bool) -> None:
    if json:
        show_json([asdict(one) | {"created": show_time(one.created_ns)} for one in changes])
        return
    columns = ("when", "stream", "what", "from", "to", "pinned", "by", "why")
    named = [
        (one.from_version or "packaged", one.to_version or "packaged", "yes" if one.pinned else "no")
        for one in changes
    ]
    rows = [
        (show_second(one.created_ns), one.stream, one.action, *names, one.author, one.reason)
        for one, names in zip(changes, named, strict=True)
    ]
    show_table(columns, rows, "no promotions", wrap=("why",))


def _flat(value: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Flatten nested evidence to dotted names; shorten long lists to their length."""
    rows: list[tuple[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, dict):
            rows += _flat(item, f"{path}{name}.")
        else:
            rows.append(
                (path + name, f"{len(item)} items" if isinstance(item, list) and len(item) > 6 else item)
            )
    return rows
