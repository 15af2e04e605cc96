"""``export``: write the recorded scores of a stream to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigOption, FromOption, StreamName, ToOption
from pipeline.cli.output import print_note


def export(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="File to write: .parquet, .csv or .jsonl.", show_default=False),
    ],
    stream: StreamName,
    config: ConfigOption = DEFAULT_CONFIG,
    since: FromOption = None,
    until: ToOption = None,
) -> None:
    """Write the recorded scores of a stream to a file.

    Each scored point is a row with its series, time, values, score, surprise, flag, expected range,
    forecaster and model. The points are those of the recorded history, which a daemon keeps.
    """
    from pipeline.cli.options import require_stream
    from pipeline.config.loader import load_config
    from pipeline.services.export import export_scores

    settings = load_config(config)
    require_stream(settings, stream)
    rows = export_scores(settings, stream, file, since, until)
    print_note(f"wrote {rows:,} points to {file}")
