"""Command ``compare``: all forecasters on the recorded values of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import ConfigArgument, JsonOption, StreamName, require_stream
from pipeline.cli.output import print_note, show_json, show_table

if TYPE_CHECKING:
    from pipeline.config.schema import Stream
    from pipeline.evaluate.forecaster_comparison import ForecasterFigures
    from pipeline.evaluate.stream_comparison import StreamFigures
    from pipeline.training.dataset import TrainingData


def compare(
    config: ConfigArgument,
    stream: StreamName,
    forecaster: Annotated[
        list[str] | None,
        typer.Option(
            "--forecaster",
            metavar="KIND",
            help="Only this one; may be repeated. With further inputs: gru+calendar+lags.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes of a training.")] = 25,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also train each to recall a value after 100 steps of noise.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare all forecasters on the values of a stream.

    Each is trained on the newest 1,200 recorded points of at most 48 series and measured on the last fifth:
    error relative to that of the last value, CPU time a point, bytes of state, weights, and how many steps
    back it remembers. Those that can run live are also measured inside the detector of the stream, beside the
    packaged LSTM: error relative to seasonal naive, and detection; there a name such as gru+calendar+lags
    adds inputs. Nothing of the stream changes.
    """
    from pipeline.config.loader import load_config
    from pipeline.core.extras import require_training

    loaded = load_config(config)
    require_stream(loaded, stream)
    require_training()
    from pipeline.evaluate.forecaster_comparison import (
        MAX_POINTS,
        MAX_SERIES,
        VARIANTS,
        compare_forecasters,
        matrix_of,
        recorded_data,
    )

    data = recorded_data(loaded, stream)
    values = matrix_of(data, MAX_SERIES, MAX_POINTS)
    names = forecaster or tuple(VARIANTS)
    alone = list(dict.fromkeys(name.partition("+")[0] for name in names))
    found = compare_forecasters(values, alone, epochs=epochs, report=lambda name: print_note(f"{name} …"))
    live = _in_stream(loaded.streams[stream], data, names, epochs)
    recalled = _recalled(alone) if memory else {}
    _show(values.shape, stream, found, json, live=live, recalled=recalled)


def _in_stream(
    stream: Stream, data: TrainingData, names: Sequence[str], epochs: int
) -> dict[str, StreamFigures]:
    """Measure the packaged LSTM and the named networks inside the detector."""
    from pipeline.evaluate.stream_comparison import (
        PACKAGED,
        network_figures,
        network_named,
        packaged_figures,
    )
    from pipeline.models.champion import detector_spec

    if stream.detector not in ("standard", "strong"):
        print_note(f"detector {stream.detector} has no network: figures inside the detector are left out")
        return {}
    spec = detector_spec(stream)
    clock = stream.local_timezone, stream.holidays or ""
    live = {name: network for name in names if (network := network_named(name, *clock)) is not None}
    if not live:
        return {}
    print_note(f"{PACKAGED} in the stream …")
    found = {PACKAGED: packaged_figures(data, spec)}
    for name, network in live.items():
        print_note(f"{name} in the stream …")
        found[name] = network_figures(data, spec, network, epochs=epochs)
    return found


def _recalled(names: Sequence[str]) -> dict[str, float]:
    """Return the unexplained share of the recall task by name."""
    from pipeline.evaluate.stream_comparison import NETWORKS, recall_of

    found = {}
    for name in (one for one in names if one in NETWORKS):
        print_note(f"{name} recalls …")
        found[name] = recall_of(name)
    return found


def _show(
    shape: tuple[int, ...],
    stream: str,
    found: list[ForecasterFigures],
    json: bool,
    *,
    live: dict[str, StreamFigures],
    recalled: dict[str, float],
) -> None:
    """Print the figures.

    Args:
        shape: Number of series, and of points of each.
        stream: Name of the stream.
        found: The figures.
        json: As JSON.
        live: Figures inside the detector by name.
        recalled: Unexplained share of the recall task by name.
    """
    if json:
        figures = {"stream": stream, "series": shape[0], "points": shape[1]}
        show_json(
            figures
            | {
                "forecasters": [asdict(one) for one in found],
                "in_stream": {name: asdict(one) for name, one in live.items()},
                "unexplained_after_100_steps": recalled,
            }
        )
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
    _show_live(live, recalled)


def _show_live(live: dict[str, StreamFigures], recalled: dict[str, float]) -> None:
    """Print the figures inside the detector, and those of the recall task."""
    if live:
        print()
        columns = (
            "in the stream",
            "error / seasonal naive",
            "changes detected",
            "alarms",
            "µs a point",
            "state bytes",
        )
        rows = [
            (
                name,
                f"{one.seasonal_error:.3f}",
                f"{one.detection:.0%}",
                one.alarms,
                f"{one.microseconds:.2f}",
                one.state_bytes,
            )
            for name, one in sorted(live.items(), key=lambda pair: pair[1].seasonal_error)
        ]
        show_table(columns, rows, "")
    if recalled:
        print()
        show_table(
            ("after 100 steps of noise", "unexplained share"),
            [(name, f"{share:.2f}") for name, share in sorted(recalled.items(), key=lambda pair: pair[1])],
            "",
        )
