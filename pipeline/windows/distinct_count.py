"""Exact distinct counts, batch by batch, in memory proportional to the distinct values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]


class DistinctCounter:
    """Fingerprints seen by each group and counting function: rows (group, function, fingerprint)."""

    def __init__(self, rows: Rows | None = None) -> None:
        self.rows: Rows = rows or (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64))
        self._clean = len(self.rows[0])

    def add(self, group: NDArray[np.int64], function: int, prints: NDArray[np.uint64]) -> None:
        """Add fingerprints (N,) of points in groups (N,); 0 is a null."""
        there = prints != 0
        groups, functions, seen = self.rows
        new = np.full(int(there.sum()), function, np.int64)
        self.rows = (
            np.concatenate([groups, group[there]]),
            np.concatenate([functions, new]),
            np.concatenate([seen, prints[there]]),
        )
        if len(self.rows[0]) > 2 * self._clean + 4096:
            self.clean()

    def clean(self) -> None:
        """Sort the rows and drop repetitions.

        It runs whenever the rows have doubled, so memory stays within a constant factor of the minimum.
        """
        order = np.lexsort(self.rows)
        group, function, print_ = self.rows[0][order], self.rows[1][order], self.rows[2][order]
        first = np.ones(len(order), bool)
        first[1:] = (group[1:] != group[:-1]) | (function[1:] != function[:-1]) | (print_[1:] != print_[:-1])
        self.rows = group[first], function[first], print_[first]
        self._clean = len(self.rows[0])

    def count(self, groups: int, functions: int) -> NDArray[np.int64]:
        """Return the number of distinct fingerprints, (groups, functions)."""
        self.clean()
        group, function, _ = self.rows
        return np.bincount(group * functions + function, minlength=groups * functions).reshape(
            groups, functions
        )

    def renumber(self, new: NDArray[np.int64]) -> None:
        """Renumber the groups; those with a negative number are dropped."""
        group, function, print_ = self.rows
        there = new[group] >= 0
        self.rows = new[group[there]], function[there], print_[there]
