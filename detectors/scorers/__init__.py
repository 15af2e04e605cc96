"""Scorers: each turns the rows of a batch into raw errors ≥ 0 (NaN: nothing to say), from the past of each
lane only.
"""
