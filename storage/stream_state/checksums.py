"""Checksums of stored state: damage is found when it is read, not from the values that it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from storage.sql.column_types import safe_tree

DIGEST_BYTES = 8


def digest(data: bytes) -> str:
    """Return the checksum of some bytes."""
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def digest_of_values(values: Mapping[str, Any]) -> str:
    """Return the checksum of values as a JSON column stores them."""
    return digest(json.dumps(safe_tree(dict(values)), sort_keys=True).encode())
