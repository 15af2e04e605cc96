"""Build the outputs of a stream."""

from __future__ import annotations

from pipeline.config.schema import Stream
from pipeline.engine.sink import ScoreOutput
from pipeline.observability.metrics import Metrics, OutputMetrics
from pipeline.scoring.stream_scorer import StreamScorer


def make_outputs(stream: Stream, scorer: StreamScorer, metrics: Metrics) -> list[ScoreOutput]:
    """Return the outputs of a stream, not opened for any partition."""
    made: list[ScoreOutput] = []
    for name, output in stream.outputs.items():
        counters = OutputMetrics(metrics, scorer.provenance.stream, name)
        if output.kafka is not None:
            from pipeline.outputs.kafka_output import KafkaOutput

            made.append(KafkaOutput(name, output.kafka, scorer, counters))
        if output.remote_write is not None:
            from pipeline.outputs.remote_write import RemoteWriteOutput

            made.append(RemoteWriteOutput(name, output.remote_write, scorer, counters))
    return made
