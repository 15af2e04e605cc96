"""Templates of log lines as labels of series, for the rate of each template.

The label is the code of the template, which stays the same when the template becomes more general and after a
restart. Templates are learned by partition in the order of the records, and are a page of its snapshot, so a
replay finds the same series.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.core.errors import DamagedState
from pipeline.core.types import Partition
from pipeline.decode import SEPARATOR, Columns, SeriesKeys
from pipeline.decode.log_templates import LogTemplates, Template

#: Key of the meta data of a snapshot that has a page of templates, and its version.
TEMPLATES_KEY: Final = "templates"
TEMPLATES_VERSION: Final = "1"
#: Name of the tensor of a page, which holds JSON: every page of a snapshot is a safetensors file.
PAGE_TENSOR: Final = "templates"


class TemplateLabels:
    """Templates of one stream of counted log lines, by partition."""

    def __init__(self) -> None:
        """Start without a partition."""
        self._partitions: dict[Partition, LogTemplates] = {}

    def label(self, partition: Partition, columns: Columns) -> Columns:
        """Return columns whose series have the code of the template as a further label."""
        assert columns.events is not None
        codes = map(self._of(partition).code, columns.events)
        names = [f"{key}{SEPARATOR}{code}" for key, code in zip(columns.keys.flat(), codes, strict=True)]
        columns.keys, columns.events = SeriesKeys(names), None
        return columns

    def text(self, partition: Partition, code: str) -> str | None:
        """Return the template of a code, None for one that stands for several."""
        return self._of(partition).text(code)

    def dump(self, partition: Partition) -> bytes:
        """Return the state of a partition as a page; ``load`` is the inverse."""
        text = json.dumps(self._of(partition).state(), separators=(",", ":")).encode()
        return save_tensors({PAGE_TENSOR: np.frombuffer(text, np.uint8)})

    def load(self, partition: Partition, page: bytes) -> None:
        """Load the state that ``dump`` wrote. Raises DamagedState."""
        self._partitions[partition] = templates_of_page(page)

    def drop(self, partition: Partition) -> None:
        """Drop the state of a partition."""
        self._partitions.pop(partition, None)

    def templates(self) -> Mapping[Partition, list[Template]]:
        """Return the templates of each partition, the most frequent first."""
        return {partition: one.templates() for partition, one in self._partitions.items()}

    def _of(self, partition: Partition) -> LogTemplates:
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = LogTemplates()
        return known


def templates_of_page(page: bytes) -> LogTemplates:
    """Return the templates that ``TemplateLabels.dump`` wrote. Raises DamagedState."""
    templates = LogTemplates()
    try:
        templates.restore(json.loads(load_tensors(page)[PAGE_TENSOR].tobytes()))
    except Exception as error:  # the errors of safetensors are of any type
        raise DamagedState(f"the templates of log lines cannot be read: {error!r}") from error
    return templates
