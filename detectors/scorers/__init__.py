"""Scorers: raw errors of the rows of a batch.

Errors are ≥ 0 (NaN: no error known). Each channel slot is judged by its own past.
"""
