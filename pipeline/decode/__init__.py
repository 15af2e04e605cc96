"""Decoding of record batches into columns.

A record that does not fit becomes a dead letter, never an exception. A new format is one module that makes a
``Parsed`` of a batch, and one line in ``Decoder.__init__``.
"""

from pipeline.decode.columns import REPEATED_HOUR, SEPARATOR, Columns, Key, SeriesKeys
from pipeline.decode.dead_letter_limit import DeadLetterGauge
from pipeline.decode.decoder import Decoded, Decoder, make_decoder
from pipeline.decode.parsed_batch import MAX_LABEL, REASONS
from pipeline.decode.series_names import labels_of, series_key, series_name, series_names

__all__ = [
    "MAX_LABEL",
    "REASONS",
    "REPEATED_HOUR",
    "SEPARATOR",
    "Columns",
    "DeadLetterGauge",
    "Decoded",
    "Decoder",
    "Key",
    "SeriesKeys",
    "labels_of",
    "make_decoder",
    "series_key",
    "series_name",
    "series_names",
]
