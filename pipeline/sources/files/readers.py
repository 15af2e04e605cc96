"""Choice of the reader of a file, by the ending of its name and the format."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import inputs
from pipeline.core.errors import InputError
from pipeline.sources.files.avro_reader import AvroFile
from pipeline.sources.files.compression import COMPRESSED
from pipeline.sources.files.csv_reader import CsvFile
from pipeline.sources.files.json_document import json_file, wide_encoding
from pipeline.sources.files.lines_reader import LinesFile
from pipeline.sources.files.parquet_reader import ParquetFile
from pipeline.sources.files.row_slice import TableFile
from pipeline.sources.files.time_order import TimeOrderedFile, TimeOrderedLines


def _packed(*endings: str) -> tuple[str, ...]:
    return tuple(ending + packed for ending in endings for packed in ("", *COMPRESSED))


JSON_ENDINGS = _packed(".json")
LINE_ENDINGS = _packed(".jsonl", ".ndjson", ".lp")
LOG_ENDINGS = _packed(".log")
#: Text of either rows or log lines.
TEXT_ENDINGS = (*LOG_ENDINGS, *_packed(".txt"))
ENDINGS = (
    *_packed(".csv", ".tsv", ".txt"),
    ".parquet",
    ".avro",
    *JSON_ENDINGS,
    *LINE_ENDINGS,
    *LOG_ENDINGS,
)


def make_reader(path: Path, form: inputs.RecordFormat | None, *, follow: bool) -> TableFile:
    """Return the reader of a file.

    Raises InputError for an Avro file whose format is CSV.
    """
    records = isinstance(form, inputs.JsonFormat)
    columns = form if isinstance(form, inputs.CsvFormat) else None
    if path.suffix == ".parquet":
        rows = ParquetFile(path, labels=columns.label_fields.values() if columns else ())
        return rows if follow or columns is None else TimeOrderedFile(rows, columns)
    if path.suffix == ".avro":
        if not records:
            raise InputError(f"{path}: records of Avro need `format: {{avro: …}}`, not csv")
        return AvroFile(path, follow=follow)
    if isinstance(form, inputs.LogLinesFormat) or (
        records and path.name.endswith(LINE_ENDINGS + LOG_ENDINGS)
    ):
        return _in_order(LinesFile(path, follow=follow, encoding=wide_encoding(path)), form, follow)
    if records and path.name.endswith(JSON_ENDINGS):
        found = json_file(path, follow=follow)
        return _in_order(found, form, follow) if isinstance(found, LinesFile) else found
    file = CsvFile(path, columns, follow=follow)
    return file if follow or columns is None else TimeOrderedFile(file, columns)


def _in_order(file: LinesFile, form: inputs.RecordFormat | None, follow: bool) -> TableFile:
    """Return a file of lines in the order of time, if its format is plain JSON."""
    if follow or type(form) is not inputs.JsonFormat or form.samples:
        return file
    if any("$" in field for field in form.time_fields):
        return file
    return TimeOrderedLines(file, form)
