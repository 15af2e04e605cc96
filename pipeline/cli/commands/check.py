"""Command ``check``: validate a config and, with ``--connect``, the systems that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigArgument, JsonOption
from pipeline.cli.output import format_number, print_note, show_json, show_table
from pipeline.cli.times import show_time

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.services.preflight import StreamProbe


def check(
    config: ConfigArgument = DEFAULT_CONFIG,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect",
            help="Also connect to the database, the sources, the outputs and the endpoints of alerts, read "
            "their secrets, and decode a sample of records. Nothing is written or sent.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Validate a config.

    Each error is shown with its line, its key and a remedy.
    """
    from pipeline.config.loader import load_config
    from pipeline.config.yaml_file import ConfigFileError
    from pipeline.jobs.config_warnings import config_warnings

    try:
        loaded = load_config(config)
    except ConfigFileError as error:
        if not json:
            raise
        problems = [problem.as_dict() for problem in error.problems]
        show_json({"file": str(config), "valid": False, "problems": problems})
        raise typer.Exit(error.exit_code) from None
    if not json:
        for warning in config_warnings(loaded):
            print_note(f"{config}: warning: {warning}")
    if connect:
        _connect(config.name, loaded, json)
    elif json:
        show_json({"file": str(config), "valid": True, "problems": [], "warnings": config_warnings(loaded)})
    else:
        print_note(f"{config}: valid")
        columns = ("stream", "source", "format", "preset", "detector", "channels")
        show_table(columns, ((name, *row) for name, row in _summary(loaded).items()), "", wrap=("channels",))


def _summary(config: Config) -> dict[str, tuple[str, ...]]:
    return {
        name: (
            next(iter(stream.source.model_fields_set)),
            stream.format.name,
            "" if stream.of_events else stream.preset,
            "events" if stream.of_events else stream.detector,
            ", ".join(stream.channels),
        )
        for name, stream in config.streams.items()
    }


def _connect(file: str, config: Config, json: bool) -> None:
    from pipeline.jobs.config_warnings import config_warnings
    from pipeline.outputs.output_check import probe_outputs
    from pipeline.services.endpoint_check import probe_endpoints
    from pipeline.services.preflight import probe_database, probe_stream

    database = probe_database(config)
    streams = [probe_stream(name, stream) for name, stream in config.streams.items()]
    endpoints, outputs = probe_endpoints(config), probe_outputs(config)
    exit_code = max([database.exit_code, *(stream.exit_code for stream in streams)])
    exit_code = exit_code or int(not all(one.usable for one in (*endpoints, *outputs)))
    if json:
        found = {"database": database.as_dict(), "streams": [_stream_dict(one) for one in streams]}
        found |= {
            "endpoints": [
                {"endpoint": one.endpoint, "usable": one.usable, "said": one.message} for one in endpoints
            ],
            "outputs": [
                {"output": one.endpoint, "usable": one.usable, "said": one.message} for one in outputs
            ],
        }
        show_json({"file": file, "valid": True, "warnings": config_warnings(config)} | found)
    else:
        print(f"database: {database.message}")
        for one in (both for stream in streams for both in (stream, stream.past) if both is not None):
            _show_stream(one)
        for endpoint in endpoints:
            print(f"endpoint {endpoint.endpoint}: {endpoint.message}")
        for output in outputs:
            print(f"output {output.endpoint}: {output.message}")
    if exit_code:
        raise typer.Exit(exit_code)


def _stream_dict(one: StreamProbe) -> dict[str, Any]:
    past = {"history": _stream_dict(one.past)} if one.past is not None else {}
    return past | {
        "stream": one.stream,
        "error": one.error,
        "receives": one.receives,
        "partitions": one.partitions,
        "records_read": one.read,
        "records_decoded": one.decoded,
        "dead_letters": one.refused,
        "sample": [
            {"series": s.series, "time": show_time(s.time_ns), "values": s.values} for s in one.samples
        ],
    }


def _show_stream(one: StreamProbe) -> None:
    if one.error is not None:
        print(f"stream {one.stream}: {one.error}")
        return
    if one.receives is not None:
        print(f"stream {one.stream}: programs push to {one.receives}; there is nothing to read in advance")
        print("  senders must try again after 429 and 503 (Prometheus: `retry_on_http_429: true`)")
        return
    partitions = f"{one.partitions} partition{'s' * (one.partitions != 1)}"
    read = f"{one.read} record{'s' * (one.read != 1)} read"
    print(f"stream {one.stream}: {partitions}, {read}, {one.decoded} decoded")
    if one.read and not one.decoded:
        print("  none of them matches the format")
    if one.read == 0:
        print("  no records to check the format with")
    if one.samples:
        columns = ("series", "time", *one.samples[0].values)
        show_table(
            columns,
            ((s.series, show_time(s.time_ns), *map(_shown, s.values.values())) for s in one.samples),
            "",
        )
    for reason, (count, example) in one.refused.items():
        print(f"  {count} dead letter{'s' * (count != 1)}: {reason}, for example {example}")


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else format_number(value)
