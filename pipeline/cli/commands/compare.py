"""Command ``compare``: all forecasters on the recorded values of a stream."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import ConfigArgument, JsonOption, StreamName, require_stream
from pipeline.cli.output import print_note, show_json, show_table

if TYPE_CHECKING:
    from pipeline.evaluate.forecaster_comparison import ForecasterFigures


def compare(
    config: ConfigArgument,
    stream: StreamName,
    forecaster: Annotated[
        list[str] | None,
        typer.Option("--forecaster", metavar="KIND", help="Only this one; may be repeated."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes of a training.")] = 25,
    json: JsonOption = False,
) -> None:
    """Compare all forecasters on the values of a stream.

    Each is trained on the newest 1,200 recorded points of at most 48 series and measured on the last fifth:
    error relative to that of the last value, CPU time a point, bytes of state, weights, and how many steps
    back it remembers. Nothing of the stream changes.
    """
    from pipeline.config.loader import load_config
    from pipeline.core.extras import require_training

    loaded = load_config(config)
    require_stream(loaded, stream)
    require_training()
    from pipeline.evaluate.forecaster_comparison import VARIANTS, compare_forecasters, recorded_values

    values = recorded_values(loaded, stream)
    found = compare_forecasters(
        values,
        forecaster or tuple(VARIANTS),
        epochs=epochs,
        report=lambda name: print_note(f"{name} …"),
    )
    _show(values.shape, stream, found, json)


def _show(shape: tuple[int, ...], stream: str, found: list[ForecasterFigures], json: bool) -> None:
    """Print the figures.

    Args:
        shape: Number of series, and of points of each.
        stream: Name of the stream.
        found: The figures.
        json: As JSON.
    """
    if json:
        figures = {"stream": stream, "series": shape[0], "points": shape[1]}
        show_json(figures | {"forecasters": [asdict(one) for one in found]})
        return
    show_table(
        ("forecaster", "error", "µs a point", "µs a step", "state bytes", "weights", "memory", "training s"),
        [
            (
                one.forecaster if one.causal else f"{one.forecaster} (not live)",
                f"{one.error:.3f}",
                f"{one.batch_us:.2f}",
                "" if one.step_us is None else f"{one.step_us:.2f}",
                one.state_bytes,
                one.weights,
                one.memory_steps,
                f"{one.train_seconds:.1f}",
            )
            for one in sorted(found, key=lambda one: one.error)
        ],
        "",
    )
