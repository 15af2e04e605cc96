"""One stream from records to verdicts and open anomalies."""

from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.provenance import Provenance
from pipeline.scoring.stream_scorer import StreamScorer

__all__ = ["BatchResult", "Provenance", "StreamScorer"]
