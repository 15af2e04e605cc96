"""Scorers: raw errors ≥ 0 of the rows of a batch (NaN: no error known), each channel slot from its own past."""
